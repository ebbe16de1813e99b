"""The command is of the very files that were planned: no plan prints one that loads others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import soong
from soong.errors import UsageError
from soong.models.format_words import WORDS, format_word

if TYPE_CHECKING:
    from pathlib import Path

    from soong.plan.plan import Plan


def plan(model: str, **options: object) -> Plan:
    return soong.plan_model(model, allow_network=False, **options)


def command(found: Plan) -> str:
    return " ".join(next((one.engine_argv for one in found.candidates if one.engine_argv), ()))


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_a_format_without_files_is_planned_and_has_no_command(engine: str) -> None:
    """Else one would load the 32 GiB of FP8 that are known, in place of the 18 that were planned."""
    found = plan("qwen3-32b", quantization="int4", engine=engine)
    assert found.chosen is not None
    assert found.chosen.footprint is not None
    assert found.chosen.footprint.weights_bytes < 20 * 2**30
    assert command(found) == ""


def test_files_under_another_id_of_the_same_model_are_found() -> None:
    found = plan("qwen2.5-coder-32b", quantization="int4")
    assert "--model-path Qwen/Qwen2.5-Coder-32B-Instruct-AWQ " in command(found)
    assert found.model.id == "qwen2.5-coder-32b"
    assert found.model.weights_bytes == plan("qwen2.5-coder-32b-int4").model.weights_bytes


def test_fp8_is_made_of_16_bit_files_as_they_load() -> None:
    """Only where the engine is told so does it hold what was planned."""
    assert "--quantization fp8" in command(plan("starcoder2-15b", quantization="fp8"))
    assert "--quantization" not in command(plan("qwen3-32b"))
    assert "--quantization" not in command(plan("starcoder2-15b", engine="llama.cpp"))


def test_code_of_a_repository_is_asked_for_in_the_plan_too() -> None:
    assert command(plan("kimi-k2", engine="vllm")).endswith("--trust-remote-code")
    assert "--trust-remote-code" not in command(plan("deepseek-v3"))
    assert "--trust-remote-code" not in command(plan("kimi-k2", engine="llama.cpp"))


@pytest.mark.parametrize(("typed", "meant"), [("AWQ", "int4"), (" bfloat16 ", "bf16"), ("q4_k_m", "q4_k_m")])
def test_people_have_other_words_for_a_format(typed: str, meant: str) -> None:
    assert format_word(typed) == meant


@pytest.mark.parametrize("word", ["foo", "int3", "", "🦙", "Q4"])
def test_a_word_that_names_no_format_is_refused_with_those_that_do(word: str) -> None:
    with pytest.raises(UsageError) as refused:
        plan("qwen3-32b", quantization=word)
    assert all(known in f"{refused.value.why}" for known in (WORDS if word else ()))


def test_a_deprecated_format_is_read_only_when_asked_for(tmp_path: Path) -> None:
    """From 0.14 on (pull request 31688); before, the flag is unknown."""
    config = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "quantization_config": {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    asked = {"model": str(tmp_path), "engine": "vllm"}
    assert "--allow-deprecated-quantization" in command(plan(**asked))
    assert "--allow-deprecated" not in command(plan(**asked, engine_version="0.13.0"))
    assert "--allow-deprecated" not in command(plan(**{**asked, "engine": "sglang"}))
