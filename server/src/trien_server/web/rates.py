"""How many requests the page takes: of one address, and in all."""

import ipaddress
import threading
from collections import OrderedDict

from trien_server.core.ports import Clock

WINDOW_SECONDS = 60.0
MOST_OF_ONE = 30
MOST_OF_ALL = 600
MOST_WRONG_OF_ONE = 10
"""How many requests with unknown codes an address may make in a window before the others of it are refused too."""
_REMEMBERED = 10_000


class Rates:
    """Counts requests in windows of a minute, by the caller's address: of IPv6 by its /64. Any thread may use it."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began = 0.0
        self._all = 0
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._wrong: OrderedDict[str, int] = OrderedDict()

    def allows(self, address: str) -> bool:
        """Counts a request and tells whether it may be answered."""
        network = network_of(address)
        with self._lock:
            self._renew()
            _count(self._counts, network)
            if self._counts[network] > MOST_OF_ONE or self._wrong.get(network, 0) >= MOST_WRONG_OF_ONE:
                # Not of all: or one address would take the places of the others.
                return False
            self._all += 1
            return self._all <= MOST_OF_ALL

    def count_wrong(self, address: str) -> None:
        """Counts a code that nobody has."""
        with self._lock:
            _count(self._wrong, network_of(address))

    def _renew(self) -> None:
        now = self._clock.monotonic()
        if now - self._began >= WINDOW_SECONDS:
            self._began, self._all = now, 0
            self._counts.clear()
            self._wrong.clear()


def _count(counts: OrderedDict[str, int], network: str) -> None:
    counts[network] = counts.get(network, 0) + 1
    while len(counts) > _REMEMBERED:
        counts.popitem(last=False)


def network_of(address: str) -> str:
    """Returns what counts as one caller: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
