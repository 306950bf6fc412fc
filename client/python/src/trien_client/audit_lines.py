"""Audit entries as files and other programs take them: lines of JSON (RFC 8259) and syslog messages (RFC 5424).

They are the lines that a server with `[audit_file]` or `[syslog]` writes, byte for byte.
"""

import base64
import hashlib
import json
import re
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp
    from trien.v1.audit_service_pb2 import AuditEntry

STRUCTURED_DATA_ID: Final = "trienAudit@32473"
LONGEST_MESSAGE: Final = 8192

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


def entry_fields(entry: "AuditEntry") -> dict[str, Any]:
    """Returns an entry as JSON can hold it: bytes as base64, what is absent as None, the time to the microsecond."""
    return {
        "name": entry.name,
        "position": entry.position if entry.HasField("position") else None,
        "time": entry_time(entry.time),
        "kind": entry.kind,
        "subject": entry.subject or None,
        "subject_version": entry.subject_version or None,
        "details": entry.details,
        "leaf": base64.b64encode(entry.leaf).decode(),
        "head_salt": base64.b64encode(entry.head_salt).decode(),
        "salt": base64.b64encode(entry.salt).decode(),
        "items_root": base64.b64encode(entry.items_root).decode(),
    }


def json_line(entry: "AuditEntry") -> bytes:
    """Returns an entry as one line of JSON, with all that its leaf is made of."""
    return _printable(json.dumps(entry_fields(entry), ensure_ascii=False, separators=(",", ":"))).encode() + b"\n"


def syslog_message(entry: "AuditEntry", *, hostname: str = "") -> bytes:
    """Returns an entry as a syslog message of at most `LONGEST_MESSAGE` bytes; what its text is cut to, it says."""
    text = _printable(entry.details).encode()
    head = _head(entry, hostname, cut=None)
    if len(text) > LONGEST_MESSAGE - len(head) - len(_BOM):
        head = _head(entry, hostname, cut=len(entry.details.encode()))
        text = text[: LONGEST_MESSAGE - len(head) - len(_BOM)].decode(errors="ignore").encode()
    return head + _BOM + text


def entry_time(time: "Timestamp") -> str:
    """Returns a time in UTC as the log has it: `2026-11-24T15:51:07.123456Z`."""
    return time.ToDatetime(tzinfo=UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _printable(text: str) -> str:
    """Returns a text with what cannot be seen, ends a line or commands a terminal escaped as JSON has it."""
    return text if text.isprintable() else "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _head(entry: "AuditEntry", hostname: str, *, cut: int | None) -> bytes:
    severity = 4 if entry.kind in _WARNINGS else 6 if entry.kind in _ROUTINE else 5
    parameters = {
        "position": str(entry.position),
        "name": entry.name,
        "leafHash": hashlib.sha256(b"\x00" + entry.leaf).hexdigest(),
    }
    if entry.subject:
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
    prefix = f"<{8 * 13 + severity}>1 {entry_time(entry.time)} {host} trien - {message_id}"
    return f"{prefix} [{STRUCTURED_DATA_ID} {data}] ".encode()
