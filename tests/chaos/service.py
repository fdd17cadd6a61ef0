"""``eddy`` that falls asleep inside a commit when told to, and counts its transactions.

They talk through the folder that ``CHAOS_FOLDER`` names: who gets to rename the file ``nap`` stops
itself at the place that is written in it, and the tool wakes it up later. ``tally`` gets a byte for
each transaction begun (b) and committed (c), so those of a process that is killed count.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from pipeline.cli.main import main
from pipeline.streams.kafka import stream, transactions

FOLDER = Path(os.environ["CHAOS_FOLDER"])
NAP = FOLDER / "nap"
PLACES = {"written": "send_offsets_to_transaction", "offsets": "commit_transaction"}
"""What has been sent when it sleeps -> the call that waits until it wakes."""


class Drowsy(transactions.Transactions):
    """Transactions that may last longer than a session."""

    def write(self, *arguments: Any) -> None:
        os.write(TALLY, b"b")
        super().write(*arguments)
        os.write(TALLY, b"c")

    def _insist(self, call: Any, *arguments: Any) -> None:
        if NAP.exists():
            self._sleep_at(call.__name__)
        super()._insist(call, *arguments)

    def _sleep_at(self, name: str) -> None:
        mine = NAP.with_name(f"nap.{os.getpid()}")
        try:
            if PLACES[NAP.read_text()] != name:
                return
            NAP.rename(mine)
        except FileNotFoundError:
            return  # somebody was faster
        os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    TALLY = os.open(FOLDER / "tally", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    stream.Transactions = Drowsy  # type: ignore[misc]
    sys.exit(main())
