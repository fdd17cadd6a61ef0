"""Everything is read once, at read_committed, and handed to the checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.cli.audit.arithmetic import check_nearest, check_statistics
from pipeline.cli.audit.dead_letters import check_dead_letters
from pipeline.cli.audit.events import EventAudit
from pipeline.cli.audit.input import PartitionInput, fold
from pipeline.cli.audit.items import check_items
from pipeline.cli.audit.model import check_model, fold_model
from pipeline.cli.audit.report import Report
from pipeline.cli.audit.tally import Assigned, Kept, NewestModel, Tally, Topics
from pipeline.cli.audit.watch import READ_RECORDS
from pipeline.messages.embedding import in_force, successor_item
from pipeline.messages.policy import EmbeddingPolicy, LimitPolicy
from pipeline.messages.records import Record
from pipeline.streams.contract import Broker
from pipeline.streams.topics import TopicPolicy, cleanup_policy

Progress = Callable[[str], None]
"""Told in a few words what is going on now."""


@dataclass(slots=True)
class Judge:
    """Reads everything once and hands it to the"""

    broker: Broker
    topics: TopicPolicy
    embedding: EmbeddingPolicy
    limits: LimitPolicy
    group_id: str
    progress: Progress

    def read_and_check(self) -> Report:
        """The report of what is there now."""
        model_tally = Tally("model", "the newest model is whole, and its digest is right")
        items = Tally("items", "every live item has exactly one assignment, and only those")
        sources = Tally("sources", "an assignment's source is the record that counts")
        letters = Tally("dead_letters", "every bad record is a dead letter, exactly once")
        nearest = Tally("nearest", "every item is in its nearest cluster")
        distances = Tally("distances", "assignments say the true distance")
        statistics = Tally("statistics", "statistics equal a recomputation, to the last unit")
        heads = Tally("heads", "the heads of the partitions count their members")
        audit = EventAudit(self.topics.input, self._cut(self.topics.changes))

        model, values = fold_model(self._all(self.topics.model), model_tally)
        assert model is not None
        check_model(model, values, model_tally)
        self.embedding = in_force(
            self.embedding,
            model.manifest["embedding_model"],
            model.manifest.get("embedding_since"),
        )
        self._check_settings(model, model_tally)
        read = self._read(model, items, audit)
        self.progress("checking items and the records that count")
        members = check_items(read, items, sources)
        check_dead_letters(read, letters)
        self.progress("checking distances")
        check_nearest(read, members, nearest, distances)
        self.progress("checking statistics")
        check_statistics(read, members, statistics, heads)
        audit.finish(
            {
                partition: {item: (row.cluster, row.offset) for item, row in rows.items()}
                for partition, rows in read.assignments.items()
            },
            {
                partition: {
                    item: history.removed_at
                    for item, history in state.items.items()
                    if history.known
                }
                for partition, state in read.inputs.items()
            },
        )
        poisoned = sum(
            bad.reasons == {"poison"} for s in read.inputs.values() for bad in s.bad.values()
        )
        letters.unchecked(poisoned, "poison cannot be recomputed from outside")
        passed_over = sum(state.n_passed_over for state in read.inputs.values())
        sources.unchecked(passed_over, "records of the other embedding model put no item anywhere")
        return Report(
            model=f"{model.version[0]}.{model.version[1]}",
            n_items=sum(len(rows) for rows in read.assignments.values()),
            n_records=sum(state.n_records for state in read.inputs.values()),
            n_events=audit.chain.n_checked,
            checks=(
                model_tally,
                items,
                sources,
                nearest,
                distances,
                *audit.tallies,
                statistics,
                heads,
                letters,
            ),
        )

    def _read(self, model: NewestModel, items: Tally, audit: EventAudit) -> Topics:
        committed = {
            partition: offset or 0
            for partition, offset in self.broker.committed(self.group_id, self.topics.input).items()
        }
        dead_letters: dict[int, list[Record]] = {partition: [] for partition in committed}
        for record in self._all(self.topics.dead_letters):
            dead_letters[record.partition].append(record)
        policy = cleanup_policy(self.broker.topics([self.topics.input])[self.topics.input])
        inputs = self._read_input(committed, "compact" not in policy, dead_letters)
        statistics: dict[int, dict[str, bytes]] = {partition: {} for partition in committed}
        heads: dict[int, Mapping[str, Any]] = {}
        for record in self._all(self.topics.statistics):
            partition, _, cluster = (record.key or b"").decode("utf-8").partition("/")
            if not cluster and record.value is not None:
                heads[int(partition)] = json.loads(record.value)
            elif record.value is None:
                statistics[record.partition].pop(cluster, None)
            else:
                statistics[record.partition][cluster] = record.value
        vectors: dict[int, dict[str, Kept]] = {partition: {} for partition in committed}
        for record in self._all(self.topics.vectors):
            if successor_item(record.key or b"") is not None:
                continue  # of the embedding model that is on its way: no promise yet
            item = (record.key or b"").decode("utf-8")
            if record.value is None:
                vectors[record.partition].pop(item, None)
            else:
                vectors[record.partition][item] = Kept(record.value, _time_of_copy(record))
        for record in self._all(self.topics.changes):
            audit.add(record)
        self._check_lifecycle(audit.ids)
        return Topics(
            input_topic=self.topics.input,
            compacted=policy == "compact",
            metric=self.embedding.metric,
            inputs=inputs,
            committed=committed,
            assignments=self._read_assignments(items, audit.versions),
            vectors=vectors,
            dead_letters=dead_letters,
            dead_letters_cut=self._cut(self.topics.dead_letters),
            statistics=statistics,
            heads=heads,
            model=model,
            dtype=self.embedding.dtype,
        )

    def _read_input(
        self,
        committed: Mapping[int, int],
        is_uncompacted: bool,
        dead_letters: Mapping[int, Sequence[Record]],
    ) -> dict[int, PartitionInput]:
        lows = {p: span.low for p, span in self.broker.ranges(self.topics.input).items()}
        cut = self._cut(self.topics.dead_letters)
        inputs = {
            p: PartitionInput(whole=is_uncompacted and lows[p] == 0, letters_cut=p in cut)
            for p in committed
        }
        told: dict[int, dict[int, str]] = {p: {} for p in committed}
        for partition, letters in dead_letters.items():
            for letter in letters:
                headers = dict(letter.headers)
                offset = (headers.get("eddy.errors.offset") or b"").decode("utf-8", "replace")
                reason = headers.get("eddy.errors.exception.class.name") or b""
                if offset.isdigit():
                    told[partition][int(offset)] = reason.decode("utf-8", "replace")
        chunks: dict[int, list[Record]] = {p: [] for p in committed}
        for record in self._all(self.topics.input):
            if record.offset >= committed[record.partition]:
                continue
            chunk = chunks[record.partition]
            chunk.append(record)
            if len(chunk) >= READ_RECORDS:
                self._fold(inputs, record.partition, chunk, told)
        for partition, chunk in chunks.items():
            self._fold(inputs, partition, chunk, told)
        return inputs

    def _fold(
        self,
        inputs: Mapping[int, PartitionInput],
        partition: int,
        chunk: list[Record],
        told: Mapping[int, Mapping[int, str]],
    ) -> None:
        fold(inputs[partition], chunk, self.embedding, self.limits, told[partition])
        chunk.clear()

    def _read_assignments(self, items: Tally, versions: Tally) -> dict[int, dict[str, Assigned]]:
        n_partitions = len(self.broker.ranges(self.topics.assignments))
        rows: dict[int, dict[str, Assigned]] = {p: {} for p in range(n_partitions)}
        newest = dict.fromkeys(rows, (0, 0))
        for record in self._all(self.topics.assignments):
            item = (record.key or b"").decode("utf-8")
            if record.value is None:
                rows[record.partition].pop(item, None)
                continue
            row = _assigned(record.value)
            if row is None:
                items.broken(f"partition {record.partition}, {item}: unreadable assignment")
                continue
            rows[record.partition][item] = row
            if row.version < newest[record.partition]:
                versions.broken(
                    f"partition {record.partition}, {item}: assigned by an older model "
                    "than the row before it"
                )
            newest[record.partition] = max(row.version, newest[record.partition])
        return rows

    def _check_settings(self, model: NewestModel, tally: Tally) -> None:
        found = self.broker.topics([self.topics.input])[self.topics.input]
        for name, said, true in (
            ("metric", model.manifest["metric"], self.embedding.metric),
            ("dimensions", model.manifest["dimensions"], self.embedding.dimensions),
            ("max_component", model.manifest["max_component"], self.embedding.largest_component),
            ("input_policy", _words(model.manifest["input_policy"]), _words(cleanup_policy(found))),
        ):
            if said != true:
                tally.broken(f"the manifest says {name} {said}, but here it is {true}")

    def _check_lifecycle(self, tally: Tally) -> None:
        seen: set[str] = set()
        for record in self._all(self.topics.lifecycle):
            try:
                event = json.loads(record.value or b"")
                told = str(event["id"])
            except (ValueError, KeyError, TypeError):
                continue
            tally.n_checked += 1
            if told in seen:
                tally.broken(f"the lifecycle event {told} is there twice")
            seen.add(told)

    def _cut(self, topic: str) -> frozenset[int]:
        return frozenset(p for p, span in self.broker.ranges(topic).items() if span.low > 0)

    def _all(self, topic: str) -> Iterator[Record]:
        self.progress(f"reading {topic}")
        reader = self.broker.reader(topic)
        try:
            while not reader.at_end:
                yield from reader.read(READ_RECORDS, timeout_s=0.1)
        finally:
            reader.close()


def _words(policy: str) -> str:
    """A cleanup policy in one spelling."""
    return ",".join(sorted(word.strip() for word in policy.split(",")))


def _time_of_copy(record: Record) -> int | None:
    """What the copy says of its record's time; -1, which none has, for what is no time."""
    text = dict(record.headers).get("eddy-timestamp", b"")
    if text == b"":
        return None
    return int(text) if text is not None and text.isdigit() else -1


def _assigned(value: bytes) -> Assigned | None:
    try:
        row = json.loads(value)
        return Assigned(
            cluster=str(row["cluster"]),
            distance=float(row["distance"]),
            sequence=int(row["sequence"] or 0),
            version=(int(row["model"]["epoch"]), int(row["model"]["revision"])),
            partition=int(row["source"]["partition"]),
            offset=int(row["source"]["offset"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
