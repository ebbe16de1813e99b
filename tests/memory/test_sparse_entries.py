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
# FlashMLA's format has 656. FlashInfer's kernel comes first on Blackwell since 0.19 (pull request 37252), and is among
# Hopper's since 0.30 (`platforms/cuda.py` FLASHINFER_MLA_SPARSE_SM90, which alone there takes "fp8_e4m3").
SPARSE_BYTES = 61 * (576 + 132)
SCALED_BYTES = 61 * (656 + 132)


@pytest.mark.parametrize(
    ("gpu", "version", "kv_dtype", "token_bytes"),
    [
        ("h100-80gb-sxm5", "0.32.0", "auto", SPARSE_BYTES),
        ("h100-80gb-sxm5", "0.32.0", "fp8", SCALED_BYTES),
        ("h100-80gb-sxm5", "0.30.0", "auto", SPARSE_BYTES),
        ("h100-80gb-sxm5", "0.29.0", "auto", SCALED_BYTES),
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


# GLM-5.2: 78 layers of 576 numbers, and 21 indexers of 132 bytes.
GLM_BYTES, GLM_WIDE_BYTES = 78 * 576 + 21 * 132, 78 * 576 * 2 + 21 * 132


@pytest.mark.parametrize(
    ("gpu", "version", "kv_dtype", "token_bytes"),
    [
        ("b200-180gb", "0.31.0", "auto", GLM_WIDE_BYTES),
        ("b200-180gb", "0.32.0", "auto", GLM_BYTES),
        ("b300-288gb", "0.33.0", "auto", GLM_BYTES),
        ("b200-180gb", "0.33.0", "bfloat16", GLM_WIDE_BYTES),
        ("h200-141gb-sxm5", "0.33.0", "auto", GLM_WIDE_BYTES),
    ],
)
def test_glm_5_keeps_fp8_by_default_on_data_centre_blackwell(
    gpu: str, version: str, kv_dtype: str, token_bytes: int
) -> None:
    """0.32 `models/config.py` GlmMoeDsaForCausalLM: "auto" becomes "fp8_e4m3" on compute capability 10.x; 0.31 not."""
    found = planned(
        {
            "model": "glm-5.2",
            "gpu": gpu,
            "engine_version": version,
            "kv_dtype": kv_dtype,
            "tensor_parallel": 8,
        }
    )
    assert found.footprint.kv_bytes_per_token == token_bytes


def test_flash_mla_unpacks_entries_in_the_workspace() -> None:
    """0.31 `flashmla_sparse.py` workspace_specs: more than the mixture's two buffers, which hide it in 0.30."""
    asked = {
        "model": "nvidia/DeepSeek-V3.2-NVFP4",
        "gpu": "h200-141gb-sxm5",
        "kv_dtype": "fp8",
        "tensor_parallel": 8,
        "context": 163840,
    }
    older, newer = (
        planned({**asked, "engine_version": version}).footprint for version in ("0.30.0", "0.31.0")
    )
    unpacked = 2 * (5 * 163840 * 576 + 8192 * (16 * 576 + 64 * (576 + 512) + 16 * 512))
    mixture = 2 * 8192 * 8 * (7168 + 7168)
    assert older.kv_pool_bytes - newer.kv_pool_bytes == pytest.approx(unpacked - mixture, rel=0.02)
