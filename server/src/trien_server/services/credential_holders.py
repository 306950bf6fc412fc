"""Who may do what with a credential: the persons who activate it and the clients that ask, as rows to put in force."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from trien_server.core.errors import InvalidArgument
from trien_server.core.records import Activator, Client, CredentialClient, Signer, SignerKind, State
from trien_server.services.access import activator_name, credential_client_name
from trien_server.services.transactions import next_version
from trien_server.services.trusted import TrustedView

MOST_HOLDERS = 100
"""How many persons may activate a credential, and how many clients may ask for it."""


@dataclass(frozen=True, kw_only=True)
class Entitlement:
    """A person who is to activate the credential, and when."""

    signer: str
    start_time: datetime | None = None
    end_time: datetime | None = None

    def within(self, other: "Entitlement") -> bool:
        """Tells whether it begins no earlier and ends no later than another."""
        starts = other.start_time is None or (self.start_time is not None and self.start_time >= other.start_time)
        ends = other.end_time is None or (self.end_time is not None and self.end_time <= other.end_time)
        return starts and ends


def entitlement_of(activator: Activator) -> Entitlement:
    """Returns what a row says."""
    return Entitlement(signer=activator.signer, start_time=activator.start_time, end_time=activator.end_time)


def check_activators(view: TrustedView, owner: str, wanted: Sequence[Entitlement]) -> tuple[Entitlement, ...]:
    """Returns who is to activate a signer's credential: for a person's that person alone, also when nobody is named.

    Raises `InvalidArgument` that names the first fault.
    """
    signer = view.get(Signer, owner)
    if signer is None:
        raise InvalidArgument("credential.signer", "there is no such signer")
    if signer.kind is SignerKind.PERSON:
        wanted = wanted or (Entitlement(signer=owner),)
        if [entitlement.signer for entitlement in wanted] != [owner]:
            raise InvalidArgument("credential.activators", "a person's credential is activated by that person alone")
    if len(wanted) > MOST_HOLDERS:
        raise InvalidArgument("credential.activators", f"expected at most {MOST_HOLDERS} persons")
    if len({entitlement.signer for entitlement in wanted}) != len(wanted):
        raise InvalidArgument("credential.activators", "a person is named twice")
    for position, entitlement in enumerate(wanted):
        person = view.get(Signer, entitlement.signer)
        if person is None or person.kind is not SignerKind.PERSON:
            raise InvalidArgument(f"credential.activators[{position}].signer", "there is no such person")
        start, end = entitlement.start_time, entitlement.end_time
        if start is not None and end is not None and end <= start:
            raise InvalidArgument(f"credential.activators[{position}].end_time", "expected a time behind the start")
    return tuple(wanted)


def check_clients(view: TrustedView, wanted: Sequence[str]) -> None:
    """Raises `InvalidArgument` unless each client exists and is named once."""
    if len(wanted) > MOST_HOLDERS:
        raise InvalidArgument("credential.clients", f"expected at most {MOST_HOLDERS} clients")
    if len(set(wanted)) != len(wanted):
        raise InvalidArgument("credential.clients", "a client is named twice")
    for position, client in enumerate(wanted):
        if view.get(Client, client) is None:
            raise InvalidArgument(f"credential.clients[{position}]", "there is no such client")


def activator_rows(view: TrustedView, credential: str, wanted: Iterable[Entitlement]) -> list[Activator]:
    """Returns the rows that change when these persons, and no others, are to activate a credential.

    Rows are never deleted: those of persons who are taken away become DISABLED, and who comes back gets the same row.
    """
    left = {row.signer: row for row in activators_of(view, credential)}
    rows = []
    for entitlement in wanted:
        held = left.pop(entitlement.signer, None)
        if held is not None and entitlement_of(held) == entitlement:
            continue
        before = held or view.get(Activator, activator_name(credential, entitlement.signer))
        rows.append(
            Activator(
                name=activator_name(credential, entitlement.signer),
                version=1 if before is None else before.version + 1,
                credential=credential,
                signer=entitlement.signer,
                start_time=entitlement.start_time,
                end_time=entitlement.end_time,
            )
        )
    return rows + [next_version(row, state=State.DISABLED) for row in left.values()]


def client_rows(view: TrustedView, credential: str, wanted: Iterable[str]) -> list[CredentialClient]:
    """Returns the rows that change when these clients, and no others, may ask for a credential."""
    left = {row.client: row for row in clients_of(view, credential)}
    rows = []
    for client in wanted:
        if left.pop(client, None) is not None:
            continue
        name = credential_client_name(credential, client)
        before = view.get(CredentialClient, name)
        version = 1 if before is None else before.version + 1
        rows.append(CredentialClient(name=name, version=version, credential=credential, client=client))
    return rows + [next_version(row, state=State.DISABLED) for row in left.values()]


def activators_of(view: TrustedView, credential: str) -> list[Activator]:
    """Returns who may activate a credential, at whatever time."""
    return view.find(Activator, credential=credential, state=State.ENABLED)


def clients_of(view: TrustedView, credential: str) -> list[CredentialClient]:
    """Returns which clients may ask for a credential."""
    return view.find(CredentialClient, credential=credential, state=State.ENABLED)
