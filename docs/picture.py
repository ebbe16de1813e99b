"""Draw the pictures of README and docs from real commands. Rerun: make picture; `--check` tells whether they are old.

plan.svg is a screen, pictures.svg what `soong plan --save` writes. Both are of the packaged tables and prices alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

COMMAND = ["plan", "qwen3-32b", "--max-price", "4.50"]
SAVED = ["plan", "qwen3-32b", "--cloud", "all"]
CELL_WIDTH, LINE_HEIGHT, MARGIN = 8.4, 19, 18
COLOURS = {
    "31": "#e06c75",
    "32": "#98c379",
    "33": "#e5c07b",
    "34": "#61afef",
    "35": "#c678dd",
    "36": "#56b6c2",
    "2": "#7f848e",
}
STYLED = re.compile(r"\x1b\[([0-9;]*)m")


def told(words: list[str]) -> str:
    """What a command says to somebody without settings, fetched prices or a narrow terminal."""
    soong = Path(sys.executable).parent / "soong"
    with TemporaryDirectory() as home:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        environment = kept | {"HOME": home, "COLUMNS": "120"}
        return subprocess.run(  # noqa: S603 - our own program
            [str(soong), *words], capture_output=True, text=True, check=True, env=environment
        ).stdout


def screen() -> list[str]:
    """The lines that the command shows, in colour, without the long list of GPUs that nobody rents out here."""
    shown = told([*COMMAND, "--color", "always"])
    lines = [line for line in shown.splitlines() if "Left out" not in line]
    return [f"\x1b[1m$ soong {' '.join(COMMAND)}\x1b[0m", "", *lines]


def runs(line: str) -> list[tuple[int, str, str]]:
    """The pieces of a line that share a style: column, style code, text."""
    pieces, column, code, at = [], 0, "", 0
    for found in [*STYLED.finditer(line), None]:
        text = line[at : found.start() if found else None]
        if text:
            pieces.append((column, code, text))
            column += len(text)
        if found:
            code, at = found.group(1), found.end()
    return pieces


def drawn(column: int, row: int, code: str, text: str) -> str:
    """One piece, held to the grid by its own place and length."""
    x, y = MARGIN + column * CELL_WIDTH, MARGIN + 14 + row * LINE_HEIGHT
    weight = ' font-weight="bold"' if code == "1" else ""
    fill = COLOURS.get(code, "#dcdfe4")
    length = len(text) * CELL_WIDTH
    return (
        f'<text x="{x:.1f}" y="{y}" textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs" '
        f'xml:space="preserve" fill="{fill}"{weight}>{escape(text)}</text>'
    )


def plan_picture() -> str:
    """The README's picture."""
    lines = screen()
    width = 2 * MARGIN + CELL_WIDTH * max(len(STYLED.sub("", line)) for line in lines)
    height = 2 * MARGIN + LINE_HEIGHT * len(lines)
    body = [
        drawn(column, row, code, text)
        for row, line in enumerate(lines)
        for column, code, text in runs(line)
        if text.strip()
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="14">\n'
        '<title>A screen of soong plan</title>\n<rect width="100%" height="100%" rx="8" fill="#21252b"/>'
    )
    return "\n".join([head, *body, "</svg>\n"])


def saved_picture() -> str:
    """The picture of docs/pictures.md."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "pictures.svg"
        told([*SAVED, "--save", str(file)])
        return file.read_text()


def words(svg: str) -> str:
    """What a picture says, but for the days that pass by themselves."""
    said = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    return re.sub(r"\d+ days? old|· \d{4}-\d\d-\d\d(?!.*· \d{4}-\d\d-\d\d)", "", said)


def main() -> int:
    """Write the pictures, or say which are out of date."""
    old = []
    for name, draw in (("plan.svg", plan_picture), ("pictures.svg", saved_picture)):
        file, new = Path(__file__).with_name(name), draw()
        if "--check" not in sys.argv:
            file.write_text(new)
        elif not file.exists() or words(file.read_text()) != words(new):
            old.append(name)
    if old:
        print(f"docs/{', docs/'.join(old)} out of date: make picture", file=sys.stderr)  # noqa: T201 - a script
    return bool(old)


if __name__ == "__main__":
    raise SystemExit(main())
