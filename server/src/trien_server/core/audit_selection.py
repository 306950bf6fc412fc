"""Which audit entries somebody asks for."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from trien_server.core.encoding import encode_all
from trien_server.core.records import AuditEntry


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What an entry has to match, all of it; what is empty or None does not narrow.

    An entry whose details were erased names no resource but its subject, no reason and no digest.
    """

    kinds: frozenset[str] = frozenset()
    resource: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None
    reason: str = ""
    digest: bytes = b""

    def admits(self, entry: AuditEntry) -> bool:
        """Tells whether an entry matches."""
        if self.kinds and entry.kind not in self.kinds:
            return False
        if self.start_time is not None and entry.time < self.start_time:
            return False
        if self.end_time is not None and entry.time >= self.end_time:
            return False
        if self.resource and not names_resource(entry, self.resource):
            return False
        if self.reason and details_of(entry).get("reason") != self.reason:
            return False
        return not self.digest or _names_digest(entry, self.digest)

    def encode(self) -> bytes:
        """Returns canonical bytes: a page's token belongs to one selection."""
        kinds = tuple(sorted(self.kinds))
        return encode_all(
            "trien/audit-selection",
            [len(kinds), *kinds, self.resource, self.start_time, self.end_time, self.reason, self.digest],
        )


def details_of(entry: AuditEntry) -> Mapping[str, object]:
    """Returns an entry's details; none when they were erased."""
    if not entry.details:
        return {}
    details: Mapping[str, object] = json.loads(entry.details)
    return details


def names_resource(entry: AuditEntry, resource: str) -> bool:
    """Tells whether an entry names a resource, or what is part of it, as its subject or in its details.

    `signers/a` is named by `signers/a/authenticators/b` and by `credentials/c/signers/a`, who may activate `c`.
    """
    if entry.subject is not None and _names(entry.subject, resource):
        return True
    # A resource's name is ASCII that JSON writes as it is: most entries need not be parsed.
    return resource in entry.details and any(_names(text, resource) for text in _texts(details_of(entry)))


def _names(name: str, resource: str) -> bool:
    return f"/{resource}/" in f"/{name}/"


def _names_digest(entry: AuditEntry, digest: bytes) -> bool:
    text = digest.hex()
    if text not in entry.details:
        return False
    details = details_of(entry)
    return any(text in _texts(details.get(field)) for field in ("digests", "signedDigests", "digest"))


def _texts(value: object) -> Iterator[str]:
    """Yields every text in a JSON value."""
    match value:
        case str():
            yield value
        case list():
            for one in value:
                yield from _texts(one)
        case dict():
            for one in value.values():
                yield from _texts(one)
