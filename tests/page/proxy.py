"""A proxy as people put one in front: under a path, which it takes away before it asks."""

from __future__ import annotations

import socket
import threading
from types import TracebackType


class Proxy:
    """Passes bytes on, both ways; the server hears of its path by `server.root_path` only.

    Parameters
    ----------
    path
        Requests outside of it get 404.
    has_sockets
        Whether an upgrade is passed on; if not it gets 400, as from a proxy that knows none.
    """

    def __init__(self, path: str, port: int, *, has_sockets: bool = True) -> None:
        self._path, self._port, self._has_sockets = path.encode(), port, has_sockets
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}{path}/"
        self._open: set[socket.socket] = set()
        self._is_closed = False

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._is_closed = True
        for one in [self._listening, *self._open]:
            one.close()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One request a connection, so that each is looked at."""
        self._open.add(client)
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                part = client.recv(65536)
                if not part:
                    return
                head += part
            target = head.split(b" ", 2)[1]
            is_upgrade = b"upgrade: websocket" in head.lower()
            if not target.startswith(self._path + b"/"):
                client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            elif is_upgrade and not self._has_sockets:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            else:
                head = head.replace(self._path + b"/", b"/", 1)
                if not is_upgrade:
                    head = head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
                    head = head.replace(b"Connection: keep-alive\r\n", b"", 1)
                self._pass(client, head)
        except OSError:
            pass
        finally:
            client.close()
            self._open.discard(client)

    def _pass(self, client: socket.socket, head: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as server:
            self._open.add(server)
            server.sendall(head)
            back = threading.Thread(target=_copy, args=(client, server), daemon=True)
            back.start()
            _copy(server, client)
            self._open.discard(server)


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while part := source.recv(65536):
            target.sendall(part)
    except OSError:
        pass
