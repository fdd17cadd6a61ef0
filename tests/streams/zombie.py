"""A member that is stopped, as a process, between sending its offsets and its commit.

``zombie.py BOOTSTRAP TOPIC OUT GROUP TRANSACTIONAL_ID`` says ``sent`` before it stops itself, and
after it was woken ``committed``, then what became of a second transaction.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from pipeline.errors import AbortedError
from pipeline.messages.records import Outgoing
from pipeline.streams.contract import GroupMember
from pipeline.streams.kafka.broker import KafkaBroker
from pipeline.streams.kafka.stream import KafkaStream


class Sleepy:
    """A producer that stops its process before the first commit."""

    def __init__(self, producer: Any) -> None:
        self.producer = producer
        self.was_stopped = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.producer, name)

    def commit_transaction(self, timeout: float) -> None:
        if not self.was_stopped:
            self.was_stopped = True
            say("sent")
            os.kill(os.getpid(), signal.SIGSTOP)
        self.producer.commit_transaction(timeout)


def say(word: str) -> None:
    print(word, flush=True)


def main(bootstrap: str, topic: str, out: str, group: str, transactional_id: str) -> None:
    settings = {
        "bootstrap.servers": bootstrap,
        "consumer.session.timeout.ms": "1500",
        "consumer.heartbeat.interval.ms": "200",
    }
    stream = KafkaBroker(settings).stream(GroupMember(topic, group, transactional_id))
    assert isinstance(stream, KafkaStream)
    transactions = stream._transactions
    transactions._producer = Sleepy(transactions._producer)
    while not stream.poll(10, timeout_s=0.05).assigned:
        pass
    stream.start(0, 0)
    while not stream.poll(10, timeout_s=0.05).records:
        pass
    stream.commit([Outgoing(out, 0, b"k", b"of the zombie")], {0: 1})
    say("committed")
    try:
        stream.commit([Outgoing(out, 0, b"k", b"too late")], {0: 1})
        say("committed again")
    except AbortedError as error:
        say(error.code)
    stream.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
