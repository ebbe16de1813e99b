"""AMD's GPUs under vLLM: a group's communicators over Infinity Fabric, and graphs that old versions never tried."""

import msgspec
import pytest

from soong.gpus.catalogue import find_gpu
from soong.memory import engines
from soong.memory.engines import _vllm_budget
from soong.memory.engines._constants import rules
from soong.memory.footprint import EngineSettings, Footprint, Workload
from soong.models.resolve import resolve
from soong.plan.candidates import served_model

GIB = 1 << 30
MI300X = find_gpu("mi300x-192gb")
BY_BUS = msgspec.structs.replace(MI300X, interconnect="PCIe 5.0 x16")


def footprint(version: str, gpu: object = MI300X, *, parallel: int = 4) -> Footprint:
    model = served_model(resolve("qwen3-30b-a3b", allow_network=False))
    assert model is not None
    settings = EngineSettings(name="vllm", version=version, tensor_parallel=parallel)
    return engines.footprint(model, gpu, Workload(context_tokens=8192), settings)  # type: ignore[arg-type]


def test_communicators_take_what_rccl_was_measured_to_take() -> None:
    """1 GiB for the first and 0.65 GiB for one more a rank on MI250X: LUMI-AI-Guide, issue 111."""
    constants = rules("vllm", "0.16.0")
    alone = _vllm_budget.context_bytes(constants, MI300X, 1)
    group = _vllm_budget.context_bytes(constants, MI300X, 4) - alone
    mixture = _vllm_budget.context_bytes(constants, MI300X, 4, mixture=True) - alone - group
    assert group / GIB == pytest.approx(1.0, abs=0.1)
    assert mixture / GIB == pytest.approx(0.65, abs=0.2)
    assert footprint("0.16.0").free_bytes < footprint("0.16.0", BY_BUS).free_bytes


def test_four_mi300x_lost_half_a_gib_beside_pytorch() -> None:
    """MiniMax-M2.5 on 0.16, eager, 0.92 of 191.98 GiB: 54.97 of weights and 120.07 of pool leave 1.6 with the peak."""
    found = _vllm_budget.non_torch_bytes(rules("vllm", "0.16.0"), MI300X, 4, compiled=False)
    assert found / GIB == pytest.approx(0.54, abs=0.05)


def test_no_kernels_of_nvidia_s_are_counted() -> None:
    compiled, eager = (
        _vllm_budget.non_torch_bytes(rules("vllm", "0.20.0"), MI300X, 8, compiled=compiled)
        for compiled in (True, False)
    )
    assert compiled == eager


def test_graphs_are_in_the_budget_since_0_26() -> None:
    """v1/worker/gpu_worker.py asks `is_cuda` in 0.25 and `is_cuda_alike` in 0.26 before it tries graphs."""
    before, after = footprint("0.25.1", parallel=1), footprint("0.26.0", parallel=1)
    lost = [
        found.total_bytes * (found.memory_fraction or 0) - found.weights_bytes - found.kv_pool_bytes
        for found in (before, after)
    ]
    assert lost[1] - lost[0] == pytest.approx(after.cuda_graphs_bytes, rel=0.2)
    assert after.cuda_graphs_bytes > GIB // 2
