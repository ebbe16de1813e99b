"""Files for a slide: every word in them, none over another, nothing loaded from elsewhere, the same each time."""

from __future__ import annotations

import re
import sys
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from soong.errors import SoongError, UsageError
from soong.pictures import figures, saving
from soong.pictures.figure_memory import PARTS, draw_memory
from soong.pictures.figure_speed import draw_speed, one_two_five
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
    assert "<td>42.3 GiB</td>" in html


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


def test_round_figures_of_an_axis() -> None:
    assert one_two_five(0.8, 30) == [1, 2, 5, 10, 20]
    assert one_two_five(0.8, 3000) == [1, 10, 100, 1000]


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
