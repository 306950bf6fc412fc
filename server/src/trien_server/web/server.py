"""The HTTP server in a thread of a serving process: TLS, limits, and a stop."""

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from trien_server.web.rates import network_of

_MOST_CONNECTIONS = 256
_MOST_CONNECTIONS_OF_ONE = 32
"""Of one address, of IPv6 its /64: so one host holds neither all places nor the process's descriptors."""
_CONNECTION_SECONDS = 60.0
"""How long a connection lives at most: whoever sends slowly, or nothing, holds no place for longer."""
_IDLE_SECONDS = 5
_LARGEST_HEAD = 16 * 1024
_BACKLOG = 128
_START_SECONDS = 10.0


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol, with an end to every connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(_CONNECTION_SECONDS, transport.close)


class BoundedSocket(socket.socket):
    """A listening socket that closes at once what comes beyond the limits, also before TLS has begun."""

    def __init__(self, family: socket.AddressFamily) -> None:
        super().__init__(family)
        self._open: list[tuple[socket.socket, str]] = []

    def accept(self) -> tuple[socket.socket, Any]:
        """Returns a connection within the limits. Raises `ConnectionAbortedError` for another, which is closed."""
        accepted, address = super().accept()
        self._open = [(one, host) for one, host in self._open if one.fileno() != -1]
        caller = network_of(address[0])
        of_one = sum(host == caller for _, host in self._open)
        if len(self._open) >= _MOST_CONNECTIONS or of_one >= _MOST_CONNECTIONS_OF_ONE:
            accepted.close()
            raise ConnectionAbortedError
        self._open.append((accepted, caller))
        return accepted, address


class WebServer:
    """Serves an application on one address."""

    def __init__(
        self, app: Starlette, *, address: str, certificate_file: Path, key_file: Path, shared_port: bool, grace: float
    ) -> None:
        """Binds the port, together with other processes when `shared_port`. Raises `OSError` when it is taken."""
        self._socket = _bind(address, shared=shared_port)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            loop="asyncio",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            # uvicorn's own lines could hold a path, and with it a code.
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=max(1, round(grace)),
            h11_max_incomplete_event_size=_LARGEST_HEAD,
            ssl_certfile=certificate_file,
            ssl_keyfile=key_file,
        )
        config.load()
        self._tls = config.ssl
        self._files = (certificate_file, key_file)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def reload(self) -> None:
        """Reads the certificate and its key anew, for connections that begin later. Raises `OSError`."""
        if self._tls is not None:
            self._tls.load_cert_chain(*self._files)

    def stop(self) -> None:
        """Finishes the requests that are at work, and closes."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


def _bind(address: str, *, shared: bool) -> socket.socket:
    host, _, port = address.rpartition(":")
    bare = host.strip("[]")
    bound = BoundedSocket(socket.AF_INET6 if ":" in bare else socket.AF_INET)
    try:
        # A second server on the same port has to fail. With several workers the parent process has reserved it.
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((bare, int(port)))
        bound.listen(_BACKLOG)
    except OSError as fault:
        bound.close()
        raise OSError(f"cannot listen on {address}: is the port taken?") from fault
    return bound
