"""Draw docs/plan.svg, the README's picture, from a real screen. Rerun: make picture."""

from __future__ import annotations

import re
import subprocess
import sys
from html import escape
from pathlib import Path

COMMAND = ["plan", "qwen3-32b", "--context", "32k", "--max-price", "4.50"]
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


def screen() -> list[str]:
    """The lines that the command shows, in colour, without the long list of GPUs that nobody rents out here."""
    soong = Path(sys.executable).parent / "soong"
    shown = subprocess.run(  # noqa: S603 - our own program
        [str(soong), *COMMAND, "--color", "always"], capture_output=True, text=True, check=True
    ).stdout
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


def main() -> None:
    """Write the picture."""
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
    Path(__file__).with_name("plan.svg").write_text("\n".join([head, *body, "</svg>\n"]))


if __name__ == "__main__":
    main()
