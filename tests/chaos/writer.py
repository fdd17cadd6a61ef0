"""Users: they write, rewrite, remove, and make mistakes, until told to stop."""

from __future__ import annotations

import threading

import numpy as np

from pipeline.messages.codec import encode_vector
from pipeline.messages.records import Outgoing
from pipeline.streams.contract import Broker
from pipeline.streams.topics import TopicPolicy

N_DIMS, N_ITEMS, N_CLUSTERS = 16, 300, 12
TICK_S = 0.02


class Writer(threading.Thread):
    """Writes up to 15 records every `TICK_S`."""

    def __init__(self, broker: Broker, topics: TopicPolicy, seed: int) -> None:
        super().__init__(name="writer", daemon=True)
        self.n_written = 0
        self.error: BaseException | None = None
        self._broker, self._topics = broker, topics
        self._rng = np.random.default_rng(seed)
        self._centres = self._rng.standard_normal((N_CLUSTERS, N_DIMS)) * 3
        self._sequences: dict[int, int] = {}
        self._is_over = threading.Event()

    def run(self) -> None:
        producer = self._broker.producer()
        try:
            while not self._is_over.wait(TICK_S):
                for _ in range(int(self._rng.integers(1, 16))):
                    producer.write(self._record(int(self._rng.integers(N_ITEMS))))
                    self.n_written += 1
            for n in range(N_ITEMS):  # what a wrong memory does shows at an item's next record
                producer.write(self._upsert(n, 0))
                self.n_written += 1
            producer.flush()
        except BaseException as error:  # noqa: BLE001 `finish` says it
            self.error = error

    def finish(self) -> None:
        """One more record for every item, and everything acknowledged."""
        self._is_over.set()
        self.join()
        if self.error is not None:
            raise self.error

    def _record(self, n: int) -> Outgoing:
        kind = self._rng.choice(
            ["plain", "numbered", "stale", "removal", "nan", "short"],
            p=[0.6, 0.15, 0.05, 0.12, 0.04, 0.04],
        )
        if kind == "removal":
            self._sequences.pop(n, None)
            return self._upsert(n, 0)._replace(value=None)
        if kind == "short":
            return self._upsert(n, 0)._replace(value=b"EDV1")
        if kind == "nan":
            broken = encode_vector(np.full(N_DIMS, np.nan, np.float32))
            return self._upsert(n, 0)._replace(value=broken)
        if kind == "numbered":
            self._sequences[n] = self._sequences.get(n, 0) + 1
            return self._upsert(n, self._sequences[n])
        return self._upsert(n, max(1, self._sequences.get(n, 0)) if kind == "stale" else 0)

    def _upsert(self, n: int, sequence: int) -> Outgoing:
        centre = self._centres[self._rng.integers(N_CLUSTERS)]
        vector = (centre + self._rng.standard_normal(N_DIMS)).astype(np.float32)
        value = encode_vector(vector, sequence)
        return Outgoing(self._topics.input, n % self._topics.partitions, b"item-%d" % n, value)
