"""How large FP8 entries of sparse MLA are, by the version of vLLM and the GPU."""

from __future__ import annotations

from typing import Any

import pytest

from soong.plan.planner import make_plan
from soong.plan.request import read_request


def planned(asked: dict[str, Any]) -> Any:
    return make_plan(
        read_request({"gpu": "h100-80gb-sxm5", "engine": "vllm", "context": 4096, **asked})
    ).candidates[0]


# vLLM 0.32's own classes over nvidia/DeepSeek-V3.2-NVFP4 on Hopper: 61 layers of 576 bytes and an indexer's 132, where
# FlashMLA's format has 656. FlashInfer's kernel comes first on Blackwell since 0.19 (pull request 37252).
SPARSE_BYTES = 61 * (576 + 132)
SCALED_BYTES = 61 * (656 + 132)


@pytest.mark.parametrize(
    ("gpu", "version", "kv_dtype", "token_bytes"),
    [
        ("h100-80gb-sxm5", "0.32.0", "auto", SPARSE_BYTES),
        ("h100-80gb-sxm5", "0.32.0", "fp8", SCALED_BYTES),
        ("h100-80gb-sxm5", "0.31.0", "auto", SCALED_BYTES),
        ("b200-180gb", "0.32.0", "auto", SPARSE_BYTES),
        ("b200-180gb", "0.19.0", "fp8", SPARSE_BYTES),
        ("b200-180gb", "0.17.0", "fp8", SCALED_BYTES),
    ],
)
def test_fp8_entries_of_sparse_mla_have_scales_where_flash_mla_reads_them(
    gpu: str, version: str, kv_dtype: str, token_bytes: int
) -> None:
    found = planned(
        {
            "model": "nvidia/DeepSeek-V3.2-NVFP4",
            "gpu": gpu,
            "engine_version": version,
            "kv_dtype": kv_dtype,
            "tensor_parallel": 8,
        }
    )
    assert found.footprint.kv_bytes_per_token == token_bytes
