"""The accuracy bench: its cases are sound facts, and its tables say what they claim to say."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from benchmarks.accuracy import peers, tables
from benchmarks.accuracy.answers import Answer
from benchmarks.accuracy.cases import Log, Models, class_cases, config_facts, logs, reasons
from benchmarks.accuracy.collect import facts_of
from benchmarks.accuracy.measuring import (
    CLASSES,
    Measure,
    Results,
    Verdict,
    measure_classes,
    measure_logs,
    of,
)

from soong.gpus.catalogue import find_gpu
from soong.models import catalogue
from soong.models.config_json import Config

ROOT = Path(__file__).parents[2]
LOGS = logs()


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path / "models")


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.id)
class TestEveryCase:
    def test_it_names_where_its_figures_stand(self, log: Log) -> None:
        assert log.source.startswith("https://")
        assert date(2023, 1, 1) <= date.fromisoformat(log.as_of)

    def test_its_model_is_known(self, log: Log) -> None:
        assert log.repository.lower() in config_facts() or catalogue.is_known(log.repository)

    def test_its_gpu_is_known(self, log: Log) -> None:
        if log.gpu:
            memory = round(log.gpu_memory_gib * 2**30) if log.gpu_memory_gib else None
            assert find_gpu(log.gpu, memory_bytes=memory)

    def test_its_figures_are_of_this_world(self, log: Log) -> None:
        for gib in (log.weights_gib, log.pool_gib, log.activations_gib):
            assert gib is None or 0 < gib < 300
        assert log.tokens is None or 100 < log.tokens < 10**8
        assert log.outcome in {None, "ok", "oom"}


def test_cases_have_names_of_their_own() -> None:
    names = [log.id for log in LOGS]
    assert sorted(names) == sorted(set(names))


def test_every_explanation_is_of_a_case() -> None:
    known = {log.id for log in LOGS}
    assert not set(reasons()) - known
    assert not {answer.case for answer in peers.kept()} - known


def test_the_facts_of_a_config_are_read_as_the_whole_file_is() -> None:
    config: dict[str, Any] = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
        "torch_dtype": "bfloat16", "bos_token_id": 1, "initializer_range": 0.02, "use_cache": True,
    }  # fmt: skip
    facts, quant = facts_of(Config(config))
    assert quant is None
    assert facts["num_key_value_heads"] == 2
    assert not {"bos_token_id", "initializer_range", "use_cache"} & set(facts)


@pytest.mark.slow
class TestMeasured:
    """The whole bench; a few thousand plans."""

    def test_vllms_own_classes_are_reproduced(self, models: Models) -> None:
        """What is held: 0.1 % on 97 % of weights and tokens, nothing refused that vLLM accepts."""
        results = measure_classes(models)
        assert not results.errors
        for quantity, count in (("weights", len(class_cases())), ("tokens_of_pool", 600)):
            measures = of(results.measures, quantity=quantity)
            assert len(measures) >= count
            assert sum(abs(one.error) <= 0.001 for one in measures) >= 0.97 * len(measures)
        assert all(one.said == "starts" for one in of(results.verdicts, outcome="starts"))

    def test_published_logs(self, models: Models) -> None:
        """Every case is answered; the median of the weights is under 0.2 %, no launch that failed is said to fit."""
        results = measure_logs(models)
        assert results.errors == {}
        assert len({measure.case for measure in results.measures}) > 100
        errors = sorted(abs(one.error) for one in of(results.measures, by="soong", quantity="weights"))
        assert errors[len(errors) // 2] < 0.002
        assert not of(results.verdicts, by="soong", said="fits", outcome="oom")

    def test_it_prints_json(self) -> None:
        ran = subprocess.run(
            [sys.executable, "-m", "benchmarks.accuracy", "--json", "--only", "sglang"],
            cwd=ROOT, capture_output=True, check=True, text=True,
        )  # fmt: skip
        found = json.loads(ran.stdout)
        assert {measure["engine"] for measure in found["measures"]} == {"sglang"}


def _measure(case: str, predicted: float, published: float, quantity: str = "weights") -> Measure:
    return Measure(
        case=case, by="soong", quantity=quantity, predicted=predicted, published=published, engine="vllm",
        family="llama", format="BF16", tensor_parallel=1, gpu="h100-80gb-sxm5",
    )  # fmt: skip


class TestPeers:
    def test_answers_are_kept_and_replaced_by_peer(self, tmp_path: Path) -> None:
        path = tmp_path / "peers.jsonl"
        first = [_said("a", "1.0", Answer(weights_bytes=5)), _said("b", "1.0", Answer(error="KeyError: x"))]
        peers.keep(first, path)
        assert peers.kept(path) == first
        peers.keep([_said("a", "2.0", Answer(verdict="fits"))], path)
        assert [(one.peer, one.version) for one in peers.kept(path)] == [("b", "1.0"), ("a", "2.0")]

    def test_what_another_program_raises_is_its_answer(self) -> None:
        def broken(_question: peers.Question) -> Answer:
            raise KeyError("hidden_size")

        question = peers.Question(
            name="m", folder="", config={}, checkpoint_bytes=1, engine="vllm", gpu="g", gpu_bytes=1, gpus=1,
            tensor_parallel=1, pipeline_parallel=1, fraction=0.9, context=1, kv_dtype="auto", pool_bytes=None,
        )  # fmt: skip
        assert peers.asked(broken, question).error == "KeyError: 'hidden_size'"

    def test_every_kept_answer_says_who_gave_it(self) -> None:
        answers = peers.kept()
        assert {answer.peer for answer in answers} == set(peers.PEERS)
        assert all(answer.version and date.fromisoformat(answer.as_of) for answer in answers)


def _said(peer: str, version: str, answer: Answer) -> peers.PeerAnswer:
    return peers.PeerAnswer(peer=peer, version=version, as_of="2026-11-23", case="c", answer=answer)


class TestTables:
    def test_spread(self) -> None:
        found = tables.spread([_measure(str(n), 100 + n, 100) for n in range(11)])
        assert found is not None
        assert found.cases == 11
        assert found.worst == pytest.approx(0.1)
        assert found.median == pytest.approx(0.05)
        assert found.ninth_tenth == pytest.approx(0.09)
        assert found.within_1_percent == pytest.approx(2 / 11)
        assert tables.spread([]) is None

    @pytest.mark.parametrize(
        ("share", "text"),
        [
            (0.00022, "0.022 %"),
            (0.0035, "0.35 %"),
            (0.033, "3.3 %"),
            (0.41, "41 %"),
            (1.82, "182 %"),
            (0.0, "0 %"),
        ],
    )
    def test_percent_shows_the_digits_that_matter(self, share: float, text: str) -> None:
        assert tables.percent(share) == text

    def test_the_worst_come_first_with_their_reason(self) -> None:
        results = Results(measures=[_measure("good", 101, 100), _measure("bad", 2 << 30, 1 << 30)])
        table = tables.worst(results, {"bad": "a draft model"}, {"bad": "https://example.com/log"})
        assert table.rows[0] == (
            "[bad](https://example.com/log)", "weights", "2.00 GiB", "1.00 GiB", "+100.0%", "a draft model",
        )  # fmt: skip
        assert "[bad]" not in tables.as_text(table)

    def test_a_verdict_is_wrong_when_it_misleads(self) -> None:
        pairs = [("fits", "ok"), ("tight", "ok"), ("too-small", "ok"), ("fits", "oom"), ("too-small", "oom")]
        verdicts = [
            Verdict(case=f"{said} {outcome}", by="soong", engine="vllm", said=said, outcome=outcome)
            for said, outcome in pairs
        ]
        table = tables.wrong_verdicts(Results(verdicts=verdicts), {})
        assert [row[0] for row in table.rows] == ["too-small ok", "fits oom"]

    def test_markdown_aligns_numbers_and_keeps_bars_out(self) -> None:
        table = tables.Table(title="T", head=("a", "b"), rows=(("x|y", "1"),))
        assert tables.as_markdown(table).splitlines()[2:] == ["| a | b |", "|---|---:|", "| x/y | 1 |"]

    def test_what_is_not_ours_has_no_say_in_the_classes_line(self) -> None:
        verdicts = [
            Verdict(case="c", by="soong", engine=CLASSES, said="starts", outcome="starts"),
            Verdict(case="c", by="soong", engine="vllm", said="fits", outcome="oom"),
        ]
        assert "of 1 pools" in tables.summary(Results(verdicts=verdicts)).note.lower()

    def test_a_table_without_rows_says_so(self) -> None:
        table = tables.Table(title="Judged wrongly", head=("case",), rows=())
        assert tables.as_markdown(table) == "**Judged wrongly**: none"
        assert tables.as_text(table).splitlines()[-1] == "none"
