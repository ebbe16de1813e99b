"""Colours: told apart by everybody, on a light page and on a dark one.

The hues are Okabe and Ito's, made for colour-blind readers (Color Universal Design, 2008). Parts that touch differ in
lightness too, by 1.4 or more, so that a grey print keeps them apart; no colour says what words do not say.
"""

from __future__ import annotations

from typing import NamedTuple


class Palette(NamedTuple):
    """The colours of a picture, as hexadecimal words. Each field's name becomes a CSS variable in an HTML page."""

    paper: str
    ink: str
    faint: str
    grid: str
    weights: str
    kv: str
    activations: str
    runtime: str
    limit: str
    front: str
    beaten: str


LIGHT = Palette(
    paper="#ffffff",
    ink="#1b1f24",
    faint="#5b6470",
    grid="#e3e6ea",
    weights="#0072b2",
    kv="#56b4e9",
    activations="#c47a00",
    runtime="#9aa3ad",
    limit="#c44601",
    front="#0173b3",
    beaten="#a9b1ba",
)
"""Each value occurs once: a page finds them again to put its variables in their place."""

DARK = Palette(
    paper="#14181d",
    ink="#eef1f4",
    faint="#a3adb8",
    grid="#2c333b",
    weights="#2b78b5",
    kv="#8fd3f7",
    activations="#d59a1c",
    runtime="#8d97a2",
    limit="#ff8a4c",
    front="#5cb3ec",
    beaten="#69737e",
)
