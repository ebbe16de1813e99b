"""SGLang's defaults and pools, to the token, against what its own code computed for real models."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from soong.gpus.gpu import Gpu
from soong.memory.engines import _sglang_defaults, _sglang_pools
from soong.memory.engines._constants import rules
from soong.memory.engines._facts import Facts
from soong.memory.footprint import EngineSettings
from soong.memory.kv_cache import LayerKind

GIB = 1 << 30
POOLS_GIB = (10, 40)
GOLDEN = Path(__file__).parents[1] / "golden"
CASES = tomllib.loads((GOLDEN / "sglang_pools.toml").read_text())["case"]
FRACTIONS = tomllib.loads((GOLDEN / "sglang_fractions.toml").read_text())["fractions"]
NEWEST = rules("sglang", "0.5.23")


def facts_of(case: dict[str, Any]) -> Facts:
    kinds = tuple(
        LayerKind(
            name=name,
            layers=layers,
            token_bytes=token_bytes,
            window=window,
            ratio=ratio,
            state_bytes=state_bytes,
            state_kind=state_kind,
            shape=(1, width, 0) if width else (),
        )
        for name, layers, token_bytes, window, ratio, state_bytes, state_kind, width in case["kinds"]
    )
    zeros: dict[str, Any] = dict.fromkeys(Facts.__struct_fields__, 0)
    known = {
        "kinds": kinds,
        "name": case["architecture"],
        "multimodal": case["multimodal"],
        "vision_shape": tuple(case["vision"]) if "vision" in case else None,
    }
    return Facts(**{**zeros, **known})


def gpu_of(case: dict[str, Any]) -> Gpu:
    return Gpu(
        id="card",
        name="card",
        vendor="nvidia",
        label_gb=0,
        memory_bytes=case["card"] << 20,
        bandwidth_bytes_per_second=0,
        dense_flops={},
        compute_capability=tuple(case["capability"]),
        native_formats=(),
        interconnect="NVLink",
        source="",
        as_of="",
    )


def settings_of(case: dict[str, Any]) -> EngineSettings:
    return EngineSettings(name="sglang", version="0.5.23", tensor_parallel=case["tensor_parallel"])


def name_of(case: dict[str, Any]) -> str:
    return f"{case['model']}-{case['card']}-tp{case['tensor_parallel']}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_defaults_of_the_server(case: dict[str, Any]) -> None:
    facts, settings = facts_of(case), settings_of(case)
    batch = _sglang_defaults.batch(case["card"], settings, NEWEST)
    fraction = _sglang_defaults.default_fraction(
        facts, NEWEST, case["card"], settings, case["context_tokens"]
    )
    captured = _sglang_defaults.prefill_graphs(facts, NEWEST, settings, batch.tokens, case["context_tokens"])
    assert batch == (case.get("chunked_prefill_tokens", batch.tokens), case["decode_batch"])
    assert fraction == pytest.approx(case["fraction"], abs=1e-9)
    assert captured == case["prefill_graphs"]
    assert _sglang_defaults.page_tokens(facts, gpu_of(case)) == case["page_tokens"]


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_tokens_slots_and_requests(case: dict[str, Any]) -> None:
    facts = facts_of(case)
    cell = _sglang_pools.cell_of(facts, NEWEST)
    state_bytes = sum(kind.layers * kind.state_bytes for kind in facts.kinds)
    for_each = _sglang_pools.slots_per_request(facts.kinds, NEWEST)
    for place, size_gib in enumerate(POOLS_GIB):
        slots = _sglang_pools.state_slots(size_gib * GIB, state_bytes, NEWEST)
        taken = (slots + NEWEST["state_padding_slots"]) * state_bytes if state_bytes else 0
        tokens = _sglang_pools.pool_tokens(
            cell, size_gib * GIB - taken, case["page_tokens"], settings_of(case)
        )
        requests = _sglang_pools.requests(
            tokens,
            slots if state_bytes else None,
            case["context_tokens"],
            settings_of(case),
            for_each=for_each,
            compressed=cell.ring_row_bytes > 0,
        )
        assert tokens == case["tokens"][place]
        assert requests == case["requests"][place]
        assert slots == case.get("slots", [0, 0])[place]
    assert for_each == case.get("slots_per_request", for_each)


@pytest.mark.parametrize("version", sorted({row[0] for row in FRACTIONS}))
def test_fraction_prefill_and_decode_batch_by_version(version: str) -> None:
    constants = rules("sglang", version)
    for _, card, ranks, stages, eager, latent, fraction, tokens in (r for r in FRACTIONS if r[0] == version):
        kinds = [["latent" if latent else "full", 1, 1152, 0, 1, 0, "", 576]]
        case = {"kinds": kinds, "architecture": "AnyForCausalLM", "multimodal": False}
        settings = EngineSettings(
            name="sglang",
            version=version,
            tensor_parallel=ranks,
            pipeline_parallel=stages,
            enforce_eager=eager,
        )
        found = _sglang_defaults.default_fraction(facts_of(case), constants, card, settings, 131072)
        assert found == pytest.approx(fraction, abs=1e-9), (card, ranks, stages, eager, latent)
        assert _sglang_defaults.batch(card, settings, constants).tokens == tokens


def test_a_sliding_model_that_sglang_does_not_list_keeps_every_token() -> None:
    case = {"kinds": [["sliding", 20, 1024, 512, 1, 0, "", 0], ["full", 4, 1024, 0, 1, 0, "", 0]]}
    facts = facts_of({**case, "architecture": "Gemma3ForCausalLM", "multimodal": False})
    assert _sglang_pools.cell_of(facts, NEWEST) == _sglang_pools.Cell(24 * 1024, 0, 0, 0)
    listed = msgspec.structs.replace(facts, name="GptOssForCausalLM")
    assert _sglang_pools.cell_of(listed, NEWEST).token_bytes == (4 + 0.8 * 20) * 1024
    assert _sglang_pools.cell_of(listed, rules("sglang", "0.5.6")).token_bytes == 24 * 1024


def test_the_state_pool_keeps_a_padding_slot_since_0_5_17() -> None:
    state_bytes = 77_266_944
    newer = _sglang_pools.state_slots(10 * GIB, state_bytes, NEWEST)
    older = _sglang_pools.state_slots(10 * GIB, state_bytes, rules("sglang", "0.5.16"))
    assert (older, newer) == (65, 64)


def test_the_fraction_of_a_model_with_a_tower_is_what_its_log_prints() -> None:
    """Kimi-K2.5 on eight cards of 97,887 MiB: magik6k/glm-kimi-sm120-rtx6000bw logs/sglang-k25-int4-sm120fix.log."""
    kinds = [["latent", 61, 1152, 0, 1, 0, "", 576]]
    case = {"kinds": kinds, "architecture": "KimiK25ForConditionalGeneration", "multimodal": True}
    facts = facts_of({**case, "vision": [27, 1152]})
    settings = EngineSettings(name="sglang", version="0.5.8", tensor_parallel=8, enforce_eager=True)
    found = _sglang_defaults.default_fraction(facts, rules("sglang", "0.5.8"), 97887, settings, 262144)
    assert found == pytest.approx(0.7714564062499999, abs=1e-12)
