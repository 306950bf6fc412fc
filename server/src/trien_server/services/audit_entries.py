"""GetAuditEntry and ListAuditEntries: reading the log, entry by entry, each with its seal verified."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from trien_server.core.audit_selection import Selection
from trien_server.core.errors import InvalidArgument, PermissionDenied, RecordNotTrusted
from trien_server.core.principal import Principal
from trien_server.core.records import AuditEntry, LogHead, Operator
from trien_server.services.access import require_operator
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView

LARGEST_PAGE = 500
DEFAULT_PAGE = 100
MOST_SCANNED = 2000
"""How many entries one call looks at: a page may have fewer than were asked for, or none, and more follow."""
MOST_BYTES = 1 << 20
"""How long the details of one page may be together: a call of 1,000 digests has 130 KiB of them."""

LOG_HEAD = "log"
_WINDOW = 250
_TOKEN = re.compile(r"([0-9]{1,18})\.([0-9a-f]{32})", re.ASCII)
_MOST_KINDS = 50


@dataclass(frozen=True, kw_only=True)
class PositionedEntry:
    """An entry with its position in the log; None while it has none."""

    entry: AuditEntry
    position: int | None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A position whose entry is not to be trusted, and so was not handed out; `name` is what the row says, or ""."""

    position: int
    name: str
    finding: str


@dataclass(frozen=True, kw_only=True)
class ListQuery:
    """Which entries are asked for, from where, and in which order."""

    selection: Selection = field(default_factory=Selection)
    first_position: int = 0
    newest_first: bool = False
    size: int = 0
    token: str = ""


@dataclass(kw_only=True)
class EntryPage:
    """What a page found. `next_position` is the one behind the last that was looked at."""

    entries: list[PositionedEntry] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    next_token: str = ""
    next_position: int = 0


class GetAuditEntry:
    """Returns one entry to an operator."""

    method = "AuditService.GetAuditEntry"

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str) -> PositionedEntry:
        """Raises `PermissionDenied`, also for an entry that does not exist, and `RecordNotTrusted`."""

        def work(view: TrustedView) -> PositionedEntry:
            require_reader(view, principal, self.method)
            entry = view.get(AuditEntry, name)
            if entry is None:
                raise PermissionDenied
            return PositionedEntry(entry=entry, position=view.position(name))

        return self._transactions.read(work)


class ListAuditEntries:
    """Lists entries by position to an operator, and says which positions hold none that can be trusted.

    Reading is not written down: a follower would be followed by its own traces without end.
    """

    method = "AuditService.ListAuditEntries"

    def __init__(self, *, transactions: Transactions, most_scanned: int = MOST_SCANNED) -> None:
        self._transactions = transactions
        self._most_scanned = most_scanned

    def __call__(self, principal: Principal, query: ListQuery) -> EntryPage:
        """Returns a page. Raises `PermissionDenied`, `InvalidArgument`, and `RecordNotTrusted` for the log's head."""
        size = _checked_size(query)
        fingerprint = _fingerprint(query)
        token = None if not query.token else _open_token(query.token, fingerprint)

        def work(view: TrustedView) -> EntryPage:
            require_reader(view, principal, self.method)
            end = log_size(view)
            if query.newest_first:
                scan = _Scan(first=query.first_position, end=end if token is None else min(token, end), backwards=True)
            else:
                scan = _Scan(first=query.first_position if token is None else token, end=end, backwards=False)
            return self._page(view, query.selection, scan, size, fingerprint)

        return self._transactions.read(work)

    def _page(self, view: TrustedView, selection: Selection, scan: "_Scan", size: int, fingerprint: str) -> EntryPage:
        page = EntryPage(next_position=scan.end if scan.backwards else scan.first)
        length = 0
        for scanned, (position, found) in enumerate(scan.positions(view), start=1):
            match found:
                case AuditEntry() if selection.admits(found):
                    page.entries.append(PositionedEntry(entry=found, position=position))
                    length += len(found.details)
                case AuditEntry():
                    pass
                case _:
                    page.findings.append(Finding(position=position, name=found.name, finding=found.finding))
            if not scan.backwards:
                page.next_position = position + 1
            if len(page.entries) + len(page.findings) >= size or scanned >= self._most_scanned or length >= MOST_BYTES:
                # What a token names: going on it is the first to look at, going back the one above that.
                cursor = position if scan.backwards else position + 1
                if cursor > scan.first if scan.backwards else cursor < scan.end:
                    page.next_token = _make_token(cursor, fingerprint)
                break
        return page


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """A walk over the positions from `first` until before `end`."""

    first: int
    end: int
    backwards: bool

    def positions(self, view: TrustedView) -> Iterator[tuple[int, AuditEntry | RecordNotTrusted]]:
        """Yields each position with its entry, or what is wrong with it. None is left out."""
        if self.backwards:
            upper = self.end
            while upper > self.first:
                lower = max(self.first, upper - _WINDOW)
                yield from reversed(view.log(lower, upper))
                upper = lower
        else:
            lower = self.first
            while lower < self.end:
                upper = min(self.end, lower + _WINDOW)
                yield from view.log(lower, upper)
                lower = upper


def require_reader(view: TrustedView, principal: Principal, method: str) -> Operator:
    """Returns the operator who may read any entry: one that is limited to some organizations may not.

    The log is about all of them. Raises `PermissionDenied`.
    """
    operator = require_operator(view, principal, method)
    if operator.organizations:
        raise PermissionDenied
    return operator


def log_size(view: TrustedView) -> int:
    """Returns how many entries have a position. Raises `RecordNotTrusted`."""
    head = view.get(LogHead, LOG_HEAD)
    return 0 if head is None else head.size


def _checked_size(query: ListQuery) -> int:
    if query.size < 0:
        raise InvalidArgument("page_size", "expected 0 or more")
    if query.first_position < 0:
        raise InvalidArgument("first_position", "expected 0 or more")
    if len(query.selection.kinds) > _MOST_KINDS:
        raise InvalidArgument("kinds", f"expected at most {_MOST_KINDS}")
    return min(query.size or DEFAULT_PAGE, LARGEST_PAGE)


def _fingerprint(query: ListQuery) -> str:
    order = f"{query.first_position}/{query.newest_first}/".encode()
    return hashlib.sha256(order + query.selection.encode()).hexdigest()[:32]


def _make_token(position: int, fingerprint: str) -> str:
    return base64.urlsafe_b64encode(f"{position}.{fingerprint}".encode()).decode()


def _open_token(token: str, fingerprint: str) -> int:
    """Returns the position in a token. Raises `InvalidArgument` for one of another request."""
    try:
        found = _TOKEN.fullmatch(base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode())
    except (binascii.Error, ValueError) as fault:
        raise InvalidArgument("page_token", "not a token that this server gave out") from fault
    if found is None or found[2] != fingerprint:
        raise InvalidArgument("page_token", "not a token that this server gave out for this request")
    return int(found[1])
