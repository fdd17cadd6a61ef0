"""The topics, followed into the view: to the ends noted at the start, and from then on for ever.

No group, and nothing committed: a reader for each topic. The assignments come first, since the
vectors that count are told by them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pipeline.engine.totals import Totals
from pipeline.errors import TransientError
from pipeline.messages.embedding import in_force
from pipeline.messages.policy import EmbeddingPolicy
from pipeline.messages.records import Record
from pipeline.services.server.desk import Desk
from pipeline.services.server.fences import Fences
from pipeline.services.server.vectors import VectorFollower, VectorMarks
from pipeline.state.view.fold import News
from pipeline.streams.contract import Broker, Reader

SLICE_RECORDS = 2000
"""Taken in with the lock held: some milliseconds that a request may have to wait."""
WAIT_S = 0.02
HISTORY_EVENTS = 500_000
"""Change events that are read from before the start, for the series and the rings."""
LAG_INTERVAL_S = 5.0

Listener = Callable[[News], None]
"""Is told what came, after the view has it and without the lock; it must not wait."""


class _Source(NamedTuple):
    topic: str
    reader: Reader
    fold: Callable[[Sequence[Record]], News]


class Marks(NamedTuple):
    """From where on topics are read to go on from a view that is there."""

    changes: Mapping[int, int]
    assignments: Mapping[int, int]
    vectors: VectorMarks | None
    embedding: tuple[str | None, int, int | None]
    """Of the vectors: its name, how many dimensions, since when; another one's are of no use."""


class Follower:
    """Feeds a `Desk`; one thread calls `step`.

    Parameters
    ----------
    marks
        Of the view that the desk has already; None: an empty one, and all is read.
    input_is_compacted
        The input stores the vectors; else their copies do.
    configured
        What a vector has to be, as the configuration says it; the model decides.
    """

    def __init__(
        self,
        broker: Broker,
        desk: Desk,
        configured: EmbeddingPolicy,
        *,
        input_is_compacted: bool,
        marks: Marks | None = None,
        listeners: Sequence[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._broker, self._desk, self._configured = broker, desk, configured
        self._listeners, self._clock = tuple(listeners), clock
        self._compacted = input_is_compacted
        self._lags_at = -LAG_INTERVAL_S
        self._lags_known_at = clock()
        self._caught_up = False
        self._fences = Fences(broker, desk.view)
        self._starts: dict[int, int] = {}
        self._firsts: dict[int, int] = {}
        self._resumed = marks
        topics, view = desk.topics, desk.view
        recent = self._recent(topics.changes) if marks is None else marks.changes
        known = None if marks is None else marks.assignments
        self._changes = _Source(
            topics.changes, broker.reader(topics.changes, recent), self._fold_changes
        )
        self._sources = [
            _Source(topics.model, broker.reader(topics.model), self._fold_model),
            _Source(topics.lifecycle, broker.reader(topics.lifecycle), view.fold_lifecycle),
            _Source(topics.drift, broker.reader(topics.drift), view.fold_drift),
            _Source(topics.commands, broker.reader(topics.commands), view.fold_commands),
            _Source(topics.statistics, broker.reader(topics.statistics), self._fold_statistics),
            _Source(topics.assignments, broker.reader(topics.assignments, known), self._fold_items),
        ]
        self._vectors: VectorFollower | None = None
        self._totals_are_open = False

    @property
    def is_caught_up(self) -> bool:
        """Whether everything that stood in the topics at the start is in the view."""
        return self._caught_up

    @property
    def lag_s(self) -> float:
        """How far the view was behind when that was known last; or since when it is not known."""
        unknown_s = self._clock() - self._lags_known_at
        return max(self._lag_s, unknown_s if unknown_s > 2 * LAG_INTERVAL_S else 0.0)

    _lag_s = 0.0

    def positions(self, topic: str) -> Mapping[int, int]:
        """How far a topic is read: before the first step, from where on."""
        if topic == self._changes.topic:
            return dict(self._changes.reader.positions)
        return dict(self._source(topic).reader.positions)

    def marks(self) -> Marks | None:
        """From where on who has the view as it is now goes on; None: it is not whole.

        For the thread that calls `step`, between two steps. Records of a transaction that is open
        are behind these marks, and so are all of one of which a part is read, in their topics.
        """
        keeps_vectors = self._desk.policy.vectors != "none"
        if not self._caught_up or (
            keeps_vectors and (self._vectors is None or not self._vectors.at_end)
        ):
            return None
        return Marks(
            self._changes.reader.positions,
            self._source(self._desk.topics.assignments).reader.positions,
            None if self._vectors is None else self._vectors.marks,
            self._embedding,
        )

    def step(self) -> int:
        """Take in what there is, or wait a little; how many records came.

        Raises
        ------
        TransientError
            The broker is away; the next call goes on.
        """
        n = 0
        if self._caught_up or self._are_read(self._sources):
            n += self._take(self._changes, 0.0)
        for source in self._sources:
            n += self._take(source, 0.0)
        if not self._totals_are_open and self._source(self._desk.topics.statistics).reader.at_end:
            self._desk.totals.opened()
            self._totals_are_open = True
        n += self._follow_vectors()
        if not self._caught_up:
            self._caught_up = self._are_read([*self._sources, self._changes]) and (
                self._vectors is None or self._vectors.at_end
            )
        self._note_lags()
        if not n:
            n += self._take(self._changes, WAIT_S)
        if self._caught_up:
            self._show(is_idle=not n)
        return n

    def close(self) -> None:
        """Free the readers."""
        for source in [*self._sources, self._changes]:
            source.reader.close()
        if self._vectors is not None:
            self._vectors.close()

    # --- topics -------------------------------------------------------------------

    def _source(self, topic: str) -> _Source:
        return next(source for source in self._sources if source.topic == topic)

    def _are_read(self, sources: Sequence[_Source]) -> bool:
        return all(source.reader.at_end for source in sources)

    def _take(self, source: _Source, timeout_s: float) -> int:
        records = source.reader.read(SLICE_RECORDS, timeout_s=timeout_s)
        if not records:
            return 0
        with self._desk.changed:
            news = source.fold(records)
            self._desk.changed.notify_all()
        if self._listeners and (news.records or news.has_new_model):
            for listener in self._listeners:
                listener(news)
        return len(records)

    def _fold_items(self, records: Sequence[Record]) -> News:
        news = self._desk.view.fold_assignments(records)
        if self._vectors is not None:
            self._vectors.assigned(records)
        return news

    def _fold_statistics(self, records: Sequence[Record]) -> News:
        self._desk.totals.fold(records)
        return self._desk.view.fold_heads(records)

    def _fold_changes(self, records: Sequence[Record]) -> News:
        for record in records:
            if record.partition not in self._firsts:
                self._firsts[record.partition] = record.timestamp_ms or 0
                if self._starts.get(record.partition):
                    view = self._desk.view
                    first_ms = self._firsts[record.partition]
                    view.counted_since_ms = max(view.counted_since_ms, first_ms)
        return self._desk.view.fold_changes(records)

    def _fold_model(self, records: Sequence[Record]) -> News:
        news = self._desk.view.fold_model(records)
        model = self._desk.view.model
        if news.has_new_model and model is not None:
            manifest = model.manifest
            embedding = in_force(
                self._configured, manifest.embedding_model, manifest.embedding_since
            )
            if (embedding.model, embedding.dimensions) != (
                self._desk.embedding.model, self._desk.embedding.dimensions,
            ):  # fmt: skip
                self._take_over(embedding)
        return news

    def _take_over(self, embedding: EmbeddingPolicy) -> None:
        """Another embedding model stands: its vectors and sums are read from the beginning."""
        desk = self._desk
        desk.embedding = embedding
        desk.totals = Totals(
            desk.topics.partitions, embedding.dimensions, max_component=embedding.largest_component
        )
        self._totals_are_open = False
        topic = desk.topics.statistics
        at = next(i for i, source in enumerate(self._sources) if source.topic == topic)
        self._sources[at].reader.close()
        fresh = _Source(topic, self._broker.reader(topic), self._fold_statistics)
        self._sources = [*self._sources[:at], fresh, *self._sources[at + 1 :]]
        if self._vectors is not None:
            self._vectors.close()
            self._vectors = None

    def _recent(self, topic: str) -> Mapping[int, int]:
        """Where the events begin that are read from before the start."""
        ranges = self._broker.ranges(topic)
        share = HISTORY_EVENTS // max(1, len(ranges))
        starts = {p: max(log.low, log.high - share) for p, log in ranges.items()}
        self._starts = {p: start - ranges[p].low for p, start in starts.items()}
        return starts

    # --- what shows ---------------------------------------------------------------

    def _show(self, *, is_idle: bool) -> None:
        """What was read of all topics that are written for the input, shows."""
        topics, desk = self._desk.topics, self._desk
        positions = {
            topics.changes: self._changes.reader.positions,
            topics.assignments: self._source(topics.assignments).reader.positions,
        }
        if self._vectors is not None:
            positions[topics.vectors] = self._vectors.positions
        with desk.changed:
            is_pressing = is_idle or desk.n_waiting > 0
        if self._fences.step(positions, self._clock(), is_pressing=is_pressing):
            with desk.changed:
                desk.changed.notify_all()

    # --- vectors ------------------------------------------------------------------

    def _follow_vectors(self) -> int:
        desk = self._desk
        if desk.policy.vectors == "none":
            return 0
        if self._vectors is None:
            needed = [self._source(desk.topics.assignments)]
            if self._resumed is not None:
                needed.append(self._source(desk.topics.model))
            if not self._are_read(needed):
                return 0  # until then nobody knows which records count
            marks, self._resumed = self._resumed, None
            fits = marks is not None and marks.embedding == self._embedding
            self._vectors = VectorFollower(
                self._broker, desk, is_compacted=self._compacted,
                marks=marks.vectors if fits and marks is not None else None,
            )  # fmt: skip
        return self._vectors.step()

    @property
    def _embedding(self) -> tuple[str | None, int, int | None]:
        model, embedding = self._desk.view.model, self._desk.embedding
        since = None if model is None else model.manifest.embedding_since
        return embedding.model, embedding.dimensions, since

    # --- lag ------------------------------------------------------------------------

    def _note_lags(self) -> None:
        now = self._clock()
        if now - self._lags_at < LAG_INTERVAL_S:
            return
        self._lags_at = now
        lags: dict[str, int] = {}
        for source in [*self._sources, self._changes]:
            try:
                ranges = self._broker.ranges(source.topic)
            except TransientError:
                return
            at = source.reader.positions
            lags[source.topic] = sum(max(0, ranges[p].high - at[p]) for p in at)
        desk = self._desk
        desk.lags = lags
        self._lags_known_at = now
        # seconds: since the newest record that was taken in, while there are newer ones
        behind = self._caught_up and sum(lags.values()) > SLICE_RECORDS
        self._lag_s = max(0.0, desk.now() - desk.view.as_of_ms / 1000.0) if behind else 0.0
