"""Engine logs, in the words that engines print, to the failure, its figures and what would fit instead."""

from __future__ import annotations

import json

import pytest

from soong.plan.planner import make_plan
from soong.plan.request import read_request
from soong.serve import diagnosis
from soong.settings import paths

GIB = 2**30

TORCH = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.96 GiB. GPU 0 has a total capacity of "
    "23.58 GiB of which 512.00 MiB is free. Including non-PyTorch memory, this process has 23.05 GiB memory in use."
)
LOGS = [
    (TORCH, "memory-load"),
    (
        "(EngineCore pid=7) ValueError: No available memory for the cache blocks. Try increasing",
        "memory-pool",
    ),
    (
        "ValueError: To serve at least one request with the model's max seq len (131072), (16.00 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (3.25 GiB). Based on the available memory, the "
        "estimated maximum model length is 26624. Try increasing",
        "context-too-long",
    ),
    (
        "ValueError: Free memory on device cuda:0 (3.21/23.58 GiB) on startup is less than desired GPU memory "
        "utilization (0.92, 21.69 GiB). Decrease GPU memory",
        "memory-other-process",
    ),
    (
        "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current value: "
        "mem_fraction_static=0.6",
        "memory-pool",
    ),
    (f"Exception: Capture cuda graph failed: {TORCH}\nPossible solutions:", "memory-graphs"),
    (f'  File "gpu_model_runner.py", line 1, in capture_model\n{TORCH}', "memory-graphs"),
    (f'  File "gpu_model_runner.py", line 1, in initialize_kv_cache_tensors\n{TORCH}', "memory-pool"),
    (
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 15317.02 MiB on device 0: cudaMalloc failed: out of "
        "memory\nalloc_tensor_range: failed to allocate CUDA0 buffer of size 16061063168\n"
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        "memory-load",
    ),
    ("huggingface_hub.errors.GatedRepoError: 401 Client Error.", "gated"),
    ("OSError: [Errno 28] No space left on device", "disk-full"),
    ("OSError: [Errno 98] Address already in use", "port"),
    (
        "ValueError: Model architectures ['NewForCausalLM'] are not supported for now. Supported",
        "unsupported-model",
    ),
    ("error loading model architecture: unknown model architecture: 'new'", "unsupported-model"),
    ("CUDA driver version is insufficient for CUDA runtime version", "driver"),
    ("RuntimeError: The NVIDIA driver on your system is too old (found version 12020).", "driver"),
    ("Killed", "killed"),
]


@pytest.mark.parametrize(("log", "cause"), LOGS, ids=[f"{cause}-{log[:20]}" for log, cause in LOGS])
def test_a_known_failure_is_recognised(log: str, cause: str) -> None:
    found = diagnosis.diagnose(f"INFO starting\n{log}\n")
    assert found is not None
    assert found.cause == cause
    assert found.words
    assert found.source


def test_a_log_without_a_known_failure_says_nothing() -> None:
    assert diagnosis.diagnose("INFO 11-23 13:40:12 [core.py:1] all is well\nKilled time waiting\n") is None


def test_figures_are_read() -> None:
    seen = diagnosis.observed_in(TORCH)
    assert (seen.free_bytes, seen.tried_bytes, seen.total_bytes) == (
        512 << 20,
        int(1.96 * GIB),
        int(23.58 * GIB),
    )
    long = diagnosis.observed_in(LOGS[2][0])
    assert (long.needed_bytes, long.available_bytes) == (16 * GIB, int(3.25 * GIB))
    assert long.longest_context_tokens == 26624
    other = diagnosis.observed_in(LOGS[3][0])
    assert (other.free_bytes, other.total_bytes) == (int(3.21 * GIB), int(23.58 * GIB))
    assert diagnosis.observed_in(LOGS[8][0]).tried_bytes == int(15317.02 * 2**20)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_what_would_fit_is_planned_anew_and_the_miss_is_kept(engine: str) -> None:
    wish = {"model": "llama-3.1-8b", "gpu": "a10", "engine": engine, "context": "32k"}
    plan = make_plan(read_request(wish))
    pick = plan.candidates[0]
    found = diagnosis.diagnose(TORCH)
    assert found is not None
    again = diagnosis.refitted(plan, pick, found)
    assert again is not None
    context = diagnosis.context_of(again.engine_argv)
    assert 1024 <= context < 32768
    page = diagnosis.screen(plan, pick, found, again)
    assert "asked for 1.96 GiB" in page
    assert f"--context {context}" in page
    diagnosis.keep_miss(plan, pick, found)
    diagnosis.keep_miss(plan, pick, found)
    rows = [json.loads(line) for line in (paths.state_dir() / "misses.jsonl").read_text().splitlines()]
    assert [row["cause"] for row in rows] == ["memory-load"] * 2
    assert rows[0]["planned"]["weights_bytes"] > 10**10


def test_a_model_that_cannot_fit_has_no_flags_that_fit() -> None:
    plan = make_plan(read_request({"model": "llama-3.1-8b", "gpu": "a10", "engine": "vllm"}))
    found = diagnosis.diagnose(
        "CUDA out of memory. Tried to allocate 14.00 GiB. GPU 0 has a total capacity of 22.00 GiB of which "
        "1.00 GiB is free."
    )
    assert found is not None
    assert diagnosis.refitted(plan, plan.candidates[0], found) is None
