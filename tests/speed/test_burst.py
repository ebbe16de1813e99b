"""Bursts: held against a count of every step of the engines' scheduling, against steady loads, and published runs."""

from __future__ import annotations

import random
from itertools import pairwise
from math import log
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest

from soong.gpus.catalogue import find_gpu
from soong.memory.footprint import EngineSettings
from soong.models.resolve import resolve
from soong.plan.candidates import served_model
from soong.plan.document import plan_document
from soong.plan.planner import make_plan
from soong.plan.request import read_request
from soong.speed.burst import burst
from soong.speed.prepared import Prepared, prepare
from soong.speed.roofline import answered, prompt_seconds, sequence_bytes, step_seconds
from soong.speed.throughput import Lengths, Load

if TYPE_CHECKING:
    from collections.abc import Callable


def prepared(
    model: str = "llama-3.1-8b", gpu: str = "h100", engine: str = "vllm", version: str = "0.33.0"
) -> Prepared:
    served = served_model(resolve(model, allow_network=False))
    assert served is not None
    found = prepare(served, find_gpu(gpu), EngineSettings(name=engine, version=version), 1)
    assert found is not None
    return found


def load(
    requests: int, *, prompt: int = 217, answer: int = 202, at_once: int = 10**6, lengths: Lengths = "varied"
) -> Load:
    return Load(
        input_tokens=prompt, output_tokens=answer, sequences=at_once, requests=requests, lengths=lengths
    )


# ── every step counted ───────────────────────────────────────────────────────────────────────────────


class Counted(NamedTuple):
    """What a count of all steps gives."""

    seconds: float
    seconds_per_token: float
    first_token_seconds: float


def counted(one: Prepared, asked: Load) -> Counted:
    """Every step of a burst under vLLM's rules, with the times of whole passes.

    A request begins when the pool holds its prompt and a pass has room for it; each step gives all others a token; who
    came last is put off when the pool is full, and begins anew before all others.
    """
    ends = answer_lengths(asked)
    pool = one.pool_bytes / sequence_bytes(one, 1)
    waiting, running = list(range(len(ends))), list[int]()
    done, first, seconds = [0] * len(ends), [0.0] * len(ends), 0.0
    last = list(first)
    prompt = asked.input_tokens
    while waiting or running:
        held = sum(prompt + done[each] for each in running)
        while held + len(running) > pool and len(running) > 1:
            waiting.insert(0, running.pop())
            held -= prompt + done[waiting[0]]
        room, begun = one.chunk_tokens - len(running), list[int]()
        while waiting and len(running) + len(begun) < min(asked.sequences, one.most_running or 10**9):
            tokens = prompt + done[waiting[0]]
            if held + len(running) + tokens > pool or tokens > room:
                break
            held, room = held + tokens, room - tokens
            begun.append(waiting.pop(0))
        if running:
            seconds += step_seconds(one, len(running), held / len(running))
        for each in begun:
            share = (prompt + done[each]) / prompt
            seconds += share * prompt_seconds(one, prompt, one.chunk_tokens if running else float(len(begun)))
            first[each] = first[each] or seconds
        for each in (*running, *begun):
            done[each] += 1
            last[each] = seconds
        running = [each for each in (*running, *begun) if done[each] < ends[each]]
    streamed = sum(end - begin for begin, end in zip(first, last, strict=True))
    return Counted(seconds, streamed / sum(ends), sum(first) / len(first))


def answer_lengths(asked: Load) -> list[int]:
    """Lengths that end like radioactive atoms about the mean, or the mean itself."""
    if asked.lengths == "same":
        return [asked.output_tokens] * asked.requests
    shares = [(place + 0.5) / asked.requests for place in range(asked.requests)]
    drawn = [max(1, round(-asked.output_tokens * log(1 - share))) for share in shares]
    random.Random(7).shuffle(drawn)
    return drawn


@pytest.mark.parametrize("lengths", ["varied", "same"])
@pytest.mark.parametrize(
    ("pool_tokens", "requests", "at_once"),
    [(10**7, 300, 10**6), (10**7, 1000, 128), (20_000, 600, 10**6), (60_000, 600, 10**6)],
    ids=["all at once", "128 at once", "a small pool", "a larger pool"],
)
def test_a_count_of_every_step_gives_the_same(
    lengths: Lengths, pool_tokens: int, requests: int, at_once: int
) -> None:
    one = prepared()
    one = msgspec.structs.replace(one, pool_bytes=pool_tokens * sequence_bytes(one, 1))
    asked = load(requests, at_once=at_once, lengths=lengths)
    found, expected = burst(one, asked), counted(one, asked)
    assert found.seconds - one.first_seconds == pytest.approx(expected.seconds, rel=0.08)
    assert found.seconds_per_token == pytest.approx(expected.seconds_per_token, rel=0.2)
    if at_once > requests:  # the count does not know who was sent when
        assert found.first_token_seconds - one.first_seconds == pytest.approx(
            expected.first_token_seconds, rel=0.3, abs=0.3
        )


# ── what must hold, whatever the constants ───────────────────────────────────────────────────────────

MACHINES: list[Callable[[], Prepared]] = [
    prepared,
    lambda: prepared("qwen3-32b", "h100", "sglang", "0.5.23"),
    lambda: prepared("gpt-oss-20b", "l40s"),
    lambda: prepared("qwen3-14b", "a100-80gb-sxm4", "vllm", "0.11.0"),
    lambda: prepared("qwen3-30b-a3b", "b200", "sglang", "0.5.23"),
]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("lengths", ["varied", "same"])
class TestEveryMachine:
    def test_more_requests_take_longer(self, machine: Callable[[], Prepared], lengths: Lengths) -> None:
        one = machine()
        times = [
            burst(one, load(requests, lengths=lengths)).seconds
            for requests in (1, 2, 3, 7, 20, 64, 65, 300, 1000, 1001, 5000, 60_000)
        ]
        for earlier, later in pairwise(times):
            assert later > earlier

    def test_a_burst_without_end_is_a_queue_that_is_always_full(
        self, machine: Callable[[], Prepared], lengths: Lengths
    ) -> None:
        one = machine()
        asked = load(10_000_000, at_once=48, lengths=lengths)
        found = burst(one, asked)
        assert found.batch == 48
        # Little's law: so many at once, each for as long as its prompt and its tokens take.
        rate = asked.requests / found.seconds
        each = found.first_token_seconds - one.first_seconds + found.seconds_per_token * asked.output_tokens
        assert rate * each == pytest.approx(48, rel=0.01)
        steady = answered(one, Load(input_tokens=217, output_tokens=202, sequences=48))
        assert asked.output_tokens * rate == pytest.approx(steady.decode_tokens_per_second, rel=0.12)

    @pytest.mark.parametrize(("prompt", "answer"), [(217, 202), (20_000, 2), (1, 1), (50_000, 1)])
    def test_one_request_is_one_user(
        self, machine: Callable[[], Prepared], lengths: Lengths, prompt: int, answer: int
    ) -> None:
        one = machine()
        found = answered(one, load(1, prompt=prompt, answer=answer, lengths=lengths))
        alone = answered(one, Load(input_tokens=prompt, output_tokens=answer, sequences=1))
        first, each = alone.time_to_first_token_seconds, alone.decode_tokens_per_second_per_user
        assert found.time_to_first_token_seconds == pytest.approx(first, rel=0.01)
        assert found.decode_tokens_per_second_per_user == pytest.approx(each, rel=0.05)
        assert found.burst_seconds == pytest.approx(first + answer / each, rel=0.05)

    def test_one_after_the_other_is_one_user_too(
        self, machine: Callable[[], Prepared], lengths: Lengths
    ) -> None:
        one = machine()
        found = answered(one, load(100, at_once=1, lengths=lengths))
        alone = answered(one, Load(input_tokens=217, output_tokens=202, sequences=1))
        assert found.time_to_first_token_seconds == pytest.approx(alone.time_to_first_token_seconds, rel=0.01)
        assert found.decode_tokens_per_second_per_user == pytest.approx(
            alone.decode_tokens_per_second_per_user, rel=0.05
        )

    @pytest.mark.parametrize(("prompt", "answer"), [(217, 202), (20_000, 1), (1, 1), (3000, 10)])
    def test_no_first_token_comes_after_the_end(
        self, machine: Callable[[], Prepared], lengths: Lengths, prompt: int, answer: int
    ) -> None:
        one = machine()
        for requests in (1, 2, 3, 10, 11, 64, 1000):
            for at_once in (1, 2, 7, 10**6):
                for slots in (0, 1, 2, 10):
                    asked = load(requests, prompt=prompt, answer=answer, at_once=at_once, lengths=lengths)
                    found = burst(one, msgspec.structs.replace(asked, slots=slots))
                    assert one.first_seconds < found.first_token_seconds <= found.seconds, (
                        requests,
                        at_once,
                        slots,
                    )

    def test_fewer_at_once_take_longer_and_see_more(
        self, machine: Callable[[], Prepared], lengths: Lengths
    ) -> None:
        one = machine()
        few, many = (burst(one, load(4000, at_once=count, lengths=lengths)) for count in (8, 32))
        assert few.seconds > many.seconds
        assert few.seconds_per_token < many.seconds_per_token


def test_varied_answers_leave_the_gpu_idle_at_the_end() -> None:
    one = prepared()
    varied, same = (burst(one, load(256, lengths=lengths)) for lengths in ("varied", "same"))
    assert varied.seconds > 1.5 * same.seconds


def test_a_pool_that_is_too_small_computes_prompts_twice() -> None:
    one = prepared()
    small = msgspec.structs.replace(one, pool_bytes=20_000 * sequence_bytes(one, 1))
    found = burst(small, load(10_000))
    limited = burst(msgspec.structs.replace(one, most_running=found.batch), load(10_000))
    assert limited.batch == found.batch < 70
    prompt = prompt_seconds(one, 217, one.chunk_tokens)
    assert found.seconds - limited.seconds == pytest.approx(10_000 * prompt * 202 / 217, rel=0.05)


def test_waiting_counts_where_all_come_at_once_and_not_where_the_sender_waits() -> None:
    one = prepared()
    queued = burst(msgspec.structs.replace(one, most_running=32), load(1000))
    held_back = burst(one, load(1000, at_once=32))
    assert queued.seconds == pytest.approx(held_back.seconds)
    assert queued.first_token_seconds > 0.3 * queued.seconds
    assert held_back.first_token_seconds < 0.02 * held_back.seconds
    told = burst(one, msgspec.structs.replace(load(1000), slots=32))
    assert told == queued


@pytest.mark.parametrize("lengths", ["varied", "same"])
@pytest.mark.parametrize("slots", [1, 8])
def test_a_count_of_every_step_gives_the_same_queue_for_slots(lengths: Lengths, slots: int) -> None:
    one = msgspec.structs.replace(prepared(), most_running=slots)
    asked = load(40, lengths=lengths)
    found, expected = burst(one, asked), counted(one, asked)
    assert found.first_token_seconds - one.first_seconds == pytest.approx(
        expected.first_token_seconds, rel=0.1
    )


# ── as a person asks ─────────────────────────────────────────────────────────────────────────────────

PUBLISHED = [
    # model, format, GPU, GPUs, engine, version, prompt, answer, tokens/s: `vllm bench serve`, 1,000 prompts of
    # ShareGPT at once; github.com/gpustack/gpustack docs/performance-lab at 47277d7
    ("gpt-oss-20b", None, "a100-80gb-sxm4", 1, "vllm", "0.11.0", 215, 194, 5180),
    ("gpt-oss-20b", None, "h100-80gb-sxm5", 1, "vllm", "0.11.0", 215, 194, 7817),
    ("qwen3-14b", "bf16", "a100-80gb-sxm4", 1, "vllm", "0.11.0", 217, 202, 1887),
    ("qwen3-14b", "bf16", "a100-80gb-sxm4", 1, "sglang", "0.5.5", 217, 202, 2542),
    ("qwen3-14b", "awq", "a100-80gb-sxm4", 1, "vllm", "0.11.0", 217, 202, 1802),
    ("qwen3-32b", "bf16", "a100-80gb-sxm4", 1, "vllm", "0.11.0", 217, 201, 832),
    ("qwen3-32b", "bf16", "a100-80gb-sxm4", 1, "sglang", "0.5.5", 217, 201, 673),
    ("qwen3-32b", "fp8", "a100-80gb-sxm4", 1, "vllm", "0.11.0", 217, 201, 751),
]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row[0]}-{row[1]}-{row[2]}-{row[4]}")
def test_published_bursts_come_out_as_the_plan_is_asked(row: tuple[str | int | None, ...]) -> None:
    name, form, gpu, gpus, engine, version, prompt, answer, measured = row
    options = {
        "model": name,
        "quantization": form,
        "gpu": gpu,
        "gpu_count": gpus,
        "engine": engine,
        "engine_version": version,
        "input_tokens": prompt,
        "output_tokens": answer,
        "requests": 1000,
        "context": 2048,
    }
    document = plan_document(make_plan(read_request(options), allow_network=False))
    speed = document["candidates"][0]["throughput"]
    assert speed["requests"] == 1000
    assert speed["burst_seconds"] == pytest.approx(
        1000 * int(answer or 0) / speed["decode_tokens_per_second"]
    )
    assert speed["decode_tokens_per_second"] == pytest.approx(float(measured or 0), rel=0.33)


class TestThePlan:
    def plan(self, **options: object) -> dict[str, object]:
        asked = {"model": "llama-3.1-8b", "gpu": "h100-80gb-sxm5", "engine": "vllm", **options}
        document = plan_document(make_plan(read_request(asked), allow_network=False))
        found: dict[str, object] = document["candidates"][0]
        return {**found, "load": document["load"]}

    def test_a_steady_load_has_no_end(self) -> None:
        found = self.plan(sequences=8)
        speed = found["throughput"]
        assert isinstance(speed, dict)
        assert (speed["requests"], speed["burst_seconds"]) == (None, None)
        assert isinstance(found["load"], dict)
        assert (found["load"]["requests"], found["load"]["lengths"]) == (None, None)

    def test_a_job_is_a_burst_of_as_many_answers(self) -> None:
        found = self.plan(rank="time", job_tokens="500k", input_tokens=1000, output_tokens=500)
        speed, job = found["throughput"], found["job"]
        assert isinstance(speed, dict)
        assert isinstance(job, dict)
        assert speed["requests"] == 1000
        assert job["hours"] * 3600 == pytest.approx(speed["burst_seconds"])

    def test_requests_are_a_job_of_their_tokens(self) -> None:
        found = self.plan(requests=1000, input_tokens=1000, output_tokens=500)
        speed, job = found["throughput"], found["job"]
        assert isinstance(speed, dict)
        assert isinstance(job, dict)
        assert job["output_tokens"] == 500_000
        assert job["hours"] * 3600 == pytest.approx(speed["burst_seconds"])

    def test_a_context_that_cuts_answers_cuts_the_job(self) -> None:
        found = self.plan(requests=1000, context=1000)
        speed, job = found["throughput"], found["job"]
        assert isinstance(speed, dict)
        assert isinstance(job, dict)
        assert (speed["output_tokens"], job["output_tokens"]) == (500, 500_000)
        assert job["hours"] * 3600 == pytest.approx(speed["burst_seconds"])

    @pytest.mark.parametrize("options", [{"engine": "llama.cpp", "gpu": "a6000"}, {"target": 40}], ids=str)
    def test_those_without_a_slot_wait_in_the_queue(self, options: dict[str, object]) -> None:
        speed = self.plan(requests=5000, **options)["throughput"]
        assert isinstance(speed, dict)
        batch = speed["sequences"]
        assert 1 < batch < 2500
        assert 0.3 * speed["burst_seconds"] < speed["time_to_first_token_seconds"] < speed["burst_seconds"]
        said = self.plan(requests=5000, **{**options, "sequences": 4, "target": None})["throughput"]
        assert isinstance(said, dict)
        assert said["sequences"] == 4
        assert said["time_to_first_token_seconds"] < 0.1 * said["burst_seconds"]  # the sender waits then

    def test_a_target_that_one_user_misses_is_the_same_in_a_burst(self) -> None:
        alone = self.plan(sequences=1, input_tokens=8000, output_tokens=100)["throughput"]
        one_at_a_time = self.plan(requests=50, input_tokens=8000, output_tokens=100, target=100_000)
        speed = one_at_a_time["throughput"]
        assert isinstance(alone, dict)
        assert isinstance(speed, dict)
        assert (speed["sequences"], one_at_a_time["meets_target"]) == (1, False)
        each = speed["decode_tokens_per_second_per_user"]
        assert each == pytest.approx(alone["decode_tokens_per_second_per_user"], rel=0.05)
        assert speed["time_to_first_token_seconds"] > 0.3 * speed["burst_seconds"]

    def test_sequences_are_the_most_at_once(self) -> None:
        few, all_at_once = (
            self.plan(requests=1000, input_tokens=200, output_tokens=200, **more)["throughput"]
            for more in ({"sequences": 16}, {})
        )
        assert isinstance(few, dict)
        assert isinstance(all_at_once, dict)
        assert (few["sequences"], all_at_once["sequences"]) == (16, 1000)
        assert few["burst_seconds"] > 2 * all_at_once["burst_seconds"]

    def test_a_target_holds_on_average_over_the_burst(self) -> None:
        speed = self.plan(requests=5000, target=60)["throughput"]
        assert isinstance(speed, dict)
        assert speed["decode_tokens_per_second_per_user"] >= 60
        assert speed["sequences"] > 8
