"""Seals, rows in force, and the log's own rows (P5, P10)."""

import hmac
import json
from collections.abc import Callable, Iterator
from functools import cache

from tests.promises.evidence import Evidence
from tests.promises.violations import Broken, Violation

from trien_server.core import sealing
from trien_server.core.audit import leaf_of
from trien_server.core.checkpoints import LogKey, NoteNotValid, open_checkpoint
from trien_server.core.merkle import EMPTY_ROOT, Frontier, hash_leaf
from trien_server.core.ports import Sealed
from trien_server.core.receipts import items_root
from trien_server.core.records import SLOW_RECORDS, AuditEntry, InstallationKey, LogCheckpoint, LogHead, Record

Authenticate = Callable[..., bytes]
"""HMAC-SHA256 by a generation of the installation's sealing key, by default the first: `Hsm.authenticate`."""


def check_seals(evidence: Evidence, authenticate: Authenticate) -> Iterator[Violation]:
    """Every row has the seal of its kind's key, and one of a day that it can be of."""

    @cache
    def day_key(name: str) -> bytes:
        return by_generation(sealing.day_key_message(name), name, hot=True)

    def by_generation(message: bytes, seal_key: str, *, hot: bool) -> bytes:
        generation = sealing.generation_of(seal_key, hot=hot)
        assert generation is not None
        return authenticate(message) if generation == 1 else authenticate(message, generation=generation)

    def fault(row: Sealed[Record]) -> str | None:
        record = row.record
        if sealing.generation_of(row.seal_key, hot=record.hot) is None:
            return f"its seal is by {row.seal_key!r}"
        if not record.hot:
            seal = by_generation(sealing.encode_row(record, row.seal_key), row.seal_key, hot=False)
            right = hmac.compare_digest(seal, row.seal)
        else:
            right = hmac.compare_digest(sealing.day_seal(day_key(row.seal_key), record, row.seal_key), row.seal)
        if not right:
            return "the seal is another one's"
        if record.hot and not sealing.seal_day_fits(record, row.seal_key):
            return f"it cannot be of {row.seal_key!r}"
        return None

    for row in evidence.rows:
        if (found := fault(row)) is not None:
            yield Violation(Broken.SEAL, f"{row.record.table} {row.record.name}: {found}")


def check_in_force(evidence: Evidence) -> Iterator[Violation]:
    """The log names the version of every slow row last, and every version that it names was written."""
    named: dict[str, set[int]] = {}
    for entry in evidence.of(AuditEntry).values():
        if entry.subject is not None and entry.subject_version is not None:
            named.setdefault(entry.subject, set()).add(entry.subject_version)
    slow = {name: record for kind in SLOW_RECORDS for name, record in evidence.of(kind).items()}
    for name in sorted(named.keys() | slow.keys()):
        version = slow[name].version if name in slow else 0
        if named.get(name, set()) != set(range(1, version + 1)) or version == 0:
            yield Violation(
                Broken.NOT_IN_FORCE, f"{name} is version {version}, the log names {sorted(named.get(name, ()))}"
            )


def check_log(evidence: Evidence) -> Iterator[Violation]:
    """Every entry has one position or waits for it, and head and signed checkpoint are those of the tree over them."""
    head = evidence.of(LogHead).get("log")
    if evidence.log is None or head is None:
        return
    entries = evidence.of(AuditEntry)
    names = [name for _, name in evidence.log]
    if sorted([*names, *evidence.unsealed]) != sorted(entries) or [at for at, _ in evidence.log] != list(
        range(len(names))
    ):
        yield Violation(Broken.LOG, f"{len(names)} positions and {len(evidence.unsealed)} waiting of {len(entries)}")
        return
    roots, tree = {0: EMPTY_ROOT}, Frontier()
    for name in names:
        tree = tree.extend([hash_leaf(entries[name].leaf)])
        roots[tree.size] = tree.root()
    if (head.size, head.root, head.frontier) != (tree.size, tree.root(), tree.hashes):
        yield Violation(Broken.LOG, f"the head says {head.size} entries, there are {tree.size}, or its root is another")
    keys = [
        LogKey(key.origin, key.key_type, key.public_key)
        for key in evidence.of(InstallationKey).values()
        if key.origin and key.key_type and key.public_key
    ]
    for stored in evidence.of(LogCheckpoint).values():
        try:
            signed = open_checkpoint(stored.note, keys)
        except NoteNotValid as fault:
            yield Violation(Broken.LOG, f"the checkpoint: {fault}")
            continue
        if roots.get(signed.size) != signed.root or signed.origin != head.origin:
            yield Violation(Broken.LOG, f"the checkpoint over {signed.size} entries is of another history")


def check_leaves(evidence: Evidence) -> Iterator[Violation]:
    """Every leaf commits to its entry's name, head and details, and to each digest that it lets sign."""
    for entry in evidence.of(AuditEntry).values():
        if entry.leaf != leaf_of(entry):
            yield Violation(Broken.LEAF, f"{entry.name} ({entry.kind})")
        signs = entry.kind in {"signing_granted", "signing_resumed"} and entry.details
        digests = [bytes.fromhex(digest) for digest in json.loads(entry.details)["digests"]] if signs else []
        if entry.salt and entry.items_root != items_root(entry.salt, digests):
            yield Violation(Broken.LEAF, f"{entry.name} ({entry.kind}): not of its digests")
