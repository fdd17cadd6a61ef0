"""The process that makes models: a sample and statistics in, epochs and revisions out.

One is active: its transactional id fences a second one. It keeps nothing that the topics do
not hold: the model, the answered commands, standing alarms and the time of the last attempt are
read back at the start; updates since the fit are offsets minus those in the manifest; a command's
offset is committed in the transaction of its outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Executor
from dataclasses import dataclass, field

from pipeline.clustering.centroids import CentroidPolicy
from pipeline.clustering.drift.policy import DriftPolicy
from pipeline.clustering.kmeans import ClusteringPolicy
from pipeline.clustering.quality import Quality
from pipeline.clustering.schedule import ReclusterPolicy, ReclusterSchedule, Standing, Trigger
from pipeline.engine.epoch import landmark_is_due
from pipeline.engine.setting import EngineSettings, check_model
from pipeline.engine.totals import Totals
from pipeline.errors import AbortedError, PipelineError, RecordError
from pipeline.kernels.contract import Kernels
from pipeline.messages.codec import decode_lifecycle
from pipeline.messages.commands import Command, CommandType, decode_command
from pipeline.messages.events import Lifecycle, LifecycleType
from pipeline.messages.manifest import Manifest
from pipeline.messages.model import Model, ModelFold, model_records
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy, LimitPolicy
from pipeline.services.reclusterer.alarms import Alarms
from pipeline.services.reclusterer.following import Following
from pipeline.services.reclusterer.inbox import Inbox
from pipeline.services.reclusterer.lag import GroupLag
from pipeline.services.reclusterer.migration import Migration
from pipeline.services.reclusterer.novelty import Novelty
from pipeline.services.reclusterer.outcomes import Outcome, Outcomes, problem_of
from pipeline.services.reclusterer.reports import ReclustererReports
from pipeline.services.reclusterer.sampling import SampleReader, to_end
from pipeline.services.reclusterer.workshop import Job, Workshop, fit_settings
from pipeline.streams.contract import Broker, Stream
from pipeline.streams.topics import TopicPolicy

IDLE_WAIT_S = 0.02


@dataclass(frozen=True, slots=True)
class ReclustererSettings:
    """What does not change while a process lives."""

    topics: TopicPolicy
    embedding: EmbeddingPolicy
    limits: LimitPolicy
    events: EventPolicy
    clustering: ClusteringPolicy
    centroids: CentroidPolicy
    recluster: ReclusterPolicy
    drift: DriftPolicy
    assigner_group: str
    input_policy: str
    """The cleanup policy of the input, as the broker says it."""


@dataclass(slots=True)
class Reclusterer:
    """Tiers 2 and 3. One thread calls `step` for ever, then `close`."""

    broker: Broker
    stream: Stream
    """Of the commands topic."""
    settings: ReclustererSettings
    kernels: Kernels
    executor: Executor
    """Runs the fits, one at a time, and what drift needs; the loop goes on beside them."""
    clock: Callable[[], float]
    """Seconds since 1970: ages outlive a process, and somebody may set this clock back."""
    steady: Callable[[], float]
    """Seconds of a clock that never goes back, for pauses."""
    reports: ReclustererReports

    inbox: Inbox = field(init=False)
    sampling: SampleReader = field(init=False)
    workshop: Workshop = field(init=False)
    following: Following = field(init=False)
    alarms: Alarms = field(init=False)
    _opening: Generator[int, None, None] | None = None
    _is_open: bool = False
    _models: ModelFold = field(default_factory=ModelFold)
    _outcomes: Outcomes = field(init=False)
    _schedule: ReclusterSchedule = field(init=False)
    _migration: Migration = field(init=False)
    _novelty: Novelty | None = None
    """Only where clusters come and go by themselves."""
    _job: Job | None = None
    _seen: Standing | None = None
    """How the model did when the job began."""
    _outcome: Outcome | None = None
    _silhouette: float | None = None
    """Of the sample, at the last fit."""
    _lag: GroupLag = field(init=False)

    def __post_init__(self) -> None:
        broker, given = self.broker, self.settings
        topics, embedding = given.topics, given.embedding
        self.inbox = Inbox(broker, self.stream, topics)
        self.sampling = SampleReader(
            broker, topics, embedding, given.limits, given.recluster.sample_items, self.steady
        )
        self.workshop = Workshop(
            self.sampling,
            fit_settings(given.clustering, given.recluster, embedding),
            self.kernels,
            self.executor,
            given.clustering.half_life_s,
            self.clock,
        )
        totals = self._new_totals(embedding)
        self.alarms = Alarms(broker, topics, given.events, given.drift, totals, self.executor)
        self.following = self._new_following(totals)
        if given.clustering.clusters == "auto":
            self._novelty = Novelty(self.sampling, self.kernels, given.clustering.max)
        self._outcomes = Outcomes(
            topics,
            given.events,
            given.recluster,
            given.clustering.half_life_s,
            given.input_policy,
            self._models,
            self.alarms,
            self.clock,
        )
        self._schedule = ReclusterSchedule(given.recluster, self.clock())
        self._lag = GroupLag(broker, given.assigner_group, topics.input, self.steady)
        self._migration = Migration(embedding.next.share, self.steady)

    @property
    def model(self) -> Model | None:
        """The newest published model."""
        return self._models.newest

    def step(self) -> None:
        """Read a slice, and carry one matter a step further.

        Raises
        ------
        TransientError
            The same step may succeed later; nothing was lost.
        FatalError
        """
        n_read = self._read() if self._is_open else self._open_slice()
        self.inbox.poll(timeout_s=0.0 if n_read or self._outcome else IDLE_WAIT_S)
        if self._is_open and self.inbox.is_owner:
            try:
                self._advance()
                self._follow()
            except AbortedError as error:
                self.reports.aborted(error)
        self._lag.tell(self.reports.group_lag)
        self.reports.turned(
            self._updates(),
            len(self.sampling.sample),
            self.model,
            self._quality,
            is_open=self._is_open,
            kernels=self.kernels,
            standing=self.alarms.standing,
        )

    def close(self) -> None:
        """Drop a running fit, publish nothing half, leave the group."""
        if self._job is not None:
            self._job.cancel()
        self.sampling.close()
        self.following.close()
        self.inbox.stream.close()

    # --- reading ------------------------------------------------------------------

    def _open_slice(self) -> int:
        """Read what a predecessor left, in slices; then the topics are followed."""
        if self._opening is None:
            self._opening = self._open()
        try:
            return next(self._opening)
        except StopIteration:
            self._opening, self._is_open = None, True
            return 1

    def _read(self) -> int:
        """Follow the topics; begin the input anew where deletes have left too few items."""
        n_read = self.sampling.read() + self.following.read()
        if self.sampling.needs_more and self._job is None:
            self._is_open, self._opening = False, self.sampling.widen()
        return n_read

    def _open(self) -> Generator[int, None, None]:
        topics = self.settings.topics
        for records in to_end(self.broker.reader(topics.model)):
            self._models.fold(records)
            yield 1
        self._models.check_wire(topics.model)
        if self.model is not None:
            self._stand_by(self.model.manifest)
            self._schedule.fitted(self.model.manifest.created_at_ms / 1000.0)
        for records in to_end(self.broker.reader(topics.lifecycle)):
            for record in records:
                if record.value is not None:
                    self._note_answer(decode_lifecycle(record.value))
            yield 1
        yield from self.alarms.begin()
        yield from self.following.begin()
        if self.model is not None:
            self.alarms.watch(self.model)
        yield from self.sampling.begin()

    def _new_totals(self, embedding: EmbeddingPolicy) -> Totals:
        n_partitions = self.settings.topics.partitions
        return Totals(n_partitions, embedding.dimensions, max_component=embedding.largest_component)

    def _new_following(self, totals: Totals) -> Following:
        given, on_head = self.settings, self.alarms.head_arrived
        return Following(self.broker, given.topics, totals, given.centroids, on_head)

    def _stand_by(self, manifest: Manifest) -> None:
        """Look at vectors of the embedding model that the newest model is of."""
        given = self.settings
        settings = EngineSettings(
            given.topics, given.embedding, given.limits, given.events,
            input_is_compacted=given.input_policy == "compact",
        ).under(manifest)  # fmt: skip
        check_model(manifest, settings)
        embedding = settings.embedding
        if embedding == self.sampling.embedding:
            return
        self.sampling.stand_by(embedding)
        totals = self._new_totals(embedding)
        self.following.close()
        self.following = self._new_following(totals)
        self.alarms.totals = totals
        if self._novelty is not None:  # what it watched was of the other model
            self._novelty = Novelty(self.sampling, self.kernels, given.clustering.max)

    def _note_answer(self, event: Lifecycle) -> None:
        if event.command is not None:
            self.inbox.answered.add(event.command)
        is_attempt = event.type in (LifecycleType.INSTALLED, LifecycleType.REJECTED)
        if is_attempt and event.occurred_at_ms is not None:
            is_published = event.type is LifecycleType.INSTALLED
            self._schedule.attempted(event.occurred_at_ms / 1000.0, published=is_published)
            self.reports.fit_remembered(event.occurred_at_ms / 1000.0)

    # --- tier 2 -------------------------------------------------------------------

    def _follow(self) -> None:
        """Centroids after their members, alarms after their windows."""
        if self.model is None or self._outcome is not None:
            return
        began = self.steady()
        created_at_ms = int(self.clock() * 1000)
        revision = self.following.revision(self.model, created_at_ms, now_s=began)
        if revision is not None:
            records = model_records(revision, self.settings.topics.model, previous=self.model)
            self.inbox.commit(records)
            self._models.install(revision)
            self.following.published(revision, now_s=began)
            self.alarms.follow(revision)
            self.reports.revision_published(
                revision, n_moved=len(records) - 2, duration_s=self.steady() - began
            )
        alarms = self.alarms.due
        if alarms:
            self.inbox.commit(self.alarms.records(alarms))
            self.alarms.told(alarms)
            self.reports.alarms(alarms, self.alarms.standing)

    # --- tier 3: deciding ---------------------------------------------------------

    def _advance(self) -> None:
        """One matter at a time: publish an outcome, wait for a job, or begin something."""
        if self._outcome is not None:
            self._publish(self._outcome)
        elif self._job is not None:
            if self._job.future.done():
                self._outcome = self._judged(self._job)
                self._publish(self._outcome)
        elif self.inbox.first is not None:
            self._take_command()
        else:
            self._follow_schedule()

    def _follow_schedule(self) -> None:
        now = self.clock()
        if self.model is not None and self._begin_transfer(self.model, now):
            return
        if not len(self.sampling.sample):
            return
        if self.model is None:
            trigger = self._schedule.bootstrap_due(
                n_items=len(self.sampling.sample), waited_s=self.sampling.waited_s
            )
        else:
            trigger = self._schedule.due(now, self._standing(self.model))
        if trigger is not None:
            self.reports.recluster_due(trigger, n_items=len(self.sampling.sample))
            self._begin(self.workshop.recluster(trigger, None, self.model))
        elif self.model is not None and landmark_is_due(
            self.model.manifest, self.settings.clustering.half_life_s, now
        ):
            self._outcome = self._outcomes.renewal(self.model)
            self._publish(self._outcome)
        elif self.model is not None and self._novelty is not None:
            newborn = self._novelty.newborn(self.model, now_s=self.steady())
            if newborn is not None:
                self._begin(self.workshop.grow(newborn, self.model))

    def _begin_transfer(self, model: Model, now_s: float) -> bool:
        """Let the next embedding model take over, if enough items have a vector of both."""
        sampling, successor = self.sampling, self.sampling.embedding.successor
        if successor is None or sampling.next_sample is None or not sampling.has_caught_up:
            return False
        if self._schedule.rests(now_s):
            return False
        if not self._migration.is_due(sampling.sample, sampling.next_sample):
            return False
        self._begin(self.workshop.transfer(model, sampling.next_sample, successor))
        return True

    def _standing(self, model: Model) -> Standing:
        return Standing(
            n_updates=self._updates(),
            is_drifting=bool(self.alarms.standing),
            inertia_growth=self._quality(model).inertia_growth,
        )

    def _begin(self, job: Job) -> None:
        self._job = job
        self._seen = None if self.model is None else self._standing(self.model)
        self.reports.recluster_started(job.trigger, n_items=job.n_items, phases=job.phases)

    def _take_command(self) -> None:
        record = self.inbox.first
        assert record is not None
        try:
            command = decode_command(record)
        except RecordError as error:
            self.reports.malformed_command(record, error)
            self.inbox.answer([])
            return
        if command.id in self.inbox.answered:  # an offset may expire, an answer does not
            self.inbox.answer([])
            return
        if not self.sampling.is_waited_for:
            self.reports.command_received(command)
        problem = problem_of(command, self._models)
        if problem is not None:
            self._outcome = self._outcomes.rejected(command, problem)
        elif command.type == CommandType.LABEL:
            assert self.model is not None
            self._outcome = self._outcomes.labelled(command, self.model)
        elif not self.sampling.has_read_up_to_now():
            return  # the sample is older than the command: it waits for what was written before
        elif not len(self.sampling.sample):
            self._outcome = self._outcomes.rejected(command, "there are no items to cluster yet")
        else:
            self._begin(self._job_of(command))
            return
        self._publish(self._outcome)

    def _job_of(self, command: Command) -> Job:
        model = self.model
        if command.type == CommandType.RECLUSTER:
            return self.workshop.recluster(Trigger.COMMAND, command, model)
        assert model is not None
        if command.type == CommandType.SPLIT:
            return self.workshop.split(command, model)
        if command.type == CommandType.MERGE:
            return self.workshop.merge(command, model)
        assert command.epoch is not None
        to = self._models.model_of(command.epoch)
        assert to is not None
        return self.workshop.rollback(command, to, model)

    # --- tier 3: outcomes ---------------------------------------------------------

    def _judged(self, job: Job) -> Outcome:
        job.phases.at("judge")
        try:
            candidate = job.future.result()
        except PipelineError as error:
            if job.command is None:
                self.reports.recluster_failed(error)
            return self._outcomes.rejected(job.command, str(error), job=job)
        is_good = candidate.beats_incumbent(self.settings.recluster.min_gain)
        job.phases.at("publish")
        if job.must_publish or is_good:
            return self._outcomes.epoch(job, candidate, job.embedding or self.sampling.embedding)
        problem = (
            f"the candidate saves {candidate.gain:.4%} of the inertia, less than "
            f"recluster.min_gain, {self.settings.recluster.min_gain:.4%}"
        )
        return self._outcomes.rejected(job.command, problem, job=job, candidate=candidate)

    def _publish(self, outcome: Outcome) -> None:
        """One transaction: the model, its lineage, and the offset of the command behind it."""
        if outcome.command is None:
            self.inbox.commit(outcome.outgoing)
        elif not self.inbox.answer(outcome.outgoing, outcome.command.id):
            return  # the partition went away and came back: the command comes again
        self._finish(outcome)

    def _finish(self, outcome: Outcome) -> None:
        self._outcome = None
        if outcome.model is not None:
            self._models.install(outcome.model)
            self._models.forget(outcome.dropped)
            if outcome.job is not None and outcome.job.embedding is not None:
                self._stand_by(outcome.model.manifest)
                self._is_open, self._opening = False, self.following.begin()
            self.alarms.told(outcome.cleared)
            self.alarms.watch(outcome.model)
        for cluster, label in outcome.labels.items():
            if label is None:
                self._models.labels.pop(cluster, None)
            else:
                self._models.labels[cluster] = label
        if outcome.job is not None:
            self._job = None
            outcome.job.phases.at(None)
            self._silhouette = outcome.job.silhouette if outcome.model else self._silhouette
            self._schedule.attempted(
                self.clock(),
                published=outcome.model is not None,
                standing=self._seen,
            )
        self.reports.published(outcome.events, outcome.command, outcome.model, outcome.candidate)
        self.reports.recluster_ended()

    def _quality(self, model: Model) -> Quality:
        return self.following.quality(model, now_s=self.steady(), silhouette=self._silhouette)

    # --- what others need to know -------------------------------------------------

    def _updates(self) -> int:
        """Records of the input since the newest model was fitted."""
        positions = self.sampling.positions
        if self.model is None:
            return sum(positions.values())
        fitted_on = self.model.manifest.fitted_offsets
        return sum(max(0, positions.get(p, 0) - offset) for p, offset in enumerate(fitted_on))
