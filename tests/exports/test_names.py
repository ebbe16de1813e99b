"""The table of other tools' names: complete, and about GPUs, engines and clouds that there are."""

from __future__ import annotations

import pytest

from soong.errors import UsageError
from soong.exports import names
from soong.gpus.catalogue import all_gpus, find_gpu
from soong.memory import engines
from soong.offers.snapshot import packaged_offers


def test_every_row_is_about_a_gpu_that_there_is() -> None:
    rows = [row.id for row in names.table().gpu]
    assert len(rows) == len(set(rows))
    assert set(rows) <= {gpu.id for gpu in all_gpus()}


def test_every_gpu_that_soong_rents_is_known_to_every_tool() -> None:
    for gpu in {offer.gpu for offer in packaged_offers() if offer.launchable}:
        row = names.names_of(find_gpu(gpu))
        assert row.skypilot, gpu
        assert row.dstack is not None, gpu
        assert row.kubernetes, gpu


def test_a_label_is_the_drivers_product_name_with_dashes() -> None:
    for row in names.table().gpu:
        for label in row.kubernetes:
            assert label.startswith(("NVIDIA-", "Tesla-", "Quadro-"))
            assert " " not in label


def test_dstacks_memory_is_that_of_the_gpus_label() -> None:
    """Within the tenth by which vendors round; a slip of one row would be a half or a double."""
    for row in names.table().gpu:
        if row.dstack is not None:
            label_gb = find_gpu(row.id).label_gb
            assert abs(row.dstack.memory_gb - label_gb) <= label_gb / 10, row.id


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_the_image_has_the_planned_version_of_each_engine(engine: str) -> None:
    version = engines.default_version(engine)
    for gpu in ("h100-80gb-sxm5", "gh200-96gb"):
        image = names.image_of(engine, version, find_gpu(gpu), model="m")
        assert image.image.endswith(version)
        assert image.source


def test_an_image_that_is_not_known_is_not_made_up() -> None:
    with pytest.raises(UsageError, match="is known"):
        names.image_of("vllm", "0.1.0", find_gpu("h100-80gb-sxm5"), model="m")
