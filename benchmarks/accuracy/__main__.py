"""The bench: `python -m benchmarks.accuracy`, from the project's folder."""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from benchmarks.accuracy import peers, tables
from benchmarks.accuracy.cases import Models, logs, reasons
from benchmarks.accuracy.measuring import Results, measure_buffers, measure_classes, measure_logs

from benchmarks import weights

PAGE = Path(__file__).parents[2] / "docs" / "accuracy.md"
BEGIN, END = "<!-- bench: {} -->", "<!-- end -->"


def main() -> int:
    """Measure, print, and say whether the page is current."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        models = Models(Path(folder))
        if options.ask_peers:
            if not peers.installed():
                sys.exit("no other estimator is installed: pip install 'soong[peers]'")
            peers.keep(list(peers.ask(models, datetime.now(UTC).date().isoformat())))
        results = _measured(models, Path(folder), options.only)
    blocks = blocks_of(results)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(results), indent=1).decode())
    elif options.write or options.check:
        return _page(blocks, write=options.write)
    else:
        shown = tables.as_markdown if options.markdown else tables.as_text
        print("\n\n".join("\n\n".join(map(shown, block)) for block in blocks.values()))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--only", choices=("vllm", "sglang", "llama.cpp"), help="one engine; default all")
    parser.add_argument("--json", action="store_true", help="every comparison, for scripts")
    parser.add_argument("--markdown", action="store_true", help="the tables as the docs hold them")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/accuracy.md")
    parser.add_argument("--check", action="store_true", help="fail where docs/accuracy.md holds other tables")
    parser.add_argument("--ask-peers", action="store_true", help="ask the peers that are installed anew")
    return parser.parse_args()


def _measured(models: Models, folder: Path, only: str | None) -> Results:
    results = measure_logs(models, engine=only, peers=peers.by_case(peers.kept()))
    if only in {None, "vllm"}:
        classes = measure_classes(models)
        results.measures += classes.measures
        results.verdicts += classes.verdicts
        results.errors.update(classes.errors)
    if only in {None, "llama.cpp"}:
        results.measures += measure_buffers(folder).measures
    return results


def blocks_of(results: Results) -> dict[str, list[tables.Table]]:
    """The tables by the name of their place on the page."""
    why, sources = reasons(), {log.id: log.source for log in logs()}
    return {
        "summary": [tables.summary(results)],
        "groups": [
            tables.by_group(
                results, "By engine and tensor parallel", lambda one: f"{one.engine} TP {one.tensor_parallel}"
            ),
            tables.by_group(results, "By number format", lambda one: one.format),
            tables.by_group(results, "By GPU", lambda one: one.gpu),
            tables.by_group(results, "By model family", lambda one: one.family),
        ],
        "verdicts": [tables.verdicts(results), tables.wrong_verdicts(results, why)],
        "peers": list(tables.side_by_side(results)),
        "worst": [tables.worst(results, why, sources), tables.worst_of_each(results, why, sources)],
        "shapes": weights.tables(),
        "left out": [tables.left_out(results, {log.id: log.unscored for log in logs() if log.unscored})],
    }


def _page(blocks: dict[str, list[tables.Table]], *, write: bool) -> int:
    """Bring the page's tables up to date, or say that they are not."""
    before = PAGE.read_text("utf-8")
    after = before
    for name, block in blocks.items():
        begin = BEGIN.format(name)
        head, found, rest = after.partition(begin)
        if found:
            _, _, tail = rest.partition(END)
            after = "\n".join([head + begin, "", "\n\n".join(map(tables.as_markdown, block)), "", END + tail])
    if write:
        PAGE.write_text(after, "utf-8")
        return 0
    if after != before:
        print("docs/accuracy.md holds old tables: python -m benchmarks.accuracy --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
