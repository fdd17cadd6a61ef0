"""A way between clients and a broker that can be cut, slowed down and made to lead nowhere.

Brokers advertise the ports of these proxies, so every client goes through one; the brokers talk to
each other past them. All proxies live in one thread, and are told what to do from another.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from contextlib import suppress
from enum import Enum

_CHUNK_BYTES = 65_536
_CALL_LIMIT_S = 10.0
PORTS = 20_000, 32_000
"""Below those that Linux gives to connections."""
_given: set[int] = set()


class Way(Enum):
    """What becomes of the bytes of a connection."""

    OPEN = "open"
    CUT = "cut"
    """Connections end, and no new one is made."""
    HALF_OPEN = "half-open"
    """Connections are accepted and held, and what comes in goes nowhere."""
    ONE_WAY = "one-way"
    """Requests arrive, answers do not: a commit is made, and nobody is told."""


def free_port() -> int:
    """A port of loopback that nobody listens at, and that the system gives no connection.

    A broker that was killed needs its own again, and a client may have been given it meanwhile.
    """
    while True:
        port = random.randrange(*PORTS)
        if port in _given:  # somebody may be about to listen there
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port


class Connection:
    """Both ends of one, and whether bytes of it were lost: then it can never be used again."""

    def __init__(self, near: asyncio.StreamWriter) -> None:
        self.writers = [near]
        self.is_spoiled = False

    def abort(self) -> None:
        for writer in self.writers:
            writer.transport.abort()

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


class Proxy:
    """One port in front of one broker.

    Attributes
    ----------
    n_bytes_lost, n_bytes_late
        Swallowed, and held back, in all.
    n_ended
        Connections that were ended or refused.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.port = 0
        self.target = 0
        self.n_bytes_lost = self.n_bytes_late = self.n_ended = 0
        self._loop = loop
        self._way, self._delay_s = Way.OPEN, 0.0
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    def set(self, way: Way, *, delay_s: float = 0.0) -> None:
        """From now on, and returns once it is so.

        Parameters
        ----------
        delay_s
            Before each piece of data is passed on, in both directions.
        """
        asyncio.run_coroutine_threadsafe(self._set(way, delay_s), self._loop).result(_CALL_LIMIT_S)

    def drop(self) -> None:
        """End all connections; new ones are welcome."""
        self.set(Way.CUT)
        self.set(Way.OPEN)

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.abort()

    async def _set(self, way: Way, delay_s: float) -> None:
        self._way, self._delay_s = way, delay_s
        for connection in list(self._connections):
            if way is Way.CUT or (way is Way.OPEN and connection.is_spoiled):
                self.n_ended += 1
                connection.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(writer)
        self._connections.add(connection)
        with suppress(OSError):  # either side left, or the broker is away
            await self._join(connection, reader, writer)
        self._connections.discard(connection)
        connection.close()

    async def _join(
        self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._way is Way.CUT:
            self.n_ended += 1
            return
        if self._way is Way.HALF_OPEN:
            while data := await reader.read(_CHUNK_BYTES):
                self._lose(connection, data)
            return
        answers, requests = await asyncio.open_connection("127.0.0.1", self.target)
        connection.writers.append(requests)
        pumps = [
            asyncio.ensure_future(self._pump(connection, reader, requests, Way.HALF_OPEN)),
            asyncio.ensure_future(
                self._pump(connection, answers, writer, Way.HALF_OPEN, Way.ONE_WAY)
            ),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self,
        connection: Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *losing: Way,
    ) -> None:
        """Pass on what comes, or lose it."""
        while data := await reader.read(_CHUNK_BYTES):
            if self._delay_s:
                self.n_bytes_late += len(data)
                await asyncio.sleep(self._delay_s)
            if self._way in losing or connection.is_spoiled:
                self._lose(connection, data)
                continue
            writer.write(data)
            await writer.drain()

    def _lose(self, connection: Connection, data: bytes) -> None:
        connection.is_spoiled = True
        self.n_bytes_lost += len(data)


class Network:
    """Some proxies and the thread that they live in; a context manager."""

    def __init__(self, n_proxies: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self.proxies = [Proxy(self._loop) for _ in range(n_proxies)]

    def heal(self) -> None:
        """Every way is open and quick."""
        for proxy in self.proxies:
            proxy.set(Way.OPEN)

    def __enter__(self) -> Network:
        self._thread.start()
        for proxy in self.proxies:
            asyncio.run_coroutine_threadsafe(proxy.listen(), self._loop).result(_CALL_LIMIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self.proxies:
            asyncio.run_coroutine_threadsafe(proxy.close(), self._loop).result(_CALL_LIMIT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
