"""The page: files of the package at ``/`` and ``/web/``, which may load nothing from elsewhere.

Every file has an ETag of its content, and is asked for anew each time: modules of two versions on
one page are worse than a question more. Nothing in here needs a token, for it is the same
everywhere; what the page then asks for does.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipeline.services.server.problems import ProblemError

WEB: Final = Path(__file__).parents[3] / "web"
INDEX: Final = "index.html"
POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'"
)
"""No inline script and no inline style; what scripts set through the object model is not inline."""
HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
}
"""Of every file; ``X-Content-Type-Options`` comes with every reply there is."""
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
"""By suffix; what has another one, or none but is a licence, is not shown."""
_BARE: Final = frozenset({"LICENSE", "NOTICE"})
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_MAX_DEPTH: Final = 4


class _Kept(NamedTuple):
    """A file, as it was when it was read last."""

    stamp: tuple[int, int]
    etag: str
    content: bytes


def router(folder: Path = WEB) -> APIRouter:
    """The routes of the page; OpenAPI is about facts, and leaves them out."""
    routes = APIRouter(include_in_schema=False)
    kept: dict[str, _Kept] = {}  # as many as there are files

    @routes.api_route("/", methods=["GET", "HEAD"])
    def show_page(request: Request) -> Response:
        """The page itself; what it names, it names relative to this."""
        return _file(request, folder, INDEX, kept)

    @routes.api_route("/web/{path:path}", methods=["GET", "HEAD"])
    def show_file(request: Request, path: str) -> Response:
        """One file of the page."""
        return _file(request, folder, path, kept)

    return routes


def _file(request: Request, folder: Path, path: str, kept: dict[str, _Kept]) -> Response:
    names = path.split("/")
    suffix = Path(names[-1]).suffix
    media_type = TYPES.get(".txt" if names[-1] in _BARE else suffix)
    # names that hold no more than these characters cannot lead out of the folder
    if media_type is None or len(names) > _MAX_DEPTH or not all(map(_NAME.fullmatch, names)):
        raise ProblemError("not-found", "there is no such file")
    one = _read(folder.joinpath(*names), kept.get(path))
    kept[path] = one
    headers = {**HEADERS, "ETag": one.etag}
    known = request.headers.get("if-none-match", "")
    if one.etag in {tag.strip().removeprefix("W/") for tag in known.split(",")}:
        return Response(status_code=304, headers=headers)
    return Response(one.content, headers=headers, media_type=media_type)


def _read(path: Path, kept: _Kept | None) -> _Kept:
    """The file, read again only where it has changed; an installed one never does."""
    try:
        found = path.stat()
        stamp = found.st_mtime_ns, found.st_size
        if kept is not None and kept.stamp == stamp:
            return kept
        content = path.read_bytes()
    except OSError as error:  # a folder, too
        raise ProblemError("not-found", "there is no such file") from error
    digest = hashlib.blake2b(content, digest_size=12).hexdigest()
    return _Kept(stamp, f'"{digest}"', content)
