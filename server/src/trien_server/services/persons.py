"""How a person is reached, and which application may act for a person."""

from collections.abc import Iterable
from dataclasses import dataclass

from trien_server.core.errors import PermissionDenied
from trien_server.core.principal import Principal
from trien_server.core.records import (
    DELIVERED_KINDS,
    Activator,
    Authenticator,
    AuthenticatorKind,
    Client,
    Credential,
    CredentialClient,
    Signer,
    SignerKind,
    State,
)
from trien_server.services.access import credential_client_name, require_client, require_organization
from trien_server.services.trusted import TrustedView


@dataclass(frozen=True, kw_only=True)
class Channel:
    """Where a person can be told something: `kind` is the carrier, EMAIL or SMS."""

    kind: AuthenticatorKind
    address: str


def contact_channels(signer: Signer) -> tuple[Channel, ...]:
    """Returns the person's own addresses, mail first."""
    found = ((AuthenticatorKind.EMAIL, signer.email), (AuthenticatorKind.SMS, signer.phone))
    return tuple(Channel(kind=kind, address=address) for kind, address in found if address)


def known_channels(signer: Signer, authenticators: Iterable[Authenticator]) -> tuple[Channel, ...]:
    """Returns every address at which the person may be told something: also those of disabled authenticators."""
    codes = (
        Channel(kind=authenticator.kind, address=authenticator.address)
        for authenticator in authenticators
        if authenticator.kind in DELIVERED_KINDS
    )
    return tuple(dict.fromkeys((*contact_channels(signer), *codes)))


def require_person_of(view: TrustedView, principal: Principal, method: str, name: str) -> tuple[Client, Signer]:
    """Returns the calling client and a person for whom it may ask for signatures, by a method that it may call.

    Raises `PermissionDenied` when there is no such person or the client has nothing to do with this one: alike (P11),
    and so that no application can try codes of people who do not use it.
    """
    client = require_client(view, principal, method)
    person = view.get(Signer, name)
    if person is None or person.kind is not SignerKind.PERSON:
        raise PermissionDenied
    require_organization(view, client, person.organization)
    own = (credential.name for credential in view.find(Credential, signer=name))
    activated = (activator.credential for activator in view.find(Activator, signer=name))
    for credential in (*own, *activated):
        grant = view.get(CredentialClient, credential_client_name(credential, client.name))
        if grant is not None and grant.state is State.ENABLED:
            return client, person
    raise PermissionDenied
