"""Audit entries and their Merkle leaves (RFC 6962, section 2.1)."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime

from trien_server.core.encoding import encode_all, encode_value
from trien_server.core.records import AuditEntry

LEAF_VERSION = 2
_COMMITMENT_SIZE = hashlib.sha256().digest_size


def commit_head(
    head_salt: bytes, *, time: datetime, kind: str, subject: str | None, subject_version: int | None
) -> bytes:
    """Returns the salted commitment to an entry's head: SHA-256 over both, length-prefixed."""
    return hashlib.sha256(encode_all("trien/audit-head", [head_salt, time, kind, subject, subject_version])).digest()


def commit_details(salt: bytes, details: str) -> bytes:
    """Returns the salted commitment to an entry's details: SHA-256 over both, length-prefixed."""
    return hashlib.sha256(encode_all("trien/audit-details", [salt, details])).digest()


def encode_leaf(*, name: str, head_commitment: bytes, details_commitment: bytes, items_root: bytes) -> bytes:
    """Returns the canonical bytes that the log commits to. They tell nothing of persons, documents or what happened."""
    return encode_all("trien/audit-leaf", [LEAF_VERSION, name, head_commitment, details_commitment, items_root])


def committed_details(entry: AuditEntry) -> bytes:
    """Returns the commitment to an entry's details as its leaf has it, also when the details were erased.

    Raises `ValueError` when the leaf is not that of the entry's name, head and items.
    """
    end = len(entry.leaf) - len(encode_value(entry.items_root))
    found = entry.leaf[max(end - _COMMITMENT_SIZE, 0) : end]
    if entry.leaf != _leaf_with(entry, found):
        raise ValueError(f"the leaf of {entry.name} is not that of its head and items")
    return found


def leaf_of(entry: AuditEntry) -> bytes:
    """Returns the leaf that an entry's head, details and items come to. Its details are not erased."""
    return _leaf_with(entry, commit_details(entry.salt, entry.details))


def _leaf_with(entry: AuditEntry, details_commitment: bytes) -> bytes:
    return encode_leaf(
        name=entry.name,
        head_commitment=commit_head(
            entry.head_salt,
            time=entry.time,
            kind=entry.kind,
            subject=entry.subject,
            subject_version=entry.subject_version,
        ),
        details_commitment=details_commitment,
        items_root=entry.items_root,
    )


def make_entry(
    *,
    name: str,
    time: datetime,
    kind: str,
    details: Mapping[str, object],
    head_salt: bytes,
    salt: bytes,
    items_root: bytes = b"",
    subject: str | None = None,
    subject_version: int | None = None,
) -> AuditEntry:
    """Returns an entry whose leaf commits to its head, its details and the digests under `items_root`.

    `head_salt` are 16 random bytes, `salt` 32; without them nobody can test a guess at what they hide.
    """
    text = json.dumps(dict(details), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    entry = AuditEntry(
        name=name,
        time=time,
        kind=kind,
        subject=subject,
        subject_version=subject_version,
        leaf=b"",
        head_salt=head_salt,
        salt=salt,
        details=text,
        items_root=items_root,
    )
    return dataclasses.replace(entry, leaf=leaf_of(entry))
