"""The roofline: what no speed may break, whatever the constants, and answers that others measured."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from soong.gpus.catalogue import find_gpu
from soong.gpus.gpu import Gpu
from soong.memory.footprint import EngineSettings, ServedModel
from soong.models.resolve import resolve
from soong.plan.candidates import served_model
from soong.speed.prepared import prepare
from soong.speed.roofline import crowding_seconds, largest_batch, throughput
from soong.speed.throughput import Load, Throughput
from soong.speed.work import work_of
from soong.tables import packaged

BATCHES = (1, 2, 3, 8, 33, 128, 700)


def served(model: str, quantization: str | None = None, *, engine: str = "vllm") -> ServedModel:
    found = resolve(
        model, quantization=quantization, allow_network=False, for_llama_cpp=engine == "llama.cpp"
    )
    made = served_model(found)
    assert made is not None
    return made


def speed(
    model: ServedModel,
    gpu: str,
    load: Load,
    *,
    engine: str = "vllm",
    version: str = "0.33.0",
    parallel: int = 1,
    stages: int = 1,
    kv_dtype: str = "auto",
) -> Throughput:
    settings = EngineSettings(
        name=engine, version=version, tensor_parallel=parallel, pipeline_parallel=stages
    )
    found = throughput(model, find_gpu(gpu), load, settings, parallel * stages, kv_dtype=kv_dtype)
    assert found is not None
    return found


def load(sequences: int = 1, prompt: int = 1024, answer: int = 1024) -> Load:
    return Load(input_tokens=prompt, output_tokens=answer, sequences=sequences)


MODELS = [
    ("llama-3.1-8b", None, 1),
    ("qwen3-32b", "fp8", 1),
    ("qwen3-14b", "awq", 1),
    ("gpt-oss-20b", None, 1),
    ("qwen3-30b-a3b", None, 2),
    ("deepseek-v3", None, 8),
    ("minimax-m2.5", None, 4),
    ("qwen3.5-35b-a3b", None, 1),
    ("gemma-3-27b", None, 2),
    ("mixtral-8x7b", None, 2),
    ("falcon-h1-0.5b", None, 1),
]


@pytest.mark.parametrize(("name", "quantization", "parallel"), MODELS, ids=str)
@pytest.mark.parametrize("gpu", ["h200", "b300"])
class TestEveryKindOfModel:
    def test_more_users_share_more_and_each_sees_less(
        self, name: str, quantization: str | None, parallel: int, gpu: str
    ) -> None:
        model = served(name, quantization)
        speeds = [speed(model, gpu, load(batch), parallel=parallel) for batch in BATCHES]
        for one, next_one in pairwise(speeds):
            assert next_one.decode_tokens_per_second >= one.decode_tokens_per_second * (1 - 1e-9)
            assert next_one.decode_tokens_per_second_per_user <= one.decode_tokens_per_second_per_user

    def test_no_token_comes_faster_than_its_weights_can_be_read(
        self, name: str, quantization: str | None, parallel: int, gpu: str
    ) -> None:
        model, card = served(name, quantization), find_gpu(gpu)
        work = work_of(model, tensor_parallel=parallel)
        read = sum(one.weights_bytes for one in (*work.dense, *work.head))
        if work.expert_count:
            met = work.experts_per_token / work.expert_count
            read += sum(one.weights_bytes for one in work.experts) * met
        found = speed(model, gpu, load(1), parallel=parallel)
        assert found.decode_tokens_per_second_per_user < card.bandwidth_bytes_per_second / read

    def test_nothing_is_computed_faster_than_the_datasheet(
        self, name: str, quantization: str | None, parallel: int, gpu: str
    ) -> None:
        model, card = served(name, quantization), find_gpu(gpu)
        work = work_of(model, tensor_parallel=parallel)
        flops = sum(one.flops_per_token for one in (*work.dense, *work.experts))
        most = max(card.dense_flops.values()) / flops
        found = speed(model, gpu, load(4096, prompt=4096), parallel=parallel)
        assert found.prefill_tokens_per_second < most
        assert found.decode_tokens_per_second < most

    def test_users_and_prompts_share_the_time(
        self, name: str, quantization: str | None, parallel: int, gpu: str
    ) -> None:
        """All together get no more than each while answers stream, and less by the prompts' time."""
        model = served(name, quantization)
        found = speed(model, gpu, load(64, prompt=4096), parallel=parallel)
        streamed = found.decode_tokens_per_second_per_user * found.load.sequences
        assert 0.5 * streamed < found.decode_tokens_per_second < streamed * 1.001

    def test_a_longer_past_takes_longer(
        self, name: str, quantization: str | None, parallel: int, gpu: str
    ) -> None:
        model = served(name, quantization)
        short = speed(model, gpu, load(16, prompt=512), parallel=parallel)
        long = speed(model, gpu, load(16, prompt=16384), parallel=parallel)
        assert long.decode_tokens_per_second_per_user < short.decode_tokens_per_second_per_user
        assert long.time_to_first_token_seconds > short.time_to_first_token_seconds


class TestWork:
    def test_flops_are_two_for_each_number_that_is_multiplied(self) -> None:
        model = served("llama-3.1-8b")
        work = work_of(model, tensor_parallel=1)
        flops = sum(one.flops_per_token for one in (*work.dense, *work.head))
        embedding = 128256 * 4096
        assert flops == pytest.approx(2 * (model.architecture.active_parameters - embedding), rel=1e-3)

    def test_a_mixture_multiplies_only_the_experts_it_meets(self) -> None:
        work = work_of(served("qwen3-30b-a3b", "bf16"), tensor_parallel=1)
        flops = sum(one.flops_per_token for one in (*work.dense, *work.head, *work.experts))
        assert flops / 2 == pytest.approx(
            3.3e9 - 151936 * 2048, rel=0.05
        )  # "3.3B activated" on its model card
        assert sum(one.weights_bytes for one in work.experts) / 2 == pytest.approx(29.0e9, rel=0.01)

    def test_tensor_parallel_divides_the_weights(self) -> None:
        model = served("llama-3.3-70b")
        alone, shared = work_of(model, tensor_parallel=1), work_of(model, tensor_parallel=4)
        total = sum(one.weights_bytes for one in alone.dense)
        assert sum(one.weights_bytes for one in shared.dense) == pytest.approx(total / 4, rel=1e-3)
        assert shared.pasts[0].bytes_per_token == alone.pasts[0].bytes_per_token / 4

    def test_a_tied_embedding_is_read_as_the_output_projection(self) -> None:
        head = work_of(served("llama-3.2-1b"), tensor_parallel=1).head
        assert sum(one.weights_bytes for one in head) == 128256 * 2048 * 2

    def test_tables_of_rows_are_not_read(self) -> None:
        model = served("qwen3-8b")  # its embedding and its output projection stand apart
        work = work_of(model, tensor_parallel=1)
        read = sum(one.weights_bytes for one in (*work.dense, *work.head)) / 2
        assert read == pytest.approx(model.architecture.parameters - 151936 * 4096, rel=1e-3)

    def test_a_window_bounds_what_is_read(self) -> None:
        pasts = work_of(served("gpt-oss-20b"), tensor_parallel=1).pasts
        assert sorted(past.window for past in pasts) == [0, 128]

    def test_latents_are_shared_by_all_heads_and_stand_on_every_gpu(self) -> None:
        model = served("deepseek-v3")
        one, eight = work_of(model, tensor_parallel=1).pasts[0], work_of(model, tensor_parallel=8).pasts[0]
        assert one.bytes_per_token == eight.bytes_per_token == 61 * 576 * 2
        assert one.flops_per_token == 8 * eight.flops_per_token
        assert one.prefill_flops_per_token < one.flops_per_token  # unpacked in prefill


class TestWhatMovesTheSpeed:
    def test_two_gpus_are_faster_than_one_but_not_twice(self) -> None:
        model = served("qwen3-32b")
        one, two = (speed(model, "h100", load(1), parallel=parallel) for parallel in (1, 2))
        ratio = two.decode_tokens_per_second_per_user / one.decode_tokens_per_second_per_user
        assert 1.3 < ratio < 2

    def test_nvlink_adds_up_faster_than_pcie(self) -> None:
        model = served("qwen3-32b", "fp8")
        link, bus = (speed(model, gpu, load(64), parallel=2) for gpu in ("a100-80gb-sxm4", "a100-80gb-pcie"))
        assert link.decode_tokens_per_second > bus.decode_tokens_per_second * 1.02

    def test_cards_that_reach_each_other_through_the_host_lose_most(self) -> None:
        model = served("qwen3-14b")
        found = speed(model, "rtx3090", load(1, prompt=16384, answer=256), parallel=2)
        alone = speed(model, "a6000", load(1, prompt=16384, answer=256))
        assert found.prefill_tokens_per_second < 2 * alone.prefill_tokens_per_second

    def test_packed_weights_make_one_user_faster(self) -> None:
        packed, plain = (speed(served("qwen3-14b", word), "a100-80gb", load(1)) for word in ("awq", None))
        assert packed.decode_tokens_per_second_per_user > 1.5 * plain.decode_tokens_per_second_per_user

    def test_weight_only_formats_compute_no_faster(self) -> None:
        """Prompts of many are bound by multiplying, which AWQ does in 16 bits; FP8 has its own rate on Hopper."""
        speeds = {
            word: speed(
                served("qwen3-14b", word), "h100", load(64, prompt=4096, answer=64)
            ).prefill_tokens_per_second
            for word in (None, "awq", "fp8")
        }
        assert speeds["awq"] < speeds[None] < speeds["fp8"]

    def test_fp8_is_unpacked_on_ampere(self) -> None:
        prompts = load(64, prompt=4096, answer=64)
        fp8, plain = (speed(served("qwen3-14b", word), "a100-80gb", prompts) for word in ("fp8", None))
        assert fp8.prefill_tokens_per_second < plain.prefill_tokens_per_second

    def test_a_smaller_cache_is_read_faster(self) -> None:
        model, long = served("llama-3.1-8b"), load(32, prompt=16384)
        wide, narrow = (speed(model, "h100", long, kv_dtype=dtype) for dtype in ("auto", "fp8"))
        assert narrow.decode_tokens_per_second > 1.2 * wide.decode_tokens_per_second

    def test_a_full_pool_bounds_the_batch(self) -> None:
        found = speed(served("qwen3-32b"), "h100", load(1000))
        assert 10 < found.load.sequences < 100

    def test_the_engines_own_limit_bounds_the_batch(self) -> None:
        assert (
            speed(served("qwen3-0.6b"), "a100-80gb", load(4000, prompt=64, answer=64)).load.sequences == 256
        )
        assert speed(served("qwen3-0.6b"), "h100", load(4000, prompt=64, answer=64)).load.sequences == 1024

    def test_stages_serve_as_many_but_one_user_no_faster(self) -> None:
        model = served("qwen3-32b")
        one, two = (speed(model, "h100", load(1), stages=stages) for stages in (1, 2))
        assert two.decode_tokens_per_second_per_user <= one.decode_tokens_per_second_per_user
        many, more = (speed(model, "h100", load(512), stages=stages) for stages in (1, 2))
        assert more.decode_tokens_per_second > 1.5 * many.decode_tokens_per_second

    def test_what_a_token_waits_for(self) -> None:
        assert speed(served("llama-3.1-8b"), "a10", load(1)).bound == "memory"
        assert speed(served("qwen3-0.6b"), "b200", load(1)).bound == "overhead"
        assert speed(served("qwen3-32b"), "l40s", load(64, prompt=8192, answer=64), parallel=4).bound in {
            "compute",
            "communication",
        }


class TestLargestBatch:
    settings = EngineSettings(name="vllm", version="0.33.0")

    def found(self, target: float | None, most: int = 500) -> Throughput | None:
        return largest_batch(
            served("llama-3.1-8b"),
            find_gpu("h100"),
            load(1),
            self.settings,
            most=most,
            target_tokens_per_second_per_user=target,
        )

    def test_it_is_the_largest_that_keeps_the_target(self) -> None:
        found = self.found(60)
        assert found is not None
        assert found.decode_tokens_per_second_per_user >= 60
        assert 1 < found.load.sequences < 200
        more = speed(served("llama-3.1-8b"), "h100", load(found.load.sequences + 1))
        assert more.decode_tokens_per_second_per_user < 60

    def test_without_a_target_it_is_what_memory_holds(self) -> None:
        found = self.found(None, most=37)
        assert found is not None
        assert found.load.sequences == 37

    def test_no_batch_is_slow_enough_for_the_impossible(self) -> None:
        assert self.found(5000) is None


def test_nothing_is_said_of_a_gpu_of_which_only_the_memory_is_known() -> None:
    settings = EngineSettings(name="vllm", version="0.33.0")
    slice_of_one = msgspec.structs.replace(
        find_gpu("h100"), id="slice", compute_capability=None, bandwidth_bytes_per_second=0, dense_flops={}
    )
    assert throughput(served("llama-3.1-8b"), slice_of_one, load(1), settings) is None


@pytest.mark.parametrize("gpu", packaged("gpus", Gpu), ids=lambda gpu: gpu.id)
@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama.cpp"])
def test_every_gpu_of_the_table_has_a_speed(gpu: Gpu, engine: str) -> None:
    version = {"vllm": "0.33.0", "sglang": "0.5.23", "llama.cpp": "b7000"}[engine]
    settings = EngineSettings(name=engine, version=version)
    model = served("llama-3.2-1b", "Q4_K_M" if engine == "llama.cpp" else None, engine=engine)
    found = throughput(model, gpu, load(1), settings)
    assert found is not None
    assert 20 < found.decode_tokens_per_second_per_user < 2000
    assert 0 < found.low_factor <= 1 <= found.high_factor
    assert "published runs" in found.basis


PUBLISHED = [
    # model, format, GPU, GPUs, engine, version, at once, prompt, answer, tokens/s of each user, source
    ("minimax-m2.5", "fp8", "b200", 4, "vllm", "0.19.0", 512, 1024, 1024, 26.8, "InferenceMAX 2026-04-06"),
    ("minimax-m2.5", "fp8", "h200", 8, "vllm", "0.18.0", 8, 8192, 1024, 99.6, "InferenceMAX 2026"),
    ("qwen3.5-397b-a17b", "bf16", "b200", 8, "sglang", "0.5.9", 16, 1024, 1024, 83.3, "InferenceMAX 2026-02"),
    ("qwen3.5-397b-a17b", "nvfp4", "b200", 4, "sglang", "0.5.10", 128, 8192, 1024, 32.1, "InferenceMAX 2026-04"),
    ("gemma-4-31b", "Q4_K_M", "h100", 1, "llama.cpp", "b7000", 1, 128, 512, 68.0, "pavlokhmel.com"),
    ("gpt-oss-20b", "Q4_K_M", "rtx4090", 1, "llama.cpp", "b7000", 1, 128, 512, 266.0, "pavlokhmel.com"),
    ("llama-3.2-3b", "Q4_K_M", "gb10", 1, "llama.cpp", "b7000", 1, 128, 256, 97.9, "geerlingguy/ai-benchmarks"),
    ("qwen3-8b", "Q4_K_M", "rtx2080", 1, "llama.cpp", "b7000", 1, 128, 294, 69.3, "llmfit community benchmark"),
]  # fmt: skip


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row[0]}-{row[2]}-{row[6]}")
def test_published_runs_come_out_within_a_third(row: tuple[str | int | float, ...]) -> None:
    name, form, gpu, gpus, engine, version, many, prompt, answer, measured, source = row
    model = served(str(name), str(form), engine=str(engine))
    asked = Load(input_tokens=int(prompt), output_tokens=int(answer), sequences=int(many))
    parallel = int(gpus) if engine != "llama.cpp" else 1
    found = speed(model, str(gpu), asked, engine=str(engine), version=str(version), parallel=parallel)
    assert found.decode_tokens_per_second_per_user == pytest.approx(float(measured), rel=0.33), source


def test_gpus_come_in_the_order_that_one_person_measured() -> None:
    """pavlokhmel.com: gemma-4-31B in Q4_K_M, one request; tokens a second."""
    model, alone = served("gemma-4-31b", "Q4_K_M", engine="llama.cpp"), load(1, prompt=128, answer=512)
    measured = {"v100-32gb-pcie": 28, "a100-40gb-pcie": 37, "a100-80gb-sxm4": 43, "h100": 68, "b300": 75}
    speeds = [
        speed(model, gpu, alone, engine="llama.cpp", version="b7000").decode_tokens_per_second_per_user
        for gpu in measured
    ]
    assert speeds == sorted(speeds)


class TestPassesThatMix:
    """vLLM reads prompts and decodes in one pass; FlashAttention 2 is slow at it (vLLM pull request 58013)."""

    busy = load(128, prompt=512, answer=128)  # a prompt in every step

    def crowding(
        self, model: str, gpu: str, *, engine: str = "vllm", version: str = "0.33.0", at: Load = busy
    ) -> float:
        """Seconds that a step takes longer."""
        found = prepare(served(model), find_gpu(gpu), EngineSettings(name=engine, version=version), 1)
        assert found is not None
        return crowding_seconds(found, at, at.sequences, at.input_tokens + at.output_tokens / 2)

    @pytest.mark.parametrize("gpu", ["a100-80gb-sxm4", "a100-40gb-pcie", "rtx4090", "rtxpro6000"])
    def test_it_is_slow_where_vllm_takes_flash_attention_2(self, gpu: str) -> None:
        assert self.crowding("qwen3-8b", gpu) > 0.001

    @pytest.mark.parametrize(
        ("model", "gpu", "engine", "version"),
        [
            ("qwen3-8b", "h100", "vllm", "0.33.0"),
            ("qwen3-8b", "b200", "vllm", "0.33.0"),
            ("qwen3-8b", "a100-80gb-sxm4", "sglang", "0.5.23"),
            ("gpt-oss-20b", "a100-80gb-sxm4", "vllm", "0.33.0"),
            ("deepseek-coder-v2-lite", "a100-80gb-sxm4", "vllm", "0.33.0"),
        ],
        ids=["FlashAttention 3", "FlashAttention 4", "apart", "sinks", "MLA"],
    )
    def test_it_is_not_elsewhere(self, model: str, gpu: str, engine: str, version: str) -> None:
        assert self.crowding(model, gpu, engine=engine, version=version) == 0

    def test_a_tile_of_rows_is_multiplied_for_one(self) -> None:
        """64 rows of 40 heads with 128 numbers, twice, for 40 layers and every token of the past."""
        gpu = find_gpu("a100-80gb-sxm4")
        flops = 64 * 2 * 40 * (128 + 128) * 40 * 128 * 576
        longest = flops / (gpu.dense_flops["bf16"] * 0.3)
        found = self.crowding("qwen3-14b", "a100-80gb-sxm4")
        assert flops / gpu.dense_flops["bf16"] * 0.5 < found < longest

    def test_rare_prompts_disturb_rarely(self) -> None:
        often, rarely = (
            self.crowding("qwen3-8b", "a100-80gb-sxm4", at=load(32, prompt=512, answer=answer))
            for answer in (32, 3200)
        )
        assert rarely < 0.2 * often

    def test_long_prompts_disturb_once_for_each_of_their_passes(self) -> None:
        found = prepare(
            served("qwen3-8b"), find_gpu("a100-80gb-sxm4"), EngineSettings(name="vllm", version="0.33.0"), 1
        )
        assert found is not None
        assert found.chunk_tokens == 2048
        short, long = (
            crowding_seconds(found, load(4, prompt=prompt, answer=2000), 4, 9000) for prompt in (2000, 8000)
        )
        assert short > 0
        assert long == pytest.approx(4 * short, rel=0.02)
