"""The map: where clusters stand, how it was, and what totals a page shows beside it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.messages.codec import decode_change
from pipeline.messages.events import Cause, Drift
from pipeline.services.server import map_frames
from pipeline.services.server.live.rows import sample
from pipeline.services.server.map_frames import MapFrames, frame_of, shown
from pipeline.services.server.rates import Rates
from pipeline.services.server.routes.frames import take_frame
from pipeline.state.view.fold import News
from tests.services.server.test_problems import problem
from tests.simulation.test_commands import CORNERS, asked, corner_of, put

CHANGE = (
    b'{"id":"in/0/1","type":"reassigned","item":"i","from":"c1","to":"c2","cause":"record",'
    b'"distance":1.0,"margin":1.0,"confidence":0.5,"model":{"epoch":1,"revision":0},'
    b'"source":{"topic":"in","partition":0,"offset":1},"occurred_at":null,"metadata":{}}'
)


def frame(time_ms, n=3, **given):
    clusters = tuple(f"c{i}" for i in range(n))
    fields = {
        "sizes": np.arange(n), "growths": -np.arange(n), "drifts": {"c1": 1.25},
        "places": {one: (i / 10_000, -1.0) for i, one in enumerate(clusters[:-1])},
    }  # fmt: skip
    labels = [None] * n
    return frame_of(time_ms, (1, 2), clusters, labels, **{**fields, **given})


# positions


def test_every_row_says_where_its_cluster_stands(corners):
    rows = corners.pages("/clusters")

    for row in rows:
        assert row["state"] == "live"
        assert row["x"] ** 2 + row["y"] ** 2 <= 1.0
        assert row["x"] == round(row["x"], 4)
        one = corners.ok(f"/clusters/{row['cluster']}")
        assert [one[name] for name in ("x", "y", "drift", "state")] == [
            row[name] for name in ("x", "y", "drift", "state")
        ]
    assert len({(row["x"], row["y"]) for row in rows}) == len(rows)


def test_streams_say_the_same_as_pages(corners):
    rows = {row["cluster"]: row for row in corners.pages("/clusters")}

    told = sample(corners.server.desk).rows

    for cluster, row in told.items():
        streamed = json.loads(row)
        assert {name: rows[cluster][name] for name in streamed} == streamed


def test_survivors_of_a_new_model_stay_and_what_is_new_gets_a_place(make_site):
    site = make_site()
    before = {row["cluster"]: (row["x"], row["y"]) for row in site.pages("/clusters")}
    first, second = corner_of(site.world, 0), corner_of(site.world, 1)

    asked(site.world, "merge", clusters=[first, second])
    site.follow()

    rows = {row["cluster"]: (row["x"], row["y"]) for row in site.pages("/clusters")}
    assert len(rows) == 3
    for cluster in set(rows) & set(before) - {first, second}:
        assert np.linalg.norm(np.subtract(rows[cluster], before[cluster])) < 0.6
    assert all(None not in place for place in rows.values())


def test_a_replica_that_starts_later_draws_the_same_map(make_site):
    site = make_site()
    site.world.command("recluster", force=True)
    site.settle()

    other = type(site)(site.world, site.server.desk.policy)

    assert other.server.desk.places == site.server.desk.places
    assert len(site.server.desk.places) == 4


def test_before_there_is_a_map_rows_say_so(make_site):
    site = make_site()
    site.server.desk.places = {}

    assert {(row["x"], row["y"]) for row in site.pages("/clusters")} == {(None, None)}
    take_frame(site.server.desk)
    assert {row["x"] for row in site.ok("/frames")["items"][0]["clusters"]} == {None}


def test_a_step_begins_a_map_only_where_there_is_another_model(make_site):
    site = make_site()
    positions = site.server.positions
    before = site.server.desk.places
    positions.step()
    assert positions._running is None

    site.world.command("recluster", force=True)
    site.world.settle()
    while site.server.follower.step():
        pass
    site.ticks += 1000
    positions.step()
    positions._running.result()
    positions.step()  # takes note of it

    assert positions._running is None
    assert site.server.desk.places is not before
    positions.close()


# drift


def alarm(signal, state, statistic, cluster="c1"):
    scope = "model" if cluster is None else "cluster"
    return Drift(
        id=signal, state=state, scope=scope, cluster=cluster, signal=signal, statistic=statistic,
        threshold=2.0, effect=1.0, arl0=1000, window=1, epoch=1, revision=0, occurred_at_ms=0,
    )  # fmt: skip


def test_drift_is_the_worst_of_a_clusters_signals(make_site):
    site = make_site()
    board = site.server.desk.view.drift
    assert {row["drift"] for row in site.pages("/clusters")} == {None}

    def ratio(*alarms):
        board._last = {(one.cluster, one.signal): one for one in alarms}
        board._next += 1
        return site.server.desk.drifts().get("c1")

    assert ratio(alarm("shift", "raised", 3.0), alarm("distance", "cleared", 0.5)) == 1.5
    assert ratio(alarm("shift", "cleared", 1.0), alarm("distance", "cleared", 0.5)) == 0.5
    assert ratio(alarm("shift", "cleared", 5.0)) == 0.9999  # an end by its effect
    assert ratio(alarm("shift", "raised", 1.0)) == 1.0
    assert ratio(alarm("churn", "raised", 3.0, cluster=None)) is None


# frames


def test_a_frame_gives_back_what_was_put_in():
    rows = shown(frame(0))

    assert rows[1] == {
        "cluster": "c1", "label": None, "size": 1, "x": 0.0001, "y": -1.0, "growth": -1,
        "drift": 1.25,
    }  # fmt: skip
    assert (rows[2]["x"], rows[2]["y"], rows[2]["drift"]) == (None, None, None)


def test_six_hours_of_five_hundred_clusters_take_eighteen_megabytes():
    kept = MapFrames()
    for i in range(2 * map_frames.SPAN_S // map_frames.STEP_S):
        assert kept.due_ms(i * 10_000 + 7) == i * 10_000
        kept.add(frame(i * 10_000, 500))
        assert kept.due_ms(i * 10_000 + 9_999) is None

    assert len(kept) == 2160
    assert kept.n_bytes == 2160 * (500 * 16 + 400) < 18.2e6
    frames, _ = kept.between(None, None, 10)
    assert all(one.clusters is frames[0].clusters for one in frames)


def test_beyond_its_bytes_the_ring_reaches_back_less_far():
    kept = MapFrames(max_bytes=10 * frame(0).n_bytes)
    for i in range(50):
        kept.add(frame(i * 10_000))

    assert len(kept) == 10
    assert next(one.time_ms for one in kept.between(None, None, 10)[0]) == 400_000


def test_a_span_is_cut_and_steps_are_taken():
    kept = MapFrames()
    for i in range(100):
        kept.add(frame(i * 10_000))

    frames, step_s = kept.between(200_000, 400_000, 45)

    assert step_s == 50
    assert [one.time_ms for one in frames] == [240_000, 290_000, 340_000, 390_000, 400_000]


def test_a_reply_that_would_be_too_long_has_longer_steps(monkeypatch):
    monkeypatch.setattr(map_frames, "MAX_ROWS", 100)
    kept = MapFrames()
    for i in range(100):
        kept.add(frame(i * 10_000))

    frames, step_s = kept.between(None, None, 1)

    assert step_s == 40
    assert sum(len(one.rows) for one in frames) <= 100


def test_frames_come_over_the_wire_the_oldest_first(make_site):
    site = make_site()
    desk = site.server.desk
    began_at = site.world.now_s
    assert take_frame(desk)
    assert not take_frame(desk)
    for _ in range(5):
        site.world.now_s += 10
        assert take_frame(desk)

    body = site.ok("/frames")

    assert body["step_s"] == 10
    times = [one["t"] for one in body["items"]]
    assert times == sorted(set(times))
    assert len(times) == 6
    first = body["items"][0]
    assert "{epoch}.{revision}".format(**first["model"]) == site.get("/model").headers["eddy-model"]
    sizes = {row["cluster"]: row["size"] for row in site.pages("/clusters")}
    assert {row["cluster"]: row["size"] for row in first["clusters"]} == sizes
    cut = site.ok("/frames", **{"from": times[1], "to": times[4], "step": 20})
    assert 2 <= len(cut["items"]) <= 3
    assert cut["step_s"] == 20
    assert site.world.now_s - began_at == 50
    problem(site.get("/frames", **{"from": times[2], "to": times[1]}), 422, "invalid-request")
    problem(site.get("/frames", step=0), 422, "invalid-request")
    problem(site.get("/frames", **{"from": "yesterday"}), 422, "invalid-request")


# rates


def change(occurred_at_ms, cause=Cause.RECORD):
    return decode_change(CHANGE)._replace(occurred_at_ms=occurred_at_ms, cause=cause)


def test_the_rate_is_that_of_the_last_ten_seconds():
    now = [1000.0]
    rates = Rates(lambda: now[0])
    assert (rates.events_per_s, rates.quantiles_s(0.5)) == (0.0, [None])

    for second in range(30):
        now[0] = 1000.5 + second
        rates.hear(News(changes=[change(int(now[0] * 1000) - 250)] * 20))
    now[0] = 1030.5

    assert rates.events_per_s == 20.0
    assert rates.quantiles_s(0.5, 0.99) == pytest.approx([0.25, 0.25])
    now[0] += 60
    assert rates.events_per_s == 0.0


def test_only_records_tell_how_long_it_took():
    rates = Rates(lambda: 1000.0)
    rates.hear(News(changes=[change(0, Cause.MODEL), change(None)]))
    assert rates.quantiles_s(0.5) == [None]

    rates.hear(News(changes=[change(999_000), change(1_000_500)]))  # a clock that runs ahead

    assert rates.quantiles_s(0.0, 1.0) == [0.0, 1.0]


def test_totals_tell_of_the_server_itself(make_site):
    site = make_site()
    put(site.world, 0, CORNERS[1])
    site.settle()
    site.server._reports._gauges_at = float("-inf")
    site.server._reports.stepped(site.server.desk, site.server.follower)

    stats = site.ok("/stats")

    assert stats["lag_s"] == 0.0
    assert stats["end_to_end_p99_s"] >= stats["end_to_end_p50_s"] >= 0.0
    assert 0 < stats["descriptors_open"] < stats["descriptors_limit"]
