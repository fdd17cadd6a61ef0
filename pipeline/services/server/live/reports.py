"""What the streams tell: metrics, and a line for every client that comes and goes."""

from __future__ import annotations

from collections import Counter

from pipeline.services.server.live.clients import Client
from pipeline.telemetry.catalogue_server import STREAM_REASONS, TRANSPORTS
from pipeline.telemetry.logs import Logger
from pipeline.telemetry.metrics import Metrics


class StreamReports:
    """Instruments are bound once; called on the thread of the event loop."""

    def __init__(self, log: Logger, metrics: Metrics) -> None:
        self._log = log
        self._n: Counter[str] = Counter()
        self._clients = {t: metrics.gauge("eddy_stream_clients", transport=t) for t in TRANSPORTS}
        self._dropped = {
            t: metrics.counter("eddy_stream_dropped_events_total", transport=t) for t in TRANSPORTS
        }
        self._frames = {
            (t, outcome): metrics.counter("eddy_stream_frames_total", transport=t, outcome=outcome)
            for t in TRANSPORTS
            for outcome in ("sent", "coalesced")
        }
        self._ends = {
            (t, reason): metrics.counter(
                "eddy_stream_disconnects_total", transport=t, reason=reason
            )
            for t in TRANSPORTS
            for reason in STREAM_REASONS
        }
        for transport in TRANSPORTS:
            self._clients[transport].set(0)

    def joined(self, client: Client) -> None:
        """A client has come."""
        self._n[client.transport] += 1
        self._clients[client.transport].set(self._n[client.transport])
        self._log.info("client_connected", client_id=client.id, transport=client.transport)

    def left(self, client: Client, reason: str) -> None:
        """A client is gone, and why."""
        self._n[client.transport] -= 1
        self._clients[client.transport].set(self._n[client.transport])
        self._ends[client.transport, reason].inc()
        self._log.info(
            "client_disconnected",
            client_id=client.id,
            transport=client.transport,
            reason=reason,
            sent=client.n_sent,
            coalesced=client.n_coalesced,
            dropped=client.n_dropped,
        )

    def refused(self, transport: str) -> None:
        """There is no room for another."""
        self._ends[transport, "limit"].inc()

    def failed(self, client: Client, error: Exception) -> None:
        """A defect of ours."""
        self._log.error(
            "request_failed",
            request_id=client.id,
            code=type(error).__name__,
            problem=str(error),
        )

    def sent(self, transport: str) -> None:
        """A frame."""
        self._frames[transport, "sent"].inc()

    def coalesced(self, transport: str, n: int) -> None:
        """So many states a client never saw, since newer ones stood there already."""
        self._frames[transport, "coalesced"].inc(n)

    def dropped(self, transport: str, n: int) -> None:
        """So many events did not find room in a client's queue."""
        self._dropped[transport].inc(n)
