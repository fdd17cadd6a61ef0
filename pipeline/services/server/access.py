"""Who may ask what, and how often: tokens from a mounted file, a bucket of requests for each."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pipeline.config import AuthPolicy, ServerPolicy
from pipeline.errors import ConfigError
from pipeline.services.server.logins import Token, cookie_of, token_of
from pipeline.services.server.problems import ProblemError
from pipeline.telemetry.logs import get_logger

READ: Final = "read"
WRITE: Final = "write"
REQUESTS_PER_S: Final = 50.0
BURST: Final = 100.0
LOGIN_COST: Final = 10.0
"""So many requests an attempt to come in counts for."""
MAX_ASKERS: Final = 10_000
"""Of which the buckets are remembered; the one that asked longest ago goes."""
LOOK_INTERVAL_S: Final = 1.0
_LINE: Final = re.compile(r"(?P<name>[^:\s]{1,100}):(?P<scopes>[a-z,]+):(?P<digest>[0-9a-f]{64})")
_SCOPES: Final = frozenset({READ, WRITE})


def read_tokens(path: Path) -> tuple[Token, ...]:
    """The tokens in a file of ``name:scopes:sha256`` lines, scopes separated by commas.

    Raises
    ------
    ConfigError
        It cannot be read, or a line is none; the line is named by its number only.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"server.auth.file is {path}, but cannot be read: {error}") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        scopes = frozenset(match["scopes"].split(",")) if match else frozenset()
        if match is None or not scopes <= _SCOPES:
            raise ConfigError(
                f"server.auth.file is {path}, but its line {number} is not name:scopes:sha256, "
                "with scopes of read and write and 64 hexadecimal digits"
            )
        found.append(Token(match["name"], scopes, match["digest"]))
    if not found:
        raise ConfigError(f"server.auth.file is {path}, but holds no token")
    return tuple(found)


def check_exposure(policy: ServerPolicy) -> None:
    """Refuse to listen where strangers are while everybody may ask."""
    auth = policy.auth
    if auth.mode == "bearer" and auth.file is None:
        raise ConfigError("server.auth.file is null, but server.auth.mode bearer needs one")
    is_local = policy.host in ("localhost", "::1") or policy.host.startswith("127.")
    if auth.mode == "none" and not is_local and not auth.allow_unauthenticated:
        raise ConfigError(
            f"server.host is {policy.host}, but server.auth.mode none is for the loopback address: "
            "set server.auth.mode to bearer, or server.auth.allow_unauthenticated to true"
        )


class Doorkeeper:
    """Lets requests in; one thread asks it.

    Parameters
    ----------
    clock
        Seconds of a clock that never goes back.
    now
        Seconds since 1970.
    """

    def __init__(
        self,
        auth: AuthPolicy,
        clock: Callable[[], float],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._now = clock, now
        self._path = Path(auth.file) if auth.mode == "bearer" and auth.file else None
        self._tokens = () if self._path is None else read_tokens(self._path)
        self._stamp = self._look()
        self._looked_at = clock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, authorization: str | None, address: str, scope: str, cookie: str = "") -> str:
        """Who asks, as logs and commands name him; a cookie counts where no token is shown.

        Raises
        ------
        ProblemError
            ``unauthorized``, ``forbidden`` or ``too-many-requests``.
        """
        if self._path is None:
            self._take(f"address {address}")
            return "anonymous"
        token = self._shown(authorization, cookie)
        if token is None:
            self._take(f"address {address}")  # guessing has a bound, too
            raise ProblemError("unauthorized", "the request has no valid token")
        self._take(f"token {token.name}")
        if scope not in token.scopes:
            raise ProblemError("forbidden", f"the token {token.name} lacks the scope {scope}")
        return token.name

    def look(
        self, authorization: str | None, address: str, cookie: str = ""
    ) -> tuple[str | None, frozenset[str]]:
        """Who asks and what he may; a stranger has no name, and where tokens count no scope."""
        if self._path is None:
            self._take(f"address {address}")
            return None, _SCOPES
        token = self._shown(authorization, cookie)
        self._take(f"address {address}" if token is None else f"token {token.name}")
        return (None, frozenset()) if token is None else (token.name, token.scopes)

    def log_in(self, secret: str, address: str) -> str | None:
        """A cookie for a token; None: nobody needs any here.

        Raises
        ------
        ProblemError
            ``unauthorized`` or ``too-many-requests``.
        """
        self._take(f"login {address}", LOGIN_COST)
        if self._path is None:
            return None
        self._reread()
        token = self._find(secret)
        if token is None:
            raise ProblemError("unauthorized", "this is no valid token")
        return cookie_of(token, self._now())

    def _shown(self, authorization: str | None, cookie: str) -> Token | None:
        self._reread()
        if authorization is None:
            return token_of(cookie, self._tokens, self._now()) if cookie else None
        kind, _, secret = authorization.partition(" ")
        return self._find(secret.strip()) if kind.lower() == "bearer" else None

    def _find(self, secret: str) -> Token | None:
        digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for token in self._tokens:  # all of them always: time tells nothing
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def _take(self, asker: str, cost: float = 1.0) -> None:
        now = self._clock()
        left, at = self._buckets.pop(asker, (BURST, now))
        left = min(BURST, left + (now - at) * REQUESTS_PER_S)
        self._buckets[asker] = (max(0.0, left - cost), now)
        if len(self._buckets) > MAX_ASKERS:
            self._buckets.popitem(last=False)
        if left < cost:
            wait_s = math.ceil((cost - left) / REQUESTS_PER_S)
            raise ProblemError(
                "too-many-requests",
                f"more than {REQUESTS_PER_S / cost:g} requests a second",
                retry_after_s=max(1, wait_s),
            )

    def _look(self) -> tuple[int, int]:
        assert self._path is not None or not self._tokens
        if self._path is None:
            return 0, 0
        try:
            found = self._path.stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_ino

    def _reread(self) -> None:
        """A file that changed counts within a second; one that is wrong changes nothing."""
        now = self._clock()
        if now - self._looked_at < LOOK_INTERVAL_S:
            return
        self._looked_at = now
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        assert self._path is not None
        try:
            self._tokens = read_tokens(self._path)
        except ConfigError as error:
            get_logger().error("config_rejected", key="server.auth.file", problem=str(error))
