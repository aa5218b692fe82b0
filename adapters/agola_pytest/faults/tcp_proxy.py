"""A TCP proxy between a client and a real server that can break the connections between them."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading

from agola_core.runtime.closing import Closing


class BreakableProxy(Closing):
    """Forwards connections to a server, or breaks them on request. A context manager.

    Args:
        target: `HOST:PORT` of the server.

    Attributes:
        endpoint: `HOST:PORT` where clients connect.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, tuple[socket.socket, bool]] = {}
        self._drop = {True: False, False: False}
        self._refusing = False
        self._dropped = threading.Event()
        self._closing = threading.Event()
        self._wake_read, self._wake_write = socket.socketpair()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def drop_requests(self) -> None:
        """Drop everything that clients send from now on; connections stay open."""
        self._dropped.clear()
        self._drop[True] = True

    def drop_answers(self) -> None:
        """Drop everything that the server sends from now on; connections stay open."""
        self._dropped.clear()
        self._drop[False] = True

    def wait_dropped(self, timeout: float = 10.0) -> bool:
        """Wait until something was dropped; return whether it was."""
        return self._dropped.wait(timeout)

    def refuse(self) -> None:
        """Reset all connections, and every new one."""
        self._refusing = True
        self.cut()

    def cut(self) -> None:
        """Reset all connections; new ones are forwarded."""
        with self._lock:
            pairs = list(self._pairs)
        for one in pairs:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def turn_to(self, target: str) -> None:
        """Forward to another server from now on; existing connections are reset."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.cut()

    def heal(self) -> None:
        """Forward everything again; connections that lost data are reset."""
        self._refusing = False
        if any(self._drop.values()):
            self._drop = {True: False, False: False}
            self.cut()

    def close(self) -> None:
        """End the proxy and its connections."""
        self._closing.set()
        self._wake_write.send(b"x")
        self._thread.join()
        for one in (*self._pairs, self._listener, self._wake_read, self._wake_write):
            one.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            for key, _ in self._selector.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                if source is self._listener:
                    self._accept()
                elif source is not self._wake_read:
                    self._forward(source)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            if self._refusing:
                raise ConnectionRefusedError
            server = socket.create_connection(self._target, 5)
        except OSError:
            client.close()
            return
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.settimeout(5)
            self._selector.register(one, selectors.EVENT_READ)
        with self._lock:
            self._pairs[client] = (server, True)
            self._pairs[server] = (client, False)

    def _forward(self, source: socket.socket) -> None:
        if source not in self._pairs:
            return
        target, from_client = self._pairs[source]
        try:
            data = source.recv(65536)
            if data and self._drop[from_client]:
                self._dropped.set()
                return
            if data:
                target.sendall(data)
                return
        except OSError:
            pass
        for one in (source, target):
            self._selector.unregister(one)
            with self._lock:
                del self._pairs[one]
            one.close()
