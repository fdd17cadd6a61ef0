"""Distances in float64 and statistics in whole units, calculated a second time."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.cli.audit.fading import Fading
from pipeline.cli.audit.forms import lane_sums
from pipeline.cli.audit.tally import (
    BLOCK_BYTES,
    Members,
    NewestModel,
    Tally,
    Topics,
    item_text,
    version_text,
)

TOLERANCE = 1e-12
"""Relative, of the smallest distance: what two honest float64 sums may differ by."""
_SAID_TOLERANCE = 1e-6
"""Numbers in JSON are float32 rounded to 7 significant digits."""
_EDS1 = struct.Struct("<4sIQqqqqdd")


def check_nearest(topics: Topics, members: Members, nearest: Tally, distances: Tally) -> None:
    """Each item lies in the float64-nearest cluster, and says how far from it."""
    model = topics.model
    label_of = {cluster: label for label, cluster in enumerate(model.clusters)}
    usable: list[int] = []
    for i, row in enumerate(members.assigned):
        where = item_text(members.partitions[i], members.items[i])
        if row.cluster not in label_of:
            nearest.n_checked += 1
            nearest.broken(
                f"{where} is in {row.cluster}, which model {version_text(model.version)} lacks"
            )
        elif row.version > model.version:
            nearest.n_checked += 1
            nearest.broken(
                f"{where} was assigned by model {version_text(row.version)}, which is not there"
            )
        else:
            usable.append(i)
    if not usable:
        return
    labels = np.array([label_of[members.assigned[i].cluster] for i in usable])
    vectors = np.stack([members.vectors[i] for i in usable])
    own, best, best_labels = nearest_of(vectors, labels, model.centroids)
    nearest.n_checked += len(usable)
    for j in np.flatnonzero(~(own <= best * (1 + TOLERANCE))):
        i = usable[j]
        nearest.broken(
            f"{item_text(members.partitions[i], members.items[i])} is in "
            f"{members.assigned[i].cluster} at {own[j]:.9g}, but "
            f"{model.clusters[best_labels[j]]} is at {best[j]:.9g}"
        )
    said = np.array([members.assigned[i].distance for i in usable])
    true = own * own / 2 if topics.metric == "cosine" else own
    current = np.array([members.assigned[i].version == model.version for i in usable])
    wrong = current & ~(np.abs(said - true) <= _SAID_TOLERANCE * true + 1e-30)
    distances.n_checked += int(current.sum())
    distances.unchecked(int((~current).sum()), "assigned by an older model, and left in place")
    for j in np.flatnonzero(wrong):
        i = usable[j]
        distances.broken(
            f"{item_text(members.partitions[i], members.items[i])} is {true[j]:.9g} from its "
            f"cluster, but its assignment says {said[j]:.9g}"
        )


def nearest_of(
    vectors: NDArray[np.float32], labels: NDArray[np.int64], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Distance to the own centroid, to the nearest one, and which that is, in float64.

    A matrix product finds who may be nearest, within a bound of its rounding error; those few
    are then compared by the sum of squared differences, whose error is relative.
    """
    points_wide = centroids.astype(np.float64)
    n_clusters, n_dims = points_wide.shape
    squares = (points_wide**2).sum(axis=1)
    reach = np.sqrt(squares.max())
    n = len(vectors)
    own = np.empty(n)
    best = np.empty(n)
    best_labels = np.empty(n, np.int64)
    step = max(1, BLOCK_BYTES // (8 * max(n_clusters, n_dims)))
    for start in range(0, n, step):
        block = vectors[start : start + step].astype(np.float64)
        mine = labels[start : start + step]
        lengths = (block**2).sum(axis=1)
        scores = squares - 2.0 * (block @ points_wide.T)
        # Twice the bound of each of the sums, both for the winner and for the other.
        margin = 16.0 * (n_dims + 8) * 2.0**-53 * (np.sqrt(lengths) + reach) ** 2
        near = scores <= (scores.min(axis=1) + margin)[:, None]
        near[np.arange(len(block)), mine] = True
        at, candidates = np.nonzero(near)
        exact = np.empty(len(at))
        for low in range(0, len(at), step):
            gap = block[at[low : low + step]] - points_wide[candidates[low : low + step]]
            exact[low : low + step] = np.einsum("ij,ij->i", gap, gap)
        table = np.full(scores.shape, np.inf)
        table[at, candidates] = exact
        choice = table.argmin(axis=1)
        rows = np.arange(len(block))
        own[start : start + step] = np.sqrt(table[rows, mine])
        best[start : start + step] = np.sqrt(table[rows, choice])
        best_labels[start : start + step] = choice
    return own, best, best_labels


def check_statistics(topics: Topics, members: Members, tally: Tally, heads: Tally) -> None:
    """What the assigners say about their members equals a recomputation, in whole units."""
    model = topics.model
    largest = float(model.manifest["max_component"])
    by_partition: dict[int, list[int]] = {}
    for i, partition in enumerate(members.partitions):
        by_partition.setdefault(partition, []).append(i)
    for partition in sorted(topics.inputs):
        rows = topics.statistics.get(partition, {})
        chosen = by_partition.get(partition, [])
        n_left_out = sum(n for (p, _), n in members.n_left_out.items() if p == partition)
        head = topics.heads[partition]
        heads.n_checked += 1
        if int(head["members"]) != len(topics.assignments.get(partition, {})):
            heads.broken(
                f"partition {partition} has {len(topics.assignments.get(partition, {}))} "
                f"members, but its head says {head['members']}"
            )
        if int(head["since"] or 0) > int(head["next"]):
            heads.broken(f"partition {partition}: the head counts from after its end")
        names = {members.assigned[i].cluster for i in chosen}
        names |= {cluster for p, cluster in members.n_left_out if p == partition}
        if not rows:
            tally.unchecked(len(names), "no statistics are published for these clusters yet")
            continue
        truth = recompute(members, chosen, largest, Fading.of(model))
        for cluster in sorted(names | rows.keys()):
            if (partition, cluster) in members.n_left_out:
                tally.unchecked(1, "vectors of members are not known for certain")
                continue
            tally.n_checked += 1
            _compare_statistics(partition, cluster, rows.get(cluster), truth, model, tally)
        if n_left_out:
            heads.note = "members whose vector is not known are counted all the same"


class Recomputed(NamedTuple):
    """What the members of a cluster add up to."""

    n_members: int
    high: int
    low: int
    sums: NDArray[np.int64]
    weight: int
    """In 2**-31; 0 where members do not fade."""


def recompute(
    members: Members, chosen: list[int], max_component: float, fading: Fading | None
) -> dict[str, Recomputed]:
    """The statistics of each cluster, from the vectors and times of its members."""
    if not chosen:
        return {}
    coarser = 1.0 if fading is None else 2.0**8
    unit, square_unit = max_component * 2.0**-40 * coarser, max_component**2 * 2.0**-48 * coarser
    weights = np.ones(len(chosen))
    if fading is not None:
        weights = np.array([fading.weight(members.timestamps[i]) for i in chosen])
    names = sorted({members.assigned[i].cluster for i in chosen})
    number = {name: k for k, name in enumerate(names)}
    labels = np.array([number[members.assigned[i].cluster] for i in chosen])
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=len(names))
    n_dims = len(members.vectors[chosen[0]])
    sums = np.zeros((len(names), n_dims), np.int64)
    squares = np.zeros((len(names), 2), np.int64)
    totals = np.zeros(len(names), np.int64)
    if fading is not None:
        np.add.at(totals, labels, np.rint(weights * 2.0**31).astype(np.int64))
    step = max(1, BLOCK_BYTES // (8 * n_dims))
    for start in range(0, len(order), step):
        part = order[start : start + step]
        block = np.stack([members.vectors[chosen[i]] for i in part]).astype(np.float64)
        heavy = weights[part]
        whole = np.rint(block * heavy[:, None] / unit).astype(np.int64)
        square = np.rint(lane_sums(block * block) * heavy / square_unit).astype(np.int64)
        here, firsts = np.unique(labels[part], return_index=True)
        sums[here] += np.add.reduceat(whole, firsts, axis=0)
        halves = np.stack([square >> 32, square & 0xFFFFFFFF], axis=1)
        squares[here] += np.add.reduceat(halves, firsts, axis=0)
    return {
        name: Recomputed(
            int(counts[k]), int(squares[k, 0]), int(squares[k, 1]), sums[k], int(totals[k])
        )
        for name, k in number.items()
    }


def _compare_statistics(
    partition: int,
    cluster: str,
    value: bytes | None,
    truth: Mapping[str, Recomputed],
    model: NewestModel,
    tally: Tally,
) -> None:
    where = f"partition {partition}, {cluster}"
    n_dims = model.centroids.shape[1]
    true = truth.get(cluster) or Recomputed(0, 0, 0, np.zeros(n_dims, np.int64), 0)
    if value is None:
        tally.broken(f"{where}: {true.n_members} members, but no statistics")
        return
    is_weighted = Fading.of(model) is not None
    end = _EDS1.size + 8 * n_dims
    if len(value) not in (end, end + 8) or value[:4] != b"EDS1":
        tally.broken(f"{where}: the statistics are unreadable")
        return
    if is_weighted != (len(value) > end):
        says = "fade, but the statistics have no weight" if is_weighted else "do not fade, but do"
        tally.broken(f"{where}: members {says}")
        return
    _, _, epoch, said, said_high, said_low, landed, _, _ = _EDS1.unpack_from(value)
    if epoch > model.version[0]:
        tally.broken(f"{where}: of epoch {epoch}, which is not there")
    if cluster not in set(model.clusters):
        tally.broken(f"{where}: has statistics, but model {version_text(model.version)} lacks it")
    if landed < 0:
        tally.broken(f"{where}: {landed} records landed")
    if said != true.n_members:
        tally.broken(f"{where}: {true.n_members} members, but the statistics say {said}")
    elif is_weighted and int.from_bytes(value[end:], "little", signed=True) != true.weight:
        tally.broken(f"{where}: the weight is not that of its members")
    elif (said_high, said_low) != (true.high, true.low):
        tally.broken(f"{where}: the sum of squares is not that of its members")
    else:
        said_sums = np.frombuffer(value, "<i8", n_dims, offset=_EDS1.size)
        differs = np.flatnonzero(said_sums != true.sums)
        if len(differs):
            tally.broken(
                f"{where}: {len(differs)} of {n_dims} sums are not those of its members, "
                f"the first is component {differs[0]}"
            )
