"""Following the input for the reclusterer: the sample, how far it has read, and who still waits."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.errors import TransientError
from pipeline.messages.codec import decode, decode_vectors
from pipeline.messages.policy import EmbeddingPolicy, LimitPolicy
from pipeline.messages.records import Record
from pipeline.state.sample import Sample
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
    clock: Callable[[], float]
    sample: Sample = field(init=False)
    first_record_at: float | None = None
    """When the first item was seen."""
    _input: Reader | None = None
    _goal: dict[int, int] | None = None
    """Where the input ended when somebody began to wait for it."""

    def __post_init__(self) -> None:
        self.sample = Sample(self.embedding.dimensions, max_items=self.max_items)

    @property
    def positions(self) -> Mapping[int, int]:
        """Partition -> the first offset of the input that the sample has not seen."""
        return {} if self._input is None else self._input.positions

    def begin(self) -> Generator[int, None, None]:
        """First the vectors that the input cannot give back, then the input over them; slices."""
        self.close()
        for records in to_end(self.broker.reader(self.topics.vectors)):
            kept = [(r.key, r.value) for r in records if r.key is not None and r.value is not None]
            if kept:
                keys = [key for key, _ in kept]
                values = [value for _, value in kept]
                vectors, sequences = decode_vectors(values, self.embedding.dimensions)
                self.sample.apply(keys, range(len(keys)), vectors, sequences)
            yield 1
        self._input = self.broker.reader(self.topics.input)

    def read(self) -> int:
        """Take one slice of the input in; how many records it had."""
        assert self._input is not None, "begin first"
        records = self._input.read(SLICE_RECORDS, timeout_s=0.0)
        if records:
            self._fold(records)
        return len(records)

    @property
    def needs_more(self) -> bool:
        """Whether the sample is thin: it should begin again over a wider range of items."""
        return self.sample.is_thin and self._input is not None and self._input.at_end

    def widen(self) -> Generator[int, None, None]:
        """Begin again over a wider range of items; slices."""
        self.sample = self.sample.wider()
        return self.begin()

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

    def _fold(self, records: Sequence[Record]) -> None:
        batch = decode(records, self.embedding, self.limits)
        good = [i for i in range(len(records)) if i not in batch.errors]
        rows = batch.rows.tolist()
        self.sample.apply(
            [records[i].key or b"" for i in good],
            [rows[i] for i in good],
            batch.vectors,
            [batch.sequences[i] for i in good],
        )
        if self.first_record_at is None and len(batch.vectors):
            self.first_record_at = self.clock()


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
