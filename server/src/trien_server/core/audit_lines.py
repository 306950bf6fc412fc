"""Audit entries as they leave the server: lines of JSON (RFC 8259) and syslog messages (RFC 5424)."""

import base64
import hashlib
import json
import re
from datetime import UTC, datetime

from trien_server.core.merkle import hash_leaf
from trien_server.core.records import AuditEntry

STRUCTURED_DATA_ID = "trienAudit@32473"
"""32473 is the enterprise number that RFC 5612 keeps for documentation: an installation may ask for its own."""
LONGEST_MESSAGE = 8192
"""What every receiver should take (RFC 5424, section 6.1; RFC 5425, section 4.3.1)."""

_LOG_AUDIT = 13
_WARNING, _NOTICE, _INFORMATIONAL = 4, 5, 6
_WARNINGS = frozenset({"refused", "enrolment_code_rejected", "key_generation_failed", "signer_frozen"})
_ROUTINE = frozenset(
    {
        "authorization_created",
        "authorization_denied",
        "authorizations_approved",
        "challenge_created",
        "code_made",
        "enrolment_told",
        "resealed",
        "signature_uses_read",
        "signing_granted",
        "signing_request_granted",
        "signing_resumed",
    }
)
_LONGEST_VALUE = 500
"""The names of resources are shorter: only a row that somebody put there has a longer one."""
_BOM = b"\xef\xbb\xbf"
_NOT_MSGID = re.compile(r"[^!-~]", re.ASCII)
_TO_ESCAPE = re.compile(r'(["\\\]])')
_ESCAPED = r"\\\1"


def json_line(position: int, entry: AuditEntry) -> bytes:
    """Returns an entry as one line of JSON, with all that its leaf is made of."""
    content = {
        "name": entry.name,
        "position": position,
        "time": _time(entry.time),
        "kind": entry.kind,
        "subject": entry.subject,
        "subject_version": entry.subject_version,
        "details": entry.details,
        "leaf": _base64(entry.leaf),
        "head_salt": _base64(entry.head_salt),
        "salt": _base64(entry.salt),
        "items_root": _base64(entry.items_root),
    }
    return _printable(json.dumps(content, ensure_ascii=False, separators=(",", ":"))).encode() + b"\n"


def syslog_message(position: int, entry: AuditEntry, *, hostname: str) -> bytes:
    """Returns an entry as a syslog message of at most `LONGEST_MESSAGE` bytes; what its text is cut to, it says.

    `hostname` is what stands for the server, printable ASCII; "" when that is not known. The message has the hash of
    the entry's leaf, by which it is found in the log, and no salts. Whatever a row holds, it is one line.
    """
    text = _printable(entry.details).encode()
    head = _head(position, entry, hostname, cut=None)
    room = LONGEST_MESSAGE - len(head) - len(_BOM)
    if len(text) > room:
        head = _head(position, entry, hostname, cut=len(entry.details.encode()))
        # A character that was cut through is left out whole.
        text = text[: LONGEST_MESSAGE - len(head) - len(_BOM)].decode(errors="ignore").encode()
    return head + _BOM + text


def _head(position: int, entry: AuditEntry, hostname: str, *, cut: int | None) -> bytes:
    priority = 8 * _LOG_AUDIT + _severity(entry.kind)
    parameters = {"position": str(position), "name": entry.name, "leafHash": hash_leaf(entry.leaf).hex()}
    if entry.subject is not None:
        parameters["subject"] = entry.subject
        parameters["subjectVersion"] = str(entry.subject_version)
    if not entry.details:
        parameters["erased"] = "true"
    if cut is not None:
        parameters["detailsLength"] = str(cut)
        parameters["detailsHash"] = hashlib.sha256(entry.details.encode()).hexdigest()
    shown = {name: _printable(value)[:_LONGEST_VALUE] for name, value in parameters.items()}
    data = " ".join(f'{name}="{_TO_ESCAPE.sub(_ESCAPED, value)}"' for name, value in shown.items())
    message_id = _NOT_MSGID.sub("?", entry.kind)[:32] or "-"
    host = _NOT_MSGID.sub("?", hostname)[:255] or "-"
    return f"<{priority}>1 {_time(entry.time)} {host} trien - {message_id} [{STRUCTURED_DATA_ID} {data}] ".encode()


def _printable(text: str) -> str:
    """Returns a text with what cannot be seen, ends a line or commands a terminal escaped as JSON has it."""
    return text if text.isprintable() else "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _severity(kind: str) -> int:
    if kind in _WARNINGS:
        return _WARNING
    return _INFORMATIONAL if kind in _ROUTINE else _NOTICE


def _time(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
