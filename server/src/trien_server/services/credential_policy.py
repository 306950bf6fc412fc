"""The policy of a credential in force: looked at when a decision is made, and again when it is used."""

from collections.abc import Collection
from datetime import datetime, tzinfo

from trien_server.core.errors import AuthorizationExpired, NotAllowedByPolicy
from trien_server.core.policy import allowed_kinds, hours_of
from trien_server.core.records import (
    Approval,
    Assurance,
    Authenticator,
    AuthenticatorKind,
    Authorization,
    Credential,
    State,
)
from trien_server.services.access import require_client_collected_otp
from trien_server.services.trusted import TrustedView


def require_hours(credential: Credential, zone: tzinfo, *, at: datetime) -> None:
    """Raises `NotAllowedByPolicy` outside of the credential's hours, by the server's configured time zone."""
    if not hours_of(credential.hours).include(at, zone):
        raise NotAllowedByPolicy(f"The credential may be used {'; '.join(credential.hours)} ({zone}).")


def require_kinds(credential: Credential, kinds: Collection[AuthenticatorKind]) -> frozenset[AuthenticatorKind]:
    """Returns those of these kinds of authenticator whose codes approve for the credential.

    Raises `NotAllowedByPolicy` when none is left: before any code is made or evaluated.
    """
    left = allowed_kinds(credential.authenticator_kinds).intersection(kinds)
    if not left:
        allowed = " or ".join(credential.authenticator_kinds)
        raise NotAllowedByPolicy(f"The credential is approved by {allowed} alone.")
    return left


def require_size(credential: Credential, authorization: Authorization) -> None:
    """Raises `NotAllowedByPolicy` when a restriction came after an authorization that has more items than it allows."""
    if len(authorization.digests) > credential.max_items:
        raise NotAllowedByPolicy(
            f"It has {len(authorization.digests)} items, and the credential's policy allows {credential.max_items} now."
        )


def require_approval_allowed(
    view: TrustedView, credential: Credential, authorization: Authorization, approval: Approval
) -> None:
    """Raises `NotAllowedByPolicy` unless the policy in force would let this approval be made: what was approved under
    a looser one is not used any more.

    Raises `AuthorizationExpired` when the authenticator was disabled since, or replaced by another of its name: whoever
    has the lost one may have approved by it.
    """
    authenticator = view.require(Authenticator, approval.authenticator)
    if authenticator.state is not State.ENABLED or approval.create_time < authenticator.create_time:
        details = {"authorization": authorization.name, "state": str(authorization.state)}
        message = f"{authorization.name} ended: the authenticator that approved it was disabled or replaced."
        raise AuthorizationExpired(message, metadata=details)
    require_size(credential, authorization)
    if approval.assurance is Assurance.CLIENT_COLLECTED_OTP:
        require_client_collected_otp(credential)
    if credential.authenticator_kinds:
        require_kinds(credential, {authenticator.kind})
