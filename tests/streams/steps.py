"""Steps of the contract suites: each waits for a condition, as long as a deadline allows."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.messages.records import Outgoing, Record
from pipeline.streams.contract import GroupMember, Reader, Stream
from tests.streams.twins import Twin, eventually

POLL_S = 0.05


class Join:
    """Makes members of one group, and sees that they leave it."""

    def __init__(self, twin: Twin) -> None:
        self.twin = twin
        self.group_id = twin.name("group")
        self.streams: list[Stream] = []

    def __call__(self, topic: str, who: str = "a", *, instance_id: str | None = None) -> Stream:
        stream = self.twin.broker.stream(self.member(topic, who, instance_id))
        self.streams.append(stream)
        return stream

    def member(self, topic: str, who: str = "a", instance_id: str | None = None) -> GroupMember:
        return GroupMember(topic, self.group_id, f"{self.group_id}.{who}", instance_id)

    def close(self) -> None:
        for stream in self.streams:
            stream.close()


def fill(twin: Twin, topic: str, n_records: int, partition: int = 0, first: int = 0) -> None:
    producer = twin.broker.producer()
    for n in range(first, first + n_records):
        producer.write(Outgoing(topic, partition, b"k%d" % n, b"v%d" % n))
    producer.flush()


def assigned(stream: Stream, n_partitions: int) -> dict[int, int | None]:
    """Poll until so many partitions came; they are not started."""
    offsets: dict[int, int | None] = {}

    def ask() -> bool:
        offsets.update(stream.poll(10, timeout_s=POLL_S).assigned)
        return len(offsets) == n_partitions

    eventually(ask, f"{n_partitions} partitions assigned, have {sorted(offsets)}")
    return offsets


def begin_at(stream: Stream, offsets: Mapping[int, int | None]) -> None:
    for partition, offset in offsets.items():
        stream.start(partition, offset or 0)


def take(stream: Stream, n_records: int, max_records: int = 100) -> list[Record]:
    """Poll until so many records came, or more in the last poll."""
    records: list[Record] = []

    def ask() -> bool:
        records.extend(stream.poll(max_records, timeout_s=POLL_S).records)
        return len(records) >= n_records

    eventually(ask, f"{n_records} records")
    return records


def read_to_end(reader: Reader) -> list[Record]:
    records: list[Record] = []

    def ask() -> bool:
        records.extend(reader.read(100, timeout_s=POLL_S))
        return reader.at_end

    eventually(ask, "the reader at its end")
    return records


def read(reader: Reader, n_records: int) -> list[Record]:
    records: list[Record] = []

    def ask() -> bool:
        records.extend(reader.read(100, timeout_s=POLL_S))
        return len(records) >= n_records

    eventually(ask, f"{n_records} records")
    return records


def values(twin: Twin, topic: str) -> list[bytes | None]:
    """What an independent reader at read_committed finds."""
    reader = twin.broker.reader(topic)
    found = [record.value for record in read_to_end(reader)]
    reader.close()
    return found


def offsets(records: list[Record]) -> list[int]:
    return [record.offset for record in records]
