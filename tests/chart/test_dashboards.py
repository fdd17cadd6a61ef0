"""The dashboards as Grafana gets them: where panels lie, what they ask, what is marked."""

from __future__ import annotations

import itertools
import json
import re

import pytest

from pipeline.telemetry.catalogue import CATALOGUE
from tests.chart.chart import CHART
from tests.chart.dashboards import PODS, files
from tests.telemetry.promised import unknown_metrics

PAGES = {
    path.stem: json.loads(path.read_text()) for path in sorted((CHART / "dashboards").glob("*"))
}
SHOWN_NOWHERE = {
    "eddy_build_info",  # the variable `namespace` asks it
    "eddy_log_events_total",
    "eddy_device_info",
    "eddy_device_memory_bytes",
    "eddy_assign_duration_seconds",  # the loop's phase is what counts
    "eddy_consumer_lag_records",  # the group's is of all partitions
    "eddy_last_progress_timestamp_seconds",  # alerts read these
    "eddy_item_limit_ratio",
    "eddy_unpublished_changes",
    "eddy_unproven_members",
    "eddy_state_bytes",
    "eddy_restore_duration_seconds",
    "eddy_restore_records_total",
    "eddy_snapshots_total",
    "eddy_snapshot_bytes",
    "eddy_sweep_duration_seconds",
    "eddy_model_revision",
    "eddy_model_published_timestamp_seconds",
    "eddy_centroid_update_duration_seconds",
    "eddy_commands_total",
}


def asked(page):
    """Every expression: of panels and of marks."""
    yield from (t["expr"] for panel in page["panels"] for t in panel["targets"])
    yield from (mark["expr"] for mark in page["annotations"]["list"])


def test_there_are_the_four_of_them_and_the_files_are_those_of_the_lists():
    assert set(PAGES) == {"overview", "kafka", "clusters", "server"}
    for name, text in files().items():
        assert (CHART / "dashboards" / f"{name}.json").read_text() == text


@pytest.mark.parametrize("name", PAGES)
def test_panels_lie_side_by_side_and_none_over_another(name):
    places = [panel["gridPos"] for panel in PAGES[name]["panels"]]

    for place in places:
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        assert place["h"] > 0
    for one, other in itertools.combinations(places, 2):
        assert not covers(one, other), (one, other)


def covers(one, other):
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_control_panels_over_each_other_would_be_noticed():
    assert covers({"x": 0, "y": 0, "w": 12, "h": 8}, {"x": 11, "y": 7, "w": 1, "h": 1})
    assert not covers({"x": 0, "y": 0, "w": 12, "h": 8}, {"x": 12, "y": 0, "w": 12, "h": 8})


@pytest.mark.parametrize("name", PAGES)
def test_names_of_a_page_are_its_own(name):
    page = PAGES[name]
    for of in ("id", "title"):
        found = [panel[of] for panel in page["panels"]]
        assert len(set(found)) == len(found)
    for panel in page["panels"]:
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)
    assert len({one["uid"] for one in PAGES.values()}) == len(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_labels_and_their_values_are_those_of_the_catalogue(name):
    for expr in asked(PAGES[name]):
        plain = expr.replace(f"{PODS},", "").replace(PODS, "")
        assert [*unknown_metrics(plain)] == [], expr
        assert PODS in expr, f"of every release in the cluster: {expr}"


@pytest.mark.parametrize("name", PAGES)
def test_a_legend_names_labels_that_the_expression_keeps(name):
    for panel in PAGES[name]["panels"]:
        for target in panel["targets"]:
            kept = {
                label.strip()
                for labels in re.findall(r"by \(([^)]*)\)", target["expr"])
                for label in labels.split(",")
            }
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept, panel["title"]


def test_every_metric_is_on_a_page_or_left_out_on_purpose():
    text = " ".join(expr for page in PAGES.values() for expr in asked(page))
    named = set(re.findall(r"\beddy_[a-z0-9_]+", text))
    shown = {re.sub("_(bucket|count|sum)$", "", one) for one in named} | named

    assert set(CATALOGUE) - shown == SHOWN_NOWHERE


def test_epochs_are_marked_where_they_matter():
    marked = {
        name: {mark["name"] for mark in page["annotations"]["list"]} for name, page in PAGES.items()
    }

    assert "Epochs" in marked["overview"] & marked["clusters"]
    assert "Drift alarms" in marked["clusters"]
