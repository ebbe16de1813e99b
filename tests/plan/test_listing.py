"""The packaged list is what planning every model now would give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from soong import tables
from soong.plan.listing import compile_listing, list_models

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_the_packaged_list_is_current() -> None:
    with open(tables.compiled_path("listing"), "rb") as file:  # noqa: PTH123 - as the tables do
        assert file.read() == compile_listing(), "run `make tables`"


def test_a_price_of_the_users_own_changes_the_list(sealed: Path) -> None:
    config = sealed / "config"
    config.mkdir(parents=True)
    (config / "prices.toml").write_text(
        '[[price]]\ncloud = "mine"\ninstance_type = "one.h200"\ngpu = "h200-141gb-sxm5"\ngpu_count = 1\n'
        'usd_per_hour = 0.01\nas_of = "2026-11-01"\nsource = "my contract"\n'
    )
    row = next(row for row in list_models() if row.id == "llama-3.1-8b")
    assert row.instance_type == "one.h200"
    assert row.usd_per_hour == pytest.approx(0.01)


def test_fits_keeps_what_one_card_holds() -> None:
    rows = list_models(most_bytes=24_000_000_000)
    assert rows
    assert all(row.vram_bytes * 1.1 <= 24e9 for row in rows)
    assert len(rows) < len(list_models())
