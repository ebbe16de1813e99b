"""The row of a catalogue for a repository that was read: the facts that decide memory, without the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soong.models.resolve import ResolvedModel

LEFT_OUT = frozenset({
    "quantization_config", "transformers_version", "_name_or_path", "auto_map", "id2label", "label2id",
    "task_specific_params", "initializer_range", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id",
    "attention_dropout", "hidden_dropout", "custom_pipelines", "license", "tokenizer_class",
})  # fmt: skip
"""Keys of a config.json that say nothing about sizes."""


def row_of(model: ResolvedModel) -> dict[str, Any]:
    """The fields of `soong.models.model.Model` that a repository answers, ready to be written as TOML."""
    from datetime import UTC, datetime

    as_of = datetime.now(tz=UTC).date().isoformat()
    source = f"config.json of {model.serve_from}"
    row: dict[str, Any] = {
        "active_parameters": model.active_parameters,
        "licence": model.licence or None,
        "gated": model.gated,
        "config": _config(model) if model.architecture is not None else None,
        "formats": [
            {
                "quantization": model.quantization_id,
                "repository": model.serve_from,
                "weights_bytes": model.weights_bytes if model.weights_basis == "headers" else None,
                "quantization_config": _quantization_config(model),
                "source": source,
                "as_of": as_of,
            }
        ],
        "source": source,
        "as_of": as_of,
    }
    return _without_none(row)  # type: ignore[no-any-return]


def _config(model: ResolvedModel) -> dict[str, Any]:
    return {key: value for key, value in (model.config or {}).items() if key not in LEFT_OUT}


def _quantization_config(model: ResolvedModel) -> dict[str, Any] | None:
    section = (model.config or {}).get("quantization_config")
    if isinstance(section, dict):
        return section
    if model.hf_quant is None:
        return None
    stated = model.hf_quant.get("quantization", model.hf_quant)
    return {"quant_method": "modelopt", **stated} if isinstance(stated, dict) else None


def _without_none(value: Any) -> Any:
    """TOML has no null."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value if item is not None]
    return value
