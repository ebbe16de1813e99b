"""The catalogue: that its rows are true, and that people find what they mean."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from soong import tables
from soong.errors import ConfigError, NotFoundError
from soong.models import catalogue, families
from soong.models.config_json import Config
from soong.models.model import SIXTEEN_BIT, Model
from soong.models.quantization.quantization import checkpoint_bytes
from soong.models.quantization.reading import read_quantization

if TYPE_CHECKING:
    from pathlib import Path

    from soong.models.architecture import Architecture

PACKAGED = tables.packaged("models", Model)
NAMES = [model.id for model in PACKAGED]

SPECIFIED = {
    "llama-3.1-8b": ("fp16", 8192, "meta-llama/Llama-3.1-8B-Instruct"),
    "qwen2.5-coder-32b-int4": ("int4", 32768, "Qwen/Qwen2.5-Coder-32B-Instruct-AWQ"),
    "qwen2.5-coder-32b": ("fp16", 32768, "Qwen/Qwen2.5-Coder-32B-Instruct"),
    "codellama-34b": ("fp16", 8192, "codellama/CodeLlama-34b-Instruct-hf"),
    "deepseek-r1-70b": ("int4", 8192, "casperhansen/deepseek-r1-distill-llama-70b-awq"),
    "llama-3.1-70b": ("int4", 8192, "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4"),
    "mistral-7b": ("fp16", 8192, "mistralai/Mistral-7B-Instruct-v0.3"),
}
"""The seven models that the specification names: format, default context, repository of that format."""

PUBLISHED = {
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-4-maverick": 401_583_781_376,
    "qwen2.5-coder-32b": 32_763_876_352,
    "qwen3-235b-a22b": 235_093_634_560,
    "qwen3.6-35b-a3b": 35_951_822_704,
    "mistral-nemo": 12_247_782_400,
    "mixtral-8x7b": 46_702_792_704,
    "gemma-3-27b": 27_432_406_640,
    "glm-5": 753_864_139_008,
    "phi-4": 14_659_507_200,
    "smollm3-3b": 3_075_098_624,
    "qwen3-0.6b": 751_632_384,
    "gemma-4-26b-a4b": 26_544_131_376,
    "gemma-4-31b": 32_682_372_656,
    "falcon-180b-chat": 179_522_565_120,
}
"""Counts that the Hub shows for the repositories, typed in by hand here."""

HEAD_STORED_TWICE = {"falcon-180b-chat", "qwen3-0.6b", "gemma-4-26b-a4b", "gemma-4-31b"}
"""Their files hold the output head although the config shares it with the embedding; the Hub counts it."""


def test_the_specified_models_come_first_and_say_what_the_page_says() -> None:
    assert NAMES[: len(SPECIFIED)] == list(SPECIFIED)
    for name, (quantization, context_tokens, repository) in SPECIFIED.items():
        model = catalogue.find_model(name)
        assert model.quantization == quantization
        assert model.default_context_tokens == context_tokens
        assert model.serving_repository == repository
        assert model.good_for, name
        assert model.not_good_for, name
        assert model.strengths, name
        assert model.weaknesses, name
        assert model.best_for, name
        assert model.use_when, name


def test_there_are_at_least_the_seven_and_sixty_more() -> None:
    assert len(PACKAGED) >= 67
    assert len({model.family for model in PACKAGED}) >= 20


def test_ids_are_unique_short_and_lower_case() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for name in NAMES:
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,39}", name), name


COMPUTE = {"fp8": "fp8", "int8": "int8", "int4": "int4", "mxfp4": "fp4", "nvfp4": "fp4"}
"""What a GPU must compute with or unpack, by the word of a format."""


def _architecture(model: Model) -> Architecture:
    assert model.config is not None
    try:
        return families.read_architecture(Config(model.config))
    except families.UnknownFamilyError:
        pytest.skip(f"no reader for {model.config['model_type']} yet")


def _second_head(model: Model) -> int:
    """Numbers of an output head that the files hold beside the embedding that it is."""
    if model.id not in HEAD_STORED_TWICE:
        return 0
    return next(weight.elements for weight in _architecture(model).weights if weight.part == "embedding")


@pytest.mark.parametrize("model", PACKAGED, ids=NAMES)
class TestRow:
    def test_names_its_source_and_day(self, model: Model) -> None:
        sources = [(model.source, model.as_of), *((row.source, row.as_of) for row in model.formats)]
        for source, as_of in sources:
            assert source
            assert re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", as_of)

    def test_speaks_to_people(self, model: Model) -> None:
        assert model.name
        assert model.family
        assert model.good_for
        assert model.not_good_for
        assert model.notes.endswith(".")
        assert model.tasks
        assert set(model.tasks) <= set(catalogue.TASKS)
        assert not model.released or re.fullmatch(r"20\d\d-[01]\d", model.released)

    def test_counts_are_sensible(self, model: Model) -> None:
        assert model.active_parameters is None or model.active_parameters < model.parameters
        assert model.context_limit_tokens is not None
        assert model.default_context_tokens <= model.context_limit_tokens

    def test_each_format_has_a_repository_and_says_how_it_is_packed(self, model: Model) -> None:
        assert model.formats
        for row in model.formats:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", row.repository)
            assert (row.quantization in SIXTEEN_BIT) == (row.quantization_config is None)
        assert model.serving_format is model.formats[0]
        assert (
            model.hf_path in {row.repository for row in model.formats} or model.id == "qwen2.5-coder-32b-int4"
        )

    def test_formats_read_as_the_word_they_are_listed_under(self, model: Model) -> None:
        for row in model.formats:
            if row.quantization_config is not None:
                config = Config({**(model.config or {}), "quantization_config": row.quantization_config})
                assert read_quantization(config, dtype="bfloat16").compute == COMPUTE[row.quantization], (
                    row.repository
                )

    def test_stated_bytes_equal_those_of_the_checkpoint(self, model: Model) -> None:
        for row in model.formats:
            if row.weights_bytes is not None:
                served = model.in_format(row).serving_config or {}
                architecture = _architecture(model)
                storage = read_quantization(Config(served), dtype=architecture.dtype)
                counted = checkpoint_bytes(architecture, storage) + 2 * _second_head(model)
                assert counted == pytest.approx(row.weights_bytes, rel=1e-3)

    def test_parameters_equal_those_of_its_architecture(self, model: Model) -> None:
        counted = _architecture(model).parameters + _second_head(model)
        assert counted == pytest.approx(model.parameters, rel=2e-5)


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_parameters_are_the_published_ones(name: str, count: int) -> None:
    assert catalogue.find_model(name).parameters == count


def test_the_table_on_disk_is_compiled() -> None:
    from pathlib import Path

    source = Path(tables.DATA) / "models.toml"
    assert (Path(tables.DATA) / "compiled" / "models.json").read_bytes() == tables.compiled_from(
        "models", source.read_bytes()
    )


class TestFinding:
    def test_by_id_in_any_case(self) -> None:
        assert catalogue.find_model(" Qwen3-8B ").id == "qwen3-8b"

    def test_a_repository_chooses_its_format(self) -> None:
        model = catalogue.find_model("qwen/qwen3-8b-FP8")
        assert (model.id, model.quantization, model.serving_repository) == (
            "qwen3-8b",
            "fp8",
            "Qwen/Qwen3-8B-FP8",
        )
        assert model.quantization_config is not None
        assert model.serving_config is not None
        assert model.serving_config["quantization_config"]["quant_method"] == "fp8"

    def test_the_authors_16_bit_repository_is_not_served_as_int4(self) -> None:
        model = catalogue.find_model("deepseek-ai/DeepSeek-R1-Distill-Llama-70B")
        assert (model.id, model.quantization) == ("deepseek-r1-70b", "bf16")
        assert model.quantization_config is None

    def test_unknown_models_are_refused_in_the_pages_words(self) -> None:
        with pytest.raises(NotFoundError) as caught:
            catalogue.find_model("custom-model")
        assert caught.value.message == "Model 'custom-model' not found."
        assert caught.value.hints == ("Use 'soong models' to see available models.",)

    def test_a_slip_is_answered_with_what_was_meant(self) -> None:
        with pytest.raises(NotFoundError) as caught:
            catalogue.find_model("qwen2.5-codr-32b")
        assert "did you mean `qwen2.5-coder-32b`?" in caught.value.hints

    @pytest.mark.parametrize("word", ["", " ", "/", "x" * 10_000, "\x00", "../../etc/passwd"])
    def test_nonsense_is_not_found(self, word: str) -> None:
        assert not catalogue.is_known(word)
        with pytest.raises(NotFoundError) as caught:
            catalogue.find_model(word)
        assert len(caught.value.message) < 200

    def test_search_needs_every_word_in_any_case(self) -> None:
        found = {model.id for model in catalogue.search("CODER qwen")}
        assert {"qwen2.5-coder-32b", "qwen3-coder-30b-a3b"} <= found
        assert "qwen3-8b" not in found

    def test_tasks_filter_and_put_specialists_first(self) -> None:
        found = catalogue.for_task("Coding")
        assert all("coding" in model.tasks for model in found)
        assert found[0].tasks[0] == "coding"
        with pytest.raises(NotFoundError, match="Must be one of") as caught:
            catalogue.for_task("codin")
        assert caught.value.hints == ("did you mean `coding`?",)


class TestOwnRows:
    @pytest.fixture
    def table(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        from pathlib import Path

        from soong.settings import paths

        monkeypatch.setenv("SOONG_HOME", str(tmp_path))
        path = Path(paths.config_file("models.toml"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def test_a_stated_size_is_enough(self, table: Path) -> None:
        table.write_text(
            '[[model]]\nid = "Mine-12b"\nhf_path = "me/mine"\n'
            'parameters = 12_000_000_000\nquantization = "fp16"\n'
        )
        model = catalogue.find_model("mine-12B")
        assert model.custom
        assert model.config is None
        assert model.serving_config is None
        assert model.serving_repository == "me/mine"
        assert model.title == "Mine-12b"
        assert model.id not in catalogue.packaged_ids()

    def test_replace_packaged_ones_of_the_same_id_and_leave_when_removed(self, table: Path) -> None:
        table.write_text('[[model]]\nid = "qwen3-8b"\nparameters = 5\nquantization = "int8"\n')
        assert catalogue.find_model("qwen3-8b").parameters == 5
        assert len(catalogue.all_models()) == len(PACKAGED)
        table.unlink()
        assert catalogue.find_model("qwen3-8b").parameters == 8_190_735_360

    @pytest.mark.parametrize(
        "field",
        ["parameters = 0", "parameters = -7", 'parameters = "many"', "parameters = 10_000_000_000_000_000"],
    )
    def test_absurd_sizes_are_refused_with_their_place(self, table: Path, field: str) -> None:
        table.write_text(f'[[model]]\nid = "mine"\nquantization = "fp16"\n{field}\n')
        with pytest.raises(ConfigError, match="parameters"):
            catalogue.all_models()
