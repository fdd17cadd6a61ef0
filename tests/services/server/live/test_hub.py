"""Laws of the hub: nothing between the topics and a client is lost, told twice, or told late."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.services.server.live import hub as hubs
from pipeline.services.server.live.hub import Hub
from pipeline.services.server.live.ring import CHANGES, DRIFT, EVENT_CHANNELS, LIFECYCLE, Told
from pipeline.services.server.live.state import Board, Sent
from pipeline.services.server.live.tokens import MAX_TOKEN, read_token, write_token
from pipeline.services.server.live.wanted import Wanted
from pipeline.services.server.problems import ProblemError

TOPICS = b"12345678"
EVERYTHING = Wanted(frozenset(EVENT_CHANNELS))
N_PARTITIONS = 3

CLUSTERS = st.sampled_from(["c1", "c2", "c3"])
FACTS = st.one_of(
    st.tuples(
        st.just(CHANGES), st.integers(0, 2), st.sampled_from(["assigned", "removed"]),
        st.sampled_from(["a", "b", "c"]), st.tuples(CLUSTERS),
    ),
    st.tuples(
        st.just(LIFECYCLE), st.just(0), st.sampled_from(["born", "installed"]), st.none(),
        st.one_of(st.just(()), st.tuples(CLUSTERS), st.tuples(CLUSTERS, CLUSTERS)),
    ),
    st.tuples(
        st.just(DRIFT), st.just(0), st.just("drift"), st.none(),
        st.one_of(st.just(()), st.tuples(CLUSTERS)),
    ),
)  # fmt: skip
WANTED = st.builds(
    Wanted,
    channels=st.frozensets(st.sampled_from(EVENT_CHANNELS), min_size=1),
    items=st.frozensets(st.sampled_from(["a", "b"]), max_size=1),
    clusters=st.frozensets(CLUSTERS, max_size=2),
    types=st.frozensets(st.sampled_from(["assigned", "born", "drift"]), max_size=2),
    where=st.frozensets(st.sampled_from([("x", "a"), ("x", "b")]), max_size=1),
)


def log_of(facts, gaps=()):
    """The facts at their offsets, some of which are marks of transactions."""
    heads, told = {}, []
    for n, (channel, partition, kind, item, clusters) in enumerate(facts):
        lane = (channel, partition)
        offset = heads.get(lane, 0) + (n in gaps)
        heads[lane] = offset + 1
        body = json.dumps({"n": n}).encode()
        metadata = {"x": item} if item in ("a", "b") else None
        told.append(Told(0, channel, partition, offset, kind, item, clusters, body, metadata))
    return told


def new_hub(capacity=1000):
    hub = Hub(TOPICS, capacity=capacity)
    for channel in EVENT_CHANNELS:
        hub.ring.begin(channel, dict.fromkeys(range(N_PARTITIONS), 0))
    return hub


def batches_of(events):
    """As a follower brings them: each of one topic."""
    found = []
    for told in events:
        if found and found[-1][0].channel == told.channel:
            found[-1].append(told)
        else:
            found.append([told])
    return found


def offer(hub, events):
    for batch in batches_of(events):
        hub.offer(batch)


def drained(hub, one):
    """All that a subscriber gets now: bodies, how many were dropped, gaps, the last token."""
    bodies, n_dropped, gaps, resume = [], 0, [], None
    while one.has_events:
        batch = hub.take(one)
        if batch is not None:
            bodies += [told.body for told in batch.events]
            n_dropped += batch.dropped
            gaps += [] if batch.gap is None else [batch.gap]
            resume = batch.resume
    return bodies, n_dropped, gaps, resume or hub.token(one)


def wish(wanted, events):
    return [told.body for told in events if wanted.takes(told)]


# --- filters and queues -----------------------------------------------------------------------


@given(st.lists(FACTS, max_size=40), st.lists(WANTED, min_size=1, max_size=5))
def test_everybody_gets_what_he_wants_once_and_in_order(facts, wishes):
    hub, events = new_hub(), log_of(facts)
    subscribers = [hub.subscribe(wanted, None, None) for wanted in wishes]

    offer(hub, events)
    offer(hub, events)  # a reader that begins anew

    for one in subscribers:
        assert drained(hub, one)[:3] == (wish(one.wanted, events), 0, [])


def test_nobody_is_remembered_who_is_gone():
    hub = new_hub()
    for wanted in (EVERYTHING, Wanted(EVERYTHING.channels, frozenset("a"), frozenset(["c1"]))):
        hub.unsubscribe(hub.subscribe(wanted, None, None))

    assert not hub._groups and not hub._open
    assert not hub._by_item and not hub._by_cluster and not hub._of_clusters


def test_for_all_who_want_the_same_events_it_is_chosen_once():
    hub = new_hub()
    one = Wanted(frozenset({CHANGES}), clusters=frozenset({"c1"}))
    same = [one, replace(one, channels=frozenset({CHANGES, "clusters"}), rate_hz=10.0)]
    other = Wanted(frozenset({CHANGES}), clusters=frozenset({"c2"}))
    subscribers = [hub.subscribe(wanted, None, None) for wanted in (*same, other)]
    events = log_of([(CHANGES, 0, "assigned", "a", ("c1",))])

    offer(hub, events)

    assert len(hub._groups) == 2
    assert [drained(hub, one)[0] for one in subscribers] == [[events[0].body]] * 2 + [[]]


@given(
    st.lists(FACTS, max_size=60), st.integers(1, 8), st.integers(1, 200), st.integers(1, 70),
    st.sets(st.integers(0, 60)), WANTED,
)  # fmt: skip
@settings(deadline=None)
def test_every_event_is_delivered_or_counted_and_changes_go_first(
    facts, n, n_bytes, capacity, takes, wanted
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hubs, "MAX_QUEUED", n)
        patch.setattr(hubs, "MAX_QUEUED_BYTES", n_bytes)
        patch.setattr(hubs, "GIVEN_UP_AT_ONCE", 2)
        hub, events = new_hub(capacity), log_of(facts)
        one = hub.subscribe(wanted, None, None)
        bodies, n_dropped = [], 0

        for i, batch in enumerate(batches_of(events)):
            hub.offer(batch)
            assert len(one) <= n
            assert one.n_bytes <= max(n_bytes, max(len(told.body) for told in events))
            taken = hub.take(one) if i in takes else None
            if taken is not None:
                bodies += [told.body for told in taken.events]
                n_dropped += taken.dropped

        wished = wish(wanted, events)
        rest, n_more, gaps, _ = drained(hub, one)
        bodies += rest
        n_dropped += n_more
        assert len(bodies) + n_dropped == len(wished) and one.n_dropped == n_dropped
        assert not gaps and not hub._behind
        assert bodies == [body for body in wished if body in set(bodies)]  # in order
        lost = set(wished) - set(bodies)
        if capacity >= len(events):
            assert not lost  # the ring had it all
        others = [t.body for t in events if t.channel != CHANGES and t.body in set(wished)]
        if len(others) <= n and sum(map(len, others)) <= n_bytes:
            assert not lost & set(others)


def test_more_changes_than_a_queue_takes_are_not_lost_while_the_ring_has_them():
    hub = new_hub(capacity=3 * hubs.MAX_QUEUED)
    one = hub.subscribe(EVERYTHING, None, None)

    offer(hub, log_of([(CHANGES, 0, "assigned", "a", ("c1",))] * 2 * hubs.MAX_QUEUED))

    assert one.is_behind and len(one) == 0
    bodies, n_dropped, gaps, _ = drained(hub, one)
    assert (len(bodies), n_dropped, gaps) == (2 * hubs.MAX_QUEUED, 0, [])
    assert not one.is_behind


def test_lifecycle_stays_where_changes_are_more_than_the_ring_holds():
    hub = new_hub(capacity=1000)
    one = hub.subscribe(EVERYTHING, None, None)
    facts = [(LIFECYCLE, 0, "born", None, ("c1",))]
    facts += [(CHANGES, 0, "assigned", "a", ("c1",))] * 5000

    for told in log_of(facts):
        hub.offer([told])

    bodies, n_dropped, _, _ = drained(hub, one)
    assert bodies[0] == b'{"n": 0}' and 500 < len(bodies) <= 1001
    assert n_dropped == 5001 - len(bodies)


def test_it_is_told_once_that_there_is_something():
    hub, events = new_hub(), log_of([(CHANGES, 0, "assigned", "a", ("c1",))] * 4)
    one = hub.subscribe(EVERYTHING, None, "owner")

    assert [w.owner for w in hub.offer(events[:1])] == ["owner"]
    assert hub.offer(events[1:2]) == []
    drained(hub, one)
    assert hub.offer(events[2:]) == [one]


# --- resume -----------------------------------------------------------------------------------


@given(
    st.lists(FACTS, max_size=50), st.integers(0, 50), st.sets(st.integers(0, 50)),
    st.randoms(use_true_random=False), WANTED, st.integers(1, 12),
)  # fmt: skip
@settings(deadline=None)
def test_any_replica_goes_on_without_gap_or_repetition(facts, cut, marks, random, wanted, n_frame):
    """Lanes come in another order at the other replica, and it may be behind the first one."""
    events = log_of(facts, marks)
    lanes = {}
    for told in events:
        lanes.setdefault((told.channel, told.partition), []).append(told)
    order = [lane for lane, held in lanes.items() for _ in held]
    random.shuffle(order)
    queues = {lane: iter(held) for lane, held in lanes.items()}
    others = [next(queues[lane]) for lane in order]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hubs, "MAX_FRAME_EVENTS", n_frame)
        first, second = new_hub(), new_hub()
        one = first.subscribe(wanted, None, None)
        offer(first, events[:cut])
        if random.random() < 0.5:  # it may break off with frames to come
            batch = first.take(one) if one.has_events else None
            seen = [] if batch is None else [told.body for told in batch.events]
            resume = first.token(one)
        else:
            seen, _, _, resume = drained(first, one)
        at = random.randrange(len(others) + 1)
        offer(second, others[:at])

        again = second.subscribe(wanted, read_token(resume, "/resume"), None)
        got, n_dropped, gaps, between = drained(second, again)
        if random.random() < 0.5:  # and once more, back
            offer(first, events[cut:])
            more = first.subscribe(wanted, read_token(between, "/resume"), None)
            rest, _, gaps_too, _ = drained(first, more)
        else:
            offer(second, others[at:])
            rest, _, gaps_too, _ = drained(second, again)

    assert sorted(seen + got + rest) == sorted(wish(wanted, events))
    assert n_dropped == 0 and not gaps and not gaps_too
    for lane_events in lanes.values():  # a partition's events in their order
        bodies = wish(wanted, lane_events)
        assert [body for body in seen + got + rest if body in set(bodies)] == bodies


def test_what_the_ring_has_not_any_more_is_a_gap():
    hub = new_hub(capacity=10)
    token = read_token(hub.token(hub.subscribe(EVERYTHING, None, None)), "")
    offer(hub, log_of([(CHANGES, 0, "assigned", "a", ("c1",))] * 25))

    bodies, _, gaps, _ = drained(hub, hub.subscribe(EVERYTHING, token, None))

    assert gaps == [15] and len(bodies) == 10


def test_what_goes_while_a_client_catches_up_is_counted(monkeypatch):
    monkeypatch.setattr(hubs, "GIVEN_UP_AT_ONCE", 1)
    monkeypatch.setattr(hubs, "MAX_FRAME_EVENTS", 4)
    hub, events = new_hub(capacity=10), log_of([(CHANGES, 0, "assigned", "a", ("c1",))] * 30)
    token = read_token(hub.token(hub.subscribe(EVERYTHING, None, None)), "")
    offer(hub, events[:10])
    one = hub.subscribe(EVERYTHING, token, None)
    assert len(hub.take(one).events) == 4
    offer(hub, events[10:])

    bodies, n_dropped, gaps, _ = drained(hub, one)

    assert n_dropped == 16 and len(bodies) == 10 and not gaps


def test_a_token_of_other_topics_is_a_gap_that_nobody_can_count():
    hub = new_hub()
    token = read_token(write_token(b"another!", 1, {}), "")

    one = hub.subscribe(EVERYTHING, token, None)

    assert drained(hub, one)[:3] == ([], 0, [-1])


@given(
    st.binary(min_size=8, max_size=8), st.integers(0, 2**40),
    st.dictionaries(
        st.tuples(st.sampled_from(EVENT_CHANNELS), st.integers(0, 20)), st.integers(0, 2**62)
    ),
)  # fmt: skip
def test_a_token_says_what_was_put_into_it(topics, epoch, positions):
    assert read_token(write_token(topics, epoch, positions), "") == (topics, epoch, positions)


@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda b: b.hex()))
def test_what_is_no_token_is_a_problem(text):
    try:
        read_token(text, "/resume")
    except ProblemError as error:
        assert error.name == "invalid-request"


def test_a_token_never_outgrows_its_limit():
    positions = {(CHANGES, partition): 2**35 for partition in range(240)}
    assert 0 < len(write_token(TOPICS, 9, positions)) <= MAX_TOKEN
    positions = {(CHANGES, partition): 2**35 for partition in range(2400)}
    assert write_token(TOPICS, 9, positions) == ""
    with pytest.raises(ProblemError):
        read_token("A" * (MAX_TOKEN + 1), "")


# --- state ------------------------------------------------------------------------------------

STATES = st.tuples(
    st.tuples(st.integers(1, 2), st.integers(0, 3)),
    st.dictionaries(st.sampled_from(["c1", "c2", "c3", "c4"]), st.integers(0, 2)),
)


@given(
    st.lists(st.tuples(STATES, st.sets(st.integers(0, 2))), max_size=20), st.frozensets(CLUSTERS)
)
def test_a_client_that_applies_its_frames_has_the_newest_state(steps, only):
    """Three clients that take a frame now and then; each has, whenever it takes, what holds."""
    board, have, sents = Board(), [None] * 3, [Sent()] * 3
    for (model, sizes), takers in steps:
        rows = {c: json.dumps({"cluster": c, "size": n}).encode() for c, n in sizes.items()}
        board.update(model, "now", rows)
        for at in takers:
            frame = board.frame(sents[at], only)
            if frame is not None:
                told = json.loads(b"{%s}" % frame.fields)
                assert told["seq"] > (sents[at].seq if frame.kind == "delta" else -1)
                assert told.get("base", sents[at].seq) == sents[at].seq
                before = {} if frame.kind == "key" else have[at][1]
                news = {row["cluster"]: row["size"] for row in told["clusters"]}
                have[at] = (told["model"], before | news)
                sents[at] = frame.sent
            wanted = {c: n for c, n in sizes.items() if not only or c in only}
            if sents[at].seq >= 0 and board.seq:
                told_model = {"epoch": model[0], "revision": model[1]}
                assert have[at] == (told_model, wanted)


def test_what_stays_the_same_is_not_told_again():
    board = Board()
    assert board.update((1, 0), "t", {"c1": b"{}"})
    sent = board.frame(Sent(), frozenset()).sent

    assert not board.update((1, 0), "later", {"c1": b"{}"})
    assert board.frame(sent, frozenset()) is None
    board.update((1, 0), "later", {"c1": b'{"size":1}'})
    assert board.frame(sent, frozenset(["c2"])) is None  # another's business
    board.update((1, 0), "later", {"c1": b'{"size":2}'})
    assert board.frame(sent, frozenset(["c1"])).n_coalesced == 1
