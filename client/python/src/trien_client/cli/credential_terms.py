"""What officers ask of a credential in options, as the messages of the API."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from trien.v1 import credential_service_pb2, signer_service_pb2

from trien_client.cli import options
from trien_client.cli.outcome import CommandError

if TYPE_CHECKING:
    from trien_client.cli.credential_administration import Kind, StatusPolicy


@dataclass(frozen=True)
class Terms:
    """A title and a policy: None, and empty lists, for what is not said."""

    title: str | None
    max_items: int | None
    application_otp: bool | None
    kinds: "list[Kind]"
    hours: list[str]
    status: "StatusPolicy | None"
    any_kind: bool = False
    any_hours: bool = False


def apply(credential: credential_service_pb2.Credential, terms: Terms) -> None:
    """Sets what is said. Raises `CommandError` for two that contradict each other."""
    if (terms.kinds and terms.any_kind) or (terms.hours and terms.any_hours):
        raise CommandError("Give either --kind or --any-kind, and either --hours or --any-hours.")
    if terms.title is not None:
        credential.display_name = terms.title
    if terms.max_items is not None:
        credential.max_items = terms.max_items
    if terms.application_otp is not None:
        credential.client_collected_otp_allowed = terms.application_otp
    if terms.kinds or terms.any_kind:
        del credential.authenticator_kinds[:]
        credential.authenticator_kinds.extend(
            signer_service_pb2.Authenticator.Kind.Value(kind.name) for kind in terms.kinds
        )
    if terms.hours or terms.any_hours:
        del credential.hours[:]
        credential.hours.extend(terms.hours)
    if terms.status is not None:
        credential.revocation_policy = credential_service_pb2.Credential.RevocationPolicy.Value(terms.status.name)


def changed(
    present: credential_service_pb2.Credential,
    terms: Terms,
    activators: Sequence[str],
    without_activators: Sequence[str],
    clients: Sequence[str],
    without_clients: Sequence[str],
) -> credential_service_pb2.Credential:
    """Returns what a credential is to have: what it has, with what is said. Raises `CommandError`."""
    added = {activator.signer: activator for activator in activators_of(activators)}
    removed = {options.full_name("signers", one) for one in without_activators}
    shut_out = {options.full_name("clients", one) for one in without_clients}
    _require_held(removed, {activator.signer for activator in present.activators}, "activate it")
    _require_held(shut_out, set(present.clients), "ask for it")
    wanted = credential_service_pb2.Credential(
        name=present.name,
        display_name=present.display_name,
        max_items=present.max_items,
        client_collected_otp_allowed=present.client_collected_otp_allowed,
        authenticator_kinds=present.authenticator_kinds,
        hours=present.hours,
        revocation_policy=present.revocation_policy,
        activators=[added.pop(one.signer, one) for one in present.activators if one.signer not in removed],
        clients=[client for client in present.clients if client not in shut_out],
    )
    wanted.activators.extend(added.values())
    wanted.clients.extend(
        client for one in clients if (client := options.full_name("clients", one)) not in set(wanted.clients)
    )
    apply(wanted, terms)
    return wanted


def activators_of(texts: Sequence[str]) -> list[credential_service_pb2.Activator]:
    """Returns persons with their times: `nguyen-thi-hoa`, or `nguyen-thi-hoa@2026-12-01..2027-02-01`.

    A day begins at midnight by this computer's clock; either end may be left out. Raises `CommandError`.
    """
    activators = []
    for text in texts:
        name, at, span = text.partition("@")
        begin, dots, end = span.partition("..")
        if at and not (dots and (begin or end)):
            raise CommandError(
                f"{text!r}: expected times such as {name}@2026-12-01..2027-02-01, either may be left out."
            )
        activator = credential_service_pb2.Activator(signer=options.full_name("signers", name))
        if begin:
            activator.start_time.FromDatetime(_time(begin))
        if end:
            activator.end_time.FromDatetime(_time(end))
        activators.append(activator)
    return activators


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise CommandError(f"{text!r} is no day or time such as 2026-12-01 or 2026-12-01T07:00.") from None


def _require_held(names: set[str], held: set[str], what: str) -> None:
    for name in sorted(names - held):
        raise CommandError(f"{name} may not {what} now; those who may: {', '.join(sorted(held)) or 'nobody'}.")
