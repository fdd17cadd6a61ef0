"""``eddy`` that falls asleep or dies inside a commit when told to, and counts its transactions.

They talk through the folder that ``CHAOS_FOLDER`` names. A file ``nap`` or ``crash`` holds the name
of a place; who comes there first and gets to rename the file stops or kills itself, and the
tool wakes up who sleeps. ``tally`` gets a byte for each transaction begun (b) and committed (c), so
those of a process that is killed count.

``CHAOS_TRANSACTIONS`` names the class that writes, ``CHAOS_ANSWERS`` what a server does wrong:
one that keeps the promise, or one of the controls, which break it on purpose so that the judges can
show that they see it.
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
from pipeline.services.server import process
from pipeline.services.server.desk import Desk
from pipeline.services.server.live import streams
from pipeline.services.server.live.hub import Hub
from pipeline.services.server.live.ring import LIFECYCLE
from pipeline.state.view.fold import View
from pipeline.streams.kafka import stream, transactions

FOLDER = Path(os.environ["CHAOS_FOLDER"])
ORDERS = {FOLDER / "nap": signal.SIGSTOP, FOLDER / "crash": signal.SIGKILL}
PLACES = {"send_offsets_to_transaction": "written", "commit_transaction": "offsets"}
"""The call that comes next -> the place: what of a transaction has been sent."""
CALL_S = 5.0
FORGOTTEN = 5
"""The change event of the first partition that is lost: which place it has."""


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


class Forgetful(View):
    """A control: one change event is lost on the way into the view, and so to the streams."""

    _n_read = 0

    def fold_changes(self, records: Any) -> Any:
        kept = []
        for record in records:
            self._n_read += record.partition == 0
            if record.partition or self._n_read != FORGOTTEN:
                kept.append(record)
        return super().fold_changes(kept)


class Careless(View):
    """A control: some assignments are lost on the way into the view."""

    def fold_assignments(self, records: Any) -> Any:
        return super().fold_assignments([r for r in records if r.offset % 5])


class Hasty(Desk):
    """A control: what was asked for under ``min_offset`` is said to show before it does."""

    def reached(self, partition: int, offset: int, within_s: float) -> bool:
        return True


class Skipping(Hub):
    """A control: every second lifecycle event is not told to those who listen."""

    _n_told = 0

    def offer(self, events: Any) -> Any:
        kept = []
        for event in events:
            self._n_told += event.channel == LIFECYCLE
            if event.channel != LIFECYCLE or self._n_told % 2:
                kept.append(event)
        return super().offer(kept)


KINDS = {kind.__name__: kind for kind in (Whole, OffsetsFirst, OffsetsLast)}
ANSWERS: dict[str, tuple[Any, str, type]] = {
    "Forgetful": (process, "View", Forgetful),
    "Careless": (process, "View", Careless),
    "Hasty": (process, "Desk", Hasty),
    "Skipping": (streams, "Hub", Skipping),
}
"""Where each takes the place of the right one."""

if __name__ == "__main__":
    if (answers := os.environ.get("CHAOS_ANSWERS", "Whole")) != "Whole":
        setattr(*ANSWERS[answers])
    TALLY = os.open(FOLDER / "tally", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    stream.Transactions = KINDS[os.environ.get("CHAOS_TRANSACTIONS", "Whole")]  # type: ignore[misc]
    sys.exit(main())
