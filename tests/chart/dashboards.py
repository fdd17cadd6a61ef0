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


OVERVIEW: Final = (
    Panel(
        "Records by outcome",
        "cps",
        (("sum by (outcome) (rate(eddy_records_total{@}[$__rate_interval]))", "{{outcome}}"),),
    ),
    Panel(
        "Lag",
        "short",
        (("sum(eddy_group_lag_records{@})", "records"),),
    ),
    Panel(
        "End to end",
        "s",
        tuple(
            (
                f"histogram_quantile({q}, sum by (le) "
                "(rate(eddy_end_to_end_latency_seconds_bucket{@}[$__rate_interval])))",
                f"p{q[2:].ljust(2, '0')}",
            )
            for q in ("0.5", "0.99")
        ),
    ),
    Panel(
        "Reassignments by cause",
        "cps",
        (("sum by (cause) (rate(eddy_reassignments_total{@}[$__rate_interval]))", "{{cause}}"),),
    ),
)
PAGES: Final = {"overview": OVERVIEW}


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


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, 2)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {"refId": chr(65 + i), "expr": expr.replace("@", PODS), "legendFormat": legend}
            for i, (expr, legend) in enumerate(panel.queries)
        ],
    }
