"""The model on its topic: a manifest behind its centroids, and how a reader folds them.

A revision writes only the centroids that moved, over the old ones, and compaction takes what was
written over; so what a reader has folded may be newer than the manifest at hand. The digest of
the centroids in a manifest tells: a manifest that does not fit is passed over, for a later one
is on its way.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Reason, RecordError
from pipeline.messages.codec import json_bytes, json_value, milliseconds, timestamp
from pipeline.messages.policy import MAX_CLUSTERS
from pipeline.messages.records import Outgoing, Record
from pipeline.messages.vectors import HEADER, decode_vector, encode_vector

MANIFEST_KEY = b"manifest"
_LABEL = "label:"
_FIT = struct.Struct("<Qd")  # count and mean squared distance, behind a centroid


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model is; the order of ``clusters`` is that of the labels, and so decides ties."""

    epoch: int
    revision: int
    metric: str
    dimensions: int
    embedding_model: str | None
    clusters: tuple[str, ...]
    max_component: float
    input_policy: str
    """The input's ``cleanup.policy`` as it was seen first."""
    digest: str
    next_cluster_number: int
    fitted_items: int
    fitted_inertia: float
    fitted_offsets: tuple[int, ...]
    """Per partition, up to where the input was read."""
    created_at_ms: int

    def __post_init__(self) -> None:
        assert 1 <= len(self.clusters) <= MAX_CLUSTERS

    @property
    def version(self) -> str:
        """As people write it: 7.31."""
        return f"{self.epoch}.{self.revision}"


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A published set of centroids, in label order."""

    manifest: Manifest
    centroids: NDArray[np.float32]  # (n_clusters, n_dims)
    counts: NDArray[np.int64]  # (n_clusters,) members at the fit
    mean_squared_distances: NDArray[np.float64]  # (n_clusters,) at the fit

    def __post_init__(self) -> None:
        assert self.centroids.shape == (len(self.manifest.clusters), self.manifest.dimensions)
        assert len(self.counts) == len(self.mean_squared_distances) == len(self.centroids)

    @property
    def version(self) -> str:
        """As people write it: 7.31."""
        return self.manifest.version


def digest(centroids: NDArray[np.float32]) -> str:
    """SHA-256, in hex, of the centroids' little-endian bytes in label order."""
    return hashlib.sha256(centroids.astype("<f4").tobytes()).hexdigest()


def encode_manifest(manifest: Manifest) -> bytes:
    """The value of ``manifest`` and ``<epoch>``."""
    return json_bytes(
        {
            "epoch": manifest.epoch,
            "revision": manifest.revision,
            "metric": manifest.metric,
            "dimensions": manifest.dimensions,
            "embedding_model": manifest.embedding_model,
            "clusters": manifest.clusters,
            "max_component": manifest.max_component,
            "input_policy": manifest.input_policy,
            "digest": manifest.digest,
            "next_cluster_number": manifest.next_cluster_number,
            "fitted_on": {
                "items": manifest.fitted_items,
                "inertia": manifest.fitted_inertia,
                "offsets": manifest.fitted_offsets,
            },
            "created_at": timestamp(manifest.created_at_ms),
        }
    )


def decode_manifest(value: bytes) -> Manifest:
    """The counterpart of `encode_manifest`; RecordError for what is no manifest."""
    told: Any = json_value(value)
    try:
        fitted_on, created_at_ms = told["fitted_on"], milliseconds(told["created_at"])
        clusters = tuple(told["clusters"])
        if created_at_ms is None or not 1 <= len(clusters) <= MAX_CLUSTERS:
            raise ValueError("created_at or clusters")
        return Manifest(
            epoch=int(told["epoch"]),
            revision=int(told["revision"]),
            metric=told["metric"],
            dimensions=int(told["dimensions"]),
            embedding_model=told["embedding_model"],
            clusters=clusters,
            max_component=float(told["max_component"]),
            input_policy=told["input_policy"],
            digest=told["digest"],
            next_cluster_number=told["next_cluster_number"],
            fitted_items=fitted_on["items"],
            fitted_inertia=float(fitted_on["inertia"]),
            fitted_offsets=tuple(fitted_on["offsets"]),
            created_at_ms=created_at_ms,
        )
    except (KeyError, TypeError, ValueError) as error:
        message = f"no manifest: {type(error).__name__} {error}"[:200]
        raise RecordError(Reason.DECODE, message) from error


def centroid_key(epoch: int, cluster_id: str) -> bytes:
    """The key of a centroid."""
    return f"{epoch}/{cluster_id}".encode()


def label_key(cluster_id: str) -> bytes:
    """The key of a cluster's label."""
    return f"{_LABEL}{cluster_id}".encode()


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
    old = {} if previous is None or previous.manifest.epoch != epoch else _values(previous)
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
    for cluster, value in _values(model).items():
        # the header names the revision, so what stands behind it is compared
        if cluster not in old or old[cluster][HEADER.size :] != value[HEADER.size :]:
            records.append(Outgoing(topic, 0, centroid_key(epoch, cluster), value))
    value = encode_manifest(model.manifest)
    records.append(Outgoing(topic, 0, str(epoch).encode(), value))
    records.append(Outgoing(topic, 0, MANIFEST_KEY, value))
    return records


def _values(model: Model) -> dict[str, bytes]:
    rows = zip(
        model.manifest.clusters,
        model.centroids,
        model.counts.tolist(),
        model.mean_squared_distances.tolist(),
        strict=True,
    )
    revision = model.manifest.revision
    return {
        cluster: encode_vector(centroid, revision) + _FIT.pack(count, mean)
        for cluster, centroid, count, mean in rows
    }


@dataclass(slots=True, eq=False)
class ModelFold:
    """What a reader of the topic knows, record by record; it may go on as a tail for ever."""

    newest: Model | None = None
    """The newest one whose digest fitted what was folded."""
    epochs: dict[int, Manifest] = field(default_factory=dict)
    """The last manifest of every kept epoch."""
    labels: dict[str, str] = field(default_factory=dict)
    """Cluster id -> what people call it."""
    n_ignored: int = 0
    """Records that nobody here knows how to read."""
    _centroids: dict[int, dict[str, bytes]] = field(default_factory=dict)

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
                    self._complete(decode_manifest(record.value))
            except (RecordError, ValueError):  # keys: not UTF-8, or digits without end
                self.n_ignored += 1

    def model_of(self, epoch: int) -> Model | None:
        """The last revision of a kept epoch, if all of it is there."""
        manifest = self.epochs.get(epoch)
        return None if manifest is None else self._assembled(manifest)

    def install(self, model: Model) -> None:
        """Know a model that this process has published itself; reading it later changes nothing."""
        self.newest = model
        self.epochs[model.manifest.epoch] = model.manifest
        self._centroids[model.manifest.epoch] = _values(model)

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
            centroids = self._centroids.setdefault(int(epoch), {})
            if record.value is not None:
                centroids[cluster] = record.value
            else:
                centroids.pop(cluster, None)
            if not centroids:
                del self._centroids[int(epoch)]
        elif record.value is None:
            self.epochs.pop(int(epoch), None)
        else:
            self.epochs[int(epoch)] = decode_manifest(record.value)

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
        """The model of a manifest; None if the centroids at hand are not its."""
        found = self._centroids.get(manifest.epoch, {})
        end = HEADER.size + 4 * manifest.dimensions
        try:
            values = [found[cluster] for cluster in manifest.clusters]
            rows = [decode_vector(value[:end], manifest.dimensions)[0] for value in values]
            fits = [_FIT.unpack(value[end:]) for value in values]
        except (KeyError, RecordError, struct.error):
            return None
        centroids = np.stack(rows)
        if digest(centroids) != manifest.digest:
            return None
        return Model(
            manifest,
            centroids,
            np.array([count for count, _ in fits], np.int64),
            np.array([mean for _, mean in fits], np.float64),
        )
