"""Everything that a stream says is as `schemas/asyncapi.yaml` describes it, and nothing else."""

from __future__ import annotations

import json
import re
from functools import cache

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from pipeline.config import ServerPolicy
from pipeline.services.server.live import clients, wanted
from pipeline.services.server.live.clients import Feed, bye, heartbeat, resync_frame
from pipeline.services.server.live.hub import Batch
from pipeline.services.server.live.wanted import Wanted
from tests.schemas import SCHEMAS, asyncapi
from tests.services.server.conftest import Site, world_of_corners
from tests.services.server.live.test_streams import Events, Socket, listening_at, put
from tests.simulation.test_commands import CORNERS
from tests.test_house import ROOT


@cache
def described(channel: str) -> dict[str, jsonschema.Draft202012Validator]:
    """Type of a message -> its checker."""
    whole = asyncapi()
    registry = Registry().with_resource("urn:asyncapi", Resource(whole, DRAFT202012))
    for path in SCHEMAS.glob("*.schema.json"):
        schema = Resource(json.loads(path.read_text("utf-8")), DRAFT202012)
        registry = registry.with_resource(f"urn:{path.name}", schema)
        registry = registry.with_resource(path.name, schema)
    found = {}
    for name in whole["channels"][channel]["messages"]:
        payload = whole["components"]["messages"][name]["payload"]["$ref"]
        schema = whole["components"]["schemas"][payload.rpartition("/")[2]]
        kind = schema["properties"]["type"]["const"]
        side = "client" if name in FROM_CLIENTS else "server"
        text = json.dumps(schema).replace('"#/', '"urn:asyncapi#/').replace('"./', '"urn:')
        found[side, kind] = jsonschema.Draft202012Validator(json.loads(text), registry=registry)
    return found


FROM_CLIENTS = {"streamSubscribe", "streamUnsubscribe", "streamAskForKey"}


def check(told, channel="liveStream"):
    described(channel)["server", told["type"]].validate(told)


class Checked(Socket):
    """A socket that lets nothing pass that is not described."""

    def next(self, *kinds):
        while True:
            told = json.loads(self.ws.recv(timeout=30))
            check(told)
            if told["type"] in kinds:
                return told


@pytest.fixture(scope="module")
def running():
    site = Site(world_of_corners(n_items=20), ServerPolicy())
    with listening_at(site) as port:
        yield site, port


def test_what_a_socket_is_told_is_described(running):
    site, port = running
    one = Checked(port)
    one.say("subscribe", id="all", channels=["clusters", "stats", "changes", "lifecycle", "drift"])
    one.next("key")
    one.next("stats")
    put(site.world, 500, CORNERS[0])
    site.settle()
    one.next("events")
    one.next("delta", "key")
    one.say("subscribe", id="x", channels=["nonsense"])
    problem = one.next("problem")
    assert problem["problem"]["status"] == 422


def test_what_server_sent_events_say_is_described(running):
    _, port = running
    stream = Events(port, "channels=clusters,stats,changes")
    seen = set()
    while seen < {"hello", "key", "stats"}:
        _, told = stream.next("hello", "key", "delta", "stats", "events", "heartbeat")
        check(told, "liveEvents")
        seen.add(told["type"])
    stream.connection.close()


def test_rare_frames_are_described():
    feed = Feed("a", None)  # of which only the name is told
    frames = [resync_frame(feed, Batch([], 0, "token", gap, False)) for gap in (-1, 0, 7)]
    frames += [heartbeat(None), heartbeat("2026-01-01T00:00:00Z", "a", "token"), bye(17)]

    for out in frames:
        check(json.loads(out.data))


def test_every_kind_of_frame_that_the_code_makes_is_described_and_no_other():
    folder = ROOT / "pipeline" / "services" / "server" / "live"
    text = "".join((folder / f"{n}.py").read_text() for n in ("clients", "routes"))
    made = set(re.findall(r'"type": ?"(\w+)"', text)) | {"key", "delta"}

    assert {kind for side, kind in described("liveStream") if side == "server"} == made
    sse = {kind for _, kind in described("liveEvents")}
    assert sse == made - {"problem"}


def test_what_a_client_may_say_is_what_the_server_takes():
    schema = described("liveStream")["client", "subscribe"].schema
    channels = asyncapi()["components"]["schemas"]["StreamChannels"]["items"]["enum"]

    assert set(schema["properties"]) == wanted._FIELDS
    assert set(schema["properties"]["filter"]["properties"]) == set(wanted._FILTERS)
    assert set(channels) == set(wanted.CHANNELS)
    rate = schema["properties"]["rate_hz"]
    limits = (wanted.MIN_RATE_HZ, wanted.MAX_RATE_HZ, Wanted(frozenset()).rate_hz)
    assert (rate["minimum"], rate["maximum"], rate["default"]) == limits
    assert schema["properties"]["id"]["maxLength"] == clients.MAX_FEED_ID


@pytest.mark.parametrize(
    "told",
    [
        {"type": "bye", "reason": "shutdown"},
        {"type": "resync", "id": "a", "gap": "many"},
        {"type": "events", "id": "a", "events": [{"id": 1}], "dropped": 0, "resume": ""},
        {"type": "key", "id": "a", "seq": 1, "model": None, "t": None, "clusters": [{}]},
    ],
)
def test_control_a_frame_that_is_not_as_described_is_refused(told):
    with pytest.raises(jsonschema.ValidationError):
        check(told)
