"""``eddy`` that falls asleep or dies inside a commit when told to, and counts its transactions.

They talk through the folder that ``CHAOS_FOLDER`` names. A file ``nap`` or ``crash`` holds the name
of a place; who comes there first and gets to rename the file stops or kills itself, and the
tool wakes up who sleeps. ``tally`` gets a byte for each transaction begun (b) and committed (c), so
those of a process that is killed count.

``CHAOS_TRANSACTIONS`` names the class that writes: one that keeps the promise, or one of the
controls, which break it on purpose so that the judges can show that they see it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException

from pipeline.cli.main import main
from pipeline.messages.records import Outgoing
from pipeline.streams.kafka import stream, transactions

FOLDER = Path(os.environ["CHAOS_FOLDER"])
ORDERS = {FOLDER / "nap": signal.SIGSTOP, FOLDER / "crash": signal.SIGKILL}
PLACES = {"send_offsets_to_transaction": "written", "commit_transaction": "offsets"}
"""The call that comes next -> the place: what of a transaction has been sent."""
CALL_S = 5.0


class Whole(transactions.Transactions):
    """Transactions as Eddy writes them, which may end in the middle."""

    def write(self, *arguments: Any) -> None:
        os.write(TALLY, b"b")
        super().write(*arguments)
        os.write(TALLY, b"c")
        self._meet("committed")  # and nobody here knows it yet

    def _insist(self, call: Any, *arguments: Any) -> None:
        self._meet(PLACES.get(call.__name__))
        super()._insist(call, *arguments)

    def _meet(self, place: str | None) -> None:
        for order, number in ORDERS.items():
            try:
                if order.exists() and order.read_text() == place:
                    order.rename(f"{order}.{os.getpid()}")
                    os.kill(os.getpid(), number)
            except FileNotFoundError:
                pass  # somebody was faster

    def _meet_between(self, records: list[Outgoing]) -> None:
        """Between two halves, where something is at stake: many carry statistics only."""
        if any(record.topic.endswith(".cluster-changes") for record in records):
            self._meet("between")


class OffsetsFirst(Whole):
    """A control: the offsets in a transaction, then what was made of the records in another."""

    def write(self, outgoing: Any, offsets: Any, metadata: object) -> None:
        records = list(outgoing)
        super().write([], offsets, metadata)
        self._meet_between(records)
        super().write(records, offsets, metadata)


class OffsetsLast(Whole):
    """A control: what was made of the records in a transaction, then the offsets in another."""

    def write(self, outgoing: Any, offsets: Any, metadata: object) -> None:
        records = list(outgoing)
        try:
            self._insist(self._producer.begin_transaction)
            self._produce(records)
            self._insist(self._producer.commit_transaction, CALL_S)
        except KafkaException as problem:
            raise self._aborted(problem.args[0]) from problem
        self._meet_between(records)
        super().write([], offsets, metadata)


KINDS = {kind.__name__: kind for kind in (Whole, OffsetsFirst, OffsetsLast)}

if __name__ == "__main__":
    TALLY = os.open(FOLDER / "tally", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    stream.Transactions = KINDS[os.environ["CHAOS_TRANSACTIONS"]]  # type: ignore[misc]
    sys.exit(main())
