"""The process that makes models: a sample of the input in, epochs and their lineage out.

One is active: its transactional id fences a second one. It keeps nothing that the topics do
not hold: the model, the answered commands and the time of the last attempt are read back at the
start; updates since the fit are offsets minus those in the manifest; a command's offset
is committed in the transaction of its outcome.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from pipeline.clustering.recluster import Candidate, FitSettings, propose
from pipeline.clustering.schedule import ReclusterPolicy, ReclusterSchedule, Trigger
from pipeline.engine.epoch import Occasion, epoch_events, next_model, rejection
from pipeline.errors import AbortedError, RecordError, TransientError
from pipeline.kernels.contract import Kernels
from pipeline.messages.codec import decode_lifecycle, encode_lifecycle
from pipeline.messages.commands import Command, decode_command
from pipeline.messages.events import Lifecycle, LifecycleType
from pipeline.messages.model import Model, ModelFold, model_records
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy, LimitPolicy
from pipeline.messages.records import Outgoing, Record
from pipeline.services.reports import ReclustererReports
from pipeline.services.sampling import SampleReader, to_end
from pipeline.streams.contract import Broker, Stream
from pipeline.streams.topics import TopicPolicy

COMMANDS_AT_ONCE = 100
IDLE_WAIT_S = 0.1
GROUP_LAG_INTERVAL_S = 30.0
COMMANDS = 0  # the partition of the commands


@dataclass(frozen=True, slots=True)
class ReclustererSettings:
    """What does not change while a process lives."""

    topics: TopicPolicy
    embedding: EmbeddingPolicy
    limits: LimitPolicy
    events: EventPolicy
    policy: ReclusterPolicy
    n_clusters: int
    seed: int
    assigner_group: str
    input_policy: str
    """The cleanup policy of the input, as the broker says it."""


@dataclass(slots=True, eq=False)
class _Attempt:
    """A fit that runs, and what it is to be judged by."""

    reason: Trigger
    command: Command | None
    incumbent: Model | None
    offsets: Mapping[int, int]
    n_items: int
    future: Future[Candidate]


@dataclass(slots=True, eq=False)
class _Outcome:
    """What is to be published; again after an abort."""

    outgoing: list[Outgoing]
    events: list[Lifecycle]
    command: Command | None
    model: Model | None
    attempt: _Attempt | None
    candidate: Candidate | None


@dataclass(slots=True)
class Reclusterer:
    """Tier 3 in its first form. One thread calls `step` for ever, then `close`."""

    broker: Broker
    stream: Stream
    """Of the commands topic."""
    settings: ReclustererSettings
    kernels: Kernels
    sampling: SampleReader
    executor: Executor
    """Runs the fits, one at a time; the loop goes on beside it."""
    clock: Callable[[], float]
    """Seconds since 1970: ages outlive a process."""
    reports: ReclustererReports

    _opening: Generator[int, None, None] | None = None
    _is_open: bool = False
    _owns_commands: bool = False
    _next_command_offset: int = 0
    _queue: deque[Record] = field(default_factory=deque)
    _answered: set[str] = field(default_factory=set)
    _models: ModelFold = field(default_factory=ModelFold)
    _schedule: ReclusterSchedule = field(init=False)
    _attempt: _Attempt | None = None
    _outcome: _Outcome | None = None
    _is_cancelled: bool = False
    _lag_told_at: float = float("-inf")

    def __post_init__(self) -> None:
        self._schedule = ReclusterSchedule(self.settings.policy, self.clock())

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
        polled = self.stream.poll(
            COMMANDS_AT_ONCE, timeout_s=0.0 if n_read or self._outcome else IDLE_WAIT_S
        )
        for committed in polled.assigned.values():
            start = self.broker.ranges(self.settings.topics.commands)[COMMANDS].low
            self._next_command_offset = start if committed is None else committed
            self.stream.start(COMMANDS, self._next_command_offset)
            self._owns_commands = True
        if polled.revoked or polled.lost:
            self._owns_commands = False
            self._queue.clear()  # they come again, to whoever owns them next
        self._queue.extend(polled.records)
        if self._is_open and self._owns_commands:
            self._advance()
        self._report_lag()
        self.reports.turned(
            self._updates(), len(self.sampling.sample), self.model, is_open=self._is_open
        )

    def close(self) -> None:
        """Drop a running fit, publish nothing half, leave the group."""
        self._is_cancelled = True
        if self._attempt is not None:
            self._attempt.future.cancel()
        self.sampling.close()
        self.stream.close()

    # --- reading ------------------------------------------------------------------

    def _open_slice(self) -> int:
        """Read what a predecessor left, in slices; then the input is followed."""
        if self._opening is None:
            self._opening = self._open()
        try:
            return next(self._opening)
        except StopIteration:
            self._opening, self._is_open = None, True
            return 1

    def _read(self) -> int:
        """Follow the input; begin anew where deletes have left too few items."""
        n_read = self.sampling.read()
        if self.sampling.needs_more and self._attempt is None:
            self._is_open, self._opening = False, self.sampling.widen()
        return n_read

    def _open(self) -> Generator[int, None, None]:
        topics = self.settings.topics
        for records in to_end(self.broker.reader(topics.model)):
            self._models.fold(records)
            yield 1
        if self.model is not None:
            self._schedule.fitted(self.model.manifest.created_at_ms / 1000.0)
        for records in to_end(self.broker.reader(topics.lifecycle)):
            for record in records:
                if record.value is not None:
                    self._note_answer(decode_lifecycle(record.value))
            yield 1
        yield from self.sampling.begin()

    def _note_answer(self, event: Lifecycle) -> None:
        if event.command is not None:
            self._answered.add(event.command)
        is_attempt = event.type in (LifecycleType.INSTALLED, LifecycleType.REJECTED)
        if is_attempt and event.occurred_at_ms is not None:
            is_published = event.type is LifecycleType.INSTALLED
            self._schedule.attempted(event.occurred_at_ms / 1000.0, published=is_published)

    # --- deciding -----------------------------------------------------------------

    def _advance(self) -> None:
        """One matter at a time: publish an outcome, wait for a fit, or begin something."""
        if self._outcome is not None:
            self._publish(self._outcome)
        elif self._attempt is not None:
            if self._attempt.future.done():
                self._judge(self._attempt)
        elif self._queue:
            self._take_command(self._queue[0])
        else:
            self._follow_schedule()

    def _follow_schedule(self) -> None:
        now = self.clock()
        if self.model is not None:
            trigger = self._schedule.due(now, self._updates())
        else:
            trigger = self._schedule.bootstrap_due(
                now, n_items=len(self.sampling.sample), first_record_s=self.sampling.first_record_at
            )
        if trigger is not None and len(self.sampling.sample):
            self._begin(trigger, None)

    def _take_command(self, record: Record) -> None:
        try:
            command = decode_command(record)
        except RecordError as error:
            self.reports.malformed_command(record, error)
            self._skip_command(record)
            return
        if command.id in self._answered:  # an offset may expire, an answer does not
            self._skip_command(record)
            return
        if not self.sampling.is_waited_for:
            self.reports.command_received(command)
        if command.type != "recluster":
            problem = f"{command.type} is not carried out by this version"
        elif not len(self.sampling.sample):
            problem = "there are no items to cluster yet"
        elif not self.sampling.has_read_up_to_now():
            return  # the sample is older than the command: it waits for what was written before
        else:
            self._begin(Trigger.COMMAND, command)
            return
        self._reject(command, problem)

    def _skip_command(self, record: Record) -> None:
        """Go past a command that needs no answer."""
        try:
            self.stream.commit([], {COMMANDS: record.offset + 1})
        except AbortedError as error:
            self.reports.aborted(error)
            return
        self._queue.popleft()
        self._next_command_offset = record.offset + 1

    def _begin(self, reason: Trigger, command: Command | None) -> None:
        """Start a fit beside the loop."""
        _, points = self.sampling.sample.snapshot()
        incumbent = self.model
        settings = FitSettings(
            n_clusters=self.settings.n_clusters,
            seed=self.settings.seed,
            max_iterations=self.settings.policy.max_iterations,
            max_component=self.settings.embedding.largest_component,
            spherical=self.settings.embedding.metric == "cosine",
        )
        self._is_cancelled = False
        future = self.executor.submit(
            propose,
            points,
            None if incumbent is None else incumbent.centroids,
            settings,
            kernels=self.kernels,
            is_cold=command is not None and command.cold,
            is_cancelled=lambda: self._is_cancelled,
        )
        self.sampling.give_up()
        self._attempt = _Attempt(
            reason, command, incumbent, dict(self.sampling.positions), len(points), future
        )
        self.reports.recluster_started(reason, n_items=len(points))

    def _judge(self, attempt: _Attempt) -> None:
        candidate = attempt.future.result()
        now_ms = int(self.clock() * 1000)
        command = attempt.command
        is_forced = command is not None and command.force
        if not is_forced and not candidate.beats_incumbent(self.settings.policy.min_gain):
            problem = (
                f"the candidate saves {candidate.gain:.4%} of the inertia, less than "
                f"recluster.min_gain, {self.settings.policy.min_gain:.4%}"
            )
            event = rejection(
                attempt.incumbent,
                reason=problem,
                command_id=None if command is None else command.id,
                occurred_at_ms=now_ms,
                candidate=candidate,
            )
            self._outcome = _Outcome([], [event], command, None, attempt, candidate)
        else:
            self._outcome = self._new_epoch(attempt, candidate, now_ms)
        self._publish(self._outcome)

    def _new_epoch(self, attempt: _Attempt, candidate: Candidate, now_ms: int) -> _Outcome:
        command = attempt.command
        occasion = Occasion(
            reason=attempt.reason.value,
            command_id=None if command is None else command.id,
            created_at_ms=now_ms,
            offsets=attempt.offsets,
            n_items=attempt.n_items,
            input_policy=self.settings.input_policy,
        )
        model = next_model(candidate, attempt.incumbent, occasion, self.settings.embedding)
        events = epoch_events(model, attempt.incumbent, candidate, occasion)
        oldest = model.manifest.epoch - self.settings.policy.keep_epochs
        dropped = [m for epoch, m in sorted(self._models.epochs.items()) if epoch <= oldest]
        outgoing = model_records(
            model, self.settings.topics.model, previous=attempt.incumbent, drop=dropped
        )
        return _Outcome(outgoing, events, command, model, attempt, candidate)

    def _reject(self, command: Command, problem: str) -> None:
        event = rejection(
            self.model,
            reason=problem,
            command_id=command.id,
            occurred_at_ms=int(self.clock() * 1000),
        )
        self._outcome = _Outcome([], [event], command, None, None, None)
        self._publish(self._outcome)

    def _publish(self, outcome: _Outcome) -> None:
        """One transaction: the model, its lineage, and the offset of the command behind it."""
        offset = self._next_command_offset
        if outcome.command is not None:
            if not self._queue:
                return  # the partition went away and came back: the command comes again
            offset = self._queue[0].offset + 1
        topic = self.settings.topics.lifecycle
        lineage = []
        for event in outcome.events:
            value, headers = encode_lifecycle(event, self.settings.events)
            lineage.append(Outgoing(topic, 0, event.key, value, headers))
        try:
            self.stream.commit([*outcome.outgoing, *lineage], {COMMANDS: offset})
        except AbortedError as error:
            self.reports.aborted(error)
            return
        self._finish(outcome, offset)

    def _finish(self, outcome: _Outcome, offset: int) -> None:
        self._outcome = None
        self._next_command_offset = offset
        if outcome.command is not None:
            self._queue.popleft()
            self._answered.add(outcome.command.id)
        if outcome.model is not None:
            self._models.install(outcome.model)
        if outcome.attempt is not None:
            self._attempt = None
            self._schedule.attempted(
                self.clock(), published=outcome.model is not None, n_updates=self._updates()
            )
        self.reports.published(outcome.events, outcome.command, outcome.model, outcome.candidate)

    def _report_lag(self) -> None:
        """What the assigners have yet to read: from outside, so also while all of them are down."""
        now = self.clock()
        if now - self._lag_told_at < GROUP_LAG_INTERVAL_S:
            return
        self._lag_told_at = now
        try:
            committed = self.broker.committed(
                self.settings.assigner_group, self.settings.topics.input
            )
            ranges = self.broker.ranges(self.settings.topics.input)
        except TransientError:
            return  # a transaction is pending, or the broker is away: at the next time
        self.reports.group_lag(
            {
                partition: log.high - max(committed[partition] or 0, log.low)
                for partition, log in ranges.items()
            }
        )

    def _updates(self) -> int:
        """Records of the input since the newest model was fitted."""
        positions = self.sampling.positions
        if self.model is None:
            return sum(positions.values())
        fitted_on = self.model.manifest.fitted_offsets
        return sum(max(0, positions.get(p, 0) - offset) for p, offset in enumerate(fitted_on))
