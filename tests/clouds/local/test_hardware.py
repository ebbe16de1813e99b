"""What soong reads of a computer: nvidia-smi's own words (from its manual's CSV form), and the system's memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from soong.clouds.local import hardware

MIB = 1 << 20


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for nvidia-smi that prints the file which is returned."""
    says = tmp_path / "says"
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncase "$1" in --query-gpu=index,*) cat {says};; *) exit 6;; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return says


def test_a_known_card_is_the_row_of_the_table(driver: Path) -> None:
    driver.write_text("0, NVIDIA GeForce RTX 4090, 24564, 12, 8.9, [N/A]\n")
    (card,) = hardware.look().cards
    assert (card.number, card.gpu.id, card.problem) == (0, "rtx4090-24gb", "")


def test_a_card_with_other_memory_than_the_table_has_its_own(driver: Path) -> None:
    driver.write_text("0, NVIDIA GeForce RTX 4090, 49140, 12, 8.9, [N/A]\n")
    (card,) = hardware.look().cards
    assert card.gpu.memory_bytes == 49140 * MIB
    assert card.gpu.compute_capability == (8, 9)


def test_a_card_that_no_table_has_is_described_by_the_driver(driver: Path) -> None:
    driver.write_text("3, NVIDIA Quadro Zed 9000, 12288, 3, 7.5, [N/A]\n")
    (card,) = hardware.look().cards
    assert card.number == 3
    assert card.gpu.id == "nvidia-quadro-zed-9000"
    assert (card.gpu.memory_bytes, card.gpu.compute_capability) == (12288 * MIB, (7, 5))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0, NVIDIA GeForce RTX 4090, 24564, 9000, 8.9, [N/A]", "other programs use 8.8 of its 24.0 GiB"),
        ("0, NVIDIA A100-SXM4-80GB, 81920, 0, 8.0, Enabled", "divided"),
    ],
)
def test_a_card_that_cannot_be_used_says_why(driver: Path, line: str, words: str) -> None:
    driver.write_text(f"{line}\n")
    (card,) = hardware.look().cards
    assert words in card.problem


def test_without_a_driver_there_is_the_processor_and_its_free_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "_driver_says", lambda: "")
    found = hardware.look()
    assert found.cards == ()
    (cpu,) = found.gpus
    assert (cpu.id, cpu.vendor, cpu.compute_capability) == ("cpu", "cpu", None)
    assert 0 < cpu.memory_bytes == found.available_bytes <= found.memory_bytes
    if Path("/proc/meminfo").exists():
        total_kib = int(Path("/proc/meminfo").read_text().split()[1])
        assert found.memory_bytes <= total_kib * 1024


def test_nonsense_from_the_driver_is_no_card(driver: Path) -> None:
    driver.write_text("No devices were found\nx, y, 1, 2, 3, 4\n")
    assert hardware.look().cards == ()
