"""The dashboards of Grafana, as lists of panels: what is in the files of ``helm/dashboards``."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

WIDTH: Final = 12
HEIGHT: Final = 8
PODS: Final = 'namespace="$namespace",pod=~"$release-.*"'


class Panel(NamedTuple):
    """One time series: a title, its unit, and expressions with their legends."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    text: str = ""
    """What to read out of it, where the title does not say so."""


class Mark(NamedTuple):
    """A line through all panels, wherever the expression has a value."""

    name: str
    expr: str
    title: str
    colour: str


def _rate(metric: str, label: str) -> tuple[str, str]:
    """A second, by the values of one label."""
    return f"sum by ({label}) (rate({metric}{{@}}[$__rate_interval]))", f"{{{{{label}}}}}"


def _count(metric: str, label: str) -> tuple[str, str]:
    """What is too rare for a rate: how many, by the values of one label."""
    return f"sum by ({label}) (increase({metric}{{@}}[$__rate_interval]))", f"{{{{{label}}}}}"


def _quantiles(metric: str, *quantiles: str, by: str = "") -> tuple[tuple[str, str], ...]:
    """Of a histogram; ``by``: one more label to part it by."""
    labels, legend = ("le", "") if not by else (f"le, {by}", f" {{{{{by}}}}}")
    return tuple(
        (
            f"histogram_quantile({q}, sum by ({labels}) "
            f"(rate({metric}_bucket{{@}}[$__rate_interval])))",
            f"p{q[2:].ljust(2, '0')}{legend}",
        )
        for q in quantiles
    )


def _threshold(name: str) -> tuple[str, str]:
    """A line that an alert compares with."""
    return f'max(eddy_threshold{{@,name="{name}"}})', "threshold"


EPOCHS: Final = Mark("Epochs", "max(changes(eddy_model_epoch{@}[2m])) > 0", "a new epoch", "purple")
ALARMS: Final = Mark(
    "Drift alarms",
    'sum by (signal) (increase(eddy_drift_alarms_total{@,state="raised"}[2m])) > 0',
    "drift: {{signal}}",
    "orange",
)
REBALANCES: Final = Mark(
    "Rebalances",
    'sum(increase(eddy_rebalances_total{@,kind!="assigned"}[2m])) > 0',
    "partitions go",
    "blue",
)

OVERVIEW: Final = (
    Panel(
        "Records by outcome",
        "cps",
        (_rate("eddy_records_total", "outcome"),),
    ),
    Panel(
        "Lag",
        "short",
        (("sum(eddy_group_lag_records{@})", "records"), _threshold("lag_records")),
    ),
    Panel(
        "End to end",
        "s",
        _quantiles("eddy_end_to_end_latency_seconds", "0.5", "0.99"),
        "From a record's timestamp to the commit of what it caused.",
    ),
    Panel(
        "Reassignments by cause",
        "cps",
        (_rate("eddy_reassignments_total", "cause"),),
    ),
    Panel(
        "Late records",
        "percentunit",
        tuple(
            (
                f'sum(rate(eddy_slo_freshness_records_total{{@,outcome="bad"}}[{window}])) '
                f"/ sum(rate(eddy_slo_freshness_records_total{{@}}[{window}]))",
                f"of {window}",
            )
            for window in ("5m", "1h", "6h")
        ),
        "Objective: 1 %. 14.4 % of an hour wakes somebody, 6 % of six hours is for this day.",
    ),
    Panel(
        "What cannot be",
        "short",
        (_count("eddy_invariant_violations_total", "invariant"),),
        "Nothing, ever.",
    ),
)

KAFKA: Final = (
    Panel(
        "Lag by partition",
        "short",
        (("sum by (partition) (eddy_group_lag_records{@})", "{{partition}}"),),
        "Of all partitions, also of those that nobody owns.",
    ),
    Panel(
        "Lag in seconds",
        "s",
        (("max by (partition) (eddy_consumer_lag_seconds{@})", "{{partition}}"),),
    ),
    Panel(
        "Owners",
        "short",
        (
            ("sum by (pod) (eddy_assigned_partitions{@})", "{{pod}}"),
            ("max(eddy_input_partitions{@})", "all there are"),
        ),
    ),
    Panel("Rebalances", "short", (_count("eddy_rebalances_total", "kind"),)),
    Panel("Transactions by result", "cps", (_rate("eddy_transactions_total", "result"),)),
    Panel(
        "Duration of a transaction",
        "s",
        _quantiles("eddy_transaction_duration_seconds", "0.5", "0.99"),
    ),
    Panel(
        "Where the loop spends its time",
        "percentunit",
        (
            (
                "avg by (phase) (rate(eddy_loop_seconds_total{@}[$__rate_interval]))",
                "{{phase}}",
            ),
        ),
        "The share of each phase, the mean of all assigners; near 1 it is what holds up the rest.",
    ),
    Panel(
        "Records of a micro-batch",
        "short",
        _quantiles("eddy_micro_batch_records", "0.5", "0.95"),
    ),
    Panel("Dead letters by reason", "short", (_count("eddy_dead_letters_total", "reason"),)),
    Panel("Errors of the broker", "short", (_count("eddy_kafka_errors_total", "code"),)),
    Panel(
        "Restore",
        "percentunit",
        (("min by (pod) (eddy_restore_progress_ratio{@})", "{{pod}}"),),
    ),
    Panel(
        "Age of the snapshots",
        "s",
        (("time() - min by (pod) (eddy_snapshot_timestamp_seconds{@})", "{{pod}}"),),
    ),
)

CLUSTERS: Final = (
    Panel(
        "Clusters",
        "short",
        (("max by (state) (eddy_clusters{@})", "{{state}}"),),
    ),
    Panel(
        "Spread of the sizes",
        "short",
        (("max(eddy_cluster_size_cv{@})", "now"), _threshold("cluster_size_cv")),
        "Standard deviation of the sizes, divided by their mean.",
    ),
    Panel(
        "Items",
        "short",
        (
            ("sum(eddy_members{@})", "in clusters"),
            ("sum(eddy_ghost_items{@})", "ghosts"),
            ("max(eddy_sample_items{@})", "in the sample"),
        ),
    ),
    Panel(
        "Drift of the centroids",
        "short",
        (("max by (stat) (eddy_cluster_drift{@})", "{{stat}}"),),
        "From where they were fitted, in units of their clusters' spread.",
    ),
    Panel(
        "Drift alarms that stand",
        "short",
        (("max by (signal) (eddy_drift_alarms_active{@})", "{{signal}}"),),
    ),
    Panel("Lifecycle", "short", (_count("eddy_lifecycle_total", "kind"),)),
    Panel(
        "Reclusters",
        "short",
        (
            (
                "sum by (reason, result) (increase(eddy_reclusters_total{@}[$__rate_interval]))",
                "{{reason}}: {{result}}",
            ),
        ),
    ),
    Panel(
        "Phases of a recluster",
        "s",
        (
            (
                "sum by (phase) (rate(eddy_recluster_duration_seconds_sum{@}[1h])) "
                "/ sum by (phase) (rate(eddy_recluster_duration_seconds_count{@}[1h]))",
                "{{phase}}",
            ),
        ),
        "The mean of the last hour.",
    ),
    Panel(
        "Age of the last fit",
        "s",
        (
            ("time() - max(eddy_recluster_finished_timestamp_seconds{@})", "age"),
            _threshold("model_max_age_seconds"),
        ),
    ),
    Panel("Updates since the fit", "short", (("max(eddy_updates_since_recluster{@})", "records"),)),
    Panel(
        "Inertia per member",
        "short",
        (("max(eddy_inertia_per_member{@})", "mean squared distance"),),
    ),
    Panel(
        "Silhouette",
        "short",
        (("max(eddy_silhouette_simplified{@})", "simplified, of the sample"),),
    ),
    Panel(
        "Sweeps",
        "short",
        (("sum by (kind) (eddy_sweep_pending_members{@})", "{{kind}}"),),
        "Members that are still to be held against the newest model.",
    ),
    Panel("Confidence", "percentunit", _quantiles("eddy_confidence", "0.1", "0.5")),
)

SERVER: Final = (
    Panel(
        "Requests by status",
        "reqps",
        (_rate("eddy_http_request_duration_seconds_count", "status"),),
    ),
    Panel(
        "Latency by route",
        "s",
        _quantiles("eddy_http_request_duration_seconds", "0.99", by="route"),
    ),
    Panel(
        "Latency",
        "s",
        _quantiles("eddy_http_request_duration_seconds", "0.5", "0.99"),
    ),
    Panel(
        "Errors",
        "percentunit",
        (
            (
                'sum(rate(eddy_http_request_duration_seconds_count{@,status="5xx"}'
                "[$__rate_interval])) "
                "/ sum(rate(eddy_http_request_duration_seconds_count{@}[$__rate_interval]))",
                "5xx",
            ),
        ),
    ),
    Panel(
        "Search",
        "s",
        _quantiles("eddy_search_duration_seconds", "0.5", "0.99", by="index"),
    ),
    Panel("The view is behind", "s", (("max by (pod) (eddy_view_lag_seconds{@})", "{{pod}}"),)),
    Panel(
        "The view is behind, by topic",
        "short",
        (("max by (topic) (eddy_view_lag_records{@})", "{{topic}}"),),
    ),
    Panel("Items in the view", "short", (("max by (pod) (eddy_view_items{@})", "{{pod}}"),)),
    Panel("Memory of the view", "bytes", (("max by (pod) (eddy_view_bytes{@})", "{{pod}}"),)),
    Panel(
        "Stream clients",
        "short",
        (
            ("sum by (transport) (eddy_stream_clients{@})", "{{transport}}"),
            _threshold("stream_clients"),
        ),
        "The threshold is of one replica.",
    ),
    Panel(
        "Frames",
        "cps",
        (
            (
                "sum by (transport, outcome) (rate(eddy_stream_frames_total{@}[$__rate_interval]))",
                "{{transport}} {{outcome}}",
            ),
        ),
        "Coalesced: a newer state took the place of one that the client had not taken.",
    ),
    Panel(
        "Dropped events",
        "cps",
        (_rate("eddy_stream_dropped_events_total", "transport"),),
    ),
    Panel("Disconnects", "short", (_count("eddy_stream_disconnects_total", "reason"),)),
    Panel(
        "Open files and connections",
        "short",
        (
            ("max by (pod) (eddy_server_descriptors_open{@})", "{{pod}}"),
            ("min(eddy_server_descriptors_limit{@})", "limit"),
        ),
    ),
)

PAGES: Final = {"overview": OVERVIEW, "kafka": KAFKA, "clusters": CLUSTERS, "server": SERVER}
MARKS: Final = {
    "overview": (EPOCHS,),
    "kafka": (REBALANCES,),
    "clusters": (EPOCHS, ALARMS),
    "server": (EPOCHS,),
}


def files() -> dict[str, str]:
    """Name -> JSON of every dashboard."""
    return {
        name: json.dumps(dashboard(name, panels), indent=2) + "\n" for name, panels in PAGES.items()
    }


def dashboard(name: str, panels: tuple[Panel, ...]) -> dict[str, Any]:
    """One dashboard, two panels in a row."""
    return {
        "uid": f"eddy-{name}",
        "title": f"Eddy: {name}",
        "tags": ["eddy"],
        "schemaVersion": 39,
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                _variable("namespace", "label_values(eddy_build_info, namespace)"),
                {"name": "release", "type": "textbox", "query": "eddy"},
            ]
        },
        "annotations": {"list": [_annotation(mark) for mark in MARKS[name]]},
        "links": [
            {
                "type": "dashboards",
                "title": "Eddy",
                "tags": ["eddy"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": query,
        "refresh": 2,
    }


def _annotation(mark: Mark) -> dict[str, Any]:
    return {
        "name": mark.name,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "enable": True,
        "expr": mark.expr.replace("@", PODS),
        "iconColor": mark.colour,
        "step": "60s",
        "titleFormat": mark.title,
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, 2)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {"refId": chr(65 + i), "expr": expr.replace("@", PODS), "legendFormat": legend}
            for i, (expr, legend) in enumerate(panel.queries)
        ],
    }
