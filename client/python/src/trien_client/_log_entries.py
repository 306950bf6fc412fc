"""Exported entries: what is told of an entry, against the leaf that the log commits to."""

import json
from dataclasses import dataclass
from datetime import datetime

from trien_client._errors import ProofNotValid
from trien_client._log_leaves import Leaf, commit_details, commit_head, items_root
from trien_client._log_notes import decode_base64

_SIGNING_KINDS = frozenset({"signing_granted", "signing_resumed"})


@dataclass(frozen=True, kw_only=True)
class OpenedEntry:
    """An exported entry. `fault` says in what it is not what its leaf commits to; None when it is."""

    position: int
    name: str
    leaf: bytes
    erased: bool
    fault: str | None


def open_entry(line: str) -> OpenedEntry:
    """Reads a line of JSON and opens the entry's leaf with its salts. Raises `ProofNotValid` when it is malformed."""
    try:
        content = json.loads(line)
        entry = _Entry(
            name=_text(content["name"]),
            position=_number(content["position"]),
            time=datetime.fromisoformat(_text(content["time"])),
            kind=_text(content["kind"]),
            subject=None if content["subject"] is None else _text(content["subject"]),
            subject_version=None if content["subject_version"] is None else _number(content["subject_version"]),
            details=_text(content["details"]),
            leaf=decode_base64(_text(content["leaf"])),
            head_salt=decode_base64(_text(content["head_salt"])),
            salt=decode_base64(_text(content["salt"])),
            items_root=decode_base64(_text(content["items_root"])),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as fault:
        raise ProofNotValid(f"It is not an exported entry ({type(fault).__name__}).") from None
    if entry.time.tzinfo is None:
        raise ProofNotValid("The entry's time has no time zone.")
    return OpenedEntry(
        position=entry.position,
        name=entry.name,
        leaf=entry.leaf,
        erased=entry.erased,
        fault=entry.fault(),
    )


@dataclass(frozen=True, kw_only=True)
class _Entry:
    name: str
    position: int
    time: datetime
    kind: str
    subject: str | None
    subject_version: int | None
    details: str
    leaf: bytes
    head_salt: bytes
    salt: bytes
    items_root: bytes

    @property
    def erased(self) -> bool:
        return not self.salt and not self.details

    def fault(self) -> str | None:
        try:
            leaf = Leaf.parse(self.leaf)
        except ProofNotValid as fault:
            return str(fault)
        head = commit_head(self.head_salt, self.time, self.kind, self.subject, self.subject_version)
        if leaf.name != self.name:
            return "Its name is not the one that the log commits to."
        if leaf.head_commitment != head:
            return "Its time, kind or subject is not what the log commits to."
        if leaf.items_root != self.items_root:
            return "The root over its digests is not the one that the log commits to."
        if self.erased:
            return None
        if leaf.details_commitment != commit_details(self.salt, self.details):
            return "Its details are not what the log commits to."
        if self.kind in _SIGNING_KINDS and self.items_root != items_root(self.salt, self._digests()):
            return "Its digests are not those that the log commits to."
        return None

    def _digests(self) -> list[bytes]:
        try:
            return [bytes.fromhex(digest) for digest in json.loads(self.details)["digests"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            return []


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    value.encode()
    return value


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise TypeError("a number was expected")
    return value
