"""DenyAuthorization: a pending authorization ends for good."""

from trien_server.core.authorization import deny
from trien_server.core.errors import Refusal
from trien_server.core.ports import VersionConflict
from trien_server.core.principal import Principal
from trien_server.core.records import Authorization
from trien_server.services.deadline import Deadline
from trien_server.services.read_authorizations import require_own
from trien_server.services.transactions import Ledger, Transactions
from trien_server.services.trusted import Stale, TrustedView


class DenyAuthorization:
    """Denies authorizations of the calling client."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str, deadline: Deadline) -> Authorization:
        """Returns it as denied. Raises `PermissionDenied`, `AuthorizationNotPending`, `AuthorizationExpired`."""

        def attempt() -> Authorization:
            def read(found: TrustedView) -> tuple[TrustedView, Authorization]:
                return found, require_own(found, principal, name, "AuthorizationService.DenyAuthorization")

            view, authorization = self._transactions.read(read)

            def work(ledger: Ledger) -> Authorization | Refusal:
                ledger.assert_unchanged(view)
                denied = deny(authorization, at=ledger.at)
                try:
                    ledger.replace(denied)
                except VersionConflict as conflict:
                    raise Stale from conflict
                ledger.record("authorization_denied", {"authorization": name, "client": principal.name})
                return denied

            return self._transactions.run(work, timeout=deadline.remaining())

        return self._transactions.decide(attempt, deadline=deadline)
