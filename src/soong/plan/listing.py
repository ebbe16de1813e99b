"""The list that `soong models` shows.

A plan for each of more than a hundred models takes longer than a list may, and for the packaged tables the answer is
always the same: it is packaged too, `data/compiled/listing.json`, and a test proves it current. Models of the user's
own are planned when asked; with prices or GPUs of the user's own, all are. `python -m soong.plan.listing` writes it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import msgspec

from soong import tables
from soong.gpus.gpu import Gpu
from soong.memory.rule_of_thumb import HEADROOM_FACTOR
from soong.models.catalogue import all_models, for_task
from soong.models.catalogue import search as search_models
from soong.models.model import Model
from soong.offers.offer import Offer
from soong.settings import paths

if TYPE_CHECKING:
    from collections.abc import Iterable

SUBJECT = "listing"


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `soong models`.

    vram_bytes: what one sequence of the default context needs in all, on the recommended machine's GPUs together.
    basis: how the weights are known: headers, config, or rule-of-thumb.
    min_gpu: the recommended machine in words; None when nothing for rent holds the model.
    """

    id: str
    name: str
    parameters: int
    quantization: str
    context_tokens: int
    vram_bytes: int
    basis: str
    min_gpu: str | None
    instance_type: str | None
    usd_per_hour: float | None
    price_as_of: str | None
    custom: bool


def list_models(
    *, task: str | None = None, search: str | None = None, most_bytes: int | None = None
) -> tuple[ListedModel, ...]:
    """The catalogue, smallest need first.

    Args:
        task: only models good for it. search: only models whose text has it.
        most_bytes: only models that one GPU of this size holds with the headroom.

    Raises:
        NotFoundError: no such task. ConfigError: a table of the user's cannot be read.
    """
    rows: Iterable[ListedModel] = _all_rows()
    if search or task:
        models = search_models(search) if search else all_models()
        wanted = {model.id for model in (for_task(task, models) if task else models)}
        rows = [row for row in rows if row.id in wanted]
    if most_bytes is not None:
        rows = [row for row in rows if row.vram_bytes * HEADROOM_FACTOR <= most_bytes]
    return tuple(sorted(rows, key=lambda row: (row.vram_bytes, row.id)))


def _all_rows() -> tuple[ListedModel, ...]:
    own_machines = bool(tables.user_rows("gpus", Gpu)) or bool(tables.user_rows("prices", Offer))
    if own_machines or _prices_differ():
        return planned_rows(all_models())
    packaged: tuple[ListedModel, ...] = tables.packaged_document(SUBJECT, tuple[ListedModel, ...])
    if not tables.user_rows("models", Model):
        return packaged
    own = planned_rows(model for model in all_models() if model.custom)
    replaced = {row.id for row in own}
    return (*(row for row in packaged if row.id not in replaced), *own)


def _prices_differ() -> bool:
    """Whether plans count other prices than the packaged ones: fetched ones, or those of other clouds."""
    places = (paths.cache_file("prices"), paths.config_file("config.toml"))
    if not os.environ.get("SOONG_PRICES_CLOUDS") and not any(map(os.path.exists, places)):
        return False  # the usual case, without the import of what knows of prices
    from soong.offers.sources import only_packaged

    return not only_packaged()


def planned_rows(models: Iterable[Model]) -> tuple[ListedModel, ...]:
    """The rows of these models, each planned now."""
    from soong.plan.describing import listed

    return tuple(listed(model) for model in models)


def compile_listing() -> bytes:
    """The list of the packaged tables, as the packaged file holds it."""
    rows = planned_rows(tables.packaged("models", Model))
    return b"[\n" + b",\n".join(msgspec.json.encode(row) for row in rows) + b"\n]\n"


def main(words: list[str]) -> int:
    """Write the packaged list, or with `--check` only say whether it is current."""
    path = tables.compiled_path(SUBJECT)
    fresh = compile_listing()
    if "--check" in words:
        with open(path, "rb") as file:  # noqa: PTH123 - a sibling of the tables, which avoid pathlib
            current = file.read() == fresh
        sys.stdout.write("listing: current\n" if current else "listing: stale; run `make tables`\n")
        return 0 if current else 1
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(fresh)
    sys.stdout.write("compiled: listing\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
