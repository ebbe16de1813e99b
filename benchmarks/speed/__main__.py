"""The bench: `python -m benchmarks.speed`, from the project's folder."""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.speed import fitting, tables, writing
from benchmarks.speed.cases import PUBLISHED, cases
from benchmarks.speed.measuring import results_of

from soong.speed.efficiency import Efficiencies

if TYPE_CHECKING:
    from benchmarks.speed.cases import Case, LeftOut

PAGE = Path(__file__).parents[2] / "docs" / "throughput.md"
BEGIN, END = "<!-- bench: {} -->", "<!-- end -->"


def main() -> int:
    """Fit, compare, print; say whether the page is current."""
    options = _options()
    found, left = cases()
    priors = fitting.read_priors()
    fitted = fitting.fit(found, priors)
    if options.fit:
        writing.write(writing.finished(fitted, priors, found))
    known = results_of(found, Efficiencies(fitting.with_factors(priors, fitted.found, fitted.values)))
    unseen = writing.unseen(fitted, priors, found)
    if options.rows:
        print(tables.as_text(tables.every(known if options.known else unseen)))
        return 0
    compared = tables.Compared(
        unseen=unseen,
        steady=writing.unseen(fitted, priors, found, steady=True),
        gpu=writing.unseen(fitted, priors, found, together=writing.by_gpu),
        source=writing.unseen(fitted, priors, found, together=writing.by_source),
        before=results_of(found, Efficiencies(priors)),
        known=known,
    )
    blocks = blocks_of(compared, found, left)
    if options.write or options.check:
        return _page(blocks, write=options.write)
    print("\n\n".join("\n\n".join(map(tables.as_text, block)) for block in blocks.values()))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument(
        "--fit", action="store_true", help="write what was fitted to src/soong/data/speed.toml"
    )
    parser.add_argument("--rows", action="store_true", help="every run, of models left out of the fit")
    parser.add_argument("--known", action="store_true", help="with --rows: as the fit knows them")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/throughput.md")
    parser.add_argument(
        "--check", action="store_true", help="fail where docs/throughput.md holds other tables"
    )
    return parser.parse_args()


def blocks_of(
    compared: tables.Compared, found: list[Case], left: list[LeftOut]
) -> dict[str, list[tables.Table]]:
    """The tables by the name of their place on the page."""
    unseen = compared.unseen
    reasons = tomllib.loads((PUBLISHED / "why.toml").read_text())
    return {
        "summary": [
            tables.summary(compared),
            tables.order(compared.known, unseen),
            tables.first_tokens(found),
        ],
        "groups": [
            tables.by(
                "By where the runs were published, models left out of the fit",
                unseen,
                lambda result: f"{result.case.run.collection}, {result.case.run.engine}",
            ),
            tables.by("By model", unseen, lambda result: result.case.run.family),
            tables.by("By GPU", unseen, lambda result: result.case.run.gpu),
        ],
        "worst": [tables.worst(unseen, reasons)],
        "left out": [tables.left_out(left)],
    }


def _page(blocks: dict[str, list[tables.Table]], *, write: bool) -> int:
    page = PAGE.read_text()
    new = page
    for name, found in blocks.items():
        begin = BEGIN.format(name)
        before, _, rest = new.partition(begin)
        _, _, after = rest.partition(END)
        text = "\n\n".join(map(tables.as_markdown, found))
        new = f"{before}{begin}\n\n{text}\n\n{END}{after}"
    if write:
        PAGE.write_text(new)
        return 0
    if new != page:
        print(f"{PAGE} is stale: python -m benchmarks.speed --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
