"""The catalogue of log events: every name there is, its level, and the fields it may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error")

COMMON_FIELDS: Final = frozenset(
    {"trace_id", "span_id", "topic", "partition", "offset", "epoch", "revision"}
)
"""Allowed on every line, where they exist."""

ALWAYS_FIELDS: Final = ("timestamp", "level", "event", "service", "instance", "version")
"""On every line, in this order, before the event's own."""


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the catalogue."""

    name: str
    level: str
    help: str
    fields: tuple[str, ...]


EVENTS: Final[Mapping[str, Event]] = {
    event.name: event
    for event in (
        Event(
            "service_started",
            "info",
            "The process begins its work.",
            ("device", "config_digest", "metrics_port"),
        ),
        Event(
            "memory_short",
            "warning",
            "A partition as full as its limit allows does not fit into the memory there is.",
            ("problem",),
        ),
        Event(
            "service_stopped",
            "info",
            "The process ends; nothing is left half done.",
            ("reason", "duration_s"),
        ),
        Event(
            "service_failed",
            "error",
            "The process ends by an error that somebody has to act on.",
            ("code", "problem", "retriable"),
        ),
        Event(
            "config_rejected",
            "error",
            "A setting, or the set-up of a topic, cannot be obeyed: the process ends.",
            ("key", "problem"),
        ),
        Event(
            "traces_not_sent",
            "warning",
            "The collector of traces does not take them; they are lost, and nothing else is.",
            ("problem", "suppressed"),
        ),
        Event(
            "partitions_assigned",
            "info",
            "Partitions came to this process.",
            ("partitions", "duration_s"),
        ),
        Event(
            "partitions_revoked",
            "info",
            "Partitions were handed on, after their last commit.",
            ("partitions", "duration_s"),
        ),
        Event(
            "partitions_lost",
            "warning",
            "Partitions went without a chance to commit.",
            ("partitions", "duration_s"),
        ),
        Event(
            "restore_started",
            "info",
            "A partition's state is being read back.",
            ("committed_offset", "barrier_offset"),
        ),
        Event(
            "restore_finished",
            "info",
            "A partition's state is whole again.",
            ("source", "records", "duration_s", "committed_offset", "barrier_offset"),
        ),
        Event(
            "snapshot_written",
            "info",
            "A copy of a partition's state, or of a server's view, is on disk.",
            ("records", "bytes", "duration_s"),
        ),
        Event(
            "snapshot_failed",
            "warning",
            "No copy could be written; the topics have everything.",
            ("problem",),
        ),
        Event(
            "snapshot_rejected",
            "warning",
            "A copy is not used, and was removed: the topics are read instead.",
            ("reason",),
        ),
        Event(
            "batch_committed",
            "debug",
            "One transaction is visible.",
            ("batch_id", "records", "events", "dead", "duration_s"),
        ),
        Event(
            "transaction_aborted",
            "warning",
            "Nothing of a transaction is visible; its records come again.",
            ("batch_id", "code", "retriable", "retry_in_s"),
        ),
        Event(
            "kafka_error",
            "warning",
            "The broker or the way to it failed; it is tried again.",
            ("batch_id", "code", "problem", "retriable", "retry_in_s"),
        ),
        Event(
            "producer_fenced",
            "error",
            "Another process has this one's transactional id: this one ends.",
            ("batch_id", "code", "problem", "retriable"),
        ),
        Event(
            "record_dead",
            "warning",
            "A record became a dead letter; one line per reason and minute.",
            ("reason", "problem", "item_id", "item_id_hash", "suppressed"),
        ),
        Event(
            "model_installed",
            "info",
            "From here on records are assigned by this model.",
            ("kind", "moved_clusters", "duration_s"),
        ),
        Event(
            "sweep_finished",
            "info",
            "Every member of this process is proved under the newest model.",
            ("kind", "reassigned", "duration_s"),
        ),
        Event(
            "revision_published",
            "info",
            "Centroids have followed their members.",
            ("kind", "moved_clusters", "duration_s"),
        ),
        Event(
            "invariant_violated",
            "error",
            "The state was found to be what it cannot be; one line per invariant and minute.",
            (
                "invariant",
                "cluster_id",
                "expected",
                "found",
                "item_id",
                "item_id_hash",
                "suppressed",
            ),
        ),
        Event(
            "drift_alarm_raised",
            "warning",
            "The stream is not what the model was fitted on.",
            ("signal", "cluster_id", "statistic", "threshold", "effect"),
        ),
        Event(
            "drift_alarm_cleared",
            "info",
            "The stream is as it was again, or another epoch was fitted on it.",
            ("signal", "cluster_id", "statistic", "threshold", "effect"),
        ),
        Event(
            "recluster_due",
            "info",
            "A full fit is going to start.",
            ("recluster_id", "reason", "members"),
        ),
        Event(
            "recluster_started",
            "info",
            "A full fit runs.",
            ("recluster_id", "reason", "members"),
        ),
        Event(
            "recluster_finished",
            "info",
            "A new epoch is published.",
            (
                "recluster_id",
                "reason",
                "members",
                "passes",
                "duration_s",
                "inertia_before",
                "inertia_after",
                "born",
                "split",
                "merged",
                "retired",
            ),
        ),
        Event(
            "recluster_rejected",
            "info",
            "The fit lost against the model in use, which stays.",
            (
                "recluster_id",
                "reason",
                "members",
                "passes",
                "duration_s",
                "inertia_before",
                "inertia_after",
            ),
        ),
        Event(
            "recluster_failed",
            "error",
            "A fit ended without a result; the model in use stays.",
            ("recluster_id", "reason", "members", "duration_s", "problem"),
        ),
        Event(
            "command_received",
            "info",
            "Somebody asked for something.",
            ("command_id", "kind", "requested_by"),
        ),
        Event(
            "command_done",
            "info",
            "It is carried out.",
            ("command_id", "kind", "requested_by"),
        ),
        Event(
            "command_rejected",
            "warning",
            "It is not carried out, and why.",
            ("command_id", "kind", "requested_by", "problem"),
        ),
        Event(
            "view_resumed",
            "info",
            "A server goes on from the copy of its view; what came since is read next.",
            ("items", "bytes", "age_s"),
        ),
        Event(
            "view_caught_up",
            "info",
            "Everything that stood in the topics at the start is in the server's view.",
            ("items", "duration_s"),
        ),
        Event(
            "search_index_built",
            "info",
            "An index of vectors stands; it is taken if it finds enough of the nearest, faster.",
            ("items", "bytes", "effort", "recall", "taken", "duration_s"),
        ),
        Event(
            "vectors_left_out",
            "warning",
            "Vectors would take more memory than they may: the server keeps none.",
            ("bytes", "limit"),
        ),
        Event(
            "server_listening",
            "info",
            "The server answers at this address.",
            ("host", "port", "max_connections", "descriptors"),
        ),
        Event(
            "request_finished",
            "info",
            "The server has answered; a request that failed by its own fault has level error.",
            ("request_id", "route", "method", "status", "duration_s"),
        ),
        Event(
            "request_failed",
            "error",
            "A defect of the server, of which the client was told nothing more.",
            ("request_id", "code", "problem"),
        ),
        Event(
            "client_connected",
            "info",
            "Somebody listens to the live streams.",
            ("client_id", "transport"),
        ),
        Event(
            "client_disconnected",
            "info",
            "A stream has ended.",
            ("client_id", "transport", "reason", "sent", "coalesced", "dropped"),
        ),
    )
}
