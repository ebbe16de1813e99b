"""What an engine must be told to load a model as it was planned, beside the flags of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.model import SIXTEEN_BIT
from soong.models.remote_code import why_trusted

if TYPE_CHECKING:
    from soong.models.resolve import ResolvedModel

CASTING_ENGINES = ("vllm", "sglang")
READ_AS_THEY_ARE = {*SIXTEEN_BIT, "fp32"}


def has_no_files(model: ResolvedModel, engine: str) -> bool:
    """Whether the format was only assumed, and neither are there files in it nor can the engine make it of others.

    Such a plan says what would be needed; it has no command, as one would load other files than were planned.
    """
    if engine not in CASTING_ENGINES or not model.quantization.assumed:
        return False
    return model.quantization_id not in {*READ_AS_THEY_ARE, "fp8"}


def _pools(model: ResolvedModel) -> bool:
    """Whether SGLang must be told that an embedder's class does not generate (0.5.23 `server_args.py` is_embedding)."""
    return model.architecture is not None and model.architecture.pooled


def _asks_leave(model: ResolvedModel, engine: str, version: str) -> bool:
    """Whether vLLM reads the format only when told to: 0.33 `layers/quantization` DEPRECATED_QUANTIZATION_METHODS.

    The flag is one of 0.14 (vllm-project/vllm pull request 31688).
    """
    if engine != "vllm" or model.quantization.method not in DEPRECATED_METHODS:
        return False
    from soong.memory.dividing import version_tuple

    return version_tuple(version) >= DEPRECATED_SINCE


DEPRECATED_METHODS, DEPRECATED_SINCE = ("fbgemm_fp8", "fp_quant"), (0, 14)


def loading_flags(model: ResolvedModel, engine: str, version: str) -> tuple[str, ...]:
    """Flags beside those of memory, for files that the engine can load.

    Engines read the format from the files. Only FP8 can be made as 16-bit files are loaded: vLLM 0.33.0
    `model_executor/layers/quantization/fp8.py`, SGLang 0.5.23 `srt/layers/quantization/fp8.py`.
    """
    if engine not in CASTING_ENGINES:
        return ()
    casts = model.quantization.assumed and model.quantization_id == "fp8"
    return (
        *(("--quantization", "fp8") if casts else ()),
        *(("--allow-deprecated-quantization",) if _asks_leave(model, engine, version) else ()),
        *(("--trust-remote-code",) if why_trusted(model) else ()),
        *(("--is-embedding",) if engine == "sglang" and _pools(model) else ()),
    )
