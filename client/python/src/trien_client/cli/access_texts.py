"""Clients, operators and what is in force for them, for people."""

import hashlib
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from trien_client.cli.operating import block, moment, moment_of, value_name
from trien_client.cli.outcome import plain

if TYPE_CHECKING:
    from trien.v1.access_service_pb2 import Client, Operator, ShowAccessResponse

_WIDTH = 80


def client_text(client: "Client") -> str:
    """Returns a client with all its values."""
    fingerprint = client.certificate_fingerprint.hex()
    return "\n".join(
        [
            block(
                f"{client.name}: {value_name(client, 'state')}",
                ("title", client.display_name),
                ("known by", f"certificate sha256:{fingerprint}" if fingerprint else "a bearer token"),
                ("the one before until", moment_of(client, "previous_expire_time")),
                ("calls a minute", client.calls_per_minute or "no limit of its own"),
                ("items at work", client.concurrent_items or "no limit of its own"),
                ("since", moment(client.create_time)),
            ),
            *_list("for organizations", client.organizations, none="all"),
            *_list("may call", client.methods, none="all that clients may"),
        ]
    )


def client_line(client: "Client") -> str:
    """Returns a client in a list."""
    return plain(f"{client.name}  {value_name(client, 'state')}  {client.display_name}")


def operator_text(operator: "Operator") -> str:
    """Returns an operator with all values."""
    from cryptography.x509 import load_der_x509_certificate

    certificate = load_der_x509_certificate(operator.certificate)
    return "\n".join(
        [
            block(
                f"{operator.name}: {value_name(operator, 'state')}",
                ("person", operator.display_name),
                ("roles", ", ".join(_roles(operator.roles))),
                ("certificate", f"sha256:{hashlib.sha256(operator.certificate).hexdigest()}"),
                ("its subject", certificate.subject.rfc4514_string()),
                ("it ends on", f"{certificate.not_valid_after_utc:%Y-%m-%d}"),
                ("since", moment(operator.create_time)),
            ),
            *(_list("for organizations", operator.organizations, none="all")),
        ]
    )


def operator_line(operator: "Operator") -> str:
    """Returns an operator in a list."""
    return plain(f"{operator.name}  {value_name(operator, 'state')}  {', '.join(_roles(operator.roles))}")


def in_force(access: "ShowAccessResponse") -> str:
    """Returns what is in force for somebody."""
    lines = [plain(f"{access.name}: {'ENABLED' if access.enabled else 'NOT ENABLED'}")]
    if access.roles:
        lines.append(f"  roles: {', '.join(_roles(access.roles))}")
    is_client = access.name.startswith("clients/")
    if is_client:
        lines.append(f"  calls a minute: {access.calls_per_minute or 'no limit of its own'}")
        lines.append(f"  items at work: {access.concurrent_items or 'no limit of its own'}")
    lines += _list("organizations", access.organizations, none="all")
    if not access.name.startswith("signers/"):
        lines += _list("may call now", access.methods, none="nothing")
    if not access.name.startswith("operators/"):
        lines += _credentials(access)
    return "\n".join(lines)


def _credentials(access: "ShowAccessResponse") -> Iterator[str]:
    if not access.credentials:
        yield "  credentials: none"
        return
    yield "  credentials:"
    for found in access.credentials:
        yield plain(f"    {found.credential}: {'can be used' if not found.why_not else 'not now'}")
        yield from textwrap.wrap(
            plain(found.why_not), _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6, break_long_words=False
        )
    if access.more_credentials:
        yield "    … and more, which are not shown"


def _list(label: str, values: Iterable[str], *, none: str) -> list[str]:
    shown = [plain(value) for value in values]
    if not shown:
        return [f"  {label}: {none}"]
    return [f"  {label}:", *(f"    {value}" for value in shown)]


def _roles(roles: Iterable[int]) -> list[str]:
    from trien.v1 import access_service_pb2

    known = access_service_pb2.Role.DESCRIPTOR.values_by_number
    # A newer server may have roles that this program does not know.
    return [known[role].name if role in known else str(role) for role in roles]
