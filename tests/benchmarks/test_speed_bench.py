"""The speed bench: its runs are sound facts, its fit is that of the packaged table, its figures keep the promise."""

from __future__ import annotations

from math import log

import pytest
from benchmarks.speed import __main__ as bench
from benchmarks.speed import fitting, tables, writing
from benchmarks.speed.cases import cases, runs
from benchmarks.speed.measuring import load_of, median, predict, quantile, results_of

from soong.speed import roofline
from soong.speed.efficiency import Efficiencies, SpeedTable
from soong.tables import packaged_document

RUNS = runs()


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.id)
def test_every_run_says_what_was_measured_where(run: object) -> None:
    assert run.source.startswith("https://")  # type: ignore[attr-defined]
    assert run.measured > 0  # type: ignore[attr-defined]
    assert run.load in {"closed", "burst", "queued"}  # type: ignore[attr-defined]
    assert run.gpu_count >= run.tensor_parallel or run.unscored  # type: ignore[attr-defined]


def test_ids_are_unique() -> None:
    assert len({run.id for run in RUNS}) == len(RUNS)


class TestWhatTheTableAnswers:
    """The packaged table against every run that can be asked, without any fit."""

    def test_half_of_the_runs_lie_within_a_fifth_and_nine_tenths_within_a_half(self) -> None:
        results = results_of(cases()[0])
        assert len(results) > 300
        assert median([result.error for result in results]) < 0.12
        assert sum(result.factor <= 1.5 for result in results) / len(results) > 0.9

    def test_steady_loads_alone_do_better(self) -> None:
        steady = [one for one in tables.ours(results_of(cases()[0])) if one.case.run.load != "burst"]
        assert median([result.error for result in steady]) < 0.1
        assert sum(result.factor <= 1.5 for result in steady) / len(steady) > 0.95

    def test_the_cheaper_gpu_per_token_is_named(self) -> None:
        results = results_of(cases()[0])
        found = tables.pairs(results)
        assert len(found) > 100
        assert sum(right for *_, right in found) / len(found) > 0.88
        steady = tables.pairs([one for one in results if one.case.run.load != "burst"])
        assert sum(right for *_, right in steady) / len(steady) > 0.95

    def test_stated_ranges_hold_four_fifths(self) -> None:
        for name in ("vllm", "sglang", "llama.cpp"):
            inside = total = 0
            for result in results_of(cases()[0]):
                if result.case.run.engine != name or result.case.run.load == "burst":
                    continue
                settings = result.case.settings
                found = roofline.throughput(
                    result.case.served, result.case.gpu, load_of(result.case), settings
                )
                assert found is not None
                total += 1
                inside += found.low_factor <= result.ratio <= found.high_factor
            assert inside / total > 0.75, name


@pytest.mark.slow
def test_the_packaged_table_is_the_fit_and_unseen_models_keep_the_promise() -> None:
    found = cases()[0]
    priors = fitting.read_priors()
    fitted = fitting.fit(found, priors)
    made, packaged = (
        fitting.with_factors(priors, fitted.found, fitted.values),
        packaged_document("speed", SpeedTable),
    )
    for ours, again in zip(packaged.kernel, made.kernel, strict=True):
        assert ours.compute == pytest.approx(again.compute, rel=0.05)
        assert ours.launch_us == pytest.approx(again.launch_us, rel=0.1)
    unseen = writing.unseen(fitted, priors, found)
    known = {(one.engine, one.load): one for one in packaged.spread}
    for spread in writing.spreads(unseen):
        ours = known[spread.engine, spread.load]
        assert (ours.low, ours.high) == pytest.approx((spread.low, spread.high), rel=0.05)
    assert median([result.error for result in unseen]) < 0.2
    assert sum(result.factor <= 1.5 for result in unseen) / len(unseen) > 0.9


class TestFitting:
    def test_a_factor_moves_its_own_figure_alone(self) -> None:
        table = fitting.read_priors()
        factor = fitting.Factor("kernel", ("hopper", "dense", "fp8"), "compute", 0.1)
        moved = fitting.with_factors(table, [factor], [log(0.5)])
        changed = [one for one, new in zip(table.kernel, moved.kernel, strict=True) if one != new]
        assert [(one.generation, one.part, one.format) for one in changed] == [("hopper", "dense", "fp8")]
        assert moved.engine == table.engine

    def test_a_share_stays_a_share(self) -> None:
        table = fitting.read_priors()
        factor = fitting.Factor("kernel", ("hopper", "dense", "fp8"), "compute", 0.1)
        moved = fitting.with_factors(table, [factor], [log(100)])
        assert max(one.compute for one in moved.kernel) == 1.0

    def test_equations_are_solved(self) -> None:
        assert fitting._gauss([[4.0, 2.0], [2.0, 3.0]], [10.0, 8.0]) == pytest.approx([1.75, 1.5])

    def test_a_fit_finds_what_made_the_runs(self) -> None:
        """Runs that the table itself made, with one engine slower: the fit gives that engine its share."""
        import msgspec

        found = [case for case in cases()[0] if case.run.engine == "llama.cpp"][:40]
        priors = fitting.read_priors()
        slower = Efficiencies(
            fitting.with_factors(
                priors, [fitting.Factor("kernel", ("ada", "llama.cpp", "gguf"), "memory", 1)], [-0.2]
            )
        )
        made = []
        for case in found:
            result = predict(case, slower)
            assert result is not None
            run = msgspec.structs.replace(
                case.run, tokens_per_second_per_user=result.predicted, output_tokens_per_second=None
            )
            made.append(msgspec.structs.replace(case, run=run))
        fitted = fitting.fit(made, priors)
        off = [
            abs(log(one.ratio))
            for one in results_of(
                made, Efficiencies(fitting.with_factors(priors, fitted.found, fitted.values))
            )
        ]
        assert max(off) < 0.05


class TestMeasuring:
    def test_quantiles(self) -> None:
        assert median([3.0, 1.0, 2.0]) == 2.0
        assert median([4.0, 1.0, 2.0, 3.0]) == 2.5
        assert quantile([1.0, 2.0, 3.0, 4.0, 5.0], 0.25) == 2.0

    def test_a_burst_ends_later_than_a_steady_load_would(self) -> None:
        case = next(case for case in cases()[0] if case.run.load == "burst" and case.run.model == "qwen3-14b")
        burst, steady = predict(case), predict(case, steady=True)
        assert burst is not None
        assert steady is not None
        assert 0.4 * steady.predicted < burst.predicted < steady.predicted
        assert (load_of(case).requests, load_of(case, steady=True).requests) == (1000, 0)

    def test_bursts_asked_as_bursts_come_out_better(self) -> None:
        found = [case for case in cases()[0] if case.run.load == "burst"]
        assert len(found) > 40
        as_bursts, as_steady = (results_of(found, steady=steady) for steady in (False, True))
        assert median([one.error for one in as_bursts]) < 0.2
        assert median([one.error for one in as_bursts]) < 0.6 * median([one.error for one in as_steady])
        certain = tables.undoubted(as_bursts)
        assert sum(one.factor <= 1.5 for one in certain) / len(certain) > 0.9


def test_the_tables_print(capsys: pytest.CaptureFixture[str]) -> None:
    results = results_of(cases()[0])[::5]
    compared = tables.Compared(*[results] * 6)
    for block in bench.blocks_of(compared, *cases()).values():
        for table in block:
            assert tables.as_text(table).startswith(table.title)
            assert tables.as_markdown(table).count("\n| ") >= len(table.rows)
