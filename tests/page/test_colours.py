"""The colours of the page, computed: identities are told apart by everybody, text can be read."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from tests.page.stage import PAGE

MIN_DISTANCE = 14.0
"""Of two hues in CIELAB, for every kind of sight; 2.3 is just noticeable side by side."""
MIN_TEXT, MIN_DRAWN = 4.5, 3.0
"""Contrast ratios of WCAG 2.2, 1.4.3 and 1.4.11."""

# "A physiologically-based model for simulation of color vision deficiency", Machado, Oliveira and
# Fernandes 2009: table of the full deficiency, on linear RGB
SIGHTS = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]]
    ),
}  # fmt: skip
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])
LIGHT, DARK = (PAGE / "style.css").read_text().split("prefers-color-scheme: dark")


def colours(text):
    """Name -> linear RGB, of the first definition of each."""
    found = {}
    for name, code in re.findall(r"--([a-z0-9-]+): #([0-9a-f]{6})", text):
        srgb = np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        found.setdefault(name, linear)
    return found


def lab(linear):
    ratio = (XYZ @ linear) / WHITE
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(a, b):
    low, high = sorted(float(XYZ[1] @ one) for one in (a, b))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("text", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHTS)
def test_hues_are_told_apart_with_every_kind_of_sight(text, sight):
    hues = [rgb for name, rgb in colours(text).items() if name.startswith("hue-")]
    seen = [lab(np.clip(SIGHTS[sight] @ rgb, 0, 1)) for rgb in hues]
    assert len(seen) == 8
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > MIN_DISTANCE


@pytest.mark.parametrize("text", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_drawings_stand_out(text):
    found = colours(text)
    for ground in ("ground", "panel", "raised"):
        for name in ("ink", "muted", "accent", "good", "bad", "warn"):
            assert contrast(found[name], found[ground]) >= MIN_TEXT, (name, ground)
    for n in range(8):
        for ground in ("ground", "panel"):
            assert contrast(found[f"hue-{n}"], found[ground]) >= MIN_DRAWN, (n, ground)
