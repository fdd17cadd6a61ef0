"""Cookies in the place of a token, for a page: it cannot set headers on a stream.

``v1.<name>.<ends at>.<signature>``. The key of the signature is made of the token's own line in
the file of tokens, which all replicas mount: so they know each other's cookies, no further secret
has to be kept, and a line that goes takes its cookies along. Who has the token could sign for
himself, and gains nothing by it; a cookie does not tell the token, nor can it be made to last.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable
from typing import Final, NamedTuple

COOKIE: Final = "eddy_login"
LASTS_S: Final = 12 * 3600
MAX_COOKIES: Final = 4096
"""Characters of the header that are looked at."""
_VERSION: Final = "v1"


class Token(NamedTuple):
    """One line of the file of tokens."""

    name: str
    scopes: frozenset[str]
    digest: str
    """SHA-256 of the token, hex."""


def cookie_of(token: Token, now_s: float) -> str:
    """A cookie that stands for a token from now on."""
    name = base64.urlsafe_b64encode(token.name.encode()).decode().rstrip("=")
    told = f"{_VERSION}.{name}.{int(now_s) + LASTS_S}"
    return f"{told}.{_signature(token, told)}"


def token_of(cookie: str, tokens: Iterable[Token], now_s: float) -> Token | None:
    """The token that a cookie stands for; None: it stands for none, or not any more."""
    told, _, signature = cookie.rpartition(".")
    parts = told.split(".")
    if len(parts) != 3 or parts[0] != _VERSION or not signature.isascii():
        return None
    try:
        name = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)).decode()
        ends_at = int(parts[2])
    except (binascii.Error, UnicodeError, ValueError):
        return None
    found = None
    for token in tokens:
        is_it = hmac.compare_digest(_signature(token, told), signature)
        if is_it and token.name == name:
            found = token
    return found if now_s < ends_at <= now_s + LASTS_S + 60 else None


def cookie_in(header: str) -> str:
    """Ours, of all that a browser sends; "": there is none."""
    for one in header[:MAX_COOKIES].split(";"):
        name, _, value = one.strip().partition("=")
        if name == COOKIE:
            return value.strip('"')
    return ""


def set_cookie(value: str, *, path: str, is_secure: bool) -> str:
    """The header's value that hands a cookie out; an empty one takes it back."""
    lasts_s = LASTS_S if value else 0
    parts = [f"{COOKIE}={value}", f"Path={path or '/'}", f"Max-Age={lasts_s}", "HttpOnly",
             "SameSite=Strict", *(["Secure"] if is_secure else [])]  # fmt: skip
    return "; ".join(parts)


def _signature(token: Token, told: str) -> str:
    key = hmac.digest(token.digest.encode(), b"eddy-login", "sha256")
    signed = hmac.digest(key, told.encode("utf-8", "surrogatepass"), "sha256")
    return base64.urlsafe_b64encode(signed).decode().rstrip("=")
