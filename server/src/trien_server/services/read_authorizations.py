"""GetAuthorization, ListAuthorizations, WaitAuthorization and FetchSignatureActivationData."""

import threading
from dataclasses import dataclass

from trien_server.core.errors import (
    ActivationDataUsed,
    AuthorizationExpired,
    AuthorizationNotApproved,
    Busy,
    PermissionDenied,
)
from trien_server.core.ports import Clock
from trien_server.core.principal import Principal
from trien_server.core.records import Approval, Authorization, AuthorizationState
from trien_server.core.sealing import activation_data_message
from trien_server.core.secret import Secret
from trien_server.services.access import require_client, require_credential
from trien_server.services.deadline import Deadline
from trien_server.services.paging import Page, page_of
from trien_server.services.seals import Seals
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView

_POLL_SECONDS = 0.2
LONGEST_WAIT = 60.0
DEFAULT_WAIT = 30.0


@dataclass(frozen=True, kw_only=True)
class AuthorizationView:
    """An authorization and, once there is one, the approval that names it."""

    authorization: Authorization
    approval: Approval | None


def require_own(view: TrustedView, principal: Principal, name: str, method: str) -> Authorization:
    """Returns an authorization that the calling client made. Raises `PermissionDenied` for any other (P11)."""
    client = require_client(view, principal, method)
    authorization = view.get(Authorization, name)
    if authorization is None or authorization.client != client.name:
        raise PermissionDenied
    return authorization


def with_approval(view: TrustedView, authorization: Authorization) -> AuthorizationView:
    """Returns the authorization with its approval."""
    approval = None if authorization.approval is None else view.require(Approval, authorization.approval)
    return AuthorizationView(authorization=authorization, approval=approval)


class GetAuthorization:
    """Reads one authorization of the calling client."""

    def __init__(self, *, transactions: Transactions, method: str = "AuthorizationService.GetAuthorization") -> None:
        self._transactions = transactions
        self._method = method

    def __call__(self, principal: Principal, name: str) -> AuthorizationView:
        """Returns it. Raises `PermissionDenied`."""
        method = self._method

        def work(view: TrustedView) -> AuthorizationView:
            return with_approval(view, require_own(view, principal, name, method))

        return self._transactions.read(work)


class ListAuthorizations:
    """Lists a credential's authorizations that the calling client made."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, credential: str, *, page: Page) -> tuple[list[AuthorizationView], str]:
        """Returns a page by name, and the token of the next or "". Raises `PermissionDenied`."""

        def work(view: TrustedView) -> tuple[list[AuthorizationView], str]:
            require_credential(view, principal, credential, "AuthorizationService.ListAuthorizations")
            found = view.find(
                Authorization, limit=page.size + 1, after=page.after, credential=credential, client=principal.name
            )
            shown, token = page_of(found, page)
            return [with_approval(view, authorization) for authorization in shown], token

        return self._transactions.read(work)


class WaitAuthorization:
    """Waits until an authorization is decided on.

    A waiter holds a thread of the server, so at most `waiters` wait at once: the others get `Busy` and
    ask again.
    """

    def __init__(self, *, transactions: Transactions, clock: Clock, waiters: int) -> None:
        self._get = GetAuthorization(transactions=transactions, method="AuthorizationService.WaitAuthorization")
        self._clock = clock
        self._places = threading.BoundedSemaphore(waiters)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends all waiting: each waiter gets its authorization as it is."""
        self._stopped.set()

    def __call__(self, principal: Principal, name: str, *, seconds: float, deadline: Deadline) -> AuthorizationView:
        """Returns the authorization once it is not pending or has expired, or after `seconds`, as it then is."""
        found = self._get(principal, name)
        if not self._places.acquire(blocking=False):
            raise Busy("Too many calls wait for authorizations.")
        try:
            end = self._clock.monotonic() + min(seconds, LONGEST_WAIT, max(deadline.remaining() - 0.5, 0.0))
            while (
                found.authorization.state is AuthorizationState.PENDING
                and found.authorization.expire_time > self._clock.now()
                and (left := end - self._clock.monotonic()) > 0
                and not self._stopped.wait(min(_POLL_SECONDS, left))
            ):
                found = self._get(principal, name)
            return found
        finally:
            self._places.release()


class FetchActivationData:
    """Hands out the secret that opens an approved authorization."""

    def __init__(self, *, transactions: Transactions, seals: Seals, clock: Clock) -> None:
        self._transactions = transactions
        self._seals = seals
        self._clock = clock

    def __call__(self, principal: Principal, name: str) -> tuple[Secret, Authorization]:
        """Returns it to the client that made the authorization, until every position is used.

        Raises `PermissionDenied`, `AuthorizationNotApproved`, `ActivationDataUsed`, `AuthorizationExpired`.
        """

        def work(view: TrustedView) -> Authorization:
            return require_own(view, principal, name, "AuthorizationService.FetchSignatureActivationData")

        authorization = self._transactions.read(work)
        if authorization.state is AuthorizationState.USED:
            raise ActivationDataUsed("Every position of the authorization was signed before.")
        if authorization.state is not AuthorizationState.APPROVED:
            raise AuthorizationNotApproved(f"The authorization is {authorization.state}, not approved.")
        if authorization.expire_time <= self._clock.now():
            raise AuthorizationExpired("The authorization has expired.")
        data = self._seals.authenticate(activation_data_message(authorization))
        return Secret(data), authorization
