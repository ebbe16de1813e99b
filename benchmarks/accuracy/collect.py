"""Keep of a `config.json` what decides memory: the keys that soong's readers ask for, and nothing else.

The bench must run without a network and without copies of other people's files, so `published/configs.jsonl` holds
facts: for each repository the few keys that its architecture and number format follow from. To add one, append what

    python -m benchmarks.accuracy.collect ORG/NAME path/to/config.json ADDRESS

prints to that file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from soong.memory.weights import weights_per_gpu
from soong.models.config_json import Config, read_config
from soong.models.families import read_architecture
from soong.models.quantization import checkpoint_bytes, read_quantization

if TYPE_CHECKING:
    from collections.abc import Iterator

FOR_PEERS = (
    "architectures", "attention_bias", "dtype", "head_dim", "hidden_size", "intermediate_size", "kv_lora_rank",
    "layer_types", "max_position_embeddings", "model_type", "num_attention_heads", "num_hidden_layers",
    "num_key_value_heads", "qk_rope_head_dim", "quantization_config", "sliding_window", "sliding_window_pattern",
    "text_config", "tie_word_embeddings", "torch_dtype", "vocab_size", "quant_method", "fmt", "kv_cache_scheme",
)  # fmt: skip
"""Keys that other estimators ask for, so that they can be asked too."""


class Watched(dict[str, Any]):
    """A JSON object that remembers which of its keys were looked at."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__({key: _watched(value) for key, value in values.items()})
        self.seen: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """The value, noted as seen."""
        self.seen.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.seen.add(key)
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[str]:
        self.seen.update(super().keys())
        return super().__iter__()

    def keys(self) -> Any:
        """All keys; each counts as seen."""
        self.seen.update(super().keys())
        return super().keys()

    def items(self) -> Any:
        """All pairs; each counts as seen."""
        self.seen.update(super().keys())
        return super().items()

    def kept(self) -> dict[str, Any]:
        """The object with only what was seen, in its own order; nulls left out."""
        wanted = self.seen | set(FOR_PEERS)
        return {key: _kept(value) for key, value in dict.items(self) if key in wanted and value is not None}


def _watched(value: Any) -> Any:
    if isinstance(value, dict):
        return Watched(value)
    return [_watched(item) for item in value] if isinstance(value, list) else value


def _kept(value: Any) -> Any:
    if isinstance(value, Watched):
        return value.kept()
    return [_kept(item) for item in value] if isinstance(value, list) else value


def facts_of(config: Config, hf_quant: Config | None = None) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The keys of a config.json, and of its hf_quant_config.json, that its memory follows from.

    Raises:
        ConfigError: soong cannot read it. AssertionError: the facts kept would be read differently.
    """
    watched, quant = Watched(dict(config.values)), Watched(dict(hf_quant.values)) if hf_quant else None
    expected = _read(Config(watched), Config(quant) if quant is not None else None)
    facts, quant_facts = watched.kept(), quant.kept() if quant is not None else None
    found = _read(Config(facts), Config(quant_facts) if quant_facts is not None else None)
    if found != expected:
        raise AssertionError("the facts kept are read differently from the whole config.json")
    return facts, quant_facts


def _read(config: Config, hf_quant: Config | None) -> tuple[bytes, str, tuple[int, ...]]:
    """What decides the memory: architecture, number format, and the bytes that follow from both."""
    architecture = read_architecture(config)
    storage = read_quantization(config, hf_quant, dtype=architecture.dtype)
    shares = [
        weights_per_gpu(architecture, storage, tensor_parallel=parts, engine="vllm", engine_version="0.32.0")
        for parts in (1, 2)
    ]
    held = (share.total_bytes for share in shares)
    return msgspec.json.encode(architecture), storage.label, (checkpoint_bytes(architecture, storage), *held)


def main() -> None:
    """One line for `published/configs.jsonl`, from the command line's three words."""
    repository, path, source = sys.argv[1:4]
    beside = Path(path).with_name("hf_quant_config.json")
    facts, quant = facts_of(read_config(Path(path)), read_config(beside) if beside.is_file() else None)
    row = {"repository": repository, "source": source, "config": facts} | (
        {"hf_quant": quant} if quant else {}
    )
    print(msgspec.json.encode(row).decode())


if __name__ == "__main__":
    main()
