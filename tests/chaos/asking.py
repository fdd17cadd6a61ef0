"""Questions to the servers of a run, over plain HTTP, and somebody who asks while faults go on.

Nothing of Eddy's own client is in here: it is judged, too.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np

from pipeline.errors import PipelineError
from pipeline.messages.codec import encode_vector
from pipeline.messages.records import Outgoing
from pipeline.streams.contract import Broker, Place
from pipeline.streams.topics import TopicPolicy
from tests.chaos.writer import N_DIMS

ANSWER_S = 12.0
"""A server that sleeps answers when it wakes up."""
PAGE = 500
PAUSE_S = 0.05
WRITE_S = 10.0
N_OWN = 8
N_STAYING = 4
"""Of those the first are never removed."""
REMOVALS = 0.3
AWAY = (OSError, http.client.HTTPException)
"""What a connection to a server that dies, sleeps or is not there yet ends in."""


class Address(NamedTuple):
    """Where one server is asked; a name is one process after another."""

    name: str
    port: int
    ops_port: int


class Answer(NamedTuple):
    """What came back; ``status`` 0: nothing."""

    status: int
    body: Any


def ask(port: int, path: str, **query: object) -> Answer:
    """One question, once."""
    url = f"http://127.0.0.1:{port}{path}"
    if query:
        url += f"?{urlencode(query)}"
    try:
        with urlopen(url, timeout=ANSWER_S) as reply:
            return Answer(reply.status, json.load(reply))
    except HTTPError as error:
        with error:
            return Answer(error.code, None)
    except AWAY:
        return Answer(0, None)
    except ValueError:  # half of an answer
        return Answer(0, None)


def is_ready(ops_port: int) -> bool:
    """Whether /readyz says so."""
    try:
        with urlopen(f"http://127.0.0.1:{ops_port}/readyz", timeout=ANSWER_S) as reply:
            return bool(reply.status == 200)
    except (HTTPError, *AWAY):
        return False


def insist(port: int, path: str, **query: object) -> Any:
    """The body of an answer 200, for which others may have to be waited out; None of a 404."""
    deadline = time.monotonic() + 3 * ANSWER_S
    while True:
        found = ask(port, f"/api/v1{path}", **query)
        if found.status == 200:
            return found.body
        if found.status == 404:
            return None
        assert found.status in (0, 429, 503), f"{path} answers {found.status}"
        assert time.monotonic() < deadline, f"{path} answers {found.status} again and again"
        time.sleep(0.3)


def pages(port: int, path: str, **query: object) -> Iterator[dict[str, Any]]:
    """The rows of all pages."""
    cursor: dict[str, object] = {}
    while True:
        body = insist(port, path, limit=PAGE, **query, **cursor)
        if body is None:
            return
        yield from body["items"]
        if body["next_cursor"] is None:
            return
        cursor = {"cursor": body["next_cursor"]}


class Seen(NamedTuple):
    """Where a server said that an item is, in the middle of everything."""

    item: str
    cluster: str
    offset: int
    epoch: int
    revision: int


@dataclass
class Asked:
    """What came of it."""

    n_held: int = 0
    """Answers that knew the record they had to know."""
    n_behind: int = 0
    """Times that a server said it was not there yet, or said nothing."""
    n_ready: int = 0
    """Answers of a server that said it was ready, without `min_offset`."""
    answers: set[Seen] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


class Asker(threading.Thread):
    """Writes items of its own, and asks the servers for them: is what they say what it wrote?

    Two promises. An answer under ``min_offset`` knows the record at that offset, a removal too. And
    a server that is ready knows at least what the process before it under the same name has shown.

    Parameters
    ----------
    pid_of
        Name of a server -> its process.
    """

    def __init__(
        self,
        broker: Broker,
        topics: TopicPolicy,
        addresses: tuple[Address, ...],
        pid_of: Callable[[], Mapping[str, int]],
        seed: int,
    ) -> None:
        super().__init__(name="asker", daemon=True)
        self.asked = Asked()
        self._broker, self._topics = broker, topics
        self._addresses, self._pid_of = addresses, pid_of
        self._rng = np.random.default_rng([seed, 1])
        self._is_over = threading.Event()
        self._shown: dict[tuple[str, str], tuple[int, int]] = {}
        """Server and item -> the process that showed it, and up to where."""

    def finish(self) -> Asked:
        """No more questions."""
        self._is_over.set()
        self.join()
        return self.asked

    def run(self) -> None:
        producer = self._broker.producer()
        n = 0
        while not self._is_over.wait(PAUSE_S):
            n += 1
            address = self._addresses[n % len(self._addresses)]
            if n % 3 == 0:
                self._look(address, f"own-{self._rng.integers(N_STAYING)}")
                continue
            record = self._record(int(self._rng.integers(N_OWN)))
            with suppress(PipelineError):  # not acknowledged: nothing to be asked for
                place = producer.deliver(record, timeout_s=WRITE_S)
                self._ask(address, record, place)

    def _record(self, n: int) -> Outgoing:
        vector = (self._rng.standard_normal(N_DIMS) * 3).astype(np.float32)
        goes = n >= N_STAYING and self._rng.random() < REMOVALS
        value = None if goes else encode_vector(vector)
        return Outgoing(self._topics.input, n % self._topics.partitions, b"own-%d" % n, value)

    def _ask(self, address: Address, record: Outgoing, place: Place) -> None:
        item, min_offset = (record.key or b"").decode(), f"{place.partition}:{place.offset}"
        pid = self._pid_of().get(address.name)
        status, body = ask(address.port, f"/api/v1/items/{item}", min_offset=min_offset)
        shown = body["offset"] if status == 200 else -1
        if status in (0, 429, 503):
            self.asked.n_behind += 1
        elif status != (404 if record.value is None else 200) or 0 <= shown < place.offset:
            what = "removed" if record.value is None else "written"
            self.asked.problems.append(
                f"{item}, {what} at {min_offset}: {address.name} answers {status}, shows {shown} "
                "and claims to know it"
            )
        else:
            self.asked.n_held += 1
            if status == 200:
                self._note(address, item, body, pid)

    def _look(self, address: Address, item: str) -> None:
        pid = self._pid_of().get(address.name)
        if pid is None or not is_ready(address.ops_port):
            self.asked.n_behind += 1
            return
        status, body = ask(address.port, f"/api/v1/items/{item}")
        if self._pid_of().get(address.name) != pid or status in (0, 429, 503):
            self.asked.n_behind += 1
            return
        _, known = self._shown.get((address.name, item), (0, -1))
        shown = -1 if status == 404 else body["offset"]
        if status not in (200, 404) or shown < known:
            self.asked.problems.append(
                f"{item}: {address.name} is ready, answers {status} and shows {shown}, "
                f"after {known} was shown"
            )
            return
        self.asked.n_ready += 1
        if status == 200:
            self._note(address, item, body, pid)

    def _note(self, address: Address, item: str, body: dict[str, Any], pid: int | None) -> None:
        model = body["model"]
        self.asked.answers.add(
            Seen(item, body["cluster"], body["offset"], model["epoch"], model["revision"])
        )
        if pid is not None:
            self._shown[address.name, item] = pid, body["offset"]
