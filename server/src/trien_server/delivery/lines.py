"""Connections to carriers, with a limit on the whole of a delivery.

A socket's time limit is for one operation, and resolving a name has none: a carrier that sends a byte now and then
would hold a call for hours. So each delivery runs in a thread of its own, whose connection is cut in the end.
A connection is made anew each time: one that died since the last delivery cannot fail the next.
"""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from trien_server.core.errors import DeliveryFailed
from trien_server.core.ports import Report

_MOST = 16


class NotTaken(Exception):  # noqa: N818
    """The carrier did not take a text on. The message is for operators: ours, never what the carrier said (P12)."""


def verifying_context(ca_file: Path | None) -> ssl.SSLContext:
    """Returns TLS settings that verify the carrier's certificate and name: by `ca_file` alone, or the system's CAs.

    Raises `OSError` when the file cannot be used.
    """
    return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))


class Line:
    """One delivery's connection, which another thread can cut."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        self._over = False
        self._taken = False

    def remaining(self) -> float:
        """Returns how many seconds are left. Raises `TimeoutError` when none are."""
        left = self._end - time.monotonic()
        if left <= 0 or self._over:
            raise TimeoutError
        return left

    def open(self, host: str, port: int, *, loopback_only: bool) -> socket.socket:
        """Connects to one of the host's addresses. Raises `OSError`, `NotTaken`."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [one for one in found if not loopback_only or ipaddress.ip_address(one[4][0]).is_loopback]
        failure: OSError | None = None
        for place, (family, kind, protocol, _, address) in enumerate(addresses):
            connection = socket.socket(family, kind, protocol)
            try:
                # An address that does not answer leaves time for the others.
                connection.settimeout(self.remaining() / (len(addresses) - place))
                self._watch(connection)
                connection.connect(address)
                connection.settimeout(self.remaining())
            except OSError as fault:
                connection.close()
                failure = fault
            else:
                return connection
        raise failure or NotTaken("its name has no address on this machine, and without TLS nothing else is connected")

    def pause(self, seconds: float) -> None:
        """Waits, at most as long as there is time. Raises `TimeoutError` when there is none."""
        time.sleep(min(seconds, self.remaining()))

    def take(self) -> None:
        """Notes that the carrier has taken the text on; what goes wrong after it does not matter.

        Raises `TimeoutError` when the line was cut: the answer may then be what the cut left of it.
        """
        with self._lock:
            if self._over:
                raise TimeoutError
            self._taken = True

    def cut(self) -> bool:
        """Ends the connection, whatever its thread waits for. Tells whether the text had been taken on."""
        with self._lock:
            self._over = True
            if self._handle is not None:
                with suppress(OSError):
                    self._handle.shutdown(socket.SHUT_RDWR)
                self._handle.close()
                self._handle = None
            return self._taken

    def _watch(self, connection: socket.socket) -> None:
        with self._lock:
            if self._over:
                raise TimeoutError
            if self._handle is not None:
                self._handle.close()
            # TLS takes the socket's descriptor away from it; a second one ends the same connection.
            self._handle = connection.dup()


class Lines:
    """Runs deliveries to one carrier. May be used from any thread."""

    def __init__(self, *, carrier: str, report: Report) -> None:
        """`carrier` is what reports call it."""
        self._carrier = carrier
        self._report = report
        # A thread whose name server never answers outlives its call: so many may.
        self._places = threading.BoundedSemaphore(_MOST)

    def deliver(self, work: Callable[[Line], None], *, message: str, timeout: float) -> None:
        """Runs `work`, which calls its line's `take`, for at most `timeout` seconds.

        Raises `DeliveryFailed` when the text was not taken by then, and reports why.
        """
        line = Line(timeout)
        reasons: list[str] = []
        if timeout <= 0 or not self._places.acquire(timeout=timeout):
            self._fail(message, "no time is left")
        thread = threading.Thread(target=self._run, args=(work, line, reasons), name=f"{self._carrier} delivery")
        thread.daemon = True
        try:
            thread.start()
        except RuntimeError:
            self._places.release()
            self._fail(message, "the machine could not start a thread")
        with suppress(TimeoutError):
            thread.join(line.remaining())
        # What fails from here on fails because the connection is cut.
        reason = reasons[0] if reasons else "it did not take the message on in time"
        if not line.cut():
            self._fail(message, reason)

    def _run(self, work: Callable[[Line], None], line: Line, reasons: list[str]) -> None:
        try:
            work(line)
        except Exception as fault:  # noqa: BLE001 - a traceback would show the text; the call fails by its line
            reasons.append(_reason(fault))
        finally:
            self._places.release()

    def _fail(self, message: str, reason: str) -> NoReturn:
        self._report("delivery_failed", {"carrier": self._carrier, "message": message, "reason": reason})
        raise DeliveryFailed


def _reason(fault: Exception) -> str:
    match fault:
        case NotTaken():
            return str(fault)
        case ssl.SSLCertVerificationError():
            return f"its certificate does not verify: {fault.verify_message}"
        case ssl.SSLError():
            return f"TLS failed: {fault.reason}"
        case socket.gaierror():
            return "its name cannot be resolved"
        case TimeoutError():
            return "it did not answer in time"
        case OSError() if fault.strerror is not None:
            return f"the connection failed: {fault.strerror}"
    return f"the connection failed: {type(fault).__name__}"
