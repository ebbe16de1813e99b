"""Plots with letters: as wide as the terminal, in ASCII where it must be, dots where the values are."""

from __future__ import annotations

import math
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from soong.errors import UsageError
from soong.pictures import terminal
from soong.pictures.memory_curves import memory_view
from soong.pictures.price_dots import speed_view
from soong.pictures.terminal import Sheet
from tests.pictures.conftest import a_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ended

    Soong = Callable[..., Ended]

STYLED = re.compile(r"\x1b\[[0-9;]*m")


def both(model: str, columns: int, *, ascii_only: bool = False, **options: Any) -> str:
    plan = a_plan(model, **options)
    memory = terminal.memory_plot(memory_view(plan, most=5), columns=columns, ascii_only=ascii_only)
    return f"{memory}\n{terminal.speed_plot(speed_view(plan), columns=columns, ascii_only=ascii_only)}"


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
@pytest.mark.parametrize("options", [{}, {"cloud": "all"}, {"gpu": "gpu_1x_a10"}])
def test_lines_fit_the_terminal(columns: int, options: dict[str, Any]) -> None:
    lines = STYLED.sub("", both("llama-3.1-8b", columns, **options)).splitlines()
    assert max(map(len, lines)) <= columns, max(lines, key=len)
    assert lines == [line.rstrip() for line in lines]


def test_ascii_is_ascii() -> None:
    text = both("llama-3.1-8b", 80, ascii_only=True, cloud="all")
    assert text.isascii()
    assert "1x RTX A6000" in text
    assert len(re.findall(r"^ *\d+% \+", text, re.MULTILINE)) == 4


@pytest.mark.parametrize("at", [(0.0, 0.0), (0.5, 0.5), (0.31, 0.77), (0.99, 0.98), (0.0071, 0.9)])
def test_a_letter_stands_where_its_dot_would(at: tuple[float, float]) -> None:
    sheet = Sheet(72, 15, (3.0, -2.0), (11.0, 150.0))
    x, y = 3.0 + at[0] * 8.0, -2.0 + at[1] * 152.0
    rows = sheet.drawn([((x, y), (x, y))], 1).rows
    dots = [
        (row, column) for row, line in enumerate(rows) for column, cell in enumerate(line) if cell != "\u2800"
    ]
    assert dots == [(sheet.row(y), sheet.column(x))]


def test_letters_in_one_cell_stand_side_by_side() -> None:
    sheet = Sheet(20, 5, (0.0, 0.0), (1.0, 1.0))
    marks = [terminal.Mark(1.0, 0.5, letter, 1) for letter in "ABC"]
    rows = [layer.rows[sheet.row(0.5)] for layer in sheet.written(marks)]
    assert [row.index(letter) for row, letter in zip(rows, "ABC", strict=True)] == [19, 18, 17]


def test_the_curve_is_where_the_need_is() -> None:
    view = memory_view(a_plan("qwen3-32b", context=32768), most=5)
    lines = STYLED.sub("", terminal.memory_plot(view, columns=80, ascii_only=False)).splitlines()[1:]
    place = next(place for place, curve in enumerate(view.curves) if curve.chosen)
    curve, letter = view.curves[place], terminal.LETTERS[place]
    (row,) = [row for row, line in enumerate(lines[: terminal.ROWS]) if letter in line[7:]]
    last = next(one for one in curve.points if one.context_tokens == curve.starts_to)
    percent = 100 * last.need_bytes / curve.total_bytes
    top = int(lines[0].split("%")[0])
    assert abs((terminal.ROWS - row - 0.5) * top / terminal.ROWS - percent) <= top / terminal.ROWS
    share = (lines[row].rindex(letter) - 7) / 72
    assert share == pytest.approx(
        math.log2(last.context_tokens / 1024) / math.log2(view.limit_tokens / 1024), abs=0.03
    )


def test_every_dot_of_the_front_has_its_letter_and_line() -> None:
    view = speed_view(a_plan("qwen3-32b", context=32768))
    text = STYLED.sub("", terminal.speed_plot(view, columns=100, ascii_only=False))
    plot, _, legend = text.partition("$ per hour")
    for letter, dot in zip(terminal.LETTERS, view.front, strict=False):
        assert letter in plot
        assert re.search(rf"[▶ ] {letter} {re.escape(dot.name)} +\${dot.usd_per_hour:.2f}/hour", legend)
    (marked,) = re.findall(r"^▶ \w (1× RTX A6000) ", legend, re.MULTILINE)
    assert marked == next(dot.name for dot in view.dots if dot.chosen)


def test_the_sheet_reaches_the_need_at_the_asked_context() -> None:
    view = memory_view(a_plan("llama-3.1-8b", sequences=64, context=8192), most=5)
    lines = STYLED.sub("", terminal.memory_plot(view, columns=80, ascii_only=False)).splitlines()
    top = int(lines[1].split("%")[0])
    needs = [
        100 * point.need_bytes / curve.total_bytes
        for curve in view.curves
        for point in curve.points
        if point.context_tokens == 8192 and curve.starts_to
    ]
    assert 100 < max(needs) <= top
    pointing = lines[1 + terminal.ROWS + 2]
    assert "▲ 8k asked for" in pointing
    ticks = lines[1 + terminal.ROWS + 1]
    assert abs(pointing.index("▲") - ticks.index(" 8k") - 1) <= 1


@pytest.mark.parametrize(("model", "options"), [("kimi-k2", {}), ("qwen3-32b", {"gpu": "gpu_1x_a6000"})])
def test_three_figures_on_each_axis(model: str, options: dict[str, Any]) -> None:
    text = STYLED.sub(
        "", terminal.speed_plot(speed_view(a_plan(model, **options)), columns=80, ascii_only=False)
    )
    lines = text.splitlines()
    assert sum("┤" in line for line in lines) >= 3
    (axis,) = [line for line in lines if "└" in line]
    assert axis.count("┴") >= 3


def test_a_batch_says_how_large_it_is() -> None:
    plan = a_plan("qwen3-32b", target="40")
    text = STYLED.sub("", terminal.speed_plot(speed_view(plan), columns=80, ascii_only=False))
    assert plan.chosen is not None
    assert plan.chosen.throughput is not None
    many = plan.chosen.throughput.load.sequences
    assert many > 1
    assert f"({many} on 1× GH200 96 GB)" in text
    assert "at least 40" in text or "with 40 tokens/s for each user" in text


def test_where_none_will_do_the_fastest_is_named() -> None:
    view = speed_view(a_plan("qwen3-32b", target="5000"))
    assert not view.front
    text = STYLED.sub("", terminal.speed_plot(view, columns=100, ascii_only=False))
    (name,) = [dot.name for dot in view.dots if dot.shown]
    (letter,) = re.findall(rf"^  (\w) {re.escape(name)} ", text, re.MULTILINE)
    assert f"{letter} is the fastest that fits" in text


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotille", None)
    with pytest.raises(UsageError, match="plotille, which is not installed") as refused:
        both("qwen3-32b", 80)
    assert refused.value.hints == ("pip install 'soong[plots]'",)


class TestCommand:
    """`soong plan --plot` and `--save`, as a person calls them."""

    def test_plots(self, soong: Soong, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("LC_ALL", "C.UTF-8")
        ended = soong("plan", "qwen3-32b", "--plot")
        assert ended.code == 0
        assert "\x1b" not in ended.out, "no colours where nobody looks"
        assert "Memory against context" in ended.out
        assert "Price against speed" in ended.out
        assert "Prices: lambda, 2026-" in ended.out
        assert max(map(len, ended.out.splitlines())) <= 80
        colored = soong("plan", "qwen3-32b", "--plot", "--color", "always")
        assert STYLED.sub("", colored.out) == ended.out
        assert "\x1b[38;5;" in colored.out

    def test_a_terminal_without_unicode(self, soong: Soong, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LC_ALL", "de_DE.ISO-8859-1")
        ended = soong("plan", "qwen3-32b", "--plot")
        assert ended.out.isascii()

    @pytest.mark.parametrize(
        ("picture", "other"), [("memory", "Price against speed"), ("speed", "Memory against")]
    )
    def test_one_of_them(self, soong: Soong, picture: str, other: str) -> None:
        ended = soong("plan", "qwen3-32b", "--plot", "--picture", picture)
        assert ended.code == 0
        assert other not in ended.out

    def test_a_file_beside_json(self, soong: Soong, tmp_path: Path) -> None:
        file = tmp_path / "memory.svg"
        ended = soong("plan", "qwen3-32b", "--save", str(file), "--json")
        assert (ended.code, ended.json["schema"], ended.err) == (0, "soong.plan/1", "")
        assert file.read_text().startswith("<?xml")
        again = soong("plan", "qwen3-32b", "--save", str(file))
        assert (again.code, again.out) == (2, "")
        assert "hint: the same with `--force` writes over it" in again.err
        forced = soong("plan", "qwen3-32b", "--save", str(file), "--force")
        assert (forced.code, f"wrote {file}" in forced.err) == (0, True)

    def test_what_does_not_start_anywhere_is_drawn_too(self, soong: Soong, tmp_path: Path) -> None:
        file = tmp_path / "plan.svg"
        ended = soong("plan", "deepseek-r1", "--max-price", "2", "--save", str(file))
        assert ended.code == 5
        assert "nothing considered here runs it" in file.read_text()
        assert "note: price against speed is not drawn" in ended.err

    @pytest.mark.parametrize(
        "words",
        [
            ("--picture", "memory"),
            ("--force",),
            ("--save", "plan.gif"),
            ("--save", "no/such/plan.svg"),
        ],
    )
    def test_what_makes_no_sense(self, soong: Soong, words: tuple[str, ...]) -> None:
        ended = soong("plan", "qwen3-32b", *words)
        assert (ended.code, ended.out) == (2, "")
        assert "hint: " in ended.err

    def test_a_batch_has_no_pictures(self, soong: Soong) -> None:
        assert soong("plan", "--batch", "-", "--plot").code == 2

    def test_nothing_is_drawn_or_loaded_unasked(self, soong: Soong) -> None:
        import subprocess

        script = (
            "import sys; from soong.cli.app import call; call(['plan', 'qwen3-32b']);"
            "print([name for name in sys.modules if name.startswith(('matplotlib', 'plotille', 'soong.pictures'))],"
            " file=sys.stderr)"
        )
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert ended.stderr.strip() == "[]"
