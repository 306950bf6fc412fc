"""Whether a token is the one that a backup needs: which keys it lacks, and how each is brought."""

from dataclasses import dataclass

from trien_server.core.backups import Bringing, Manifest, NeededKey
from trien_server.core.errors import RecordNotTrusted
from trien_server.core.ports import DecryptionFailed, Hsm, KeyMismatch, KeyReference
from trien_server.core.records import Installation, InstallationKeyPurpose
from trien_server.core.restores import NotRestorable
from trien_server.services.backup_excerpts import Excerpt
from trien_server.services.sealing_generations import INSTALLATION, read_sealing_generations
from trien_server.services.seals import Seals
from trien_server.services.trusted import TrustedView

_HOW = {
    Bringing.CUSTODIANS: "two custodians bring it (trien-server token import-keys), or the vendor's clone",
    Bringing.CLONE: "the vendor's clone of the old token brings it, and nothing else",
}


@dataclass(frozen=True, kw_only=True)
class TokenFindings:
    """The keys that a backup needs and a token lacks, without which it can be restored all the same."""

    missing: tuple[NeededKey, ...]


def examine_token(hsm: Hsm, seals: Seals, manifest: Manifest, excerpt: Excerpt) -> TokenFindings:
    """Returns what a token lacks.

    Raises `NotRestorable` when it lacks a sealing, wrapping or one-time password key, or has another one in its place:
    nothing would work; `HsmUnavailable`.
    """
    needed = [key for key in manifest.keys if key.bringing is Bringing.CUSTODIANS]
    lacking = [key for key in needed if not _has(hsm, excerpt, key)]
    if lacking:
        lines = [f"  {key.kind} key {key.label!r} ({key.name})" for key in lacking]
        raise NotRestorable(
            "\n".join(
                [
                    "The token lacks keys without which the backup is of no use, or has others in their place:",
                    *lines,
                    f"How they come: {_HOW[Bringing.CUSTODIANS]}.",
                ]
            )
        )
    _require_own(seals, excerpt)
    pairs = hsm.key_pairs()
    missing = [
        key
        for key in manifest.keys
        if key.bringing is Bringing.CLONE
        and key.object_id is not None
        and not (key.object_id in pairs and pairs[key.object_id] == key.public_key)
    ]
    return TokenFindings(missing=tuple(missing))


def missing_lines(findings: TokenFindings) -> list[str]:
    """Returns what to tell of keys that are missing, and how they come."""
    if not findings.missing:
        return []
    return [
        "The token lacks these keys; what is signed by them waits until it has them:",
        *(f"  {key.kind} key {key.name}, id {(key.object_id or b'').hex()}" for key in findings.missing),
        f"How they come: {_HOW[Bringing.CLONE]}; or give the credentials new keys.",
    ]


def _has(hsm: Hsm, excerpt: Excerpt, key: NeededKey) -> bool:
    """Tells whether the token has a secret key, by what only that key can do where the backup has something to try."""
    try:
        if key.purpose == InstallationKeyPurpose.SEALING:
            hsm.authenticate(b"", generation=key.generation or 1)
            return True
        if key.purpose == InstallationKeyPurpose.WRAPPING:
            return _opens(hsm, excerpt, key.generation or 1)
        authenticator = excerpt.with_secret
        if authenticator is not None:
            name = authenticator.record.name.encode()
            hsm.decrypt(authenticator.record.encrypted_secret, associated_data=name)
    except (KeyMismatch, DecryptionFailed):
        return False
    return True


def _opens(hsm: Hsm, excerpt: Excerpt, generation: int) -> bool:
    row = excerpt.wrapped.get(generation)
    if row is None:
        # One that custodians brought, and the list names, counts; any other that was not made there raises KeyMismatch.
        return hsm.has_installation_key(InstallationKeyPurpose.WRAPPING, generation)
    key = row.record
    hsm.prepare(
        KeyReference(
            object_id=key.object_id,
            key_type=key.key_type,
            public_key=key.public_key,
            wrapped_key=key.wrapped_key,
            wrapping_generation=generation,
        )
    )
    return True


def _require_own(seals: Seals, excerpt: Excerpt) -> None:
    """Raises `NotRestorable` unless the token's sealing keys sealed the backup."""
    try:
        view = TrustedView(excerpt, seals, by_any=True)
        read_sealing_generations(view, seals)
        if view.get(Installation, INSTALLATION) is None:
            raise NotRestorable("The backup has no installation.")
    except RecordNotTrusted as fault:
        raise NotRestorable(
            f"The token's sealing keys did not seal this backup, or somebody changed it: {fault.table} {fault.name},"
            f" {fault.finding}."
        ) from fault
