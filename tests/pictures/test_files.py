"""Files for a slide: every word in them, none over another, nothing loaded from elsewhere, the same each time."""

from __future__ import annotations

import re
import sys
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from soong.errors import SoongError, UsageError
from soong.pictures import figures, saving
from soong.pictures.figure_memory import PARTS, draw_memory
from soong.pictures.figure_speed import draw_speed
from soong.pictures.memory_curves import memory_view
from soong.pictures.palette import DARK, LIGHT, Palette
from soong.pictures.price_dots import speed_view
from tests.pictures.conftest import a_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.figure import Figure

    from soong.plan.plan import Plan

SVG = "{http://www.w3.org/2000/svg}"


def saved(plan: Plan, path: Path, **more: Any) -> str:
    options = {"kind": None, "force": False, "drawn_on": "2026-11-23", "version": "9.9.9", **more}
    saving.save(plan, str(path), **options)
    return path.read_bytes().decode("utf-8", "replace")


def words_of(svg: str) -> str:
    return " ".join("".join(text.itertext()) for text in ET.fromstring(svg).iter(f"{SVG}text"))


def test_an_svg_has_every_word_as_a_word(tmp_path: Path) -> None:
    svg = saved(a_plan("qwen3-32b", context=32768), tmp_path / "plan.svg")
    words = words_of(svg)
    for word in (
        "qwen3-32b: 1× RTX A6000 for $1.09/hour",
        "32,768 tokens of context",
        "sglang 0.",
        "2026-11-23",
        "Prices: lambda, 2026-",
        "9.9.9",
        "GiB on each GPU",
        "tokens of context",
        "weights",
        "KV cache",
        "the GPU's memory",
        "$ per hour",
        "output tokens per second",
        "per M tokens",
        "recommended",
        "fits to ",
    ):
        assert word in words, word
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert [child.tag for child in root][:2] == [f"{SVG}title", f"{SVG}desc"]


def test_the_files_name_says_which_picture(tmp_path: Path) -> None:
    plan = a_plan(gpu="gpu_1x_a10")
    assert "$ per hour" not in words_of(saved(plan, tmp_path / "memory.svg"))
    assert "GiB on each GPU" not in words_of(saved(plan, tmp_path / "speed.svg"))
    assert "GiB on each GPU" not in words_of(saved(plan, tmp_path / "any.svg", kind="speed"))
    both = words_of(saved(plan, tmp_path / "memory-and-speed.svg"))
    assert ("$ per hour" in both, "GiB on each GPU" in both) == (True, True)


def test_colours_are_the_palettes_alone(tmp_path: Path) -> None:
    svg = saved(a_plan("llama-3.1-8b", context=32768, sequences=4), tmp_path / "plan.svg")
    assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) - {"#000000"} <= set(LIGHT)


def test_a_dot_tells_of_itself(tmp_path: Path) -> None:
    root = ET.fromstring(saved(a_plan("qwen3-32b"), tmp_path / "speed.svg"))
    tips = [title.text or "" for title in root.iter(f"{SVG}title")]
    assert len(tips) == 1 + len(speed_view(a_plan("qwen3-32b")).dots)
    assert any(re.fullmatch(r"1× B200: \$\d+\.\d\d/hour, .* per million output tokens", tip) for tip in tips)


def test_a_page_needs_nobody_else(tmp_path: Path) -> None:
    html = saved(a_plan("qwen3-32b"), tmp_path / "plan.html")
    addresses = set(re.findall(r"(?:https?:)?//[^\s\"'<>)]+", html))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, "names, not places"
    assert "<script" not in html
    assert "@import" not in html
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", html)) | set(re.findall(r'href="#([^"]+)"', html))
    assert used <= set(ids)


def test_a_page_is_light_and_dark(tmp_path: Path) -> None:
    html = saved(a_plan("qwen3-32b"), tmp_path / "plan.html")
    style, drawings = html.split("</style>", 1)
    for palette in (LIGHT, DARK):
        for name, colour in palette._asdict().items():
            assert f"--{name}: {colour};" in style
    assert "prefers-color-scheme: dark" in style
    assert not set(LIGHT) & set(re.findall(r"#[0-9a-f]{6}", drawings)), "all drawn colours are variables"
    assert set(re.findall(r"var\(--(\w+)\)", html)) <= set(LIGHT._fields)


def test_a_page_has_the_figures_as_tables(tmp_path: Path) -> None:
    plan = a_plan("qwen3-32b", context=32768)
    html = saved(plan, tmp_path / "plan.html")
    rows = re.findall(r"<tr( class=chosen)?><td>(.*?)</td>", html)
    dots = speed_view(plan).dots
    assert len(rows) == len(dots) + len(memory_view(plan, most=6).curves)
    assert [name for chosen, name in rows if chosen] == ["1× RTX A6000"] * 2
    assert plan.chosen is not None
    assert plan.chosen.footprint is not None
    assert f"<td>{plan.chosen.footprint.need_bytes / 2**30:.1f} GiB</td>" in html


def test_a_name_cannot_break_the_page(tmp_path: Path) -> None:
    import msgspec

    plan = a_plan("qwen3-32b", gpu="gpu_1x_a6000")
    evil = msgspec.structs.replace(plan, model=msgspec.structs.replace(plan.model, id="a<script>&\"'b"))
    html = saved(evil, tmp_path / "plan.html")
    assert "<script" not in html
    ET.fromstring(saved(evil, tmp_path / "plan.svg"))


@pytest.mark.parametrize(
    ("suffix", "magic"),
    [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml"), (".html", b"<!doctype html>")],
)
def test_the_same_plan_is_the_same_file(tmp_path: Path, suffix: str, magic: bytes) -> None:
    for name in ("one", "two"):
        saved(a_plan("qwen3-32b", gpu="gpu_1x_a6000"), tmp_path / f"{name}{suffix}")
    one, two = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("one", "two"))
    assert one.startswith(magic)
    assert one == two


def drawn(draw: Callable[[Figure, figures.Area], None], area: figures.Area = figures.WHOLE) -> Figure:
    """The figure before it becomes a file, so that its words can be measured."""
    kept: list[Figure] = []

    def keep(figure: Figure, whole: figures.Area) -> None:
        draw(figure, area)
        kept.append(figure)

    from soong.pictures.subject import Caption

    figures.drawn(Caption(title="t", workload="w", footer=("f",)), keep, form="svg")
    return kept[0]


PLANS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("llama-3.1-8b", {}),
    ("llama-3.1-8b", {"cloud": "all"}),
    ("qwen3-32b", {"context": 32768}),
    ("llama-3.1-70b", {"gpu_count": 8}),
    ("llama-3.1-8b", {"gpu": "gpu_1x_a10"}),
)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "options"), PLANS)
@pytest.mark.parametrize("half", [False, True])
def test_no_name_covers_another_or_a_dot(model: str, options: dict[str, Any], half: bool) -> None:
    view = speed_view(a_plan(model, **options))
    area = figures.halves(figures.WHOLE)[1] if half else figures.WHOLE
    figure = drawn(lambda made, place: draw_speed(made, place, view), area)
    (axes,) = figure.axes
    window = axes.get_window_extent()
    names = [text for text in axes.texts if "×" in text.get_text()]
    boxes = [text.get_window_extent() for text in names]
    for (one, a), (other, b) in combinations(zip(names, boxes, strict=True), 2):
        assert not a.overlaps(b), (one.get_text(), other.get_text())
    for dot in view.dots:
        x, y = axes.transData.transform((dot.usd_per_hour, dot.tokens_per_second))
        for text, box in zip(names, boxes, strict=True):
            assert not box.contains(x, y), (dot.name, text.get_text())
    for box in boxes:
        assert window.x0 <= box.x0 <= box.x1 <= window.x1
        assert window.y0 <= box.y0 <= box.y1 <= window.y1
    bold = [text.get_text().split("\n")[0] for text in names if text.get_fontweight() == "bold"]
    assert bold == [dot.name for dot in view.dots if dot.chosen]
    named = {text.get_text().split("\n")[0] for text in names}
    missing = [dot.name for dot in view.front if dot.name not in named]
    assert half or len(missing) <= len(view.front) // 4, missing


@pytest.mark.slow
@pytest.mark.parametrize(("model", "options"), [*PLANS, ("deepseek-r1", {})])
@pytest.mark.parametrize("most", [4, 6])
def test_panels_keep_to_themselves(model: str, options: dict[str, Any], most: int) -> None:
    view = memory_view(a_plan(model, **options), most=most)
    area = figures.halves(figures.WHOLE)[0] if most == 4 else figures.WHOLE
    figure = drawn(lambda made, place: draw_memory(made, place, view), area)
    assert len(figure.axes) == len(view.curves)
    words = [(axes, text) for axes in figure.axes for text in axes.texts]
    boxes = [text.get_window_extent() for _, text in words]
    for (a, (_, one)), (b, (_, other)) in combinations(zip(boxes, words, strict=True), 2):
        assert not a.overlaps(b), (one.get_text(), other.get_text())
    legend = figure.legends[0].get_window_extent()
    assert not any(box.overlaps(legend) for box in boxes)
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)


WHOLE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("qwen3-32b", {"target": "40", "cloud": "all"}),
    ("qwen3-32b", {"cloud": "all"}),
    ("kimi-k2", {}),
    ("llama-3.1-8b", {"cloud": "all", "rank": "time", "job_tokens": "1B"}),
    ("qwen3-32b", {"context": 32768, "gpu": "gpu_1x_a6000"}),
    ("qwen3-32b", {"context": 131072}),
    ("llama-3.1-8b", {"engine": "llama.cpp", "context": 16384}),
    ("llama-3.1-8b", {"sequences": 64, "input_tokens": 4000, "output_tokens": 300}),
    (
        "gpt-oss-120b",
        {
            "cloud": "all",
            "rank": "cost-per-token",
            "sequences": 64,
            "target": "50",
            "engine": "vllm",
            "context": 131072,
        },
    ),
    ("deepseek-r1", {"max_price": 2}),
)
"""What people ask for, and what was once cut, covered or without a scale."""


@pytest.fixture
def figure_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Figure]:
    """The figure that is written into a file, to be measured."""
    from matplotlib.figure import Figure

    kept: list[Figure] = []
    write = Figure.savefig

    def keep(figure: Figure, *words: Any, **options: Any) -> None:
        write(figure, *words, **options)
        kept.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)

    def figure(model: str, options: dict[str, Any], kind: str) -> Figure:
        saved(a_plan(model, **options), tmp_path / f"{len(kept)}.svg", kind=kind)
        return kept[-1]

    return figure


def all_words(figure: Figure) -> list[Any]:
    from matplotlib.text import Text

    unseen = {
        id(tick.label1)
        for axes in figure.axes
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
        for tick in axis.get_major_ticks()
        if not low <= tick.get_loc() <= high
    }
    every = [one for one in figure.findobj(Text) if one.get_visible() and one.get_text().strip()]
    return [one for one in every if id(one) not in unseen]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "options"), WHOLE)
@pytest.mark.parametrize("kind", ["both", "memory", "speed"])
def test_every_word_is_on_the_page_and_none_on_another(
    figure_of: Callable[..., Figure], model: str, options: dict[str, Any], kind: str
) -> None:
    if kind == "speed" and not any(one.throughput for one in a_plan(model, **options).candidates):
        pytest.skip("no speed is known")
    figure = figure_of(model, options, kind)
    words = [(one, one.get_window_extent()) for one in all_words(figure)]
    assert len(words) > 15
    for one, box in words:
        assert figure.bbox.x0 <= box.x0, one.get_text()
        assert box.x1 <= figure.bbox.x1, one.get_text()
        assert figure.bbox.y0 <= box.y0, one.get_text()
        assert box.y1 <= figure.bbox.y1, one.get_text()
        assert "…" not in one.get_text()
    for (one, a), (other, b) in combinations(words, 2):
        assert not a.padded(-1).overlaps(b.padded(-1)), (one.get_text(), other.get_text())


@pytest.mark.slow
@pytest.mark.parametrize(("model", "options"), WHOLE)
def test_what_the_picture_must_show(
    figure_of: Callable[..., Figure], model: str, options: dict[str, Any]
) -> None:
    plan = a_plan(model, **options)
    figure = figure_of(model, options, "both")
    memory = memory_view(plan, most=6)
    for axes in figure.axes:
        if axes.get_yscale() == "log":
            for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
                ticks = [tick for tick in axis.get_ticklocs() if low <= tick <= high]
                assert len(ticks) >= 3, ticks
                assert all(label.get_text() for label in axis.get_ticklabels())
            continue
        (dot,) = [line for line in axes.lines if line.get_marker() == "o"]
        (context, need), *_ = np.asarray(dot.get_xydata())
        assert context == memory.context_tokens
        assert axes.get_ylim()[0] <= need <= axes.get_ylim()[1]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "options"), [*WHOLE, *PLANS])
@pytest.mark.parametrize("half", [False, True])
def test_what_is_shown_has_its_name(model: str, options: dict[str, Any], half: bool) -> None:
    plan = a_plan(model, **options)
    if not any(one.throughput for one in plan.candidates):
        pytest.skip("no speed is known")
    view = speed_view(plan)
    area = figures.halves(figures.WHOLE)[1] if half else figures.WHOLE
    (axes,) = drawn(lambda made, place: draw_speed(made, place, view), area).axes
    names = [text for text in axes.texts if "×" in text.get_text()]
    bold = [text.get_text().split("\n")[0] for text in names if text.get_fontweight() == "bold"]
    assert bold == [dot.name for dot in view.dots if dot.shown]
    assert len(bold) == 1
    named = {text.get_text().split("\n")[0] for text in names}
    wanted = {dot.name for dot in view.to_name}
    assert len(named & wanted) >= 0.6 * len(wanted), wanted - named
    boxes = [(text, text.get_window_extent()) for text in names]
    for before, after in pairwise(view.front):
        steps = [
            (before.usd_per_hour, before.tokens_per_second),
            (after.usd_per_hour, before.tokens_per_second),
            (after.usd_per_hour, after.tokens_per_second),
        ]
        for one, other in pairwise(axes.transData.transform(steps)):
            for text, box in boxes:
                missed = (
                    max(one[0], other[0]) <= box.x0 or min(one[0], other[0]) >= box.x1
                    or max(one[1], other[1]) <= box.y0 or min(one[1], other[1]) >= box.y1
                )  # fmt: skip
                assert missed, f"the front strikes through {text.get_text()}"


def test_a_crowd_is_small_and_grey() -> None:
    few, many = (
        max(_sizes_of_beaten(speed_view(a_plan("qwen3-32b", **options))))
        for options in ({}, {"cloud": "all"})
    )
    assert many < few < 8


def _sizes_of_beaten(view: Any) -> list[float]:
    (axes,) = drawn(lambda made, place: draw_speed(made, place, view)).axes
    colour = LIGHT.beaten
    return [line.get_markersize() for line in axes.lines if line.get_markeredgecolor() == colour]


def test_the_figures_are_those_of_the_plans_table(tmp_path: Path) -> None:
    from soong.cli.views.candidates import dollars, rate

    plan = a_plan("qwen3-32b", context=32768)
    html = saved(plan, tmp_path / "speed.html")
    svg = saved(plan, tmp_path / "speed.svg")
    checked = 0
    for candidate in plan.candidates:
        speed, cost = candidate.throughput, candidate.usd_per_million_output_tokens
        if candidate.starts and speed is not None and cost is not None:
            each = rate(speed.decode_tokens_per_second_per_user)
            assert f"<td>{each}</td><td>{speed.load.sequences}</td>" in html
            assert f"<td>${dollars(cost)}</td>" in html
            assert re.search(
                rf"/hour, {re.escape(each)} tokens/s for each of .*\${re.escape(dollars(cost))} per", svg
            )
            checked += 1
    assert checked > 5


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_parts_that_touch_differ_in_lightness(palette: Palette) -> None:
    from_light = {colour: name for name, colour in LIGHT._asdict().items()}
    parts = [getattr(palette, from_light[colour]) for _, _, colour in PARTS]
    for below, above in pairwise(parts):
        assert contrast(below, above) >= 1.4
    assert contrast(palette.ink, palette.paper) >= 7, "WCAG 2 AAA for text"
    assert contrast(palette.faint, palette.paper) >= 4.5, "WCAG 2 AA for text"
    assert len(set(palette)) == len(palette), "a page tells them apart by their values"


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_nothing_is_overwritten_by_accident(tmp_path: Path) -> None:
    file = tmp_path / "memory.svg"
    file.write_text("mine")
    with pytest.raises(UsageError, match="is there already") as refused:
        saved(a_plan(), file)
    assert refused.value.hints == ("the same with `--force` writes over it",)
    assert file.read_text() == "mine"
    assert saved(a_plan(), file, force=True).startswith("<?xml")
    assert [one.name for one in tmp_path.iterdir()] == ["memory.svg"], "no draft is left"


def test_a_drawing_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "memory.svg"
    file.write_text("mine")

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(SoongError, match="No space left"):
        saved(a_plan(), file, force=True)
    assert file.read_text() == "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["memory.svg"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("plan.gif", "its name ends in `.gif`"),
        ("plan", "its name ends in no suffix"),
        ("no/plan.svg", "there is no folder"),
        ("folder.svg", "is a folder"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(UsageError) as refused:
        saving.check_file(str(tmp_path / name), force=False)
    assert said in str(refused.value)
    assert refused.value.hints


def test_without_the_library_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match="not installed") as refused:
        saved(a_plan(), tmp_path / "plan.svg")
    assert refused.value.hints[0] == "pip install 'soong[plots]'"
    assert list(tmp_path.iterdir()) == []
