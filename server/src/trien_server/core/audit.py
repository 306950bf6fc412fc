"""Audit entries and their Merkle leaves (RFC 6962, section 2.1)."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime

from trien_server.core.encoding import encode_all
from trien_server.core.records import AuditEntry

LEAF_VERSION = 1


def commitment(salt: bytes, details: str) -> bytes:
    """Returns the salted commitment to an entry's details: SHA-256 over both, length-prefixed."""
    return hashlib.sha256(encode_all("trien/audit-details", [salt, details])).digest()


def encode_leaf(*, name: str, time: datetime, kind: str, details_commitment: bytes) -> bytes:
    """Returns the canonical bytes that the log commits to. They tell nothing of persons or documents."""
    return encode_all("trien/audit-leaf", [LEAF_VERSION, name, time, kind, details_commitment])


def leaf_hash(leaf: bytes) -> bytes:
    """Returns the Merkle leaf hash: SHA-256 over 0x00 and the leaf (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def make_entry(
    *,
    name: str,
    time: datetime,
    kind: str,
    details: Mapping[str, object],
    salt: bytes,
    subject: str | None = None,
    subject_version: int | None = None,
) -> AuditEntry:
    """Returns an entry whose leaf commits to its details, subject and version included.

    `salt` are 32 random bytes; without them nobody can test a guess at the details.
    """
    full = dict(details)
    if subject is not None:
        full |= {"subject": subject, "subjectVersion": subject_version}
    text = json.dumps(full, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    leaf = encode_leaf(name=name, time=time, kind=kind, details_commitment=commitment(salt, text))
    return AuditEntry(
        name=name,
        time=time,
        kind=kind,
        subject=subject,
        subject_version=subject_version,
        leaf=leaf,
        salt=salt,
        details=text,
    )
