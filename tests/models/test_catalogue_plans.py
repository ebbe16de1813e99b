"""Each repository of the catalogue plans as its own config.json does, though the catalogue keeps only a part of it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from soong.models import catalogue
from soong.models.model import Model, unfolded
from soong.models.resolve import resolve
from soong.plan.planner import make_plan
from soong.plan.request import read_request

if TYPE_CHECKING:
    from soong.memory.footprint import Footprint

ROOT = Path(__file__).parents[2]

GOLDEN = tomllib.loads((ROOT / "tests" / "golden" / "catalogue.toml").read_text())["repository"]

WHOLE = [
    row
    for row in map(
        json.loads, (ROOT / "benchmarks/accuracy/published/configs.jsonl").read_text().splitlines()
    )
    if catalogue.is_known(row["repository"])
]
"""Repositories of the catalogue whose config is held whole."""


def _footprint(model: str, engine: str, tensor_parallel: int) -> Footprint:
    asked = {
        "model": model,
        "engine": engine,
        "gpu": "h100-80gb-sxm5",
        "tensor_parallel": tensor_parallel,
        "kv_cache_memory": 40 << 30,
        "context": 4096,
    }
    found = make_plan(read_request(asked)).candidates[0].footprint
    assert found is not None
    return found


def test_the_known_answers_cover_most_of_the_catalogue() -> None:
    assert len(GOLDEN) >= 150
    assert len(WHOLE) >= 5


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["name"])
def test_plans_as_the_config_of_its_repository(row: dict[str, Any]) -> None:
    found = {
        engine: [_footprint(row["name"], engine, parallel) for parallel in (1, 8)]
        for engine in ("vllm", "sglang")
    }
    assert [one.tensor_bytes for one in found["vllm"]] == row["vllm"]
    assert [one.tensor_bytes for one in found["sglang"]] == row["sglang"]
    assert [one.kv_bytes_per_token for one in found["vllm"]] == row["token"]
    assert [one.state_bytes_per_sequence for one in found["vllm"]] == row.get("sequence", [0, 0])
    model = resolve(row["name"])
    assert model.active_parameters == row["active_parameters"]
    assert model.context_limit_tokens == row["context_limit_tokens"]


@pytest.mark.parametrize("row", WHOLE, ids=lambda row: row["repository"])
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_plans_as_the_whole_config(row: dict[str, Any], engine: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(row["config"]))
    for parallel in (1, 2, 4, 8):
        assert _footprint(row["repository"], engine, parallel) == _footprint(str(path), engine, parallel)


def test_the_architecture_holds_what_the_row_states() -> None:
    for model in catalogue.all_models():
        architecture = resolve(model.id).architecture
        if architecture is None:
            continue
        assert model.active_parameters in (None, architecture.active_parameters), model.id
        assert model.context_limit_tokens == architecture.context_limit_tokens, model.id


class TestRanges:
    def test_a_range_is_one_name_a_layer(self) -> None:
        packed = {
            "ignore": ["lm_head", "visual.blocks.{0..2}.attn"],
            "bits": 4,
            "groups": {"a": {"t": ["x.{3..4}"]}},
        }
        assert unfolded(packed) == {
            "ignore": ["lm_head", "visual.blocks.0.attn", "visual.blocks.1.attn", "visual.blocks.2.attn"],
            "bits": 4,
            "groups": {"a": {"t": ["x.3", "x.4"]}},
        }

    @pytest.mark.parametrize(
        "name", [r"re:layers\.\d{1,2}\.mlp", "a.{0..99999999}.b", "a.{x..3}", "a.{2", "a.{3..1}.b{"]
    )
    def test_what_is_no_range_makes_no_flood(self, name: str) -> None:
        assert len(unfolded([name])) <= 1

    def test_a_repository_that_differs_states_only_that(self) -> None:
        model = msgspec.convert(
            {
                "id": "a",
                "parameters": 7,
                "quantization": "bf16",
                "config": {"num_hidden_layers": 2, "vocab_size": 5},
                "formats": [{"quantization": "bf16", "repository": "a/b", "config": {"vocab_size": 6}}],
            },
            Model,
        )
        assert model.serving_config == {"num_hidden_layers": 2, "vocab_size": 6}
