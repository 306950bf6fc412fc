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
    Key,
    KeyPurpose,
    KeyState,
    Operator,
    Signer,
    State,
)
from trien_server.services.trusted import TrustedView


def require_client(view: TrustedView, principal: Principal) -> str:
    """Returns the calling client's name, checked again in this view. Raises `PermissionDenied`."""
    if principal.client is not None:
        client = view.get(Client, principal.client)
        if client is not None and client.state is State.ENABLED:
            return client.name
    raise PermissionDenied


def require_operator(view: TrustedView, principal: Principal) -> str:
    """Returns the calling operator's name, checked again in this view. Raises `PermissionDenied`."""
    if principal.kind is PrincipalKind.OPERATOR:
        operator = view.get(Operator, principal.name)
        if operator is not None and operator.state is State.ENABLED:
            return operator.name
    raise PermissionDenied


def credential_client_name(credential: str, client: str) -> str:
    """Returns the name of the record that lets a client ask for a credential."""
    return f"{credential}/{client}"


def activator_name(credential: str, signer: str) -> str:
    """Returns the name of the record that lets a person activate a credential."""
    return f"{credential}/{signer}"


def require_credential(view: TrustedView, principal: Principal, name: str) -> Credential:
    """Returns a credential that the calling client may ask for.

    Raises `PermissionDenied` when there is none, or it is not for this client: alike (P11).
    """
    client = require_client(view, principal)
    grant = view.get(CredentialClient, credential_client_name(name, client))
    if grant is None or grant.state is not State.ENABLED:
        raise PermissionDenied
    credential = view.get(Credential, name)
    if credential is None:
        raise PermissionDenied
    return credential


@dataclass(frozen=True, kw_only=True)
class UsableCredential:
    """A credential whose key may sign now."""

    credential: Credential
    key: Key
    signer: Signer

    @property
    def reference(self) -> KeyReference:
        return KeyReference(object_id=self.key.object_id, key_type=self.key.key_type, public_key=self.key.public_key)


def require_usable(view: TrustedView, credential: Credential, *, at: datetime) -> UsableCredential:
    """Returns the credential with its key and signer.

    Raises `CredentialDisabled` unless all three are enabled and the key is for signing,
    `CertificateNotValid` by the chain's dates.
    """
    key = view.require(Key, credential.key)
    signer = view.require(Signer, credential.signer)
    if credential.state is not State.ENABLED or signer.state is not State.ENABLED:
        raise CredentialDisabled("The credential or its signer is not enabled.")
    if key.state is not KeyState.ENABLED or key.purpose is not KeyPurpose.SIGNING:
        raise CredentialDisabled("The credential's key is not enabled.")
    assert_valid_at(credential.certificate_chain, at)
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
        raise PermissionDenied
    person = view.require(Signer, wanted)
    if person.state is not State.ENABLED:
        raise PermissionDenied
    return wanted


def require_client_collected_otp(credential: Credential) -> None:
    """Raises `NotAllowedByPolicy` unless the calling application may collect the one-time password."""
    if not credential.client_collected_otp:
        raise NotAllowedByPolicy("The credential's approvals have to come from the signer's own channel.")


def _may_activate(activator: Activator, *, at: datetime) -> bool:
    begun = activator.start_time is None or activator.start_time <= at
    over = activator.end_time is not None and activator.end_time <= at
    return activator.state is State.ENABLED and begun and not over
