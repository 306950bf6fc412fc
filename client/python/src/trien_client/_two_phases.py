"""Signing when somebody has approved: an authorization is made, decided on elsewhere, opened and used, as one thing."""

import math
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from trien_client._algorithms import SignatureAlgorithm
from trien_client._authority import ActivationData
from trien_client._authorizations import Authorizations, has_expired
from trien_client._calls import Calls, request_id_or_new
from trien_client._errors import (
    ActivationDataRejected,
    ActivationDataUsed,
    AuthorizationDenied,
    AuthorizationExpired,
    AuthorizationNotApproved,
    NotDecidedInTime,
    TrienError,
)
from trien_client._items import Item
from trien_client._resources import Authorization, AuthorizationState, SigningResult
from trien_client._signing import Signing
from trien_client._steps import Consult, Operation

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "trien:sign-when-approved")
_SLACK = 2.0

OnPending = Callable[[Authorization], object]
"""Is handed the authorization as soon as there is one, so that the person can be told."""

AsyncOnPending = Callable[[Authorization], object | Awaitable[object]]
"""The same for an `AsyncClient`, which awaits the answer if there is something to await."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked for, and all that is needed to sign it when it is approved."""

    authorization: Authorization
    algorithm: SignatureAlgorithm
    items: tuple[Item, ...]
    pss_salt_length: int | None
    request_id: str
    end: float
    """When the authorization has expired at the latest, on the client's own clock, which nobody sets."""

    @property
    def signing_request_id(self) -> str:
        """The id of the SignDigests request. It follows from `request_id`: one id repeats everything."""
        return str(uuid.uuid5(_NAMESPACE, self.request_id))


class TwoPhases:
    """Both phases, with the wait between them."""

    def __init__(self, calls: Calls, authorizations: Authorizations, signing: Signing) -> None:
        self._calls = calls
        self._authorizations = authorizations
        self._signing = signing

    def ask(
        self,
        credential: str,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        *,
        approver: str | None,
        lifetime: timedelta | None,
        title: str,
        request_id: str | None,
        pss_salt_length: int | None,
        timeout: float | None,
    ) -> Operation[Asked]:
        """Makes the authorization; nobody is bothered with one whose signatures could not be verified."""
        values = tuple(items)
        request_id = request_id_or_new(request_id)
        yield from self._signing.require_usable(credential, algorithm, timeout=timeout)
        authorization = yield from self._authorizations.create(
            credential,
            algorithm,
            values,
            approver=approver,
            lifetime=lifetime,
            title=title,
            request_id=request_id,
            pss_salt_length=pss_salt_length,
            deadline=self._calls.deadline(timeout),
        )
        return Asked(
            authorization=authorization,
            algorithm=algorithm,
            items=values,
            pss_salt_length=pss_salt_length,
            request_id=request_id,
            end=self._calls.now() + _lifetime(authorization) + _SLACK,
        )

    def finish(self, asked: Asked, *, wait: float | None, timeout: float | None) -> Operation[SigningResult]:
        """Waits for the decision and signs. May be repeated: what was signed is handed out again."""
        try:
            yield from self._until_approved(asked, wait)
            return (yield from self._open_and_sign(asked, timeout))
        except TrienError as error:
            error.request_id = asked.request_id
            raise

    def sign(
        self, asking: Operation[Asked], *, on_pending: AsyncOnPending | None, wait: float | None, timeout: float | None
    ) -> Operation[SigningResult]:
        """Asks, tells `on_pending`, and finishes."""
        asked = yield from asking
        if on_pending is not None:
            yield Consult(on_pending, asked.authorization)
        return (yield from self.finish(asked, wait=wait, timeout=timeout))

    def _until_approved(self, asked: Asked, wait: float | None) -> Operation[None]:
        name = asked.authorization.name
        details = {"authorization": name}
        end = min(asked.end, math.inf if wait is None else self._calls.now() + wait)
        found = yield from self._authorizations.wait(name, end=end, known=True)
        match found.state:
            case AuthorizationState.APPROVED | AuthorizationState.USED:
                return
            case AuthorizationState.DENIED:
                raise AuthorizationDenied(f"{name} was denied.", metadata=details)
            case AuthorizationState.PENDING if has_expired(found) or self._calls.now() >= asked.end:
                raise AuthorizationExpired(f"{name} has expired: nobody decided in time.", metadata=details)
            case AuthorizationState.PENDING:
                raise NotDecidedInTime(f"Nobody has decided on {name} yet.", authorization=name)
        raise AuthorizationNotApproved(f"{name} is in a state that this SDK does not know.", metadata=details)

    def _open_and_sign(self, asked: Asked, timeout: float | None) -> Operation[SigningResult]:
        name = asked.authorization.name
        try:
            activation = yield from self._authorizations.fetch_activation_data(
                name, deadline=self._calls.deadline(timeout)
            )
        except ActivationDataUsed as used:
            # It is handed out no more. If this very request used it and its answer was lost, a repeat needs none.
            try:
                repeat = ActivationData(authorization=name, value=b"", expire_time=datetime.now(UTC))
                return (yield from self._sign(asked, repeat, timeout))
            except ActivationDataRejected:
                raise used from None
        return (yield from self._sign(asked, activation, timeout))

    def _sign(self, asked: Asked, activation: ActivationData, timeout: float | None) -> Operation[SigningResult]:
        return self._signing.sign_with_activation_data(
            activation,
            asked.algorithm,
            asked.items,
            request_id=asked.signing_request_id,
            pss_salt_length=asked.pss_salt_length,
            timeout=timeout,
        )


def _lifetime(authorization: Authorization) -> float:
    if authorization.create_time is None or authorization.expire_time is None:
        return math.inf
    # Both times are the server's: the difference does not depend on this computer's clock.
    return (authorization.expire_time - authorization.create_time).total_seconds()
