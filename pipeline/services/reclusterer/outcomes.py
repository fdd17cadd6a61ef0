"""What a job or a command comes to: the records of one transaction, and what they change here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.clustering.recluster import Candidate
from pipeline.clustering.schedule import ReclusterPolicy
from pipeline.engine.epoch import (
    Occasion,
    epoch_events,
    forgotten_labels,
    inherited_labels,
    label_event,
    next_model,
    rejection,
    renewed,
)
from pipeline.messages.codec import encode_lifecycle
from pipeline.messages.commands import Command, CommandType
from pipeline.messages.events import Drift, Lifecycle
from pipeline.messages.model import Model, ModelFold, label_record, model_records
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy
from pipeline.messages.records import Outgoing
from pipeline.services.reclusterer.alarms import Alarms
from pipeline.services.reclusterer.workshop import Job
from pipeline.streams.topics import TopicPolicy


@dataclass(slots=True, eq=False)
class Outcome:
    """What is to be published; again after an abort."""

    outgoing: list[Outgoing]
    events: list[Lifecycle]
    command: Command | None = None
    model: Model | None = None
    job: Job | None = None
    candidate: Candidate | None = None
    cleared: list[Drift] = field(default_factory=list)
    """Alarms that stood under the epoch before."""
    labels: dict[str, str | None] = field(default_factory=dict)
    """What clusters are called from now on."""
    dropped: list[int] = field(default_factory=list)
    """Epochs that are kept no longer."""


@dataclass(slots=True)
class Outcomes:
    """Knows what is published together."""

    topics: TopicPolicy
    events: EventPolicy
    policy: ReclusterPolicy
    half_life_s: float | None
    input_policy: str
    models: ModelFold
    alarms: Alarms
    clock: Callable[[], float]

    def epoch(self, job: Job, candidate: Candidate, embedding: EmbeddingPolicy) -> Outcome:
        """The candidate becomes the newest model."""
        incumbent, now_ms = self.models.newest, self._now_ms()
        occasion = Occasion(
            reason=job.reason,
            command_id=None if job.command is None else job.command.id,
            created_at_ms=now_ms,
            offsets=job.offsets,
            n_items=job.n_items,
            input_policy=self.input_policy,
            half_life_s=self.half_life_s,
            landmark_ms=None if self.half_life_s is None else now_ms,
        )
        model = next_model(candidate, incumbent, occasion, embedding, cluster_ids=job.cluster_ids)
        events = epoch_events(
            model, incumbent, candidate, occasion, born_before=job.cluster_ids or ()
        )
        labels = inherited_labels(self.models.labels, events)
        events += [
            label_event(
                cluster,
                label,
                epoch=model.manifest.epoch,
                revision=model.manifest.revision,
                occurred_at_ms=now_ms,
                command_id=occasion.command_id,
                is_inherited=True,
            )
            for cluster, label in labels.items()
        ]
        outcome = self._published(model, events, dict(labels))
        outcome.command, outcome.job, outcome.candidate = job.command, job, candidate
        return outcome

    def renewal(self, model: Model) -> Outcome:
        """The same clusters; from here on their members fade from this moment."""
        return self._published(*renewed(model, self._now_ms(), half_life_s=self.half_life_s), {})

    def _published(
        self, model: Model, events: list[Lifecycle], labels: dict[str, str | None]
    ) -> Outcome:
        epochs, topic = self.models.epochs, self.topics.model
        oldest = model.manifest.epoch - self.policy.keep_epochs
        dropped = [m for epoch, m in sorted(epochs.items()) if epoch <= oldest]
        kept = [m for epoch, m in epochs.items() if epoch > oldest]
        cleared = self.alarms.cleared(model, model.manifest.created_at_ms)
        outgoing = [label_record(cluster, label, topic) for cluster, label in labels.items()]
        outgoing += model_records(
            model,
            topic,
            previous=self.models.newest,
            drop=dropped,
            unlabel=forgotten_labels(self.models.labels, [*kept, model.manifest]),
        )
        outgoing += self.alarms.records(cleared) + self._lineage(events)
        return Outcome(
            outgoing,
            events,
            model=model,
            cleared=cleared,
            labels=labels,
            dropped=[manifest.epoch for manifest in dropped],
        )

    def labelled(self, command: Command, model: Model) -> Outcome:
        """A cluster has another name."""
        assert command.cluster is not None
        cluster, label = command.cluster, command.label or None
        event = label_event(
            cluster,
            label,
            epoch=model.manifest.epoch,
            revision=model.manifest.revision,
            occurred_at_ms=self._now_ms(),
            command_id=command.id,
        )
        record = label_record(cluster, label, self.topics.model)
        return Outcome([record, *self._lineage([event])], [event], command, labels={cluster: label})

    def rejected(
        self,
        command: Command | None,
        problem: str,
        *,
        job: Job | None = None,
        candidate: Candidate | None = None,
    ) -> Outcome:
        """Everything stays as it is, and the reason is told."""
        event = rejection(
            self.models.newest,
            reason=problem,
            command_id=None if command is None else command.id,
            occurred_at_ms=self._now_ms(),
            candidate=candidate,
        )
        return Outcome(self._lineage([event]), [event], command, job=job, candidate=candidate)

    def _lineage(self, events: list[Lifecycle]) -> list[Outgoing]:
        outgoing = []
        for event in events:
            value, headers = encode_lifecycle(event, self.events)
            outgoing.append(Outgoing(self.topics.lifecycle, 0, event.key, value, headers))
        return outgoing

    def _now_ms(self) -> int:
        return int(self.clock() * 1000)


def problem_of(command: Command, models: ModelFold) -> str | None:
    """Why a command cannot be carried out under these models; None if it can."""
    if command.type == CommandType.RECLUSTER:
        return None
    model = models.newest
    if model is None:
        return "there is no model yet"
    known = model.manifest.clusters
    for cluster in (*command.clusters, *([command.cluster] if command.cluster else ())):
        if cluster not in known:
            return f"{cluster} is no cluster of model {model.version}"
    if command.type == CommandType.ROLLBACK:
        assert command.epoch is not None
        return _problem_of_rollback(command.epoch, models, model)
    return None


def _problem_of_rollback(epoch: int, models: ModelFold, model: Model) -> str | None:
    to = models.model_of(epoch)
    if to is None:
        kept = ", ".join(str(known) for known in sorted(models.epochs))
        return f"epoch {epoch} is not kept: {kept} are"
    if epoch == model.manifest.epoch:
        return f"epoch {epoch} is the newest one"
    if not to.manifest.shares_embedding_with(model.manifest):
        then, now = to.manifest.embedding_model, model.manifest.embedding_model
        return f"epoch {epoch} is of the embedding model {then!r}, but now {now!r} stands"
    for name in ("dimensions", "metric"):
        then, now = getattr(to.manifest, name), getattr(model.manifest, name)
        if then != now:
            return f"{name} of epoch {epoch} is {then!r}, but now {now!r}"
    return None
