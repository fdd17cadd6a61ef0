"""Requests to the server over HTTP: tries again what time heals, within a limit.

Every question may be asked twice: those that change something carry an ``Idempotency-Key``. So a
reply that says 429, 502, 503 or 504, and a connection that breaks, are tried again until the time
is over, at the server's ``Retry-After`` where it names one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from pipeline.client.problems import ServerError, error_of
from pipeline.errors import RecordError, UnreachableError
from pipeline.messages.codec import json_bytes, json_value

try:
    import httpx
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "pipeline.client needs httpx: pip install 'eddy-stream[client]'", name="httpx"
    ) from error

Response = httpx.Response
Timeout = httpx.Timeout
TransportError = httpx.TransportError
T = TypeVar("T")

Query = Mapping[str, list[str]]
"""Parameters, each as often as it is said."""

PREFIX: Final = "/api/v1"
_AGAIN: Final = frozenset({429, 502, 503, 504})
_FIRST_DELAY_S: Final = 0.1
_MAX_DELAY_S: Final = 2.0
_LEAST_DELAY_S: Final = 0.05
_MIN_REQUEST_S: Final = 3.0
"""A request that was begun gets as long, however little time is left: the server itself waits for
two seconds before it says that it has not come so far."""


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """One request, and how its answer is read."""

    path: str
    read: Callable[[Any], T]
    query: Mapping[str, object] = field(default_factory=dict)
    method: str = "GET"
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    again: bool = True
    """Whether to try again; else the first answer counts."""

    def request(self, client: Any) -> httpx.Request:
        """As the library wants it; ``client`` is a client of its."""
        content = None if self.body is None else json_bytes(self.body)
        headers = dict(self.headers)
        if content is not None:
            headers["Content-Type"] = "application/json"
        query = {name: str(value) for name, value in self.query.items() if value is not None}
        built: httpx.Request = client.build_request(
            self.method, f"{PREFIX}{self.path}", params=query, content=content, headers=headers
        )
        return built


class Patience:
    """How long a question is still tried."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url, self._timeout_s = url, timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._delay_s = _FIRST_DELAY_S
        self._refused: ServerError | None = None

    @property
    def request_s(self) -> float:
        """What the next request gets."""
        return max(self._deadline - time.monotonic(), _MIN_REQUEST_S)

    def after_refusal(self, response: httpx.Response, *, again: bool) -> float:
        """Seconds to wait before the next try; `ServerError` where there is none."""
        problem = error_of(
            response.status_code, _json(response), response.headers.get("x-request-id")
        )
        told = response.headers.get("retry-after", "")
        wait_s = max(float(told), _LEAST_DELAY_S) if told.isdigit() else self._step()
        if not again or response.status_code not in _AGAIN or not self._has(wait_s):
            raise problem
        self._refused = problem
        return wait_s

    def after_failure(self, error: httpx.TransportError, *, again: bool) -> float:
        """Seconds to wait before the next try; an error where there is none."""
        wait_s = self._step()
        if again and self._has(wait_s):
            return wait_s
        if self._refused is not None:
            raise self._refused from error  # it did answer, and that tells more
        why = str(error) or type(error).__name__
        limit = f" within {self._timeout_s:g} s" if again else ""
        raise UnreachableError(f"no Eddy server answers at {self._url}{limit}: {why}") from error

    def _step(self) -> float:
        wait_s = self._delay_s
        self._delay_s = min(2 * wait_s, _MAX_DELAY_S)
        return wait_s

    def _has(self, seconds: float) -> bool:
        return time.monotonic() + seconds < self._deadline


class Transport:
    """Asks, and blocks until it is answered; threads may share it."""

    def __init__(self, url: str, *, token: str | None, ca_file: str | None) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.Client(**_options(self.url, token, ca_file))

    def ask(self, question: Question[T], timeout_s: float) -> T:
        """The answer.

        Raises
        ------
        ServerError, AnswerError, UnreachableError
        """
        patience = Patience(self.url, timeout_s)
        while True:
            request = question.request(self._client)
            request.extensions["timeout"] = httpx.Timeout(patience.request_s).as_dict()
            try:
                response = self._client.send(request)
            except httpx.TransportError as error:
                time.sleep(patience.after_failure(error, again=question.again))
                continue
            if response.is_success:
                return question.read(_json(response))
            time.sleep(patience.after_refusal(response, again=question.again))

    def listen(
        self, path: str, query: Query, headers: Mapping[str, str], limits: httpx.Timeout
    ) -> AbstractContextManager[httpx.Response]:
        """An answer that goes on for hours, to be read as it comes."""
        return self._client.stream(
            "GET", f"{PREFIX}{path}", params=dict(query), headers=dict(headers), timeout=limits
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class AsyncTransport:
    """The same for an event loop."""

    def __init__(self, url: str, *, token: str | None, ca_file: str | None) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.AsyncClient(**_options(self.url, token, ca_file))

    async def ask(self, question: Question[T], timeout_s: float) -> T:
        """See `Transport.ask`."""
        patience = Patience(self.url, timeout_s)
        while True:
            request = question.request(self._client)
            request.extensions["timeout"] = httpx.Timeout(patience.request_s).as_dict()
            try:
                response = await self._client.send(request)
            except httpx.TransportError as error:
                await asyncio.sleep(patience.after_failure(error, again=question.again))
                continue
            if response.is_success:
                return question.read(_json(response))
            await asyncio.sleep(patience.after_refusal(response, again=question.again))

    def listen(
        self, path: str, query: Query, headers: Mapping[str, str], limits: httpx.Timeout
    ) -> AbstractAsyncContextManager[httpx.Response]:
        """See `Transport.listen`."""
        return self._client.stream(
            "GET", f"{PREFIX}{path}", params=dict(query), headers=dict(headers), timeout=limits
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _options(url: str, token: str | None, ca_file: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {"base_url": url, "follow_redirects": False}
    if token is not None:
        options["headers"] = {"Authorization": f"Bearer {token}"}
    if ca_file is not None:
        options["verify"] = ssl.create_default_context(cafile=ca_file)
    # what is on this machine is not asked for through a proxy that the environment names
    options["trust_env"] = not _is_loopback(httpx.URL(url).host)
    return options


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _json(response: httpx.Response) -> Any:
    try:
        return json_value(response.content)
    except RecordError as error:
        if response.is_success:
            raise ServerError(
                "the answer is no JSON: is this an Eddy server?", status=response.status_code
            ) from error
        return None
