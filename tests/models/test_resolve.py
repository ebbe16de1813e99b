from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import stamina

from soong.errors import ConfigError, CredentialError, NotFoundError, RemoteError, SoongError, UsageError
from soong.models import from_hub as module
from soong.models.resolve import resolve
from tests.models.test_gguf import META, TENSORS
from tests.support.gguf_writer import write_gguf
from tests.support.hub_server import Reply, Server, json_reply, shard_reply
from tests.support.safetensors_writer import write_safetensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
PARAMETERS = 2 * 1000 * 64 + 2 * (64 * 64 * 2 + 32 * 64 * 2 + 3 * 64 * 128 + 2 * 64) + 64


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    module._asked.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "acme" / "tiny"
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server, stamina.set_testing(True, attempts=2, cap=True):
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        server.file("acme/tiny", "config.json", json_reply(CONFIG))
        server.file("acme/tiny", "model.safetensors", shard_reply({"w": ("BF16", (PARAMETERS,))}))
        yield server


class TestCatalogue:
    def test_an_id_needs_no_network(self) -> None:
        found = resolve("llama-3.1-8b", allow_network=False)
        assert (found.id, found.source, found.parameters) == ("llama-3.1-8b", "catalogue", 8_030_261_248)
        assert found.weights_bytes == 16_060_522_496
        assert found.architecture is not None
        assert found.default_context_tokens == 8192

    def test_a_repository_of_the_catalogue_is_known_without_asking(self) -> None:
        found = resolve("meta-llama/Llama-3.1-8B-Instruct", allow_network=False)
        assert (found.source, found.id) == ("catalogue", "llama-3.1-8b")
        assert resolve("https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct").id == "llama-3.1-8b"

    def test_a_format_that_a_repository_holds_is_preferred(self) -> None:
        found = resolve("llama-3.1-8b", quantization="int4")
        assert found.serve_from == "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4"
        assert not found.quantization.assumed

    def test_a_format_that_none_holds_is_assumed(self) -> None:
        found = resolve("llama-3.1-8b", quantization="fp32")
        assert found.quantization.assumed
        assert found.weights_bytes == 4 * found.parameters
        assert found.weights_basis == "config"

    def test_answers_are_kept(self) -> None:
        assert resolve("llama-3.1-8b") is resolve("llama-3.1-8b")

    def test_unknown_ids_get_the_pages_words(self) -> None:
        with pytest.raises(NotFoundError) as caught:
            resolve("llama-3.1-8c")
        assert caught.value.message == "Model 'llama-3.1-8c' not found."
        assert caught.value.hints[0] == "Use 'soong models' to see available models."
        assert "did you mean `llama-3.1-8b`?" in caught.value.hints

    @pytest.mark.parametrize("word", ["", "  ", "a\0b", "x" * 5000, "a/b/c/d", "../../etc", "a b/c"])
    def test_nonsense(self, word: str) -> None:
        with pytest.raises(SoongError):
            resolve(word)


class TestPaths:
    def test_a_bare_config(self, folder: Path) -> None:
        found = resolve(str(folder / "config.json"))
        assert (found.source, found.parameters, found.weights_bytes) == ("config", PARAMETERS, 2 * PARAMETERS)
        assert (found.weights_basis, found.context_limit_tokens) == ("config", 4096)

    def test_a_config_by_another_name(self, folder: Path) -> None:
        (folder / "config.json").rename(folder / "mine.json")
        assert resolve(str(folder / "mine.json")).parameters == PARAMETERS

    def test_a_folder_with_weights(self, folder: Path) -> None:
        write_safetensors(folder / "model.safetensors", {"w": ("BF16", (PARAMETERS + 10,))})
        found = resolve(str(folder))
        assert (found.source, found.weights_basis, found.serve_from) == ("folder", "headers", str(folder))
        assert found.weights_bytes == 2 * PARAMETERS + 20

    def test_a_folder_whose_weights_are_not_all_there(self, folder: Path) -> None:
        places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
        write_safetensors(folder / places["a"], {"a": ("BF16", (10,))})
        assert resolve(str(folder)).weights_basis == "config"
        write_safetensors(folder / places["b"], {"b": ("BF16", (20,))})
        assert resolve(str(folder)).weights_bytes == 60

    def test_a_changed_config_is_read_again(self, folder: Path) -> None:
        for word in (str(folder), str(folder / "config.json")):
            (folder / "config.json").write_text(json.dumps(CONFIG))
            before = resolve(word)
            assert resolve(word) is before
            (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 20}))
            assert resolve(word).parameters > before.parameters

    def test_modelopts_second_file(self, folder: Path) -> None:
        quantized = {"quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
        (folder / "hf_quant_config.json").write_text(json.dumps(quantized))
        assert resolve(str(folder)).quantization_id == "fp8"

    def test_org_name_is_the_folder_when_it_holds_a_config(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert resolve("acme/tiny").source == "folder"
        assert resolve("./acme/tiny").source == "folder"
        (folder / "config.json").unlink()
        with pytest.raises(RemoteError):
            resolve("acme/tiny")
        with pytest.raises(NotFoundError, match=r"config\.json"):
            resolve("./acme/tiny")

    def test_a_gguf_file_alone_and_in_its_folder(self, tmp_path: Path) -> None:
        path = write_gguf(tmp_path / "tiny-Q4_K_M.gguf", META, TENSORS)
        for word in (str(path), str(tmp_path)):
            found = resolve(word)
            assert (found.source, found.weights_basis, found.quantization_label) == (
                "gguf",
                "headers",
                "Q4_K_M",
            )
            assert found.gguf is not None
            assert found.weights_bytes == found.gguf.weights_bytes
            assert resolve(word) is found
        with pytest.raises(UsageError, match="Q4_K_M"):
            resolve(str(path), quantization="fp16")

    def test_missing(self, tmp_path: Path) -> None:
        for word in ("./nowhere", str(tmp_path / "x.gguf"), "x.json"):
            with pytest.raises(NotFoundError):
                resolve(word)

    def test_an_unknown_model_type_is_a_size_when_the_headers_give_one(self, folder: Path) -> None:
        (folder / "config.json").write_text(
            json.dumps({**CONFIG, "model_type": "hyperborea", "architectures": ["Hyperborea"]})
        )
        with pytest.raises(ConfigError, match="hyperborea"):
            resolve(str(folder))
        write_safetensors(folder / "model.safetensors", {"w": ("BF16", (1000, 10))})
        found = resolve(str(folder))
        assert found.architecture is None
        assert (found.parameters, found.weights_bytes, found.weights_basis) == (10_000, 20_000, "headers")

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "nul", '{"model_type": "llama", "hidden_size": 1e400}', "\xff"]
    )
    def test_broken_configs(self, folder: Path, text: str) -> None:
        (folder / "config.json").write_text(text, encoding="latin-1")
        with pytest.raises(ConfigError):
            resolve(str(folder))

    def test_a_format_in_place_of_the_files_own(self, folder: Path) -> None:
        found = resolve(str(folder), quantization="fp32")
        assert (found.quantization.assumed, found.weights_bytes) == (True, 4 * PARAMETERS)
        assert not resolve(str(folder), quantization="fp16").quantization.assumed


class TestHub:
    def test_a_repository_that_nobody_has_listed(self, hub: Server) -> None:
        hub.on(
            "/api/models/acme/tiny",
            json_reply({"id": "acme/tiny", "gated": False, "cardData": {"license": "mit"}}),
        )
        found = resolve("acme/tiny")
        assert (found.source, found.id, found.serve_from) == ("hub", "acme/tiny", "acme/tiny")
        assert (found.parameters, found.weights_bytes, found.weights_basis) == (
            PARAMETERS,
            2 * PARAMETERS,
            "headers",
        )
        assert (found.licence, found.gated) == ("mit", False)

    def test_the_files_are_right_about_their_own_type(self, hub: Server) -> None:
        hub.file("acme/tiny", "config.json", json_reply({**CONFIG, "torch_dtype": "float32"}))
        found = resolve("acme/tiny")
        assert (found.quantization_id, found.weights_bytes) == ("bf16", 2 * PARAMETERS)

    def test_the_hub_is_asked_once(self, hub: Server) -> None:
        assert resolve("acme/tiny") is resolve("acme/tiny")
        assert len(hub.asked("/config.json")) == 1

    def test_failures_are_remembered_for_a_while_too(self, hub: Server) -> None:
        hub.file("acme/tiny", "config.json", Reply(403, b"", {"X-Error-Code": "GatedRepo"}))
        for _ in range(3):
            with pytest.raises(CredentialError):
                resolve("acme/tiny")
        assert len(hub.asked("/config.json")) == 1

    def test_a_revision(self, hub: Server) -> None:
        hub.file("acme/tiny", "config.json", json_reply({**CONFIG, "num_hidden_layers": 3}), revision="v2")
        assert resolve("acme/tiny@v2").parameters > PARAMETERS

    def test_forbidden_network(self, hub: Server) -> None:
        with pytest.raises(RemoteError, match="not on this machine"):
            resolve("acme/tiny", allow_network=False)
        assert not hub.requests

    def test_the_row_it_would_make(self, hub: Server) -> None:
        row = resolve("acme/tiny").catalogue_facts()
        assert row["formats"][0]["repository"] == "acme/tiny"
        assert row["formats"][0]["quantization"] == "bf16"
        assert row["config"]["hidden_size"] == 64
        assert None not in row.values()


class TestCache:
    @pytest.fixture
    def snapshot(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        root = tmp_path / "hub" / "models--acme--tiny"
        commit = "0123456789abcdef0123456789abcdef01234567"
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text(commit)
        folder = root / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 5}))
        return folder

    def test_offline_it_is_enough(self, snapshot: Path) -> None:
        found = resolve("acme/tiny", allow_network=False)
        assert (found.source, found.weights_basis, found.serve_from) == ("hub", "config", "acme/tiny")

    def test_a_whole_download_spares_the_network(self, hub: Server, snapshot: Path) -> None:
        write_safetensors(snapshot / "model.safetensors", {"w": ("BF16", (7,))})
        assert resolve("acme/tiny").weights_bytes == 14
        assert not hub.requests

    def test_a_config_alone_is_the_last_resort(self, hub: Server, snapshot: Path) -> None:
        assert resolve("acme/tiny").parameters == PARAMETERS
        module._asked.clear()
        hub.file("acme/tiny", "config.json", Reply(500))
        assert resolve("acme/tiny").parameters > PARAMETERS


@pytest.mark.parametrize(("name", "headless"), [("Acme--Tiny-Embedding-8B", True), ("Acme--Tiny-8B", False)])
def test_embedders_have_no_output_projection(tmp_path: Path, name: str, *, headless: bool) -> None:
    """Qwen3-Embedding-8B has the config of a chat model, and 7,567,295,488 parameters: none of them a head's."""
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps({**CONFIG, "tie_word_embeddings": False}))
    architecture = resolve(str(file)).architecture
    assert architecture is not None
    assert all(not weight.stored for weight in architecture.weights if weight.part == "lm_head") is headless


def test_importing_it_brings_no_network_library() -> None:
    code = (
        "import sys, soong.models.resolve;"
        "print([m for m in ('httpx2', 'stamina', 'concurrent.futures', 'ssl', 'pathlib') if m in sys.modules])"
    )
    seen = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert "httpx2" not in seen.stdout
    assert "stamina" not in seen.stdout
    assert "concurrent" not in seen.stdout
