"""Who waits in a call that heeds no time limit gives signs of life while no broker answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.streams.kafka.overdue import Overdue
from tests.streams.twins import eventually


class Outage:
    """A broker that answers or not, and what is told meanwhile."""

    def __init__(self, *, answers: bool) -> None:
        self.answers, self.n_asked = answers, 0
        self.told: list[tuple[str, str]] = []

    def ask(self) -> bool:
        self.n_asked += 1
        return self.answers

    def tell(self, code: str, message: str) -> None:
        self.told.append((code, message))


@contextmanager
def looked_after(outage: Outage, limit_s: float = 60.0) -> Iterator[Overdue]:
    overdue = Overdue(outage.tell, outage.ask, after_s=0.01, limit_s=limit_s)
    try:
        yield overdue
    finally:
        overdue.close()


def test_a_call_that_waits_for_a_broker_is_told_of_again_and_again():
    outage = Outage(answers=False)
    with looked_after(outage) as overdue:
        overdue.begin("send_offsets_to_transaction")
        eventually(lambda: len(outage.told) >= 3, "three signs of life")
        overdue.end()

    code, message = outage.told[0]
    assert code == "_WAIT_COORD"
    assert message.startswith("send_offsets_to_transaction has waited for a broker for ")


def test_a_call_that_hangs_although_a_broker_answers_is_not_spoken_for():
    outage = Outage(answers=True)
    with looked_after(outage) as overdue:
        overdue.begin("send_offsets_to_transaction")
        eventually(lambda: outage.n_asked >= 3, "three looks")
        overdue.end()

    assert outage.told == []


def test_a_call_that_was_given_up_is_not_spoken_for_any_more():
    outage = Outage(answers=False)
    with looked_after(outage, limit_s=0.2) as overdue:
        overdue.begin("first")
        eventually(lambda: outage.told, "a sign of life")
        n_told = -1

        def is_silent() -> bool:
            nonlocal n_told
            n_before, n_told = n_told, len(outage.told)
            overdue._closing.wait(0.1)
            return n_before == len(outage.told)

        eventually(is_silent, "silence")
        overdue.begin("second")
        eventually(lambda: outage.told[-1][1].startswith("second"), "the next call is another one")


def test_nobody_is_asked_while_calls_come_back():
    outage = Outage(answers=False)
    overdue = Overdue(outage.tell, outage.ask, after_s=30.0, limit_s=60.0)
    for _ in range(1000):
        overdue.begin("commit_transaction")
        overdue.end()
    overdue.close()
    overdue.close()

    assert outage.n_asked == 0
    assert not overdue._thread.is_alive()
