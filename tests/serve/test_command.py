"""Every catalogue model's command, judged by the engines' own lists and, where they are installed, their own parsers.

`SOONG_TEST_VLLM_PYTHON` and `SOONG_TEST_SGLANG_PYTHON` name interpreters that can import the engines.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from soong.errors import UsageError
from soong.models import catalogue
from soong.models.resolve import resolve
from soong.plan.planner import make_plan
from soong.plan.request import read_request
from soong.serve.command import engine_command, family_of, requirements_of

if TYPE_CHECKING:
    from soong.serve.command import Command

INTERPRETERS = {
    engine: os.environ.get(f"SOONG_TEST_{engine.upper()}_PYTHON", "") for engine in ("vllm", "sglang")
}
"""Read here: each test is sealed from the variables of whoever runs it."""

PARSE = {
    "vllm": """
import json, sys
from vllm.utils.argparse_utils import FlexibleArgumentParser
try:
    from vllm.entrypoints.common.cli_args import make_arg_parser
except ImportError:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
parser = make_arg_parser(FlexibleArgumentParser())
from vllm.tool_parsers import ToolParserManager
from vllm.reasoning import ReasoningParserManager
for argv in json.load(sys.stdin):
    found = parser.parse_args(argv)
    if found.tool_call_parser:
        assert found.tool_call_parser in ToolParserManager.list_registered(), found.tool_call_parser
    name = getattr(found, "reasoning_parser", "") or found.structured_outputs_config.reasoning_parser
    if name:
        assert name in ReasoningParserManager.list_registered(), name
print("accepted")
""",
    "sglang": """
import argparse, json, sys
from sglang.srt.server_args import ServerArgs
parser = argparse.ArgumentParser()
ServerArgs.add_cli_args(parser)
for argv in json.load(sys.stdin):
    parser.parse_args(argv)
print("accepted")
""",
}


def built(word: str, engine: str, **options: Any) -> Command | None:
    plan = make_plan(read_request({"model": word, "engine": engine, **options}))
    argv = next((one.engine_argv for one in plan.candidates if one.engine_argv), None)
    return engine_command(argv, plan.model, version=plan.settings.version) if argv else None


def test_a_command_is_the_planned_one_with_what_serving_needs() -> None:
    plan = make_plan(read_request({"model": "qwen3-8b", "engine": "vllm", "gpu": "a10", "context": "8k"}))
    made = engine_command(plan.candidates[0].engine_argv, plan.model, version=plan.settings.version)
    assert made.argv[:5] == ("{bin}/vllm", "serve", "{model}", "--max-model-len", "8192")
    words = " ".join(made.argv)
    assert "--host 127.0.0.1 --port {port} --served-model-name qwen3-8b" in words
    assert "--enable-auto-tool-choice --tool-call-parser hermes --reasoning-parser qwen3" in words
    assert made.served_name == "qwen3-8b"
    assert made.notes == ()


def test_code_of_a_repository_is_trusted_only_where_it_must_and_then_it_is_said() -> None:
    said = {
        row.id: made.notes for row in catalogue.all_models() if (made := built(row.id, "vllm")) is not None
    }
    assert any("will run on the machine" in note for note in said["kimi-k2"])
    trusted = {name for name, notes in said.items() if notes}
    assert "llama-3.1-8b" not in trusted
    assert "deepseek-v3" not in trusted


def test_llama_cpp_is_started_with_the_file_and_its_metrics() -> None:
    made = built("llama-3.1-8b", "llama.cpp")
    assert made is not None
    assert made.argv[:3] == ("{bin}/llama-server", "--model", "{model}")
    assert {"--metrics", "--jinja", "--alias"} <= set(made.argv)


@pytest.mark.parametrize(
    ("model_type", "repository", "tools", "reasoning"),
    [
        ("gpt_oss", "openai/gpt-oss-20b", "gpt-oss", "gpt-oss"),
        ("llama", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "", "deepseek-r1"),
        ("llama", "meta-llama/Llama-3.3-70B-Instruct", "llama3", ""),
        ("llama", "meta-llama/Llama-2-7b-hf", "", ""),
        ("qwen3_moe", "Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3_coder", ""),
        ("qwen3", "Qwen/Qwen3-4B-Instruct-2507", "qwen25", ""),
        ("qwen3", "Qwen/Qwen3-8B", "qwen25", "qwen3"),
    ],
)
def test_the_family_decides_the_parsers(model_type: str, repository: str, tools: str, reasoning: str) -> None:
    found = family_of(model_type, repository)
    assert (found.sglang_tools, found.sglang_reasoning) == (tools, reasoning)


def test_a_model_of_chats_whose_repository_has_no_template_gets_one() -> None:
    made = built("baichuan2-7b", "sglang")  # vLLM has had no class for it since 0.24
    assert made is not None
    assert made.argv[made.argv.index("--chat-template") + 1] == "{chat_template}"
    assert "<reserved_106>" in made.chat_template
    other = built("llama-3.1-8b", "vllm")
    assert other is not None
    assert (other.chat_template, "--chat-template" in other.argv) == ("", False)
    assert [built(name, "vllm").encodes_chats for name in ("deepseek-v3.2", "deepseek-v3")] == [True, False]  # type: ignore[union-attr]


def test_a_version_that_is_not_pinned_is_refused_before_money_moves() -> None:
    with pytest.raises(UsageError, match=r"0\.1 cannot be installed"):
        requirements_of("vllm", "0.1", "x86_64")
    assert requirements_of("sglang", "0.5.23", "arm64").packages[0] == "sglang==0.5.23"


def test_a_format_that_was_assumed_cannot_be_served() -> None:
    model = resolve("starcoder2-15b", quantization="int4")
    assert model.quantization.assumed
    planned = make_plan(read_request({"model": "starcoder2-15b", "quantization": "int4", "engine": "vllm"}))
    assert {one.engine_argv for one in planned.candidates} == {()}
    with pytest.raises(UsageError, match="no repository"):
        engine_command((), model, version="0.33.0")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_engines_own_parser_takes_every_command(engine: str) -> None:
    python = INTERPRETERS[engine]
    if not python:
        pytest.skip(f"SOONG_TEST_{engine.upper()}_PYTHON names no interpreter with {engine}")
    argvs: list[list[Any]] = []
    for row in catalogue.all_models():
        made = built(row.id, engine)
        if made is not None:
            words = [word.replace("{port}", "30000").replace("{model}", row.hf_path) for word in made.argv]
            argvs.append(words[2:] if engine == "vllm" else words[3:])
    assert len(argvs) > 80
    apart = built("minimax-m2.5", engine, gpu="h200", gpu_count=8, expert_parallel=True)
    assert apart is not None
    argvs.append([word.replace("{port}", "30000") for word in apart.argv[2 if engine == "vllm" else 3 :]])
    assert {"--enable-expert-parallel", "--ep-size"} & set(argvs[-1])
    asked = subprocess.run(
        [python, "-c", PARSE[engine]], input=json.dumps(argvs), capture_output=True, text=True, check=False
    )
    assert asked.stdout.strip().endswith("accepted"), asked.stderr[-3000:]
