"""Audit entries as people read them at a terminal, which none of their texts commands."""

import json
import textwrap
from typing import TYPE_CHECKING, Any

from trien_client.audit_lines import entry_fields, entry_time
from trien_client.cli.outcome import plain

if TYPE_CHECKING:
    from trien.v1.audit_service_pb2 import AuditEntry

WIDTH = 80
_INDENT = " " * 10
_MOST_LINES = 4
_FIRST = ("reason", "signer", "approver", "actor", "client", "credential", "items", "proposer")
_LEFT_TO_SHOW = frozenset(
    {
        "action",
        "algorithm",
        "approval",
        "assurance",
        "authenticator",
        "authorization",
        "certificate",
        "credentialVersion",
        "digests",
        "itemKind",
        "key",
        "pssSaltLength",
        "record",
        "request",
        "signedDigests",
    }
)
"""What `show` alone prints."""


def fields(entry: "AuditEntry") -> dict[str, Any]:
    """Returns an entry as JSON can hold it."""
    return entry_fields(entry)


def as_json(value: object) -> str:
    """Returns JSON in which every character that a terminal might obey, or that cannot be seen, is escaped."""
    return _escaped(json.dumps(value, ensure_ascii=False, indent=2))


def json_line(entry: "AuditEntry") -> str:
    """Returns an entry as one line of JSON, escaped alike."""
    return _escaped(json.dumps(fields(entry), ensure_ascii=False, separators=(",", ":")))


def lines(entry: "AuditEntry") -> str:
    """Returns an entry in lines of at most 80 columns: position, time and kind, its name, and what it is about."""
    position = str(entry.position) if entry.HasField("position") else "-"
    head = f"{position:>8}  {_local(entry)}  {entry.kind}"
    body = [plain(entry.name)]
    if entry.subject:
        body.append(plain(f"{entry.subject} version {entry.subject_version}"))
    body += _summary(entry)
    return "\n".join(_cut(plain(line)) for line in [head, *(f"{_INDENT}{line}" for line in body)])


def whole(entry: "AuditEntry") -> str:
    """Returns an entry with all that is in it."""
    labelled = [
        ("position", str(entry.position) if entry.HasField("position") else "none yet"),
        ("time", f"{entry_time(entry.time)} ({_local(entry)})"),
        ("kind", entry.kind),
        ("subject", f"{entry.subject} version {entry.subject_version}" if entry.subject else ""),
        ("leaf", entry.leaf.hex()),
        ("head salt", entry.head_salt.hex()),
        ("salt", entry.salt.hex()),
        ("items root", entry.items_root.hex()),
    ]
    shown = [plain(entry.name)]
    for label, value in labelled:
        if value:
            parts = textwrap.wrap(plain(value), WIDTH - 14)
            shown += [f"  {label + ':' if number == 0 else '':11} {part}" for number, part in enumerate(parts)]
    shown.append("  details:" if entry.details else "  details:    erased")
    shown += [f"    {plain(line)}" for line in _details_lines(entry)]
    return "\n".join(shown)


def _local(entry: "AuditEntry") -> str:
    from datetime import UTC

    local = entry.time.ToDatetime(tzinfo=UTC).astimezone()
    offset = local.strftime("%z")
    return f"{local:%Y-%m-%d %H:%M:%S} {offset[:3]}:{offset[3:5]}"


def _summary(entry: "AuditEntry") -> list[str]:
    if not entry.details:
        return ["details erased"]
    details = _parsed(entry)
    if not isinstance(details, dict):
        return [str(entry.details)]
    ordered = [name for name in _FIRST if name in details]
    ordered += [name for name in details if name not in _FIRST and name not in _LEFT_TO_SHOW]
    packed = _packed([part for name in ordered if (part := _part(name, details[name]))])
    return packed if len(packed) <= _MOST_LINES else [*packed[: _MOST_LINES - 1], "…"]


def _packed(parts: list[str]) -> list[str]:
    """Puts as many parts in each line as there is room for."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 2 + len(part) <= WIDTH - len(_INDENT):
            lines[-1] += f"; {part}"
        else:
            lines.append(part)
    return lines


def _part(name: str, value: object) -> str:
    match value:
        case None | "" | [] | {}:
            return ""
        case list() if len(value) == 1 and isinstance(value[0], str):
            return f"{name} {_short(value[0])}"
        case list() | dict():
            return f"{name} ({len(value)})"
        case _:
            return f"{name} {_short(str(value))}"


def _short(text: str) -> str:
    return text if len(text) <= 48 else f"{text[:47]}…"


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def _details_lines(entry: "AuditEntry") -> list[str]:
    if not entry.details:
        return []
    return _escaped(json.dumps(_parsed(entry), ensure_ascii=False, indent=2)).splitlines()


def _parsed(entry: "AuditEntry") -> Any:
    try:
        return json.loads(entry.details)
    except ValueError:
        return entry.details


def _escaped(text: str) -> str:
    return "".join(one if one.isprintable() or one == "\n" else _escape(one) for one in text)


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1]
