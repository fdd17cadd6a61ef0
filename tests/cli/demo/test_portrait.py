"""Clusters in words: what sets them apart, and members that are not all called alike."""

from __future__ import annotations

import numpy as np

from pipeline.cli.demo.portrait import portraits

SUMMARIES = [
    "Python module for fonts",
    "Python module for maps",
    "Python modules for numbers",
    "TrueType fonts of all sizes",
    "Free fonts for the web",
]
VECTORS = np.eye(5, dtype=np.float32)
MEMBERS = {
    "python3-fonts": ("c1", 0),
    "python3-maps": ("c1", 1),
    "numbers": ("c1", 2),
    "fonts-one": ("c2", 3),
    "web-fonts": ("c2", 4),
}
CENTROIDS = {
    "c1": np.array([0.9, 0.3, 0.1, 0, 0], np.float32),
    "c2": np.array([0, 0, 0, 0.5, 0.6], np.float32),
    "c3": np.zeros(5, np.float32),
}


def drawn():
    return portraits(MEMBERS, SUMMARIES, VECTORS, CENTROIDS)


def test_every_cluster_has_a_portrait_also_an_empty_one():
    found = drawn()

    assert {cluster: portrait.size for cluster, portrait in found.items()} == {
        "c1": 3,
        "c2": 2,
        "c3": 0,
    }
    assert found["c3"].about


def test_words_set_a_cluster_apart_and_are_not_said_twice():
    found = drawn()

    assert found["c1"].words == ("python", "module")
    assert found["c2"].words == ("fonts",)


def test_typical_members_are_near_the_centroid_and_not_all_called_alike():
    assert drawn()["c1"].typical == ("python3-fonts", "numbers")
    assert drawn()["c2"].typical == ("web-fonts", "fonts-one")
