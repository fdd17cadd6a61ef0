"""The catalogue of metrics: every name there is, with its labels and the values they may have.

A name, label or label value that is not here does not exist. Item ids, cluster ids and
texts are never labels, so the number of series is bounded. Base units, ``_total`` on
counters, timestamps rather than ages, and no rate that Prometheus can compute itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.telemetry.catalogue_server import SERVER_ROWS
from pipeline.telemetry.kinds import (
    LATENCY,
    LONG,
    RECORDS,
    TENTHS,
    WORK,
    Kind,
    Metric,
    Open,
    Service,
)

_SIGNALS: Final = ("occupancy", "distance", "shift", "imbalance", "churn")
_A: Final = (Service.ASSIGNER,)
_R: Final = (Service.RECLUSTERER,)
_AR: Final = (Service.ASSIGNER, Service.RECLUSTERER)
_ALL: Final = tuple(Service)

KERNELS: Final = ("cpu", "avx512", "amx", "cuda", "hybrid")
REASONS: Final = (
    "key",
    "content_type",
    "decode",
    "dimension",
    "not_finite",
    "zero_vector",
    "out_of_range",
    "embedding_model",
    "too_large",
    "limit",
    "poison",
)
"""Of dead letters: the values of `pipeline.errors.Reason`, which a test compares."""

_ROWS: Final = (
    Metric(
        "eddy_build_info",
        Kind.GAUGE,
        "What runs; always 1.",
        _ALL,
        {"version": Open.BUILD, "revision": Open.BUILD},
    ),
    Metric(
        "eddy_device_info",
        Kind.GAUGE,
        "Which kernels compute, and on what; always 1.",
        _ALL,
        {"kernel": KERNELS, "name": Open.DEVICE},
    ),
    Metric(
        "eddy_device_memory_bytes",
        Kind.GAUGE,
        "Memory of the card that computes, whoever uses it; without a card there is none.",
        _AR,
        {"kind": ("used", "total")},
    ),
    Metric(
        "eddy_threshold",
        Kind.GAUGE,
        "Configured limits, for alerts and dashboards to compare with.",
        _ALL,
        {
            "name": (
                "lag_records",
                "reassignment_ratio",
                "cluster_size_cv",
                "model_max_age_seconds",
                "stream_clients",
            )
        },
    ),
    Metric(
        "eddy_log_events_total",
        Kind.COUNTER,
        "Log lines written.",
        _ALL,
        {"level": ("debug", "info", "warning", "error")},
    ),
    Metric(
        "eddy_kafka_errors_total",
        Kind.COUNTER,
        "Errors of the broker, or of the way to it.",
        _ALL,
        {"code": Open.CODE},
    ),
    Metric(
        "eddy_records_total",
        Kind.COUNTER,
        "Input records that are done with.",
        _A,
        {
            "op": ("upsert", "tombstone"),
            "outcome": ("assigned", "reassigned", "unchanged", "removed", "stale", "dead"),
        },
    ),
    Metric(
        "eddy_reassignments_total",
        Kind.COUNTER,
        "Items that changed cluster.",
        _A,
        {"cause": ("record", "model")},
    ),
    Metric(
        "eddy_dead_letters_total",
        Kind.COUNTER,
        "Records that could not be used.",
        _A,
        {"reason": REASONS},
    ),
    Metric(
        "eddy_invariant_violations_total",
        Kind.COUNTER,
        "What a look at the state found that cannot be; there is none to be expected.",
        _A,
        {"invariant": ("exact_label", "counts", "sums")},
    ),
    Metric(
        "eddy_micro_batch_records",
        Kind.HISTOGRAM,
        "Records of one micro-batch.",
        _A,
        buckets=RECORDS,
    ),
    Metric(
        "eddy_assign_duration_seconds",
        Kind.HISTOGRAM,
        "Time to label one micro-batch.",
        _A,
        {"kernel": KERNELS},
        WORK,
    ),
    Metric(
        "eddy_transaction_duration_seconds",
        Kind.HISTOGRAM,
        "Time from the begin of a transaction to its commit.",
        _AR,
        buckets=WORK,
    ),
    Metric(
        "eddy_transactions_total",
        Kind.COUNTER,
        "Transactions that ended.",
        _AR,
        {"result": ("committed", "aborted", "fatal")},
    ),
    Metric(
        "eddy_loop_seconds_total",
        Kind.COUNTER,
        "Where the loop spends its time: waits for records, decodes and labels them, writes them "
        "and installs them, sweeps; the rates are utilisation.",
        _A,
        {"phase": ("wait", "assign", "commit", "sweep")},
    ),
    Metric(
        "eddy_end_to_end_latency_seconds",
        Kind.HISTOGRAM,
        "From a record's timestamp to the commit of what it caused.",
        _A,
        buckets=LATENCY,
    ),
    Metric(
        "eddy_slo_freshness_records_total",
        Kind.COUNTER,
        "Records whose latency is within telemetry.slo_freshness_s, and those beyond.",
        _A,
        {"outcome": ("good", "bad")},
    ),
    Metric(
        "eddy_consumer_lag_records",
        Kind.GAUGE,
        "Records behind the end of the log.",
        _A,
        {"partition": Open.PARTITION},
    ),
    Metric(
        "eddy_consumer_lag_seconds",
        Kind.GAUGE,
        "Age of the last committed record while there is lag; 0 without.",
        _A,
        {"partition": Open.PARTITION},
    ),
    Metric(
        "eddy_group_lag_records",
        Kind.GAUGE,
        "Records behind, by what the group has committed: of all partitions, owned or not.",
        _R,
        {"partition": Open.PARTITION},
    ),
    Metric("eddy_assigned_partitions", Kind.GAUGE, "Partitions this process owns.", _A),
    Metric("eddy_input_partitions", Kind.GAUGE, "Partitions of the input.", _AR),
    Metric(
        "eddy_last_progress_timestamp_seconds",
        Kind.GAUGE,
        "When the loop last did what it is there for; to wait for a first model is progress.",
        _AR,
    ),
    Metric(
        "eddy_rebalances_total",
        Kind.COUNTER,
        "Changes of ownership.",
        _A,
        {"kind": ("assigned", "revoked", "lost")},
    ),
    Metric("eddy_members", Kind.GAUGE, "Items in clusters, of the owned partitions.", _A),
    Metric(
        "eddy_ghost_items", Kind.GAUGE, "Items whose vector compaction took before the restore.", _A
    ),
    Metric(
        "eddy_item_limit_ratio",
        Kind.GAUGE,
        "Items of the fullest partition over limits.max_items_per_partition.",
        _A,
    ),
    Metric(
        "eddy_unpublished_changes",
        Kind.GAUGE,
        "Applied changes whose statistics are not published yet.",
        _A,
    ),
    Metric(
        "eddy_unproven_members",
        Kind.GAUGE,
        "Members whose label is not re-proved under the newest model.",
        _A,
    ),
    Metric(
        "eddy_confidence",
        Kind.HISTOGRAM,
        "Confidence of assigned and reassigned records.",
        _A,
        buckets=TENTHS,
    ),
    Metric(
        "eddy_state_bytes",
        Kind.GAUGE,
        "Memory of the state; bounds: labels, proofs, and the other numbers of items.",
        _A,
        {"kind": ("vectors", "ids", "bounds", "statistics")},
    ),
    Metric(
        "eddy_restore_duration_seconds",
        Kind.HISTOGRAM,
        "Time to read a partition's state back.",
        _A,
        {"source": ("snapshot", "topic")},
        LONG,
    ),
    Metric(
        "eddy_restore_records_total",
        Kind.COUNTER,
        "Records read for that.",
        _A,
        {"source": ("snapshot", "topic")},
    ),
    Metric(
        "eddy_restore_progress_ratio",
        Kind.GAUGE,
        "How much of the restore that runs, or was the last, is read.",
        _A,
    ),
    Metric(
        "eddy_snapshots_total",
        Kind.COUNTER,
        "Copies of a partition's state on disk: made, not made, or found and not used.",
        _A,
        {"result": ("written", "failed", "rejected")},
    ),
    Metric(
        "eddy_snapshot_timestamp_seconds",
        Kind.GAUGE,
        "When the oldest of the owned partitions' snapshots was last known to say everything.",
        _A,
    ),
    Metric("eddy_snapshot_bytes", Kind.GAUGE, "Size of these snapshots.", _A),
    Metric(
        "eddy_sweep_pending_members",
        Kind.GAUGE,
        "Members the sweep has still to look at.",
        _A,
        {"kind": ("revision", "epoch")},
    ),
    Metric(
        "eddy_sweep_duration_seconds",
        Kind.HISTOGRAM,
        "Time from a model's installation to the end of its sweep.",
        _A,
        {"kind": ("revision", "epoch")},
        LONG,
    ),
    Metric("eddy_model_epoch", Kind.GAUGE, "Epoch of the newest model this process has.", _ALL),
    Metric("eddy_model_revision", Kind.GAUGE, "Its revision within the epoch.", _ALL),
    Metric(
        "eddy_model_published_timestamp_seconds",
        Kind.GAUGE,
        "When the newest model was published.",
        _R,
    ),
    Metric(
        "eddy_reclusters_total",
        Kind.COUNTER,
        "Full fits that ended.",
        _R,
        {
            "reason": (
                "first",
                "updates",
                "age",
                "drift",
                "schedule",
                "quality",
                "command",
                "embedding",
            ),
            "result": ("published", "rejected", "failed"),
        },
    ),
    Metric(
        "eddy_recluster_finished_timestamp_seconds",
        Kind.GAUGE,
        "When a fit was last published or rejected; read back from the topics at the start.",
        _R,
    ),
    Metric(
        "eddy_recluster_duration_seconds",
        Kind.HISTOGRAM,
        "Time of the phases of a full fit.",
        _R,
        {"phase": ("load", "fit", "align", "judge", "publish")},
        LONG,
    ),
    Metric(
        "eddy_centroid_update_duration_seconds",
        Kind.HISTOGRAM,
        "Time to fold the statistics and publish a revision.",
        _R,
        buckets=WORK,
    ),
    Metric("eddy_updates_since_recluster", Kind.GAUGE, "Input records since the last fit.", _R),
    Metric("eddy_sample_items", Kind.GAUGE, "Items held to fit on.", _R),
    Metric(
        "eddy_cluster_size_cv",
        Kind.GAUGE,
        "Standard deviation of the cluster sizes, divided by their mean.",
        _R,
    ),
    Metric(
        "eddy_inertia_per_member",
        Kind.GAUGE,
        "Mean squared distance of the members to their centroid.",
        _R,
    ),
    Metric(
        "eddy_clusters",
        Kind.GAUGE,
        "Clusters of the newest model.",
        _R,
        {"state": ("live", "empty")},
    ),
    Metric(
        "eddy_silhouette_simplified",
        Kind.GAUGE,
        "Simplified silhouette of the sample at the last fit: -1 to 1.",
        _R,
    ),
    Metric(
        "eddy_cluster_drift",
        Kind.GAUGE,
        "How far centroids are from where they were fitted, in units of their clusters' spread.",
        _R,
        {"stat": ("mean", "p95", "max")},
    ),
    Metric(
        "eddy_drift_alarms_active",
        Kind.GAUGE,
        "Drift alarms that are raised.",
        _R,
        {"signal": _SIGNALS},
    ),
    Metric(
        "eddy_drift_alarms_total",
        Kind.COUNTER,
        "Drift alarms that were raised or cleared.",
        _R,
        {"signal": _SIGNALS, "state": ("raised", "cleared")},
    ),
    Metric(
        "eddy_lifecycle_total",
        Kind.COUNTER,
        "Lifecycle events published.",
        _R,
        {
            "kind": (
                "installed",
                "born",
                "split",
                "merged",
                "retired",
                "restored",
                "labelled",
                "rejected",
            )
        },
    ),
    Metric(
        "eddy_commands_total",
        Kind.COUNTER,
        "Commands that were answered.",
        _R,
        {
            "kind": ("recluster", "rollback", "split", "merge", "label"),
            "result": ("done", "rejected", "failed"),
        },
    ),
)

CATALOGUE: Final[Mapping[str, Metric]] = {metric.name: metric for metric in (*_ROWS, *SERVER_ROWS)}
"""Every metric there is, by name."""
