"""The model on its topic: a manifest behind its centroids, and how a reader folds them.

A revision writes only the centroids that moved, over the old ones, and compaction takes what was
written over; so what a reader has folded may be newer than the manifest at hand. The digest of
the centroids in a manifest tells: a manifest that does not fit is passed over, for a later one
is on its way.

The value of a centroid is an ``EDV1`` vector, and what its cluster was at the fit: count u64, mean
squared distance f64, mean distance f64, nine quantiles of the distances f32; then, only where the
centroid has moved since, the fitted one, f32 each. An older version wrote the first two alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Reason, RecordError, TopicError
from pipeline.messages.codec import json_bytes, json_value
from pipeline.messages.manifest import (
    WIRE,
    Manifest,
    WireError,
    decode_manifest,
    encode_manifest,
)
from pipeline.messages.records import Outgoing, Record
from pipeline.messages.vectors import FLOAT32, HEADER, MAGIC

__all__ = [
    "MANIFEST_KEY", "N_QUANTILES", "Manifest", "Model", "ModelFold",
    "centroid_key", "decode_manifest", "digest", "encode_manifest", "label_key", "label_record",
    "model_records",
]  # fmt: skip

MANIFEST_KEY = b"manifest"
N_QUANTILES = 9
"""Of the distances at the fit, the nearest and the farthest member among them."""
_LABEL = "label:"
_SEQUENCE = slice(HEADER.size - 8, HEADER.size)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A published set of centroids, in label order, and what their clusters were at the fit.

    Distances are roots of canonical squared ones, under every metric.
    """

    manifest: Manifest
    centroids: NDArray[np.float32]  # (n_clusters, n_dims)
    counts: NDArray[np.int64]  # (n_clusters,) members at the fit
    mean_squared_distances: NDArray[np.float64]  # (n_clusters,) at the fit
    mean_distances: NDArray[np.float64]  # (n_clusters,) at the fit
    quantiles: NDArray[np.float32]  # (n_clusters, N_QUANTILES) of the distances at the fit
    fitted: NDArray[np.float32]  # (n_clusters, n_dims) the centroids at the fit

    def __post_init__(self) -> None:
        n_clusters = len(self.manifest.clusters)
        assert self.centroids.shape == (n_clusters, self.manifest.dimensions)
        assert self.fitted.shape == self.centroids.shape
        assert self.quantiles.shape == (n_clusters, N_QUANTILES)
        for known in (self.counts, self.mean_squared_distances, self.mean_distances):
            assert known.shape == (n_clusters,)

    @property
    def version(self) -> str:
        """As people write it: 7.31."""
        return self.manifest.version

    @property
    def is_profiled(self) -> NDArray[np.bool_]:
        """(n_clusters,) whether it is known how far the members lay at the fit.

        It is not where there were none, nor of clusters that an older version published.
        """
        is_told = (self.quantiles[:, -1] > 0.0) | (self.mean_squared_distances == 0.0)
        known: NDArray[np.bool_] = (self.counts > 0) & is_told
        return known


def digest(centroids: NDArray[np.float32]) -> str:
    """SHA-256, in hex, of the centroids' little-endian bytes in label order."""
    return hashlib.sha256(np.ascontiguousarray(centroids, "<f4").data).hexdigest()


def centroid_key(epoch: int, cluster_id: str) -> bytes:
    """The key of a centroid."""
    return f"{epoch}/{cluster_id}".encode()


def label_key(cluster_id: str) -> bytes:
    """The key of a cluster's label."""
    return f"{_LABEL}{cluster_id}".encode()


def label_record(cluster_id: str, label: str | None, topic: str) -> Outgoing:
    """What people call a cluster from now on; None: nothing any more."""
    value = None if label is None else json_bytes({"label": label})
    return Outgoing(topic, 0, label_key(cluster_id), value)


def model_records(
    model: Model,
    topic: str,
    *,
    previous: Model | None = None,
    drop: Iterable[Manifest] = (),
    unlabel: Iterable[str] = (),
) -> list[Outgoing]:
    """What a model is published by, for one transaction.

    Parameters
    ----------
    previous
        The newest model so far: within one epoch only what differs from it is written.
    drop
        Manifests of the epochs that are kept no longer.
    unlabel
        Clusters that no kept epoch has any more.

    Returns
    -------
    list
        Nulls, centroids, the epoch's manifest, and last the manifest.
    """
    epoch = model.manifest.epoch
    gone = [
        key
        for manifest in drop
        for key in (
            *(centroid_key(manifest.epoch, cluster) for cluster in manifest.clusters),
            str(manifest.epoch).encode(),
        )
    ]
    gone += [label_key(cluster) for cluster in unlabel]
    records = [Outgoing(topic, 0, key, None) for key in gone]
    labels = list(range(len(model.centroids)))
    if previous is not None and previous.manifest.epoch == epoch:
        labels = _changed(model, previous)
    for label, value in zip(labels, _encoded(model, labels), strict=True):
        key = centroid_key(epoch, model.manifest.clusters[label])
        records.append(Outgoing(topic, 0, key, value))
    value = encode_manifest(model.manifest)
    records.append(Outgoing(topic, 0, str(epoch).encode(), value))
    records.append(Outgoing(topic, 0, MANIFEST_KEY, value))
    return records


# --- centroids as bytes ---------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _forms(n_dims: int) -> tuple[np.dtype[np.void], np.dtype[np.void], np.dtype[np.void]]:
    """The three forms of a centroid's value, the shortest first: each goes on where one ends."""
    oldest = [
        ("header", "u1", (HEADER.size,)), ("centroid", "<f4", (n_dims,)),
        ("count", "<u8"), ("mean_squared_distance", "<f8"),
    ]  # fmt: skip
    profiled = [*oldest, ("mean_distance", "<f8"), ("quantiles", "<f4", (N_QUANTILES,))]
    moved = [*profiled, ("fitted", "<f4", (n_dims,))]
    return np.dtype(oldest), np.dtype(profiled), np.dtype(moved)


def _encoded(model: Model, labels: Sequence[int]) -> list[bytes]:
    """The values of some centroids."""
    _, profiled, moved = _forms(model.manifest.dimensions)
    has_moved = np.zeros(len(labels), np.bool_)
    if model.fitted is not model.centroids:
        has_moved = _differ(model.fitted[labels], model.centroids[labels])
    values: list[bytes] = [b""] * len(labels)
    for form, places in ((profiled, ~has_moved), (moved, has_moved)):
        at = np.flatnonzero(places)
        if not len(at):
            continue
        rows, of = np.empty(len(at), form), np.array(labels, np.intp)[at]
        header = (MAGIC, FLOAT32, 0, 0, model.manifest.dimensions, model.manifest.revision)
        rows["header"] = np.frombuffer(HEADER.pack(*header), np.uint8)
        rows["centroid"] = model.centroids[of]
        rows["count"] = model.counts[of]
        rows["mean_squared_distance"] = model.mean_squared_distances[of]
        rows["mean_distance"] = model.mean_distances[of]
        rows["quantiles"] = model.quantiles[of]
        if form is moved:
            rows["fitted"] = model.fitted[of]
        for i, row in zip(at.tolist(), rows, strict=True):
            values[i] = row.tobytes()
    return values


def _changed(model: Model, previous: Model) -> list[int]:
    """The labels of what a revision has to write."""
    assert model.manifest.clusters == previous.manifest.clusters
    changed = np.zeros(len(model.centroids), np.bool_)
    for name in _ARRAYS:
        changed |= _differ(getattr(model, name), getattr(previous, name))
    labels: list[int] = np.flatnonzero(changed).tolist()
    return labels


_ARRAYS = (
    "centroids", "counts", "mean_squared_distances", "mean_distances", "quantiles", "fitted",
)  # fmt: skip


def _differ(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """(n,) whether any bit of a row differs: the digest tells -0.0 from 0.0."""
    if one is other or not len(one):  # a revision shares what it leaves alone
        return np.zeros(len(one), np.bool_)
    bits = f"u{one.itemsize}"
    differ = np.ascontiguousarray(one).view(bits) != np.ascontiguousarray(other).view(bits)
    rows: NDArray[np.bool_] = differ.reshape(len(one), -1).any(axis=1)
    return rows


def _decoded(manifest: Manifest, base: Model | None, fresh: Mapping[int, bytes]) -> Model:
    """The model whose centroids are those of ``base``, but for the ``fresh`` ones, by label.

    RecordError for a value that is no centroid of such a model.
    """
    n_clusters, n_dims = len(manifest.clusters), manifest.dimensions
    if base is None:
        centroids, fitted = np.empty((2, n_clusters, n_dims), np.float32)
        counts = np.empty(n_clusters, np.int64)
        squares, means = np.empty((2, n_clusters))
        quantiles = np.empty((n_clusters, N_QUANTILES), np.float32)
    else:
        centroids, fitted = base.centroids.copy(), base.fitted
        counts, quantiles = base.counts.copy(), base.quantiles.copy()
        squares, means = base.mean_squared_distances.copy(), base.mean_distances.copy()
    for rows, labels in _read(fresh, n_dims):
        names = rows.dtype.names or ()
        centroids[labels] = rows["centroid"]
        counts[labels] = rows["count"]
        squares[labels] = rows["mean_squared_distance"]
        means[labels] = rows["mean_distance"] if "mean_distance" in names else 0.0
        quantiles[labels] = rows["quantiles"] if "quantiles" in names else 0.0
        at_fit = rows["fitted"] if "fitted" in names else rows["centroid"]
        if base is None or _differ(fitted[labels], at_fit).any():
            if base is not None and fitted is base.fitted:
                fitted = fitted.copy()
            fitted[labels] = at_fit
    return Model(manifest, centroids, counts, squares, means, quantiles, fitted)


def _read(
    values: Mapping[int, bytes], n_dims: int
) -> Iterator[tuple[NDArray[np.void], NDArray[np.intp]]]:
    """Values by label, as rows of equal form, with their labels."""
    forms = {form.itemsize: form for form in _forms(n_dims)}
    by_form: dict[int, list[int]] = {}
    longest = max(forms)
    for label, value in values.items():
        size = min(len(value), longest)  # a later version may say more behind
        if size not in forms:
            raise RecordError(Reason.DECODE, f"{len(value)} bytes are no centroid")
        by_form.setdefault(size, []).append(label)
    expected = np.frombuffer(HEADER.pack(MAGIC, FLOAT32, 0, 0, n_dims, 0), np.uint8)
    for size, labels in by_form.items():
        rows = np.frombuffer(b"".join([values[label][:size] for label in labels]), forms[size])
        if (rows["header"] != expected)[:, : _SEQUENCE.start].any():
            raise RecordError(Reason.DECODE, "a centroid does not begin as a vector does")
        yield rows, np.array(labels, np.intp)


# --- reading --------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Epoch:
    """What is known of an epoch: the model put together last, and the values read since."""

    model: Model | None = None
    values: dict[str, bytes | None] = field(default_factory=dict)
    """By cluster; None: removed."""

    def take(self, cluster: str, value: bytes | None) -> None:
        if self.model is None:
            if value is None:
                self.values.pop(cluster, None)
            else:
                self.values[cluster] = value
        elif value is None or _revision(value) > self.model.manifest.revision:
            self.values[cluster] = value  # what is older stands in the model already

    def assembled(self, manifest: Manifest) -> Model | None:
        """The model of a manifest; None if the centroids at hand are not its."""
        base = self.model
        if base is not None and base.manifest == manifest and not self.values:
            return base
        if base is not None and (
            base.manifest.clusters != manifest.clusters
            or base.manifest.dimensions != manifest.dimensions
        ):
            return None
        fresh: dict[int, bytes] = {}
        for label, cluster in enumerate(manifest.clusters):
            if cluster in self.values:
                value = self.values[cluster]
                if value is None:
                    return None
                fresh[label] = value
            elif base is None:
                return None
        try:
            model = _decoded(manifest, base, fresh)
        except RecordError:
            return None
        if digest(model.centroids) != manifest.digest:
            return None
        self.model, self.values = model, {}
        return model


def _revision(value: bytes) -> int:
    """Which revision wrote a centroid."""
    return int.from_bytes(value[_SEQUENCE], "little")


@dataclass(slots=True, eq=False)
class ModelFold:
    """What a reader of the topic knows, record by record; it may go on as a tail for ever.

    A revision costs what it says: only the centroids that it brings are decoded, and the digest
    is taken.
    """

    newest: Model | None = None
    """The newest one whose digest fitted what was folded."""
    epochs: dict[int, Manifest] = field(default_factory=dict)
    """The last manifest of every kept epoch."""
    labels: dict[str, str] = field(default_factory=dict)
    """Cluster id -> what people call it."""
    n_ignored: int = 0
    """Records that nobody here knows how to read."""
    other_wire: int | None = None
    """The wire of the last manifest, if another version of Eddy wrote it in one of its own."""
    _known: dict[int, _Epoch] = field(default_factory=dict)

    def fold(self, records: Sequence[Record]) -> None:
        """Take the next records in, in offset order.

        The digest costs a pass over all centroids, so of several manifests only the last is
        looked at, where it stands: what follows it belongs to another.
        """
        last = max((i for i, r in enumerate(records) if r.key == MANIFEST_KEY), default=-1)
        for i, record in enumerate(records):
            try:
                self._take(record)
                if i == last and record.value is not None:
                    manifest = decode_manifest(record.value)
                    self.other_wire = None
                    self._complete(manifest)
            except WireError as error:
                self.n_ignored += 1
                self.other_wire = error.wire if i == last else self.other_wire
            except (RecordError, ValueError):  # keys: not UTF-8, or digits without end
                self.n_ignored += 1

    def check_wire(self, topic: str) -> None:
        """Refuse to go on without a model that is there, but written for other eyes.

        For who has read to the end: what an older manifest said is no matter any more.

        Raises
        ------
        TopicError
            The last manifest is of another version of the wire.
        """
        if self.other_wire is None:
            return
        who = "a newer Eddy wrote it; update this one"
        if self.other_wire < WIRE:
            who = "an older Eddy wrote it; update by way of a release that reads both"
        raise TopicError(
            f"the model in {topic} is of wire {self.other_wire}, and this Eddy reads {WIRE}: {who}"
        )

    def model_of(self, epoch: int) -> Model | None:
        """The last revision of a kept epoch, if all of it is there."""
        manifest = self.epochs.get(epoch)
        return None if manifest is None else self._assembled(manifest)

    def install(self, model: Model) -> None:
        """Know a model that this process has published itself; reading it later changes nothing."""
        self.newest = model
        self.epochs[model.manifest.epoch] = model.manifest
        self._known[model.manifest.epoch] = _Epoch(model)

    def forget(self, epochs: Iterable[int]) -> None:
        """Know these no more: who publishes the newest model removes the oldest ones with it."""
        for epoch in epochs:
            self.epochs.pop(epoch, None)
            self._known.pop(epoch, None)

    def _take(self, record: Record) -> None:
        if record.key == MANIFEST_KEY:
            return
        key = (record.key or b"").decode()
        epoch, slash, cluster = key.partition("/")
        if key.startswith(_LABEL):
            self._take_label(key.removeprefix(_LABEL), record.value)
        elif not epoch.isdecimal():
            self.n_ignored += 1
        elif slash:
            self._take_centroid(int(epoch), cluster, record.value)
        elif record.value is None:
            self.forget([int(epoch)])
        else:
            self._take_manifest(int(epoch), decode_manifest(record.value))

    def _take_centroid(self, epoch: int, cluster: str, value: bytes | None) -> None:
        if epoch not in self._known:
            if value is None:
                return  # of an epoch that is forgotten
            self._known[epoch] = _Epoch()
        self._known[epoch].take(cluster, value)

    def _take_manifest(self, epoch: int, manifest: Manifest) -> None:
        at_hand = self.epochs.get(epoch)
        if at_hand is None or at_hand.revision <= manifest.revision:
            self.epochs[epoch] = manifest

    def _take_label(self, cluster: str, value: bytes | None) -> None:
        told = None if value is None else json_value(value)
        if isinstance(told, Mapping) and isinstance(told.get("label"), str):
            self.labels[cluster] = told["label"]
        else:
            self.labels.pop(cluster, None)

    def _complete(self, manifest: Manifest) -> None:
        if self.newest is not None:
            at_hand = self.newest.manifest
            if (manifest.epoch, manifest.revision) <= (at_hand.epoch, at_hand.revision):
                return
        self.newest = self._assembled(manifest) or self.newest

    def _assembled(self, manifest: Manifest) -> Model | None:
        known = self._known.get(manifest.epoch)
        return None if known is None else known.assembled(manifest)
