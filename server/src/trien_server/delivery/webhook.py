"""Delivery by an SMS gateway: an HTTP POST, signed as Standard Webhooks says, so that the gateway knows whose it is.

POST /the/path
content-type: application/json
webhook-id: mfzwizltoqxw4y3p
webhook-timestamp: 1795545067
webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=

{"message":"mfzwizltoqxw4y3p","to":"+84912345678","text":"…"}
"""

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import re
import socket
import ssl
from contextlib import closing
from urllib.parse import urlsplit

from trien_server.core.ports import Clock, DeliveredText, Report
from trien_server.core.secret import Secret
from trien_server.delivery.lines import Line, Lines, NotTaken

_PREFIX = b"whsec_"
_SHORTEST_KEY = 24
_MESSAGE = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_PAUSE_SECONDS = 0.25


def signing_key(secret: Secret) -> Secret:
    """Returns the HMAC key that a secret stands for: `whsec_` and base64, or the bytes themselves.

    Raises `ValueError` for broken base64, and for fewer than 24 bytes.
    """
    value = secret.reveal()
    if value.startswith(_PREFIX):
        encoded = value.removeprefix(_PREFIX)
        try:
            value = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
        except binascii.Error:
            raise ValueError("what follows whsec_ is not base64") from None
    if len(value) < _SHORTEST_KEY:
        raise ValueError(f"the secret has fewer than {_SHORTEST_KEY} bytes")
    return Secret(value)


def signature(key: Secret, *, message: str, timestamp: int, body: bytes) -> str:
    """Returns `v1,` and the base64 of HMAC-SHA256 over id, time and body, with dots between (Standard Webhooks)."""
    signed = b".".join((message.encode("ascii"), str(timestamp).encode("ascii"), body))
    return "v1," + base64.b64encode(hmac.digest(key.reveal(), signed, hashlib.sha256)).decode("ascii")


class WebhookDelivery:
    """Implements `core.ports.Delivery`: a message is taken on once the gateway has answered 200 to 299.

    Nothing else of the answer is looked at, and no redirect is followed. A connection that could not be opened is tried
    once more; once a byte of the request was sent, nothing is repeated.
    """

    def __init__(
        self,
        *,
        url: str,
        secret: Secret,
        bearer_token: Secret | None,
        context: ssl.SSLContext,
        clock: Clock,
        report: Report,
    ) -> None:
        """With `http:` only addresses of this machine are connected. Raises `ValueError` for a bad secret or URL."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or parts.hostname is None:
            raise ValueError("expected a URL with https")
        self._encrypted = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._encrypted else 80)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._key = signing_key(secret)
        self._bearer_token = bearer_token
        self._context = context
        self._clock = clock
        self._lines = Lines(carrier="sms", report=report)

    def deliver(self, *, address: str, text: DeliveredText, message: str, timeout: float) -> None:
        """Posts a message. Raises `DeliveryFailed`, and reports why."""
        if _MESSAGE.fullmatch(message) is None:
            raise ValueError("a message's id has letters, digits, - and _ alone: a dot would blur what is signed")
        content = {"message": message, "to": address, "text": text.body.reveal().decode()}
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        self._lines.deliver(lambda line: self._post(line, message, body), message=message, timeout=timeout)

    def reach(self, *, timeout: float) -> None:
        """Connects, with TLS; nothing is posted. Raises `DeliveryFailed`, and reports why."""

        def work(line: Line) -> None:
            with closing(self._open_patiently(line)):
                line.take()

        self._lines.deliver(work, message="", timeout=timeout)

    def _post(self, line: Line, message: str, body: bytes) -> None:
        connection = (
            http.client.HTTPSConnection(self._host, self._port, context=self._context)
            if self._encrypted
            else http.client.HTTPConnection(self._host, self._port)
        )
        with closing(connection):
            connection.sock = self._open_patiently(line)
            connection.request("POST", self._target, body=body, headers=self._headers(message, body))
            try:
                status = connection.getresponse().status
            except (http.client.HTTPException, ConnectionError):
                raise NotTaken("it closed the connection, or its answer is not HTTP") from None
            if not 200 <= status <= 299:
                raise NotTaken(f"it answered {status}")
            line.take()

    def _headers(self, message: str, body: bytes) -> dict[str, str]:
        timestamp = int(self._clock.now().timestamp())
        headers = {
            "Content-Type": "application/json",
            "Connection": "close",
            "User-Agent": "trien",
            "webhook-id": message,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._key, message=message, timestamp=timestamp, body=body),
        }
        if self._bearer_token is not None:
            headers["Authorization"] = f"Bearer {self._bearer_token.reveal().decode('ascii')}"
        return headers

    def _open_patiently(self, line: Line) -> socket.socket:
        try:
            return self._open(line)
        except ssl.SSLCertVerificationError:
            raise
        except OSError:
            line.pause(_PAUSE_SECONDS)
        return self._open(line)

    def _open(self, line: Line) -> socket.socket:
        connection = line.open(self._host, self._port, loopback_only=not self._encrypted)
        return self._context.wrap_socket(connection, server_hostname=self._host) if self._encrypted else connection
