"""Fetching from the URLs that certificates name, which are the words of whoever made the certificate.

A server that fetches what it is told to can be sent to places that only it reaches. So only http and https are spoken,
no proxy of the environment is asked, no redirect is followed, and a host that is not listed by the operator is reached
by a public address and the usual port alone. The address that is checked is the one that is connected.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Collection
from contextlib import closing, suppress
from urllib.parse import SplitResult, urlsplit

_PORTS = {"http": 80, "https": 443}
_CHUNK = 64 * 1024
_AWAY_SECONDS = 60.0
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is public in IPv6 (RFC 4291, section 2.4), but for addresses that stand for one of IPv4."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""The well-known prefix of RFC 6052; one that a network chose itself cannot be told."""


class NotFetched(Exception):  # noqa: N818
    """Nothing usable came from a URL. The message is ours, never what the other side said."""


class Network:
    """Fetches by HTTP, each time within a limit of bytes and seconds. May be used from any thread."""

    def __init__(
        self, *, allowed_hosts: Collection[str], timeout: float, context: ssl.SSLContext | None = None
    ) -> None:
        """`allowed_hosts` may have any address and port; all others a public address and the usual port alone."""
        self._allowed = frozenset(host.lower() for host in allowed_hosts)
        self._timeout = timeout
        self._context = context or ssl.create_default_context()
        self._away: dict[tuple[str, int], float] = {}

    def fetch(self, url: str, *, most: int, body: bytes | None = None, media_type: str = "") -> bytes:
        """Returns the body of the answer 200 to a GET, or to a POST of `body`.

        A host that did not answer is not asked again for a minute: it must not use up the time of the others. Raises
        `NotFetched`.
        """
        parts, host, port = _parsed(url)
        if host not in self._allowed and port != _PORTS[parts.scheme]:
            raise NotFetched(f"{host} is not in revocation.allowed_hosts, and {port} is not the usual port")
        if self._away.get((host, port), 0.0) > time.monotonic():
            raise NotFetched(f"{host} did not answer just now")
        end = time.monotonic() + self._timeout
        try:
            connection = self._open(host, port, end)
            with closing(connection), _cut_at(connection, end):
                return self._exchange(connection, parts, host, port, most=most, body=body, media_type=media_type)
        except (OSError, http.client.HTTPException, ValueError) as fault:
            self._away[host, port] = time.monotonic() + _AWAY_SECONDS
            raise NotFetched(_reason(host, fault)) from None

    def _exchange(
        self,
        connection: socket.socket,
        parts: SplitResult,
        host: str,
        port: int,
        *,
        most: int,
        body: bytes | None,
        media_type: str,
    ) -> bytes:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        client = http.client.HTTPConnection(host, port)
        client.sock = (
            self._context.wrap_socket(connection, server_hostname=host) if parts.scheme == "https" else connection
        )
        headers = {"Connection": "close", "User-Agent": "trien", **({"Content-Type": media_type} if media_type else {})}
        with closing(client):
            client.request("GET" if body is None else "POST", target, body=body, headers=headers)
            response = client.getresponse()
            if response.status != http.client.OK:
                raise NotFetched(f"{host} answered {response.status}")
            content = bytearray()
            while chunk := response.read1(_CHUNK):
                content += chunk
                if len(content) > most:
                    raise NotFetched(f"{host} sent more than {most} bytes")
            if response.length:
                raise NotFetched(f"{host} sent less than it said")
            return bytes(content)

    def _open(self, host: str, port: int, end: float) -> socket.socket:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        usable = [one for one in found if host in self._allowed or _is_public(str(one[4][0]))]
        if not usable:
            raise NotFetched(f"{host} has no public address, and is not in revocation.allowed_hosts")
        failure: OSError | None = None
        for place, (family, kind, protocol, _, address) in enumerate(usable):
            left = end - time.monotonic()
            if left <= 0:
                break
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(left / (len(usable) - place))
                connection.connect(address)
                connection.settimeout(max(0.001, end - time.monotonic()))
            except OSError as fault:
                connection.close()
                failure = fault
            else:
                return connection
        raise failure or TimeoutError


class _cut_at:  # noqa: N801 - used as a statement
    """Ends a connection at a time, whatever waits for it: a socket's own limit is for one operation alone."""

    def __init__(self, connection: socket.socket, end: float) -> None:
        # TLS takes the socket's descriptor away from it; a second one ends the same connection.
        self._handle = connection.dup()
        self._timer = threading.Timer(max(0.0, end - time.monotonic()), self._cut)
        self._timer.daemon = True
        self._over = False

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()
        self._handle.close()
        if self._over:
            # What was read may be what the cut left of it.
            raise TimeoutError

    def _cut(self) -> None:
        self._over = True
        with suppress(OSError):
            self._handle.shutdown(socket.SHUT_RDWR)


def _parsed(url: str) -> tuple[SplitResult, str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
        host = (parts.hostname or "").lower()
    except ValueError:
        raise NotFetched("the certificate names a URL that cannot be read") from None
    if parts.scheme not in _PORTS or not host or parts.username is not None:
        raise NotFetched("the certificate names a URL that is neither http nor https")
    if not (url.isascii() and url.isprintable() and " " not in url):
        raise NotFetched("the certificate names a URL that cannot be read")
    return parts, host, port


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inside = _address_inside(parsed)
        if inside is not None:
            parsed = inside
        elif parsed not in _GLOBAL_UNICAST:
            return False
    return parsed.is_global and not parsed.is_multicast


def _address_inside(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Returns the IPv4 address to which a gateway would take what is sent to an IPv6 address."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def _reason(host: str, fault: Exception) -> str:
    match fault:
        case ssl.SSLCertVerificationError():
            return f"{host} has a TLS certificate that does not verify"
        case ssl.SSLError():
            return f"TLS with {host} failed"
        case socket.gaierror():
            return f"{host} cannot be resolved"
        case TimeoutError():
            return f"{host} did not answer in time"
        case OSError():
            return f"{host} cannot be reached"
    return f"{host} does not speak HTTP"
