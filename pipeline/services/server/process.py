"""The server, put together: what folds the topics, and the application that answers."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from starlette.types import ASGIApp

from pipeline.config import Config
from pipeline.engine.totals import Totals
from pipeline.kernels.contract import Kernels
from pipeline.messages.codec import decode_change
from pipeline.messages.records import Outgoing
from pipeline.services.server.access import Doorkeeper, check_exposure
from pipeline.services.server.app import make_api, program_version
from pipeline.services.server.desk import Desk
from pipeline.services.server.following import SLICE_RECORDS, Follower, Listener
from pipeline.services.server.gate import Gate
from pipeline.services.server.live.reports import StreamReports
from pipeline.services.server.live.ring import CHANGES, DRIFT, LIFECYCLE
from pipeline.services.server.live.streams import Streams
from pipeline.services.server.live.tokens import topics_digest
from pipeline.services.server.map_frames import MapFrames
from pipeline.services.server.pages import Cursors
from pipeline.services.server.positions import Positions
from pipeline.services.server.rates import Rates
from pipeline.services.server.reports import ServerReports
from pipeline.services.server.request_spans import RequestSpans
from pipeline.services.server.routes.frames import take_frame
from pipeline.services.server.view_snapshots import ViewSnapshots
from pipeline.state.view.fold import News, View
from pipeline.streams.contract import Broker


class Server:
    """What `pipeline.services.lifecycle.serve` turns: each step takes records in.

    Parameters
    ----------
    input_is_compacted
        The input stores the vectors.
    listeners
        Are told what comes; see `pipeline.services.server.following.Listener`.
    now
        Seconds since 1970.
    """

    def __init__(
        self,
        config: Config,
        broker: Broker,
        kernels: Kernels,
        *,
        input_is_compacted: bool,
        reports: ServerReports,
        listeners: Sequence[Listener] = (),
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        policy, embedding = config.server, config.embedding
        check_exposure(policy)
        self._reports = reports
        self._is_whole = False
        """Whether what was read is in the view: a fold that failed has left a gap."""
        writing, producer = threading.Lock(), broker.producer()

        def write(record: Outgoing) -> None:
            with writing:
                producer.write(record)
                producer.flush()

        self.snapshots = ViewSnapshots(
            config, broker, input_is_compacted=input_is_compacted, reports=reports, now=now,
            clock=clock,
        )  # fmt: skip
        found = self.snapshots.load()
        self.desk = Desk(
            view=View(config.topics.partitions) if found is None else found.view,
            totals=Totals(
                config.topics.partitions, embedding.dimensions,
                max_component=embedding.largest_component,
            ),
            policy=policy,
            topics=config.topics,
            embedding=embedding,
            limits=config.limits,
            kernels=kernels,
            write=write,
            now=now,
            rates=Rates(now),
            frames=MapFrames() if found is None else found.frames,
            searched=reports.searched,
        )  # fmt: skip
        topics = config.topics
        told = {CHANGES: topics.changes, LIFECYCLE: topics.lifecycle, DRIFT: topics.drift}
        ids = broker.topic_ids(told.values())
        self.streams = Streams(
            self.desk,
            StreamReports(reports.log, reports.metrics),
            topics_digest([ids.get(topic, "") for topic in told.values()]),
            version=program_version(),
        )
        self.follower = Follower(
            broker, self.desk, embedding, input_is_compacted=input_is_compacted,
            marks=None if found is None else found.marks,
            listeners=[*listeners, self._note_rates, self.streams.hear], clock=clock,
        )  # fmt: skip
        self._begin_streams(told)
        self.positions = Positions(self.desk, clock)
        cursors = Cursors(_cursor_key(config, broker))
        doorkeeper = Doorkeeper(policy.auth, clock, now)
        self.api = make_api(self.desk, cursors, reports.health, self.streams, doorkeeper)
        self.app: ASGIApp = Gate(
            self.api,
            desk=self.desk,
            doorkeeper=doorkeeper,
            tell=reports.request_finished,
            clock=clock,
            spans=RequestSpans(reports.tracing),
        )
        # the first assignment compiles; a request shall not wait for that
        kernels.assign(
            kernels.load(np.zeros((2, embedding.dimensions), np.float32)),
            np.zeros((1, embedding.dimensions), np.float32),
            second=True,
        )

    def _begin_streams(self, told: Mapping[str, str]) -> None:
        """From where on they know events: also those that the view had before it was read on."""
        kept = self.desk.view.changes.records()
        for channel, topic in told.items():
            positions = dict(self.follower.positions(topic))
            if channel == CHANGES:
                positions |= {record.partition: record.offset for record in reversed(kept)}
            self.streams.begin(channel, positions)
        for start in range(0, len(kept), SLICE_RECORDS):
            records = kept[start : start + SLICE_RECORDS]
            changes = [decode_change(record.value or b"") for record in records]
            self.streams.hear(News(changes=changes, records=records))

    def step(self) -> None:
        """Take in what there is."""
        self._is_whole = False
        try:
            self.follower.step()
        finally:  # who is cut off from the broker is behind, and says so
            self.desk.lag_s = self.follower.lag_s
            self._reports.stepped(self.desk, self.follower)
        if self.follower.is_caught_up:  # until then epochs go by that nobody is shown
            self.positions.step()
            take_frame(self.desk)
            self.snapshots.step(self.desk, self.follower)
        self._is_whole = True

    def _note_rates(self, news: News) -> None:
        if self.follower.is_caught_up:  # what stood in the topics at the start tells nothing
            self.desk.rates.hear(news)

    def close(self) -> None:
        """Send the clients of streams away, and free the readers."""
        self.streams.drain()
        self.snapshots.close(self.desk, self.follower, is_whole=self._is_whole)
        self.positions.close()
        self.follower.close()


def _cursor_key(config: Config, broker: Broker) -> bytes:
    """The same in every replica: of the tokens' file that all of them mount, and of the topics.

    A cursor opens nothing, so without a file it is enough that none is taken for another's.
    """
    auth, topic = config.server.auth, config.topics.model
    digest = hashlib.sha256(b"eddy-cursor\n")
    digest.update(broker.topic_ids([topic]).get(topic, "").encode())
    if auth.mode == "bearer" and auth.file is not None:
        with contextlib.suppress(OSError):
            digest.update(Path(auth.file).read_bytes())
    return digest.digest()
