"""A list of authorizations that one code is to approve: checked before any code is made or looked at (P2)."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, tzinfo

from trien_server.core.authorization import assert_key, assert_pending
from trien_server.core.errors import (
    CertificateNotValid,
    CredentialDisabled,
    InvalidArgument,
    NotAllowedByPolicy,
    PermissionDenied,
)
from trien_server.core.principal import Principal
from trien_server.core.records import AuthenticatorKind, Authorization, Credential
from trien_server.services.access import (
    require_approver,
    require_client,
    require_client_collected_otp,
    require_credential,
    require_usable,
)
from trien_server.services.credential_policy import require_hours, require_kinds, require_size
from trien_server.services.read_authorizations import require_own
from trien_server.services.transactions import Ledger
from trien_server.services.trusted import Stale, TrustedView

MOST_AUTHORIZATIONS = 100


@dataclass(frozen=True, kw_only=True)
class PendingList:
    """Authorizations that wait for one person's decision, their credentials position by position, and the kinds of
    authenticator whose codes approve all of them.
    """

    authorizations: tuple[Authorization, ...]
    credentials: tuple[Credential, ...]
    kinds: frozenset[AuthenticatorKind]

    def require_hours(self, zone: tzinfo, *, at: datetime) -> None:
        """Raises `NotAllowedByPolicy`, with the authorization's name, outside of the hours of one of them."""
        for authorization, credential in zip(self.authorizations, self.credentials, strict=True):
            with _named(authorization.name):
                require_hours(credential, zone, at=at)


def check_names(names: Sequence[str], *, field: str) -> None:
    """Raises `InvalidArgument` unless 1 to 100 authorizations are named, each once."""
    if not 1 <= len(names) <= MOST_AUTHORIZATIONS:
        raise InvalidArgument(field, f"expected 1 to {MOST_AUTHORIZATIONS} authorizations")
    if len(set(names)) != len(names):
        raise InvalidArgument(field, "an authorization is named twice")


def require_list(
    view: TrustedView,
    principal: Principal,
    names: Sequence[str],
    *,
    signer: str,
    method: str,
    kinds: Collection[AuthenticatorKind],
    zone: tzinfo,
    at: datetime,
) -> PendingList:
    """Returns the calling client's authorizations, in order, that wait for the signer's decision.

    `kinds` are those of the authenticators that the decision could come by. Raises `PermissionDenied`,
    `CredentialDisabled`, `CertificateNotValid`, `NotAllowedByPolicy`, `AuthorizationNotPending`,
    `AuthorizationExpired`: each with the name of the authorization that it is about, but `PermissionDenied` without one
    when the client itself may no longer call.
    """
    require_client(view, principal, method)
    authorizations = []
    for name in names:
        with _named(name):
            authorizations.append(require_own(view, principal, name, method))
    left, credentials = frozenset(kinds), []
    for authorization in authorizations:
        with _named(authorization.name):
            credential = require_credential(view, principal, authorization.credential, method)
            require_usable(view, credential, at=at)
            require_client_collected_otp(credential)
            require_size(credential, authorization)
            left = require_kinds(credential, left)
            if authorization.approver not in (None, signer):
                raise PermissionDenied
            require_approver(view, credential, signer, field="one_time_password.signer", at=at)
            assert_pending(authorization, at=at)
            assert_key(authorization, credential.key)
            credentials.append(credential)
    found = PendingList(authorizations=tuple(authorizations), credentials=tuple(credentials), kinds=left)
    found.require_hours(zone, at=at)
    return found


@contextmanager
def _named(authorization: str) -> Iterator[None]:
    """Says in a refusal which of the list it is about: the caller leaves that one out and asks again."""
    try:
        yield
    except (PermissionDenied, CredentialDisabled, CertificateNotValid, NotAllowedByPolicy) as refusal:
        refusal.metadata["authorization"] = authorization
        raise


def require_same(ledger: Ledger, authorizations: Sequence[Authorization]) -> None:
    """Raises `Stale` unless the authorizations are what they were, and as `require_list` when one waits no longer."""
    for authorization in authorizations:
        if ledger.require(Authorization, authorization.name) != authorization:
            raise Stale
        assert_pending(authorization, at=ledger.at)
