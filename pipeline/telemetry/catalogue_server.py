"""The rows of the catalogue of metrics that only the server sets."""

from __future__ import annotations

from typing import Final

from pipeline.telemetry.kinds import LATENCY, WORK, Kind, Metric, Open, Service

_S: Final = (Service.SERVER,)
VIEW_TOPICS: Final = (
    "assignments", "changes", "commands", "drift", "lifecycle", "model", "statistics",
)  # fmt: skip
"""What the view is folded from, by their names in `pipeline.streams.topics.TopicPolicy`."""
STATUS_CLASSES: Final = ("2xx", "3xx", "4xx", "5xx")
METHODS: Final = ("GET", "POST", "PUT", "other")
TRANSPORTS: Final = ("ws", "sse")
STREAM_REASONS: Final = ("client", "slow", "limit", "protocol", "shutdown", "error")

SERVER_ROWS: Final = (
    Metric("eddy_view_items", Kind.GAUGE, "Items in the server's view.", _S),
    Metric("eddy_view_bytes", Kind.GAUGE, "What the view's items take, vectors included.", _S),
    Metric(
        "eddy_view_lag_records",
        Kind.GAUGE,
        "Records that the view is behind, marks of transactions among them.",
        _S,
        {"topic": VIEW_TOPICS},
    ),
    Metric(
        "eddy_view_lag_seconds",
        Kind.GAUGE,
        "How long ago the newest record in the view was written, while there are newer ones.",
        _S,
    ),
    Metric(
        "eddy_server_descriptors_open",
        Kind.GAUGE,
        "Files and connections that the server has open.",
        _S,
    ),
    Metric(
        "eddy_server_descriptors_limit",
        Kind.GAUGE,
        "How many files and connections the server may have open.",
        _S,
    ),
    Metric(
        "eddy_http_request_duration_seconds",
        Kind.HISTOGRAM,
        "Time from a request to the end of its reply.",
        _S,
        {"route": Open.ROUTE, "method": METHODS, "status": STATUS_CLASSES},
        LATENCY,
    ),
    Metric(
        "eddy_search_duration_seconds",
        Kind.HISTOGRAM,
        "Time of a search for the nearest vectors.",
        _S,
        {"index": ("exact", "faiss")},
        WORK,
    ),
    Metric(
        "eddy_stream_clients",
        Kind.GAUGE,
        "Clients of live streams.",
        _S,
        {"transport": TRANSPORTS},
    ),
    Metric(
        "eddy_stream_dropped_events_total",
        Kind.COUNTER,
        "Events that went before a client could take them.",
        _S,
        {"transport": TRANSPORTS},
    ),
    Metric(
        "eddy_stream_frames_total",
        Kind.COUNTER,
        "Frames sent, and states that newer ones took the place of before a client took them.",
        _S,
        {"transport": TRANSPORTS, "outcome": ("sent", "coalesced")},
    ),
    Metric(
        "eddy_stream_disconnects_total",
        Kind.COUNTER,
        "Streams that ended, and handshakes refused for a limit.",
        _S,
        {"transport": TRANSPORTS, "reason": STREAM_REASONS},
    ),
)
