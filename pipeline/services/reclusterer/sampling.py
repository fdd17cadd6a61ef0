"""Following the input for the reclusterer: the sample, how far it has read, and who still waits."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.errors import TransientError
from pipeline.messages.codec import Decoded, decode, decode_vectors, record_timestamp
from pipeline.messages.embedding import record_model, successor_item
from pipeline.messages.policy import EmbeddingPolicy, LimitPolicy
from pipeline.messages.records import Record
from pipeline.state.sample import FULL_RANGE, GONE, Sample
from pipeline.streams.contract import Broker, Reader
from pipeline.streams.topics import TopicPolicy

SLICE_RECORDS = 4000
SLICE_WAIT_S = 0.1


@dataclass(slots=True)
class SampleReader:
    """Reads the input from its beginning, and goes on following it.

    The sample may lag behind the input: a fit is then older, never wrong.
    """

    broker: Broker
    topics: TopicPolicy
    embedding: EmbeddingPolicy
    limits: LimitPolicy
    max_items: int
    steady: Callable[[], float]
    """Seconds of a clock that never goes back."""
    sample: Sample = field(init=False)
    next_sample: Sample | None = field(init=False)
    """The same items by their vectors of the next embedding model; None: none is on its way."""
    _first_item_s: float | None = None
    _input: Reader | None = None
    _goal: dict[int, int] | None = None
    """Where the input ended when somebody began to wait for it."""
    _first_ends: dict[int, int] | None = None
    """Where the input ended when it was begun; None: the sample has read so far."""
    _kept_waiting: dict[bytes, Record] = field(default_factory=dict)
    """Vectors in `item-vectors` that stand there beside those of their items' own model."""

    def __post_init__(self) -> None:
        self._begin_samples(FULL_RANGE)

    def stand_by(self, embedding: EmbeddingPolicy) -> None:
        """Sample vectors of what stands; if that is the next model, its sample goes on as ours."""
        if embedding == self.embedding:
            return
        taken_over, successor = self.next_sample, self.embedding.successor
        self.embedding = embedding
        self._begin_samples(self.sample.hash_range)
        if taken_over is not None and successor == embedding:
            self.sample = taken_over

    def _begin_samples(self, hash_range: int) -> None:
        successor = self.embedding.successor
        self.sample = self._empty(self.embedding, hash_range)
        self.next_sample = None if successor is None else self._empty(successor, hash_range)

    def _empty(self, embedding: EmbeddingPolicy, hash_range: int) -> Sample:
        return Sample(
            embedding.dimensions,
            max_items=self.max_items,
            hash_range=hash_range,
            dtype=embedding.dtype,
        )

    @property
    def positions(self) -> Mapping[int, int]:
        """Partition -> the first offset of the input that the sample has not seen."""
        return {} if self._input is None else self._input.positions

    def begin(self) -> Generator[int, None, None]:
        """First the vectors that the input cannot give back, then the input over them; slices."""
        self.close()
        for records in to_end(self.broker.reader(self.topics.vectors)):
            self._fold_kept(records)
            yield 1
        self._take_waiting()
        ranges = self.broker.ranges(self.topics.input)
        self._first_ends = {partition: log.high for partition, log in ranges.items()}
        self._input = self.broker.reader(self.topics.input)

    def read(self) -> int:
        """Take one slice of the input in; how many records it had."""
        assert self._input is not None, "begin first"
        records = self._input.read(SLICE_RECORDS, timeout_s=0.0)
        if records:
            self._fold(records)
        return len(records)

    @property
    def waited_s(self) -> float | None:
        """Seconds since the first item was seen; None: none was."""
        return None if self._first_item_s is None else self.steady() - self._first_item_s

    @property
    def needs_more(self) -> bool:
        """Whether the sample is thin: it should begin again over a wider range of items."""
        return self.sample.is_thin and self._input is not None and self._input.at_end

    def widen(self) -> Generator[int, None, None]:
        """Begin again over a wider range of items; slices."""
        self._begin_samples(self.sample.wider().hash_range)
        return self.begin()

    @property
    def has_caught_up(self) -> bool:
        """Whether all that the input held at the beginning was read: before that, the samples of
        two embedding models do not tell how many items have both."""
        ends, positions = self._first_ends, self.positions
        if ends is not None and all(positions.get(p, 0) >= end for p, end in ends.items()):
            self._first_ends = ends = None
        return ends is None and self._input is not None

    def has_read_up_to_now(self) -> bool:
        """Whether the sample holds what the input held when this was first asked.

        Ask again until it does, or `give_up`.
        """
        if self._goal is None:
            ranges = self.broker.ranges(self.topics.input)
            self._goal = {partition: log.high for partition, log in ranges.items()}
        positions = self.positions
        return all(positions.get(partition, 0) >= high for partition, high in self._goal.items())

    @property
    def is_waited_for(self) -> bool:
        return self._goal is not None

    def give_up(self) -> None:
        """Nobody waits any more."""
        self._goal = None

    def close(self) -> None:
        if self._input is not None:
            self._input.close()
            self._input = None

    def _fold_kept(self, records: Sequence[Record]) -> None:
        """Copies of vectors; a null says that the item is gone, or that the input has it again."""
        ours = []
        for record in records:
            waiting = successor_item(record.key or b"")
            if waiting is not None:
                self._kept_waiting.pop(waiting, None)
                if record.value is not None:
                    self._kept_waiting[waiting] = record
            elif record.value is None or self._is_ours(record):
                ours.append(record)
        _apply_copies(self.sample, [record.key or b"" for record in ours], ours)

    def _is_ours(self, copy: Record) -> bool:
        """Whether a copy is of the model that stands; one that took over leaves its name."""
        return not self.embedding.must_name or record_model(copy) == self.embedding.model

    def _take_waiting(self) -> None:
        """What waited for its embedding model: that is on its way, or has just taken over."""
        waiting, self._kept_waiting = self._kept_waiting, {}
        successor = self.embedding.successor
        for sample, embedding in ((self.sample, self.embedding), (self.next_sample, successor)):
            if sample is None or embedding is None:
                continue
            taken = [(k, r) for k, r in waiting.items() if record_model(r) == embedding.model]
            _apply_copies(sample, [key for key, _ in taken], [record for _, record in taken])

    def _fold(self, records: Sequence[Record]) -> None:
        batch = decode(records, self.embedding, self.limits)
        if self.next_sample is None:
            good = [i for i in range(len(records)) if i not in batch.errors]
            self._apply(self.sample, records, good, batch)
        else:
            for good in _runs(records, batch):
                self._apply_both(self.next_sample, records, good, batch)
        if self._first_item_s is None and len(batch.vectors):
            self._first_item_s = self.steady()

    def _apply_both(
        self, successors: Sample, records: Sequence[Record], good: Sequence[int], batch: Decoded
    ) -> None:
        """A vector of the model that stands makes one of the next out of date, not the reverse."""
        new = batch.next_rows
        written = self._apply(self.sample, records, [i for i in good if i not in new], batch)
        successors.remove(successors.present(written))
        theirs = [i for i in good if i in new or records[i].value is None]
        if theirs:
            self._apply(successors, records, theirs, batch, new)
        self.sample.narrow(successors.hash_range)
        successors.narrow(self.sample.hash_range)

    @staticmethod
    def _apply(
        sample: Sample,
        records: Sequence[Record],
        good: Sequence[int],
        batch: Decoded,
        next_rows: Mapping[int, int] | None = None,
    ) -> list[bytes]:
        vectors, rows = batch.vectors, batch.rows.tolist()
        at = [rows[i] for i in good]
        if next_rows is not None:
            at = [next_rows.get(i, GONE) for i in good]
            vectors = sample.vectors[:0] if batch.next_vectors is None else batch.next_vectors
        return sample.apply(
            [records[i].key or b"" for i in good],
            at,
            vectors,
            [batch.sequences[i] for i in good],
            [records[i].timestamp_ms for i in good],
        )


def _runs(records: Sequence[Record], batch: Decoded) -> Iterator[list[int]]:
    """The good records, in order, cut where an item has records of both models."""
    run: list[int] = []
    seen: dict[bytes, bool] = {}
    for i, record in enumerate(records):
        if i in batch.errors or record.key is None:
            continue
        is_next = i in batch.next_rows
        if seen.setdefault(record.key, is_next) != is_next:
            yield run
            run, seen = [], {record.key: is_next}
        run.append(i)
    yield run


def _apply_copies(sample: Sample, keys: Sequence[bytes], copies: Sequence[Record]) -> None:
    values = [record.value for record in copies if record.value is not None]
    vectors, numbers = decode_vectors(values, sample.vectors.shape[1])
    rows = iter(range(len(values)))
    at = [GONE if record.value is None else next(rows) for record in copies]
    sample.apply(
        keys,
        at,
        vectors,
        [0 if row == GONE else numbers[row] for row in at],
        [record_timestamp(record) for record in copies],
    )


def to_end(reader: Reader) -> Generator[Sequence[Record], None, None]:
    """Slices of a topic up to the end that it has now."""
    try:
        while not reader.at_end:
            try:
                yield reader.read(SLICE_RECORDS, timeout_s=SLICE_WAIT_S)
            except TransientError:
                yield ()  # the broker is away; the reader goes on where it stopped
    finally:
        reader.close()
