"""What holds for every command: help with examples, JSON on stdout, errors in words, exit codes."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from soong.cli.app import COMMANDS, GROUPS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ended

    Soong = Callable[..., Ended]

COMMAND_LINES = [
    *([name] for name in COMMANDS),
    *(["models", name] for name in ("list", "info", "compare", "add", "remove")),
    *(["gpus", name] for name in ("list", "info")),
]


@pytest.mark.parametrize("words", COMMAND_LINES, ids=" ".join)
def test_help_has_two_examples(soong: Soong, words: list[str]) -> None:
    ended = soong(*words, "--help")
    assert ended.code == 0
    examples = ended.out.partition("Examples:")[2].strip().splitlines()
    assert len([line for line in examples if "soong" in line]) >= 2


@pytest.mark.parametrize(
    "words", [["models"], ["gpus"], ["offers"], ["plan", "mistral-7b"], []], ids=" ".join
)
def test_json_is_one_value_and_nothing_else(soong: Soong, words: list[str]) -> None:
    ended = soong(*words, "--json")
    assert ended.code == 0
    assert ended.json
    assert ended.err == ""


def test_quiet_prints_ids_only(soong: Soong) -> None:
    lines = soong("models", "-q").out.splitlines()
    assert "mistral-7b" in lines
    assert all(" " not in line for line in lines)


def test_errors_are_one_json_object_on_stderr(soong: Soong) -> None:
    ended = soong("plan", "no-such-model", "--json")
    assert ended.code == 4
    assert ended.out == ""
    error = msgspec.json.decode(ended.err)
    assert set(error) == {"code", "message", "hints", "docs"}
    assert error["code"] == "not-found"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["plann"], 2, "plan"),
        (["models", "remov"], 2, "remove"),
        (["plan"], 2, "soong plan"),
        (["plan", "mistral-7b", "--context", "-5"], 2, "--context"),
        (["plan", "mistral-7b", "--context", "1e400"], 2, "--context"),
        (["plan", "mistral-7b", "--sequences", "0"], 2, "--sequences"),
        (["plan", "mistral-7b", "--memory-fraction", "1.5"], 2, "--memory-fraction"),
        (["plan", "mistral-7b", "--engine", "ollama"], 2, "sglang"),
        (["plan", "mistral-7b", "--gpu", "h101"], 4, "soong gpus"),
        (["plan", "mistral-7b", "--cloud", "nimbus"], 4, "lambda"),
        (["plan", "mistral-7b", "--gpu-memory", "lots"], 2, "--gpu-memory"),
        (["plan", "mistral-7b", "--nonsense"], 2, "--help"),
        (["gpus", "info", "a6001"], 4, "soong gpus"),
        (["models", "--task", "codin"], 4, "coding"),
        (["models", "--fits", "-1GB"], 2, "--fits"),
        (["offers", "--max-price", "0.01"], 5, "soong offers"),
        (["help", "exit-code"], 4, "exit-codes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_words_get_a_code_and_a_way_on(soong: Soong, words: list[str], code: int, said: str) -> None:
    ended = soong(*words)
    assert ended.code == code, ended.err
    assert ended.err.startswith("error: ")
    assert said in ended.err
    assert "Traceback" not in ended.err


BASE = (
    b'{"model_type":"llama","hidden_size":64,"num_hidden_layers":2,"vocab_size":100,"intermediate_size":64,'
    b'"num_attention_heads":2,"max_position_embeddings":8192,'
)
HOSTILE = {
    "empty": b"",
    "blank": b"   \n",
    "truncated": b'{"model_type": "llama", "hidden_size": 40',
    "list": b"[1, 2]",
    "infinity": b'{"model_type": "llama", "hidden_size": Infinity}',
    "huge": b'{"model_type":"llama","hidden_size":1e300,"num_hidden_layers":2,"vocab_size":5,"num_attention_heads":1}',
    "digits": b'{"model_type":"llama","hidden_size":' + b"9" * 5000 + b"}",
    "deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "layers": b'{"model_type":"llama","hidden_size":64,"num_hidden_layers":2000000000,"vocab_size":5,'
    b'"num_attention_heads":1,"intermediate_size":1}',
    "types": b'{"model_type": ["llama"], "hidden_size": "big"}',
    "rope-kind": BASE + b'"rope_scaling":{"rope_type":["a"],"factor":2}}',
    "rope-factor": BASE + b'"rope_scaling":{"rope_type":"linear","factor":-4}}',
    "quantization-word": BASE + b'"quantization_config":"fp8"}',
    "surrogate": BASE + b'"torch_dtype":"\\ud800","rope_theta":Infinity}',
    "mixed": BASE + b'"quantization_config":{"quant_method":"modelopt","quant_algo":"MIXED_PRECISION",'
    b'"quantized_layers":[1]}}',
    "zero": b'{"model_type":"llama","hidden_size":0,"num_hidden_layers":0,"vocab_size":0,"num_attention_heads":0}',
    "not-text": b"\xff\xfe\x00\x01",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_config_is_refused_in_words(soong: Soong, tmp_path: Path, name: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(HOSTILE[name])
    ended = soong("plan", str(path))
    assert ended.code == 2, ended.err
    assert ended.err.startswith("error: ")
    assert "feet" not in ended.err


def test_a_pipe_is_not_waited_for(soong: Soong, tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "x.gguf")
    ended = soong("plan", str(tmp_path / "x.gguf"))
    assert ended.code == 2
    assert "neither a file" in ended.err


def test_an_unknown_model_type_says_what_is_known(soong: Soong, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "nextgen", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100}')
    ended = soong("plan", str(path))
    assert ended.code == 2
    assert "nextgen" in ended.err
    assert "2 layers" in ended.err
    assert "rule of thumb" in ended.err


def test_a_corrupt_user_table_names_file_and_place(soong: Soong, sealed: Path) -> None:
    config = sealed / "config"
    config.mkdir(parents=True)
    (config / "models.toml").write_text('[[model]]\nid = "x"\nparameters = "many"\n')
    ended = soong("models")
    assert ended.code == 2
    assert "models.toml" in ended.err


def test_batch_answers_every_line_in_order(soong: Soong, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text(
        '{"model": "mistral-7b", "gpu": "h100-80gb-sxm5", "engine": "vllm"}\n'
        "\n"
        "not json\n"
        '{"model": "mistral-7b", "wat": 1}\n'
        '{"model": "llama-3.1-8b", "gpu": "my-card", "gpu_memory": "79.19GiB", "kv_cache_memory": 10737418240,'
        ' "engine": "vllm"}\n'
    )
    ended = soong("plan", "--batch", str(file))
    assert ended.code == 0
    answers = [msgspec.json.decode(line) for line in ended.out.splitlines()]
    assert len(answers) == 4
    assert answers[0]["schema"] == "soong.plan/1"
    assert "error" in answers[1]
    assert "wat" in answers[2]["error"]["message"]
    assert answers[3]["candidates"][0]["gpu"] == "my-card"
    assert answers[3]["candidates"][0]["kv_pool_tokens"] == 10737418240 // (32 * 2 * 8 * 128 * 2 * 16) * 16


PLAN_KEYS = ["schema", "model", "workload", "engine", "rule_of_thumb", "candidates", "choice"]
LATER_KEYS = ["front", "rank", "load", "left_out", "alternatives"]


def test_the_plans_json_keeps_its_contract(soong: Soong) -> None:
    plan = soong("plan", "mistral-7b", "--json").json
    assert list(plan) == PLAN_KEYS + LATER_KEYS
    row = plan["candidates"][plan["choice"]]
    assert row["verdict"] == "fits"
    per_gpu = row["per_gpu"]
    parts = sum(value for key, value in per_gpu.items() if key != "total_bytes")
    assert parts == per_gpu["total_bytes"]
    prices = [one["offer"]["usd_per_hour"] for one in plan["candidates"] if one["offer"]]
    assert prices == sorted(prices)
    cheaper = plan["candidates"][: plan["choice"]]
    assert all(one["verdict"] != "fits" for one in cheaper)


def test_every_gpu_has_a_row_or_a_reason(soong: Soong) -> None:
    plan = soong("plan", "mistral-7b", "--json").json
    named = {row["gpu"] for row in plan["candidates"]} | {left["gpu"] for left in plan["left_out"]}
    assert named == {gpu["id"] for gpu in soong("gpus", "--json").json}


def test_types_stay_whole_on_a_narrow_terminal(soong: Soong, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = soong("plan", "mistral-7b", "--all").out
    assert "gpu_8x_a100_80gb_sxm4" in shown
    assert max(len(line) for line in shown.splitlines() if line[:1] in "┌│└") <= 80


def test_explain_adds_up(soong: Soong) -> None:
    ended = soong("plan", "llama-3.1-8b", "--explain")
    assert ended.code == 0
    assert "8,030,261,248 parameters in 16,060,522,496 bytes" in ended.out
    assert "131,072" in ended.out


def test_a_closed_pipe_is_no_error() -> None:
    script = f"{sys.executable} -c 'from soong.cli import main; main()' models | head -1"
    ended = subprocess.run(script, shell=True, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    assert ended.stdout


def test_every_command_has_a_group_in_the_root_help(soong: Soong) -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(COMMANDS)
    text = soong("--help").out
    for title in GROUPS:
        assert f"{title}:" in text


def test_help_environment_names_a_variable_for_every_setting(soong: Soong) -> None:
    from soong.settings.config import SETTINGS

    text = soong("help", "environment").out
    assert [one.variable for one in SETTINGS.values() if one.variable not in text] == []
    assert soong("help", "environment", "--json").json["topic"] == "environment"
