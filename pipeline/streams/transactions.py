"""The coordinator of transactions, as the memory twin has one: who may write, and what is open.

A transaction is decided at once, but the markers that say so arrive in each place on their own:
a place may be held, and then shows the transaction only later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Place = tuple[str, int]
"""A topic and a partition."""


@dataclass(eq=False, slots=True)
class Transaction:
    """One transaction of one producer; told apart by identity."""

    transactional_id: str
    places: dict[Place, None] = field(default_factory=dict)
    """Where its markers have to go, in the order of the first write."""


@dataclass(eq=False, slots=True)
class Coordinator:
    """Epochs and open transactions by transactional id.

    ``decide`` is called when the marker of a transaction (True: it commits) arrives in a place.
    """

    decide: Callable[[Place, Transaction, bool], None]
    held: set[Place] = field(default_factory=set)
    _epochs: dict[str, int] = field(default_factory=dict)
    _open: dict[str, Transaction] = field(default_factory=dict)
    _late: list[tuple[Place, Transaction, bool]] = field(default_factory=list)

    def take_over(self, transactional_id: str) -> int:
        """End what this id has open; the epoch in which nobody but the caller may go on."""
        self.abort(transactional_id)
        self._settle(transactional_id)
        self._epochs[transactional_id] = self._epochs.get(transactional_id, -1) + 1
        return self._epochs[transactional_id]

    def is_current(self, transactional_id: str, epoch: int) -> bool:
        return self._epochs[transactional_id] == epoch

    def expire(self, transactional_id: str) -> None:
        """What is open was so for too long: its producer is fenced."""
        if transactional_id in self._open:
            self.take_over(transactional_id)

    def is_open(self, transaction: Transaction) -> bool:
        """Whether it waits for its end."""
        return self._open.get(transaction.transactional_id) is transaction

    def begin(self, transactional_id: str) -> Transaction:
        assert transactional_id not in self._open, "one thread, one transaction at a time"
        self._settle(transactional_id)
        transaction = self._open[transactional_id] = Transaction(transactional_id)
        return transaction

    def end(self, transaction: Transaction, *, commits: bool) -> None:
        del self._open[transaction.transactional_id]
        self._late += [(place, transaction, commits) for place in transaction.places]
        self._deliver(lambda place, _: place not in self.held)

    def abort(self, transactional_id: str) -> None:
        """End what this id has open, if anything."""
        if transactional_id in self._open:
            self.end(self._open[transactional_id], commits=False)

    def release(self, places: set[Place]) -> None:
        """Hold these no more; what is late for them arrives."""
        self.held -= places
        self._deliver(lambda place, _: place not in self.held)

    def _settle(self, transactional_id: str) -> None:
        """What waits for the markers of a producer's last transaction has waited long enough."""
        self._deliver(lambda _, transaction: transaction.transactional_id == transactional_id)

    def _deliver(self, is_due: Callable[[Place, Transaction], bool]) -> None:
        late, self._late = self._late, []
        for place, transaction, commits in late:
            if is_due(place, transaction):
                self.decide(place, transaction, commits)
            else:
                self._late.append((place, transaction, commits))
