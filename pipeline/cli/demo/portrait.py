"""Clusters in words: what their members are about, and which of them are typical."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_WORD: Final = re.compile(r"[a-z][a-z+#]{2,}")
_STOP: Final = frozenset(
    """
    and for the with from that this which into your using use used uses based other its are can
    several some any all new version versions package packages contains provides support
    implementation simple common etc via over more one two not
    """.split()
)
_N_WORDS: Final = 3
_N_TYPICAL: Final = 4
_ALIKE: Final = 0.6


@dataclass(frozen=True, slots=True)
class Portrait:
    """One cluster, for people."""

    cluster: str
    size: int
    words: tuple[str, ...]
    """That set its members apart from all others, the most telling first."""
    typical: tuple[str, ...]
    """Members near the centroid that are not all called alike."""

    @property
    def about(self) -> str:
        """A few words in a row."""
        return " ".join(self.words) or "of everything"


def portraits(
    members: Mapping[str, tuple[str, int]],
    summaries: Sequence[str],
    vectors: NDArray[np.float32],
    centroids: Mapping[str, NDArray[np.float32]],
) -> dict[str, Portrait]:
    """A portrait of every cluster of ``centroids``, the empty ones too.

    Parameters
    ----------
    members
        Item -> (its cluster, its row of ``vectors`` and ``summaries``).
    vectors : (n_rows, n_dims) float32
        Of unit length, as the centroids.
    """
    items: dict[str, list[tuple[str, int]]] = {cluster: [] for cluster in centroids}
    for item, (cluster, row) in members.items():
        if cluster in items:
            items[cluster].append((item, row))
    words_of = {row: _words(summaries[row]) for _, row in members.values()}
    everywhere = Counter(word for _, row in members.values() for word in words_of[row])
    found = {}
    for cluster, here in items.items():
        counts = Counter(word for _, row in here for word in words_of[row])
        nearness = vectors[[row for _, row in here]] @ centroids[cluster]
        order = [here[i][0] for i in np.argsort(-nearness, kind="stable").tolist()]
        found[cluster] = Portrait(
            cluster,
            len(here),
            tuple(_telling(counts, everywhere, len(here), len(members))),
            tuple(_different(order)),
        )
    return found


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower())) - _STOP


def _telling(
    here: Mapping[str, int], everywhere: Mapping[str, int], n_here: int, n_all: int
) -> list[str]:
    """Words by how often they are here, times how much more often than elsewhere."""
    scores = {
        word: n / n_here * math.log(n / n_here / (everywhere[word] / n_all))
        for word, n in here.items()
        if n > 1
    }
    best = sorted(scores, key=lambda word: (-scores[word], word))
    chosen: list[str] = []
    for word in best:
        # "module" says nothing more beside "modules"
        if not any(word.startswith(other[:-1]) or other.startswith(word[:-1]) for other in chosen):
            chosen.append(word)
        if len(chosen) == _N_WORDS:
            break
    return chosen


def _different(names: Sequence[str]) -> list[str]:
    """The first few that do not begin like one before them."""
    chosen: list[str] = []
    for name in names:
        if all(_alike(name, other) < _ALIKE for other in chosen):
            chosen.append(name)
        if len(chosen) == _N_TYPICAL:
            break
    return chosen


def _alike(a: str, b: str) -> float:
    """The share of the shorter name that both have in front."""
    shorter = min(len(a), len(b))
    same = next((i for i in range(shorter) if a[i] != b[i]), shorter)
    return same / shorter
