"""The installation: made once by `init`, checked at every start."""

from trien_server.core.errors import ClockNotTrusted, Refusal
from trien_server.core.ports import Clock, Hsm, Randomness, Report, Store
from trien_server.core.records import Installation, Operator
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.identifiers import new_id
from trien_server.services.transactions import CLOCK_TOLERANCE, Transactions
from trien_server.services.trusted import TrustedView

NAME = "installation"


class NotThisInstallation(Exception):  # noqa: N818
    """The database and the token do not belong together; the message says what was found."""


class CreateInstallation:
    """Enters the installation and its first operators."""

    def __init__(self, *, changes: Changes, clock: Clock, randomness: Randomness) -> None:
        self._changes = changes
        self._clock = clock
        self._randomness = randomness

    def __call__(self, operators: dict[str, bytes]) -> None:
        """Puts the installation in force, with operators by name and certificate fingerprint, as one change.

        Raises `AlreadyExists` when there is one.
        """
        now = self._clock.now()
        first = [
            Operator(
                name=f"operators/{identifier}",
                display_name=identifier,
                certificate_fingerprint=fingerprint,
                create_time=now,
            )
            for identifier, fingerprint in operators.items()
        ]

        def prepare(_: TrustedView) -> Change:
            return Change(kind="installation_created", slow=[Installation(name=NAME, create_time=now), *first])

        self._changes.make(f"init/{new_id(self._randomness)}", prepare, deadline=Deadline(self._clock, 30.0))


class CheckStart:
    """What has to hold before a server serves (P8)."""

    def __init__(self, *, hsm: Hsm, store: Store, transactions: Transactions, clock: Clock, report: Report) -> None:
        self._hsm = hsm
        self._store = store
        self._transactions = transactions
        self._clock = clock
        self._report = report

    def __call__(self) -> None:
        """Checks token, installation and clock.

        Raises `HsmUnavailable`; `NotThisInstallation` when the token's sealing key did not seal this
        database; `ClockNotTrusted` when the log is ahead of the clock, or the clocks differ.
        """
        self._hsm.probe()
        try:
            installation = self._transactions.read(lambda view: view.get(Installation, NAME))
        except Refusal as refusal:
            if refusal.reason != "RECORD_NOT_TRUSTED":
                raise
            raise NotThisInstallation("The token's sealing key did not seal this database.") from refusal
        if installation is None:
            raise NotThisInstallation("The database has no installation: run `trien-server init`.")
        self.check_clock()

    def check_clock(self) -> None:
        """Raises `ClockNotTrusted`, after reporting it, when the clock differs from the store's or went back."""
        now, stored = self._clock.now(), self._store.now()
        latest = self._store.read(lambda snapshot: snapshot.latest_time())
        behind_log = latest is not None and now < latest - CLOCK_TOLERANCE
        if abs(now - stored) > CLOCK_TOLERANCE or behind_log:
            fields = {"now": now.isoformat(), "store": stored.isoformat(), "log": str(latest)}
            self._report("clock_not_trusted", fields)
            raise ClockNotTrusted
