"""A candidate becomes an epoch: ids for its clusters, and the events that say what became of them.

Ids are never used twice: numbers count up for ever, and an heir takes its ancestor's id over. Only
a rollback brings ids back, and then they name what they named. Labels stick to ids; the label of a
cluster that retires goes to the largest heir of its members.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.clustering.alignment import Alignment
from pipeline.clustering.forgetting import Decay
from pipeline.clustering.recluster import Candidate
from pipeline.messages.events import Lifecycle, LifecycleType
from pipeline.messages.model import Manifest, Model, digest
from pipeline.messages.policy import EmbeddingPolicy


@dataclass(frozen=True, slots=True)
class Occasion:
    """Why there is a new epoch, and when and from what it was made."""

    reason: str
    command_id: str | None
    created_at_ms: int
    offsets: Mapping[int, int]
    """Partition -> the offset of the input up to which the sample had read."""
    n_items: int
    input_policy: str
    half_life_s: float | None = None
    landmark_ms: int | None = None


def next_model(
    candidate: Candidate,
    incumbent: Model | None,
    occasion: Occasion,
    embedding: EmbeddingPolicy,
    cluster_ids: Sequence[str] | None = None,
) -> Model:
    """The candidate as the next epoch's first revision.

    Parameters
    ----------
    embedding
        What vectors have to be under it; of another embedding model, that one takes over.
    cluster_ids
        In label order, of a rollback: ids as they were, none is numbered. None: heirs keep the
        ids of the incumbent, the others are numbered.
    """
    old = None if incumbent is None else incumbent.manifest
    number = 1 if old is None else old.next_cluster_number
    named, next_number = _ids(candidate.alignment.heirs, old, number)
    if cluster_ids is not None:
        assert old is not None, "nothing to go back from"
        _check_restored(cluster_ids, candidate.alignment.heirs, old)
        named, next_number = tuple(cluster_ids), number
    since = None if old is None else old.embedding_since
    if old is not None and embedding.must_name and old.embedding_model != embedding.model:
        since = old.epoch + 1
    manifest = Manifest(
        epoch=1 if old is None else old.epoch + 1,
        revision=0,
        metric=embedding.metric,
        dimensions=embedding.dimensions,
        embedding_model=embedding.model,
        clusters=named,
        max_component=embedding.largest_component,
        input_policy=occasion.input_policy if old is None else old.input_policy,
        digest=digest(candidate.centroids),
        next_cluster_number=next_number,
        fitted_items=occasion.n_items,
        fitted_inertia=candidate.inertia_after,
        fitted_offsets=tuple(occasion.offsets[p] for p in sorted(occasion.offsets)),
        created_at_ms=occasion.created_at_ms,
        half_life_s=occasion.half_life_s,
        landmark_ms=occasion.landmark_ms,
        embedding_since=since,
    )
    fitted = candidate.profiles
    return Model(
        manifest,
        candidate.centroids,
        fitted.counts,
        fitted.mean_squared_distances,
        fitted.mean_distances,
        fitted.quantiles,
        candidate.centroids,
    )


def revised(
    model: Model, centroids: Mapping[int, NDArray[np.float32]], created_at_ms: int
) -> Model:
    """The next revision: some centroids have moved, everything else is as it was fitted.

    Parameters
    ----------
    centroids
        Label -> the new centroid (n_dims,) float32.
    """
    moved = model.centroids.copy()
    for label, centroid in centroids.items():
        moved[label] = centroid
    manifest = replace(
        model.manifest,
        revision=model.manifest.revision + 1,
        digest=digest(moved),
        created_at_ms=created_at_ms,
    )
    return replace(model, manifest=manifest, centroids=moved)


def landmark_is_due(manifest: Manifest, half_life_s: float | None, now_s: float) -> bool:
    """Whether weights have to be counted from another moment, or at another pace, or not at all."""
    if manifest.half_life_s != half_life_s:
        return True
    if manifest.half_life_s is None or manifest.landmark_ms is None:
        return False
    return Decay(manifest.half_life_s, manifest.landmark_ms).next_landmark_is_due(now_s)


def renewed(
    model: Model, created_at_ms: int, *, half_life_s: float | None
) -> tuple[Model, list[Lifecycle]]:
    """The same clusters as another epoch, whose members fade from this moment on, and its event.

    Nothing was fitted: what is told of the fit, and what counts from it, stays.
    """
    manifest = replace(
        model.manifest,
        epoch=model.manifest.epoch + 1,
        revision=0,
        created_at_ms=created_at_ms,
        half_life_s=half_life_s,
        landmark_ms=None if half_life_s is None else created_at_ms,
    )
    installed = Lifecycle(
        id=f"{manifest.epoch}/model/{LifecycleType.INSTALLED}",
        type=LifecycleType.INSTALLED,
        epoch=manifest.epoch,
        revision=0,
        occurred_at_ms=created_at_ms,
        size=manifest.fitted_items,
        reason="landmark",
        moved=0.0,
    )
    return replace(model, manifest=manifest), [installed]


# --- lineage --------------------------------------------------------------------------------------


def epoch_events(
    model: Model,
    incumbent: Model | None,
    candidate: Candidate,
    occasion: Occasion,
    born_before: Collection[str] = (),
) -> list[Lifecycle]:
    """`installed`, then what came, what was split, what was merged, and what retired.

    A cluster that was split or merged keeps its id in its heir. Only what is new makes a split, and
    only what retired a merger: members that move between clusters that stay are `moved`.

    Parameters
    ----------
    born_before
        Ids that once named a cluster, of a rollback: they are restored, not born, and it splits
        and merges nothing.

    Returns
    -------
    list
        At most one event of a type for each cluster.
    """
    alignment, old = candidate.alignment, None if incumbent is None else incumbent.manifest
    tell = partial(_event, model.manifest, occasion)
    events = [
        tell(
            LifecycleType.INSTALLED,
            None,
            size=occasion.n_items,
            reason=occasion.reason,
            inertia_before=candidate.inertia_before,
            inertia_after=candidate.inertia_after,
            moved=None if incumbent is None else alignment.moved,
        )
    ]
    new_ids, old_ids = model.manifest.clusters, () if old is None else old.clusters
    for label in np.flatnonzero(alignment.heirs < 0).tolist():
        cluster, size = new_ids[label], int(model.counts[label])
        if cluster in born_before:
            events.append(tell(LifecycleType.RESTORED, cluster, size=size))
            continue
        assert old is None or _number(cluster) >= old.next_cluster_number, "an id comes back"
        parents = _named(alignment.parents.get(label, ()), old_ids)
        events.append(tell(LifecycleType.BORN, cluster, parents=parents, size=size))
    if not born_before:
        events += _splits_and_mergers(tell, model, old_ids, alignment)
    for label in _retired(alignment, len(old_ids)):
        children = _named(alignment.successors.get(label, ()), new_ids)
        size = int(alignment.overlap[label].sum())
        events.append(tell(LifecycleType.RETIRED, old_ids[label], children=children, size=size))
    return events


def _splits_and_mergers(
    tell: Callable[..., Lifecycle], model: Model, old_ids: Sequence[str], alignment: Alignment
) -> list[Lifecycle]:
    events = []
    heirs, new_ids = alignment.heirs.tolist(), model.manifest.clusters
    heir_of = {old: new for new, old in enumerate(heirs) if old >= 0}
    for old, parts in sorted(alignment.splits.items()):
        children = [part for part in parts if heirs[part] in (old, -1)]
        heir = heir_of.get(old)
        if len(children) > 1 and heir in children:
            events.append(
                tell(
                    LifecycleType.SPLIT,
                    old_ids[old],
                    children=_named(children, new_ids),
                    size=int(model.counts[heir]),
                    similarity=float(alignment.similarity[heir]),
                )
            )
    retired = set(_retired(alignment, len(old_ids)))
    for new, merged in sorted(alignment.merges.items()):
        parents = [part for part in merged if part == heirs[new] or part in retired]
        if len(parents) > 1 and heirs[new] in parents:
            events.append(
                tell(
                    LifecycleType.MERGED,
                    new_ids[new],
                    parents=_named(parents, old_ids),
                    size=int(model.counts[new]),
                    similarity=float(alignment.similarity[new]),
                )
            )
    return events


def rejection(
    incumbent: Model | None,
    *,
    reason: str,
    command_id: str | None,
    occurred_at_ms: int,
    candidate: Candidate | None = None,
) -> Lifecycle:
    """A candidate that lost, or a command that was not carried out."""
    epoch = 0 if incumbent is None else incumbent.manifest.epoch
    revision = 0 if incumbent is None else incumbent.manifest.revision
    if command_id is None:
        event_id = f"{epoch}.{revision}/rejected/{occurred_at_ms}"
    else:
        event_id = f"command/{command_id}/rejected"
    return Lifecycle(
        id=event_id,
        type=LifecycleType.REJECTED,
        epoch=epoch,
        revision=revision,
        occurred_at_ms=occurred_at_ms,
        command=command_id,
        reason=reason,
        inertia_before=None if candidate is None else candidate.inertia_before,
        inertia_after=None if candidate is None else candidate.inertia_after,
        moved=None if candidate is None else candidate.alignment.moved,
    )


# --- labels ---------------------------------------------------------------------------------------


def inherited_labels(labels: Mapping[str, str], events: Sequence[Lifecycle]) -> dict[str, str]:
    """The labels that an epoch hands on: of a retired cluster, to its largest child without one.

    Parameters
    ----------
    labels
        Cluster id -> what people call it, before the epoch.
    events
        Those of the epoch.

    Returns
    -------
    dict
        Cluster id -> the label it gets. The retired keep theirs: a rollback may restore them.
    """
    retired = [e for e in events if e.type is LifecycleType.RETIRED and e.cluster is not None]
    gone = {event.cluster for event in retired}
    found: dict[str, str] = {}
    for event in retired:
        label = labels.get(event.cluster or "")
        if label is None:
            continue
        for child in event.children:
            if child not in labels and child not in found and child not in gone:
                found[child] = label
                break
    return found


def forgotten_labels(labels: Iterable[str], kept: Iterable[Manifest]) -> list[str]:
    """The clusters among those with a label that no kept epoch has any more."""
    known = {cluster for manifest in kept for cluster in manifest.clusters}
    return sorted(set(labels) - known)


def label_event(
    cluster: str,
    label: str | None,
    *,
    epoch: int,
    revision: int,
    occurred_at_ms: int,
    command_id: str | None,
    is_inherited: bool = False,
) -> Lifecycle:
    """A cluster has another name; ``label`` None: it has none any more.

    Parameters
    ----------
    command_id
        Of the command that gave the label, or that caused the epoch which handed it on; None: no
        command did.
    is_inherited
        The label came with an epoch; without a command it always did.
    """
    if command_id is None or is_inherited:
        event_id = f"{epoch}/{cluster}/{LifecycleType.LABELLED}"
    else:
        event_id = f"command/{command_id}/{LifecycleType.LABELLED}"
    return Lifecycle(
        id=event_id,
        type=LifecycleType.LABELLED,
        epoch=epoch,
        revision=revision,
        occurred_at_ms=occurred_at_ms,
        cluster=cluster,
        label=label,
        command=command_id,
    )


# --- names ----------------------------------------------------------------------------------------


def _event(
    manifest: Manifest,
    occasion: Occasion,
    kind: LifecycleType,
    cluster: str | None,
    **fields: Any,
) -> Lifecycle:
    return Lifecycle(
        id=f"{manifest.epoch}/{cluster or 'model'}/{kind}",
        type=kind,
        epoch=manifest.epoch,
        revision=manifest.revision,
        occurred_at_ms=occasion.created_at_ms,
        cluster=cluster,
        command=occasion.command_id,
        **fields,
    )


def _ids(
    heirs: NDArray[np.int32], old: Manifest | None, number: int
) -> tuple[tuple[str, ...], int]:
    """Ids in label order, and the next number."""
    found = []
    for heir in heirs.tolist():
        if heir >= 0:
            assert old is not None, "an heir without an incumbent"
            found.append(old.clusters[heir])
        else:
            found.append(f"c{number}")
            number += 1
    return tuple(found), number


def _check_restored(ids: Sequence[str], heirs: NDArray[np.int32], old: Manifest) -> None:
    """Ids given must say the same as the heirs, and be of clusters that once were."""
    known = set(old.clusters)
    for cluster, heir in zip(ids, heirs.tolist(), strict=True):
        assert _number(cluster) < old.next_cluster_number, f"{cluster} never was"
        if heir >= 0:
            assert cluster == old.clusters[heir], f"{cluster} is the heir of another"
        else:
            assert cluster not in known, f"{cluster} is there, but not its own heir"


def _number(cluster: str) -> int:
    return int(cluster.removeprefix("c"))


def _retired(alignment: Alignment, n_old: int) -> list[int]:
    return sorted(set(range(n_old)) - set(alignment.heirs.tolist()))


def _named(labels: Sequence[int], ids: Sequence[str]) -> tuple[str, ...]:
    return tuple(ids[label] for label in labels)
