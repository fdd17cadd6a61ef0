"""A candidate becomes an epoch: ids for its clusters, and the events that say what became of them.

Ids are never used twice: numbers count up for ever, and an heir takes its ancestor's id over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


def next_model(
    candidate: Candidate,
    incumbent: Model | None,
    occasion: Occasion,
    embedding: EmbeddingPolicy,
) -> Model:
    """The candidate as the next epoch's first revision."""
    old = None if incumbent is None else incumbent.manifest
    number = 1 if old is None else old.next_cluster_number
    cluster_ids = []
    for heir in candidate.alignment.heirs.tolist():
        if heir >= 0:
            assert old is not None, "an heir without an incumbent"
            cluster_ids.append(old.clusters[heir])
        else:
            cluster_ids.append(f"c{number}")
            number += 1
    manifest = Manifest(
        epoch=1 if old is None else old.epoch + 1,
        revision=0,
        metric=embedding.metric,
        dimensions=embedding.dimensions,
        embedding_model=embedding.model,
        clusters=tuple(cluster_ids),
        max_component=embedding.largest_component,
        input_policy=occasion.input_policy if old is None else old.input_policy,
        digest=digest(candidate.centroids),
        next_cluster_number=number,
        fitted_items=occasion.n_items,
        fitted_inertia=candidate.inertia_after,
        fitted_offsets=tuple(occasion.offsets[p] for p in sorted(occasion.offsets)),
        created_at_ms=occasion.created_at_ms,
    )
    return Model(manifest, candidate.centroids, candidate.counts, candidate.mean_squared_distances)


def epoch_events(
    model: Model, incumbent: Model | None, candidate: Candidate, occasion: Occasion
) -> list[Lifecycle]:
    """`installed`, then what was born and what retired."""
    manifest, alignment = model.manifest, candidate.alignment
    old_ids = () if incumbent is None else incumbent.manifest.clusters

    def event(kind: LifecycleType, cluster: str | None, **fields: object) -> Lifecycle:
        return Lifecycle(
            id=f"{manifest.epoch}/{cluster or 'model'}/{kind}",
            type=kind,
            epoch=manifest.epoch,
            revision=manifest.revision,
            occurred_at_ms=occasion.created_at_ms,
            cluster=cluster,
            command=occasion.command_id,
            **fields,  # type: ignore[arg-type]  # the fields of `Lifecycle`, named below
        )

    events = [
        event(
            LifecycleType.INSTALLED,
            None,
            size=occasion.n_items,
            reason=occasion.reason,
            inertia_before=candidate.inertia_before,
            inertia_after=candidate.inertia_after,
            moved=None if incumbent is None else alignment.moved,
        )
    ]
    for label, heir in enumerate(alignment.heirs.tolist()):
        if heir < 0:
            parents = _named(alignment.parents.get(label, ()), old_ids)
            size = int(candidate.counts[label])
            cluster = manifest.clusters[label]
            events.append(event(LifecycleType.BORN, cluster, parents=parents, size=size))
    for old_label in sorted(set(range(len(old_ids))) - set(alignment.heirs.tolist())):
        children = _named(alignment.successors.get(old_label, ()), manifest.clusters)
        events.append(event(LifecycleType.RETIRED, old_ids[old_label], children=children))
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


def _named(labels: Sequence[int], ids: Sequence[str]) -> tuple[str, ...]:
    return tuple(ids[label] for label in labels)
