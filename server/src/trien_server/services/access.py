"""Who may do what: decided before a key is touched. Deny by default."""

from dataclasses import dataclass
from datetime import datetime

from trien_server.core.certificates import assert_valid_at
from trien_server.core.errors import CredentialDisabled, InvalidArgument, NotAllowedByPolicy, PermissionDenied
from trien_server.core.ports import KeyReference
from trien_server.core.principal import Principal, PrincipalKind
from trien_server.core.records import (
    Activator,
    Client,
    Credential,
    CredentialClient,
    CredentialState,
    Key,
    KeyPurpose,
    KeyState,
    Operator,
    Organization,
    Signer,
    SignerState,
    State,
)
from trien_server.core.roles import CLIENT_METHODS, may
from trien_server.services.certificate_statuses import require_revocation_policy
from trien_server.services.trusted import TrustedView


def require_client(view: TrustedView, principal: Principal, method: str) -> Client:
    """Returns the calling client, checked again in this view, when it may call the method.

    Raises `PermissionDenied`.
    """
    if principal.client is None or method not in CLIENT_METHODS:
        raise PermissionDenied(because="clients do not call this method")
    client = view.get(Client, principal.client)
    if client is None or client.state is not State.ENABLED:
        raise PermissionDenied(because="the client is disabled")
    if not is_known_by(client, principal.shown):
        raise PermissionDenied(because="the client's token or certificate is another now")
    if client.methods and method not in client.methods:
        raise PermissionDenied(because=f"the client may not call {method}")
    return client


def is_known_by(known: Client | Operator, shown: bytes | None) -> bool:
    """Tells whether what was shown when the call began still is a token or certificate of the caller's.

    A call that began before its token was taken away is refused like one that begins later.
    """
    if shown is None:
        return True
    if isinstance(known, Operator):
        return shown == known.certificate_fingerprint
    return shown in {
        known.token_hash,
        known.certificate_fingerprint,
        known.previous_token_hash,
        known.previous_certificate_fingerprint,
    }


def require_operator(view: TrustedView, principal: Principal, method: str) -> Operator:
    """Returns the calling operator, checked again in this view, when one of its roles may call the method.

    Raises `PermissionDenied`.
    """
    operator = require_any_operator(view, principal)
    if not may(operator.roles, method):
        raise PermissionDenied
    return operator


def require_any_operator(view: TrustedView, principal: Principal) -> Operator:
    """Returns the calling operator, checked again in this view, for what concerns no one else.

    Raises `PermissionDenied`.
    """
    if principal.kind is PrincipalKind.OPERATOR:
        operator = view.get(Operator, principal.name)
        if operator is not None and operator.state is State.ENABLED and is_known_by(operator, principal.shown):
            return operator
    raise PermissionDenied


def require_organization(view: TrustedView, limited: Operator | Client, organization: str) -> None:
    """Raises `PermissionDenied` unless an organization is one of those that limit who calls, or below one of them."""
    if not is_within(view, limited.organizations, organization):
        raise PermissionDenied(because=f"{organization} is none of the organizations that limit {limited.name}")


def is_within(view: TrustedView, limits: tuple[str, ...], organization: str) -> bool:
    """Tells whether an organization is one of the limits, or below one of them; no limits are no limit.

    One that does not exist is within none.
    """
    if not limits:
        return True
    found = view.get(Organization, organization)
    seen: set[str] = set()
    while found is not None and found.name not in seen:
        if found.name in limits:
            return True
        seen.add(found.name)
        found = None if found.parent is None else view.require(Organization, found.parent)
    return False


def exists_at(organization: Organization, at: datetime) -> bool:
    """Tells whether an organization has begun and not ended."""
    begun = organization.start_time is None or organization.start_time <= at
    over = organization.end_time is not None and organization.end_time <= at
    return begun and not over


def credential_client_name(credential: str, client: str) -> str:
    """Returns the name of the record that lets a client ask for a credential."""
    return f"{credential}/{client}"


def activator_name(credential: str, signer: str) -> str:
    """Returns the name of the record that lets a person activate a credential."""
    return f"{credential}/{signer}"


def require_credential(view: TrustedView, principal: Principal, name: str, method: str) -> Credential:
    """Returns a credential that the calling client may ask for, by a method that it may call.

    Raises `PermissionDenied` when there is none, or it is not for this client: alike (P11).
    """
    client = require_client(view, principal, method)
    grant = view.get(CredentialClient, credential_client_name(name, client.name))
    if grant is None or grant.state is not State.ENABLED:
        raise PermissionDenied(because="the credential does not name the client")
    credential = view.get(Credential, name)
    if credential is None:
        raise PermissionDenied
    if client.organizations:
        require_organization(view, client, view.require(Signer, credential.signer).organization)
    return credential


def is_of_client(view: TrustedView, client: Client, credential: Credential) -> bool:
    """Tells whether a credential's signer is within the organizations that a client is for."""
    return not client.organizations or is_within(
        view, client.organizations, view.require(Signer, credential.signer).organization
    )


@dataclass(frozen=True, kw_only=True)
class UsableCredential:
    """A credential whose key may sign now."""

    credential: Credential
    key: Key
    signer: Signer

    @property
    def reference(self) -> KeyReference:
        return reference_of(self.key)


def reference_of(key: Key) -> KeyReference:
    """Returns what finds a key in the token, or opens it there."""
    return KeyReference(
        object_id=key.object_id,
        key_type=key.key_type,
        public_key=key.public_key,
        wrapped_key=key.wrapped_key,
        wrapping_generation=key.wrapping_generation,
    )


def require_usable(view: TrustedView, credential: Credential, *, at: datetime) -> UsableCredential:
    """Returns the credential with its key and signer.

    Raises `CredentialDisabled` unless all three are enabled, the key is for signing and the signer's organization
    exists now, `CertificateNotValid` by the chain's dates.
    """
    key = view.require(Key, credential.key)
    signer = view.require(Signer, credential.signer)
    if credential.state is not CredentialState.ENABLED or signer.state is not SignerState.ENABLED:
        raise CredentialDisabled("The credential or its signer is not enabled.")
    if key.state is not KeyState.ENABLED or key.purpose is not KeyPurpose.SIGNING:
        raise CredentialDisabled("The credential's key is not enabled.")
    if not exists_at(view.require(Organization, signer.organization), at):
        raise CredentialDisabled("The signer's organization has ended or not begun.")
    assert_valid_at(credential.certificate_chain, at)
    require_revocation_policy(view, credential, at=at)
    return UsableCredential(credential=credential, key=key, signer=signer)


def require_approver(view: TrustedView, credential: Credential, wanted: str | None, *, field: str, at: datetime) -> str:
    """Returns the person who approves: the wanted one, or the only one who may.

    Raises `PermissionDenied` when the wanted person may not activate the credential now,
    `InvalidArgument` when none is named and it is not clear who approves.
    """
    if wanted is None:
        entitled = [
            activator.signer
            for activator in view.find(Activator, credential=credential.name)
            if _may_activate(activator, at=at)
        ]
        if len(entitled) != 1:
            raise InvalidArgument(field, "required, for not exactly one person may activate the credential now")
        wanted = entitled[0]
    activator = view.get(Activator, activator_name(credential.name, wanted))
    if activator is None or not _may_activate(activator, at=at):
        raise PermissionDenied(because=f"{wanted} may not activate the credential now")
    person = view.require(Signer, wanted)
    if person.state is not SignerState.ENABLED:
        raise PermissionDenied(because=f"{wanted} is not enabled")
    return wanted


def require_client_collected_otp(credential: Credential) -> None:
    """Raises `NotAllowedByPolicy` unless the calling application may collect the one-time password."""
    if not credential.client_collected_otp:
        raise NotAllowedByPolicy("The credential's approvals have to come from the signer's own channel.")


def _may_activate(activator: Activator, *, at: datetime) -> bool:
    begun = activator.start_time is None or activator.start_time <= at
    over = activator.end_time is not None and activator.end_time <= at
    return activator.state is State.ENABLED and begun and not over
