"""`soong export` as a person and a script meet it."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from soong.exports.deployment import argv_of
from tests.models.test_gguf import META, TENSORS
from tests.support.gguf_writer import write_gguf

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.exports.conftest import Ended

    Export = Callable[..., Ended]

TOOLS = ("skypilot", "dstack", "kubernetes", "compose", "shell")


@pytest.mark.parametrize("tool", TOOLS)
def test_the_file_goes_to_stdout(export: Export, tool: str) -> None:
    ended = export(tool, "llama-3.1-8b")
    assert ended.code == 0
    assert "llama-3.1-8b" in ended.out.splitlines()[1 if tool == "shell" else 0]
    assert "sglang.launch_server" in ended.out


@pytest.mark.parametrize("tool", TOOLS)
def test_a_written_file_is_the_printed_one(export: Export, tool: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    printed = export(tool, "llama-3.1-8b").out
    ended = export(tool, "llama-3.1-8b", "--output", str(file))
    assert ended.code == 0
    assert str(file) in ended.out
    assert file.read_text() == printed
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [one.name for one in tmp_path.iterdir() if "file" in one.name] == ["file"]


def test_no_file_is_overwritten_unasked(export: Export, tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    file.write_text("mine")
    ended = export("skypilot", "llama-3.1-8b", "-o", str(file))
    assert ended.code == 2
    assert "--force" in ended.err
    assert file.read_text() == "mine"
    assert export("skypilot", "llama-3.1-8b", "-o", str(file), "--force").code == 0
    assert yaml.safe_load(file.read_text())["name"] == "soong-llama-3-1-8b"


def test_what_does_not_fit_is_said_and_not_written(export: Export, tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    ended = export("skypilot", "llama-3.1-70b", "--quantization", "bf16", "--gpu", "a10", "-o", str(file))
    assert ended.code == 5
    assert ended.out == ""
    assert "too-small" in ended.err
    assert not file.exists()


def test_a_failure_to_write_leaves_nothing(export: Export, tmp_path: Path) -> None:
    ended = export("skypilot", "llama-3.1-8b", "-o", str(tmp_path / "no" / "such" / "folder.yaml"))
    assert ended.code != 0
    assert "Traceback" not in ended.err
    assert export("skypilot", "llama-3.1-8b", "-o", str(tmp_path), "--force").code == 2


def test_a_named_gpu_that_is_tight_is_taken_with_a_warning(export: Export) -> None:
    ended = export(
        "compose", "llama-3.1-8b", "--gpu", "rtx4090-24gb", "--engine", "vllm", "--context", "38000"
    )
    assert ended.code == 0
    assert "tight" in ended.err
    assert "Note: tight" in ended.out


def test_json_holds_the_file(export: Export) -> None:
    found = export("kubernetes", "llama-3.1-8b", "--engine", "vllm", "--json").json
    assert found["schema"] == "soong.export/1"
    assert found["engine"]["name"] == "vllm"
    assert found["file"] is None
    kinds = [document["kind"] for document in yaml.safe_load_all(found["content"])]
    assert "Deployment" in kinds


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 2),
        (("helm", "llama-3.1-8b"), 2),
        (("skypilot",), 2),
        (("skypilot", "no-such-model"), 4),
        (("skypilot", "llama-3.1-8b", "--replicas", "0"), 2),
        (("skypilot", "llama-3.1-8b", "--replicas", "many"), 2),
        (("skypilot", "llama-3.1-8b", "--hours", "soon"), 2),
        (("kubernetes", "llama-3.1-8b", "--idle", "10m"), 2),
        (("dstack", "llama-3.1-8b", "--gpu", "h20-96gb"), 2),
        (("kubernetes", "llama-3.1-8b", "--engine-version", "0.5.4"), 2),
        (("kubernetes", "llama-3.1-8b", "--gpu", "mi300x-192gb"), 2),
        (("shell", "llama-3.1-8b", "--replicas", "2"), 2),
    ],
)
def test_what_cannot_be_is_refused_in_words(export: Export, words: tuple[str, ...], code: int) -> None:
    ended = export(*words)
    assert ended.code == code
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert "stumbled" not in ended.err


SPANNING = (
    "--gpu",
    "h100-80gb-sxm5",
    "--gpu-count",
    "16",
    "--tensor-parallel",
    "8",
    "--pipeline-parallel",
    "2",
)


@pytest.mark.parametrize(
    "words",
    [
        ("compose", "llama-3.1-70b", *SPANNING),
        ("dstack", "llama-3.1-70b", *SPANNING, "--replicas", "2"),
        (
            "kubernetes",
            "llama-3.1-8b",
            "--engine",
            "llama.cpp",
            "--gpu",
            "h100-80gb-sxm5",
            "--gpu-count",
            "16",
        ),
    ],
    ids=["compose", "dstack", "llama.cpp"],
)
def test_several_machines_where_there_is_no_way(export: Export, words: tuple[str, ...]) -> None:
    assert export(*words).code == 2


def test_no_folder_of_this_computer_stands_in_the_command(export: Export, tmp_path: Path) -> None:
    folder = tmp_path / "somebody" / "qwen"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(CONFIG)
    ended = export("shell", str(folder), "--gpu", "h100-80gb-sxm5")
    head = [line for line in ended.out.splitlines() if line.startswith("#")]
    assert ended.code == 0
    assert any("soong export shell qwen" in line for line in head)
    assert not any("somebody" in line for line in head)


CONFIG = """{
  "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
  "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "vocab_size": 151936,
  "tie_word_embeddings": true, "torch_dtype": "bfloat16", "max_position_embeddings": 32768, "rms_norm_eps": 1e-06,
  "rope_theta": 1000000.0, "hidden_act": "silu"
}"""


@pytest.mark.parametrize("tool", ["skypilot", "dstack", "kubernetes"])
def test_weights_of_this_computer_are_out_of_their_reach(export: Export, tool: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(CONFIG)
    ended = export(tool, str(tmp_path), "--gpu", "h100-80gb-sxm5")
    assert ended.code == 2
    assert "ORG/NAME" in ended.err


def test_compose_mounts_weights_of_this_computer(export: Export, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(CONFIG)
    service: Any = yaml.safe_load(export("compose", str(tmp_path), "--gpu", "h100-80gb-sxm5").out)[
        "services"
    ]["engine"]
    bind = service["volumes"][1]
    assert bind == {"type": "bind", "source": str(tmp_path), "target": "/given", "read_only": True}
    assert "--model-path /given" in service["command"][0]


def test_the_environment_sets_options_too(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOONG_EXPORT_HOURS", "2")
    ended = export("dstack", "llama-3.1-8b")
    assert yaml.safe_load(ended.out)["max_duration"] == "7200s"
    assert "--hours 2" in ended.out


def test_a_gguf_file_is_mounted_with_its_folder(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the parts of a split one come along; the path is the one that was typed."""
    write_gguf(tmp_path / "small.Q4_K_M.gguf", META, TENSORS)
    monkeypatch.chdir(tmp_path)
    found = yaml.safe_load(export("compose", "./small.Q4_K_M.gguf", "--gpu", "a10-24gb").out)
    service = found["services"]["engine"]
    assert service["volumes"][1]["source"] == "."
    assert "--model /given/small.Q4_K_M.gguf" in service["command"][0]
    assert "HF_TOKEN" not in str(found)


def test_a_card_that_soong_lacks(export: Export) -> None:
    """Compose and a shell count GPUs; the others ask by name."""
    words = ("llama-3.1-8b", "--gpu", "my-card", "--gpu-memory", "40GiB")
    assert export("compose", *words).code == 0
    assert export("shell", *words).code == 0
    for tool in ("skypilot", "dstack", "kubernetes"):
        assert export(tool, *words).code == 2


def test_a_revision_becomes_a_flag() -> None:
    whole = ("vllm", "serve", "{model}", "--max-model-len", "8", "--host", "127.0.0.1", "--port", "{port}")
    source, argv = argv_of(("vllm", "serve", "a/b@v2", "--max-model-len", "8"), whole)
    assert source == "a/b@v2"
    assert argv[:5] == ("vllm", "serve", "a/b", "--max-model-len", "8")
    assert argv[5:] == ("--host", "0.0.0.0", "--port", "8000", "--revision", "v2")


def test_where_it_is_not_known_whether_a_token_is_needed_the_file_says_so(export: Export) -> None:
    for tool in ("skypilot", "dstack", "compose"):
        assert "name HF_TOKEN beside SOONG_API_KEY" in " ".join(
            export(tool, "qwen3-32b").out.replace("\n#", " ").split()
        )
    documents = list(yaml.safe_load_all(export("kubernetes", "qwen3-32b").out))
    deployment = next(document for document in documents if document["kind"] == "Deployment")
    token = deployment["spec"]["template"]["spec"]["containers"][0]["env"][1]
    assert token["valueFrom"]["secretKeyRef"]["optional"] is True
