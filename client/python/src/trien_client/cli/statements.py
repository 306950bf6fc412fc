"""Proposals for people: exactly what their statements say, and nothing that the server adds to it."""

import base64
import hashlib
import json
import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate, load_der_x509_certificate, load_pem_x509_certificate
from cryptography.x509.oid import NameOID

from trien_client._errors import VerificationError
from trien_client.cli.operating import moment, value_name
from trien_client.cli.outcome import CommandError, ExitCode, plain
from trien_client.operators import approved_text, sign_approval, verify_approval

if TYPE_CHECKING:
    from trien.v1.proposal_service_pb2 import Proposal

_WIDTH = 80
_UNQUOTED = re.compile(r"[A-Za-z][A-Za-z0-9_:./@-]*|\d{4}-\d\d-\d\dT[0-9:.+-]+", re.ASCII)
_RESTORE = re.compile(r"restores/[0-9a-f]{16}", re.ASCII)
_HOLD_CERTIFICATES = {"certificate", "certificate_chain"}
_WORDS_OF_JSON = {"true", "false", "null"}


def proposed(proposal: "Proposal") -> str:
    """Returns what to print of a proposal that was just made."""
    return "\n".join(
        [
            stated(proposal),
            "",
            f"Nothing is changed yet. Another operator may approve until {moment(proposal.expire_time)}:",
            f"  trien proposals approve {plain(proposal.name)}",
        ]
    )


def line(proposal: "Proposal") -> str:
    """Returns a proposal in a list."""
    state = value_name(proposal, "state")
    until = f" until {moment(proposal.expire_time)}" if state == "PENDING" else ""
    decided = f", decided by {proposal.decider}" if proposal.decider else ""
    return "\n".join(
        [plain(f"{proposal.name}  {state}{until}"), plain(f"  {proposal.method}, by {proposal.proposer}{decided}")]
    )


def stated(proposal: "Proposal") -> str:
    """Returns a proposal's statement in lines for people, with its digest.

    Raises `VerificationError` when the digest or the names are not the statement's, or when it could be read in two
    ways: with a name twice, or otherwise written than the server writes.
    """
    approved_text(proposal)
    statement = json.loads(proposal.statement)
    if json.dumps(statement, ensure_ascii=False, sort_keys=True, separators=(",", ":")) != proposal.statement:
        raise VerificationError("The proposal's statement is not in its one form.")
    try:
        lines = [
            plain(f"{statement['proposal']}: {statement['method']}"),
            *_pair("  proposed by", statement["proposer"]),
            *_pair("  proposed at", statement["createTime"]),
            *_pair("  until", statement["expireTime"]),
            "",
            "What was asked for:",
            *(piece for name, value in statement["request"].items() for piece in _field(name, value, "  ")),
            "",
            "What changes:",
            *(piece for change in statement["changes"] for piece in _change(change)),
            *_remarks(statement.get("remarks", [])),
        ]
        known = {"proposal", "method", "proposer", "createTime", "expireTime", "request", "changes", "remarks"}
        others = sorted(set(statement) - known)
    except (KeyError, TypeError, AttributeError):
        raise VerificationError("The proposal's statement cannot be read.") from None
    if others:
        # Whoever approves signs all of it: what this program does not know must not be hidden.
        lines += ["", "What this program does not know:"]
        lines += [piece for name in others for piece in _field(name, statement[name], "  ")]
    return "\n".join([*lines, "", f"digest sha256:{proposal.digest.hex()}"])


def restore_stated(content: bytes) -> tuple[str, bytes]:
    """Returns a restore's statement in lines for people, and its digest.

    Raises `VerificationError` when it is no such statement, or is not in its one form.
    """
    digest = hashlib.sha256(content).digest()
    statement = _restore_statement(content)
    lines = [
        plain(f"{statement['restore']}: put back a backup and lose what came after it"),
        "",
        *(piece for name in sorted(statement) for piece in _field(name, statement[name], "  ")),
    ]
    return "\n".join([*lines, "", f"digest sha256:{digest.hex()}"]), digest


def restore_approval(content: bytes, *, certificate: bytes, key: bytes) -> str:
    """Returns the approval of a restore's statement, as `trien-server restore --approval` takes it (JSON).

    `certificate` and `key` (PEM) are the officer's. Raises `VerificationError`, `ValueError`.
    """
    digest = hashlib.sha256(content).digest()
    name = _restore_statement(content)["restore"]
    own = load_pem_x509_certificate(certificate)
    signature = sign_approval(key, f"trien.v1 approve {name} sha256:{digest.hex()}\n".encode("ascii"))
    approval = {
        "restore": name,
        "digest": f"sha256:{digest.hex()}",
        "certificate": own.public_bytes(Encoding.PEM).decode("ascii"),
        "signature": base64.b64encode(signature).decode("ascii"),
    }
    return json.dumps(approval, indent=2) + "\n"


def _restore_statement(content: bytes) -> dict[str, Any]:
    try:
        statement = json.loads(content)
        one_form = json.dumps(statement, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        named = statement["statement"] == "trien restore 1" and _RESTORE.fullmatch(statement["restore"])
    except (ValueError, KeyError, TypeError):
        raise VerificationError("The file is no statement of a restore.") from None
    if one_form != content or not named:
        raise VerificationError("The file is no statement of a restore in its one form.")
    return dict(statement)


def ended(proposal: "Proposal") -> str:
    """Returns where a proposal stands that was decided on."""
    state = value_name(proposal, "state")
    decided = ""
    if proposal.decider:
        decided = f" by {proposal.decider} at {moment(proposal.decide_time)}"
    lines = [plain(f"{proposal.name}: {state}{decided}")]
    if state == "OUTDATED":
        lines.append("  What it would change is not what it was, or may not be done now: nothing was done.")
    if state == "EXECUTED":
        lines += [f"  {plain(resource)}" for resource in proposal.resources]
    return "\n".join(lines)


def verified(proposal: "Proposal", certificate: bytes | None) -> dict[str, str]:
    """Verifies a proposal's approval, and that its key is that of `certificate` (PEM) where one is given.

    Returns what it says. Raises `VerificationError`, `CommandError` when it was not approved, `ValueError`.
    """
    if not proposal.approval_signature:
        raise CommandError(f"{plain(proposal.name)} was not approved by anyone.", exit_code=ExitCode.REFUSED)
    verify_approval(proposal)
    shown = load_der_x509_certificate(proposal.approval_certificate)
    if certificate is not None and load_pem_x509_certificate(certificate).public_key() != shown.public_key():
        raise VerificationError("The approval is by another key than that of --approver-certificate.")
    return {
        "proposal": plain(proposal.name),
        "method": plain(proposal.method),
        "proposer": plain(proposal.proposer),
        "approver": plain(proposal.decider),
        "certificate": f"sha256:{hashlib.sha256(proposal.approval_certificate).hexdigest()}",
        "subject": plain(shown.subject.rfc4514_string()),
        "digest": f"sha256:{proposal.digest.hex()}",
        "state": value_name(proposal, "state"),
    }


def _change(change: dict[str, Any]) -> Iterator[str]:
    version = change["version"]
    which = "new" if version == 1 else f"version {version - 1} becomes {version}"
    yield plain(f"  {change['record']} ({which})")
    for name, both in change["fields"].items():
        if version == 1:
            yield from _field(name, both["after"], "    ")
        else:
            yield from _wrapped(f"    {name}: ", f"{_value(both['before'])} -> {_value(both['after'])}")
    if not change["fields"]:
        yield "    no field that is shown"
    unknown = {name: change[name] for name in sorted(set(change) - {"record", "version", "fields"})}
    for name, value in unknown.items():
        yield from _field(name, value, "    ")


def _remarks(remarks: list[str]) -> Iterator[str]:
    """Yields what follows from the change, in the server's words."""
    if remarks:
        yield ""
        yield "What follows:"
        for remark in remarks:
            yield from _wrapped("  ", plain(str(remark)))


def _certificates(value: Any) -> list[Certificate]:
    """Returns the certificates that a value is made of (DER in base64, one or a list); none when it is not."""
    values = value if isinstance(value, list) else [value]
    try:
        return [load_der_x509_certificate(base64.b64decode(one, validate=True)) for one in values]
    except (ValueError, TypeError):
        return []


def _certificate(certificate: Certificate, indent: str) -> Iterator[str]:
    """Yields what a certificate says, read here, and the SHA-256 of its DER, which stands for the whole of it."""
    yield from _wrapped(f"{indent}sha256:", certificate.fingerprint(SHA256()).hex())
    yield from _wrapped(f"{indent}  of: ", _value(certificate.subject.rfc4514_string({NameOID.TITLE: "title"})))
    yield from _wrapped(f"{indent}  by: ", _value(certificate.issuer.rfc4514_string({NameOID.TITLE: "title"})))
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    yield f"{indent}  valid: {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"


def _field(name: str, value: Any, indent: str) -> Iterator[str]:
    """Yields lines of one field: nested values below it, each with its own name or place."""
    if name in _HOLD_CERTIFICATES and (certificates := _certificates(value)):
        yield f"{indent}{plain(name)}:"
        for certificate in certificates:
            yield from _certificate(certificate, f"{indent}  ")
    elif isinstance(value, dict) and value:
        yield f"{indent}{plain(name)}:"
        for inner, one in value.items():
            yield from _field(inner, one, f"{indent}  ")
    elif isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
        yield f"{indent}{plain(name)}:"
        for place, one in enumerate(value, 1):
            yield from _field(f"{place}", one, f"{indent}  ")
    else:
        yield from _wrapped(f"{indent}{plain(name)}: ", _value(value))


def _pair(label: str, value: str) -> Iterator[str]:
    yield from _wrapped(f"{label}: ", _value(value))


def _value(value: Any) -> str:
    """Returns a value so that no two values look alike: texts in quotes, unless they are names, states or times."""
    if isinstance(value, str) and _UNQUOTED.fullmatch(value) and value not in _WORDS_OF_JSON:
        return value
    if isinstance(value, list):
        return f"[{', '.join(_value(one) for one in value)}]"
    return "".join(
        # What does not print, or turns the direction of writing, is shown as its code.
        character if character.isprintable() else _code(character)
        for character in json.dumps(value, ensure_ascii=False)
    )


def _code(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def _wrapped(label: str, value: str) -> list[str]:
    """Returns a label and a value in lines of 80 columns; nothing is left out."""
    pieces = textwrap.wrap(
        value,
        width=_WIDTH,
        initial_indent=label,
        subsequent_indent=" " * (len(label) - len(label.lstrip()) + 4),
        break_on_hyphens=False,
        drop_whitespace=False,
    )
    return pieces or [label.rstrip()]
