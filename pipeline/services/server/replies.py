"""From a fact to a reply: JSON, the model's version, an ETag that says what is in it, a link on."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Final
from urllib.parse import quote

from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import Response

from pipeline.messages.codec import json_bytes, timestamp
from pipeline.services.server.problems import faulty
from pipeline.state.view.fold import View

_ESCAPE: Final = "~b64:"
_PLAIN: Final = frozenset({str, int, float, bool, type(None), dict})
"""In these is no dataclass."""
MAX_ID_BYTES: Final = 512


def told(body: Any) -> Any:
    """A dataclass, with all that is in it, as JSON has it."""
    kind = body.__class__
    if kind is list:  # of one kind all through; most are of numbers, a sparkline has 60
        return body if not body or body[0].__class__ in _PLAIN else [told(one) for one in body]
    found: dict[str, Any] = {}
    for name, shown in _names(kind):
        value = getattr(body, name)
        found[shown] = value if value.__class__ in _PLAIN else told(value)
    return found or body


@cache
def _names(shape: Any) -> tuple[tuple[str, str], ...]:
    """The fields of a dataclass, and what JSON calls them; none of anything else."""
    if not is_dataclass(shape):
        return ()
    return tuple((one.name, one.name.rstrip("_")) for one in fields(shape))


def as_of(view: View) -> str | None:
    """The time of the newest record that shows; None: nothing does."""
    return timestamp(view.as_of_ms) if view.as_of_ms else None


def model_header(view: View) -> str:
    """``<epoch>.<revision>``; 0.0: there is no model yet."""
    epoch, revision = view.version
    return f"{epoch}.{revision}"


def reply(request: Request, body: Any, *, status: int = 200, location: str = "") -> Response:
    """The body as JSON, or 304 where the client has it.

    The ETag is of the content, without the time at which it was true: so replicas give the same.
    """
    content = told(body)
    time = {name: content.pop(name) for name in ("as_of",) if name in content}
    lasting = json_bytes(content)
    version = str(getattr(request.state, "model", ""))
    digest = hashlib.blake2b(lasting + version.encode(), digest_size=12).hexdigest()
    headers = {"ETag": f'"{digest}"', "Cache-Control": "no-cache"}
    if location:
        headers["Location"] = location
    following = getattr(body, "next_cursor", None)
    if following is not None:
        link = _path(request.url.include_query_params(cursor=following))
        headers["Link"] = f'<{link}>; rel="next"'
    if request.method in ("GET", "HEAD") and status == 200:
        known = request.headers.get("if-none-match", "")
        if digest in {tag.strip().removeprefix("W/").strip('"') for tag in known.split(",")}:
            return Response(status_code=304, headers=headers)
    return Response(_joined(lasting, json_bytes(time)), status, headers, "application/json")


def _joined(left: bytes, right: bytes) -> bytes:
    """Two objects as one, of which neither is written anew."""
    return left[:-1] + b"," + right[1:] if len(left) > 2 < len(right) else max(left, right, key=len)


def item_key(item_id: str) -> bytes:
    """The key of the item that a path names."""
    if not item_id.startswith(_ESCAPE):
        key = item_id.encode("utf-8", "surrogatepass")
    else:
        text = item_id.removeprefix(_ESCAPE)
        try:
            key = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise faulty("/path/item_id", f"what follows {_ESCAPE} is no base64url") from error
    if not 1 <= len(key) <= MAX_ID_BYTES:
        raise faulty("/path/item_id", f"an item id has 1 to {MAX_ID_BYTES} bytes")
    return key


def item_path(item: str) -> str:
    """An item id as a path holds it."""
    if item.startswith(_ESCAPE) or any(c == "/" or not c.isprintable() for c in item):
        return _ESCAPE + base64.urlsafe_b64encode(item.encode()).decode().rstrip("=")
    return quote(item, safe="")


def _path(url: URL) -> str:
    """Without scheme and host: behind a proxy they are not ours."""
    return f"{url.path}?{url.query}" if url.query else url.path
