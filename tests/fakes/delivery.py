"""A carrier of one-time passwords that remembers what it took on, and fails on command."""

import re
import threading
from dataclasses import dataclass, field

from trien_server.core.errors import DeliveryFailed
from trien_server.core.ports import DeliveredText


@dataclass(frozen=True)
class Delivered:
    """What was handed over, and how long it might have taken."""

    address: str
    text: DeliveredText
    message: str
    timeout: float

    @property
    def code(self) -> str:
        """The one-time password in the text."""
        found = re.findall(r"(?<![0-9a-f])[0-9]{6,8}(?![0-9a-f])", self.text.body.reveal().decode())
        assert len(found) == 1, "a text holds one code"
        return str(found[0])


@dataclass
class RecordedDelivery:
    """Implements `core.ports.Delivery`. While `fails`, it takes nothing on."""

    fails: bool = False
    taken: list[Delivered] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def deliver(self, *, address: str, text: DeliveredText, message: str, timeout: float) -> None:
        """Remembers the text. Raises `DeliveryFailed` while `fails`."""
        if self.fails:
            raise DeliveryFailed
        with self._lock:
            self.taken.append(Delivered(address=address, text=text, message=message, timeout=timeout))

    def reach(self, *, timeout: float) -> None:  # noqa: ARG002 - the port's
        """Raises `DeliveryFailed` while `fails`."""
        if self.fails:
            raise DeliveryFailed
