"""In and out: a token against a cookie, for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from pipeline.config import AuthPolicy
from pipeline.messages.codec import json_bytes
from pipeline.services.server.access import Doorkeeper
from pipeline.services.server.gate import is_of_this_machine
from pipeline.services.server.logins import set_cookie
from pipeline.services.server.problems import faulty
from pipeline.services.server.replies import told
from pipeline.services.server.shapes import Session

MAX_TOKEN: Final = 200
_NO_STORE: Final = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class LoginBody:
    """What is shown to come in."""

    token: str


def router(doorkeeper: Doorkeeper) -> APIRouter:
    """``POST /login`` and ``POST /logout``, beside the page."""
    routes = APIRouter(include_in_schema=False)

    @routes.post("/login")
    def log_in(request: Request, body: LoginBody) -> Response:
        """A cookie for a token; where nobody needs a token, nothing."""
        if len(body.token) > MAX_TOKEN:
            raise faulty("/body/token", f"a token has {MAX_TOKEN} characters at most")
        address = request.client.host if request.client else "unknown"
        cookie = doorkeeper.log_in(body.token.strip(), address)
        return _done(request, cookie)

    @routes.post("/logout")
    def log_out(request: Request) -> Response:
        """The cookie is taken back."""
        return _done(request, "")

    return routes


def session_router(auth: AuthPolicy) -> APIRouter:
    """``GET /session``, which everybody may ask."""
    routes = APIRouter(tags=["session"])

    @routes.get("/session", response_model=Session)
    def show_session(request: Request) -> Response:
        """Whether a token is needed, and what the one that came with the question allows."""
        name, scopes = request.state.session
        body = Session(auth.mode, name, sorted(scopes))
        return Response(json_bytes(told(body)), headers=_NO_STORE, media_type="application/json")

    return routes


def _done(request: Request, cookie: str | None) -> Response:
    answer = Response(status_code=204, headers=_NO_STORE)
    if cookie is not None:
        answer.headers["Set-Cookie"] = set_cookie(
            cookie, path=request.scope.get("root_path", ""), is_secure=_is_secure(request)
        )
    return answer


def _is_secure(request: Request) -> bool:
    """Not over plain HTTP on this machine itself: there some browsers drop what is to be secure.

    Everywhere else a cookie goes over TLS or not at all, so a proxy has to bring that.
    """
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    is_encrypted = "https" in (request.url.scheme, forwarded)
    return is_encrypted or not is_of_this_machine(request.headers.get("host", ""))
