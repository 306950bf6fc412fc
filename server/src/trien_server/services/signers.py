"""CreateSigner, GetSigner and UnlockSigner."""

from trien_server.core.errors import InvalidArgument, PermissionDenied
from trien_server.core.ports import Clock
from trien_server.core.principal import Principal
from trien_server.core.records import ClientAttempts, Organization, Record, Signer, SignerAttempts, SignerKind
from trien_server.services.access import require_operator
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.texts import parse_title
from trien_server.services.transactions import Ledger, Transactions, next_version
from trien_server.services.trusted import Stale, TrustedView


class CreateSigner:
    """Enters signers."""

    def __init__(self, *, changes: Changes, clock: Clock) -> None:
        self._changes = changes
        self._clock = clock

    def __call__(
        self,
        principal: Principal,
        *,
        name: str,
        display_name: str,
        kind: SignerKind,
        organization: str,
        position: str,
        deadline: Deadline,
    ) -> Signer:
        """Returns the new signer. Raises `PermissionDenied`, `InvalidArgument`, `AlreadyExists`."""
        signer = Signer(
            name=name,
            display_name=parse_title(display_name, field="signer.display_name"),
            kind=kind,
            organization=organization,
            position=parse_title(position, field="signer.position", required=False),
            create_time=self._clock.now(),
        )

        def prepare(view: TrustedView) -> Change:
            require_operator(view, principal, "SignerService.CreateSigner")
            if view.get(Organization, organization) is None:
                raise InvalidArgument("signer.organization", "there is no such organization")
            counts = SignerAttempts(name=name, failures=0)
            return Change(kind="signer_created", slow=[signer], hot=[counts])

        self._changes.make(principal.name, prepare, deadline=deadline)
        return signer


class GetSigner:
    """Reads signers."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str) -> Signer:
        """Returns it. Raises `PermissionDenied`."""

        def work(view: TrustedView) -> Signer:
            require_operator(view, principal, "SignerService.GetSigner")
            return _require_signer(view, name)

        return self._transactions.read(work)


class UnlockSigner:
    """Ends locks that wrong one-time passwords brought about."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> Signer:
        """Starts the signer's count anew, and every client's for this signer. Raises `PermissionDenied`."""

        def attempt() -> Signer:
            def read(view: TrustedView) -> tuple[TrustedView, Signer, list[Record]]:
                require_operator(view, principal, "SignerService.UnlockSigner")
                signer = _require_signer(view, name)
                count = view.require(SignerAttempts, name)
                counts: list[Record] = [next_version(count, failures=0, lock_failures=0, locked_until=None)]
                after = f"{name}/clients/"
                while found := view.find(ClientAttempts, limit=500, after=after):
                    for of_client in found:
                        if not of_client.name.startswith(f"{name}/clients/"):
                            return view, signer, counts
                        counts.append(next_version(of_client, failures=0, blocks=0, blocked_until=None))
                    after = found[-1].name
                return view, signer, counts

            view, signer, counts = self._transactions.read(read)

            def work(ledger: Ledger) -> None:
                ledger.assert_unchanged(view)
                for changed in counts:
                    current = ledger.get(type(changed), changed.name)
                    if current is None or current.version != changed.version - 1:
                        raise Stale
                    ledger.replace(changed)
                ledger.record("signer_unlocked", {"actor": principal.name, "signer": name})

            self._transactions.run(work, timeout=deadline.remaining())
            return signer

        return self._transactions.decide(attempt, deadline=deadline)


def _require_signer(view: TrustedView, name: str) -> Signer:
    signer = view.get(Signer, name)
    if signer is None:
        raise PermissionDenied
    return signer
