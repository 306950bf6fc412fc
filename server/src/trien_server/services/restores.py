"""Restores: a backup put back into an empty database, which then goes on as a new log and never as a second history."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.exceptions import InvalidSignature

from trien_server.core.approval import public_key_hash, statement_digest, verify_approval
from trien_server.core.audit import make_entry
from trien_server.core.backups import KeptRow, Manifest, NotABackup, Reading
from trien_server.core.checkpoints import LogKey
from trien_server.core.ports import Clock, Randomness, Sealed, Snapshot, Store, Transaction
from trien_server.core.records import (
    HOT_RECORDS,
    SLOW_RECORDS,
    AuditEntry,
    CertificateStatus,
    Installation,
    Lease,
    LogCheckpoint,
    LogHead,
    Operator,
    Outcome,
    Record,
    State,
)
from trien_server.core.restores import (
    KnownCheckpoint,
    Loss,
    LostEntry,
    NotRestorable,
    Replay,
    StatementApproval,
    followed_keys,
    next_origin,
    restore_name,
    restrictions,
    statement,
    statement_text,
)
from trien_server.core.roles import Role
from trien_server.core.sealing import CLOCK_TOLERANCE
from trien_server.services.backup_excerpts import Excerpt
from trien_server.services.backups import Progress
from trien_server.services.log_keys import generated, log_key_of, read_log_keys
from trien_server.services.restored_state import RestoredState
from trien_server.services.restored_token import TokenFindings, examine_token
from trien_server.services.sealing_generations import INSTALLATION, read_sealing_generations
from trien_server.services.seals import Seals
from trien_server.services.trusted import TrustedView

Source = Callable[[Callable[[bytes], None]], None]
"""Hands a backup's content over, in chunks and in order, each time that it is called."""

LEFT_OUT: frozenset[type[Record]] = frozenset({Lease, CertificateStatus, LogCheckpoint})
"""What a restore does not put back: it was about processes, answers and a head that are no more."""
_OFFICERS = 2
_LONGEST_SECONDS = 24 * 3600.0
_NONCE = 4


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A backup that was read whole, what the token says to it, and what is known to be lost."""

    manifest: Manifest
    excerpt: Excerpt
    token: TokenFindings
    loss: Loss
    older: bool
    """Whether it is older than a known checkpoint, or the token keeps none: then two officers have to agree."""
    restored: bool
    """Whether the database holds it already, complete: then nobody has to agree, for nothing is done."""

    @property
    def statement(self) -> str:
        """What the officers agree to."""
        return statement(self.manifest, self.loss, last_entry_time=self.excerpt.last_entry_time)


@dataclass(kw_only=True)
class Done:
    """What a restore did, for people."""

    origin: str
    continued: str
    """The audit entry that says it."""
    counts: dict[str, int] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Rows that could not be trusted, and were left as they are: the server refuses them too."""
    before: bool = False
    """Whether it was complete before, and nothing was done."""


class Restore:
    """Puts a backup back, in steps of which each may be the last.

    1. One transaction puts every row back as it was, with its seal, but for the installation's own row; and the entry
       with which the log continues under its new name. A crash before it leaves an empty database.
    2. What must not be as it was is changed, step by step, as a running server would change it: each step looks first
       whether it is done. While the installation's row is missing no server starts.
    3. The installation's row is put back. A crash before it leaves a database that the same restore goes on with.
    4. The token keeps the restored log's checkpoint instead of the last one before, which step 2 was decided by.
    """

    def __init__(
        self,
        *,
        store: Store,
        seals: Seals,
        state: RestoredState,
        clock: Clock,
        randomness: Randomness,
        decode: Callable[[bytes], KeptRow],
        schema: str,
        keep_checkpoint: Callable[[], None],
    ) -> None:
        """`keep_checkpoint` puts the log's checkpoint on the token; a server does it too."""
        self._keep_checkpoint = keep_checkpoint
        self._store = store
        self._seals = seals
        self._state = state
        self._clock = clock
        self._randomness = randomness
        self._decode = decode
        self._schema = schema

    def examine(
        self,
        source: Source,
        *,
        known: Sequence[KnownCheckpoint],
        lost: Sequence[LostEntry],
        leaves: Callable[[int], bytes | None],
        log_keys: str | None = None,
        progress: Progress,
    ) -> Examined:
        """Reads a backup whole and judges it; changes nothing.

        `leaves` returns the leaf at a position of the log that was published, if it is there; `log_keys` are its
        published keys, by which those follow that signed after the backup. Raises `NotABackup`;
        `NotRestorable` for a backup of another schema, for the wrong token, for a log that is not the one that was
        published, and for lost entries that are not in it; `HsmUnavailable`.
        """
        excerpt = Excerpt(at=self._clock.now(), sizes=[checkpoint.size for checkpoint in known])
        rows = 0

        def take(row: KeptRow) -> None:
            nonlocal rows
            rows += 1
            excerpt.take(row)
            progress("read", rows)

        reading = Reading(decode=self._decode, begin=self._require_schema, take=take)
        source(reading.feed)
        manifest = reading.end()
        excerpt.require_log_of(manifest)
        self._require_clock(excerpt.latest_time(), "the backup")
        token = examine_token(self._state.hsm, self._seals, manifest, excerpt)
        # Before any officer is believed: what a retired key sealed counts no more, what the newest one sealed does.
        self._seals.learn(read_sealing_generations(TrustedView(excerpt, self._seals, by_any=True), self._seals))
        _require_one_history(manifest, excerpt.replay, known)
        keys = _log_keys(excerpt, self._seals)
        entry = _entry_name(manifest)
        restored = self._store.read(lambda snapshot: _standing(snapshot, entry)) == _COMPLETE
        verified = (
            ()
            if restored
            else _verified(manifest, excerpt.replay, known, lost, leaves, lambda: followed_keys(keys, log_keys))
        )
        self._require_clock(max((one.entry.time for one in verified), default=None), "the lost part of the log")
        return Examined(
            manifest=manifest,
            excerpt=excerpt,
            token=token,
            loss=Loss(known=tuple(known), lost=verified),
            older=not restored and _is_older(manifest, known, keys),
            restored=restored,
        )

    def officers(self, examined: Examined, approvals: Sequence[StatementApproval]) -> list[str]:
        """Returns which two officers agreed to a restore's statement.

        They are security officers of the backup, for all organizations, enabled there, and with the same key still so
        in what is known to be lost; two different people with two different keys. Raises `NotRestorable`.
        """
        view = TrustedView(examined.excerpt, self._seals)
        disabled = {one.subject for one in restrictions(examined.loss.lost)}
        text = statement_text(examined.manifest, examined.statement)
        agreed: dict[bytes, str] = {}
        for approval in approvals:
            operator = self._officer(view, approval)
            if operator.name in disabled:
                raise NotRestorable(f"{operator.name} was disabled after the backup was made.")
            if not all(_still_officer(operator, one) for one in examined.loss.lost):
                raise NotRestorable(f"{operator.name} was changed after the backup was made: key, roles or reach.")
            try:
                verify_approval(operator.certificate, text, approval.signature)
            except InvalidSignature as fault:
                raise NotRestorable(f"The approval of {operator.name} is not a signature of this statement.") from fault
            agreed[operator.public_key_hash] = operator.name
        if len(set(agreed.values())) != _OFFICERS or len(agreed) != _OFFICERS:
            raise NotRestorable(
                f"Two security officers with two keys have to agree; {len(set(agreed.values()))} did so far."
            )
        return sorted(agreed.values())

    def _officer(self, view: TrustedView, approval: StatementApproval) -> Operator:
        key = public_key_hash(approval.certificate, field="approval")
        for operator in view.find(Operator, public_key_hash=key):
            if (
                operator.state is State.ENABLED
                and Role.SECURITY_OFFICER.value in operator.roles
                and not operator.organizations
            ):
                return operator
        raise NotRestorable(
            "An approval is by a key that no enabled security officer of the backup has, or by one who is not an"
            " officer for all organizations."
        )

    def __call__(
        self, source: Source, examined: Examined, approvals: Sequence[StatementApproval], *, progress: Progress
    ) -> Done:
        """Restores. Run again after a crash, it goes on, or begins anew.

        Raises `NotRestorable` when the database holds something else, or two officers are needed and did not agree;
        `NotABackup` when the backup is another one than was examined; `StoreUnavailable`, `HsmUnavailable`.
        """
        agreed = self.officers(examined, approvals) if examined.older else []
        name = _entry_name(examined.manifest)
        standing = self._store.read(lambda snapshot: _standing(snapshot, name))
        if standing == _OTHER:
            raise NotRestorable("The database is not empty: a restore needs an empty one.")
        if standing == _EMPTY:
            self._put_back(source, examined, name, agreed, approvals, progress)
        done = Done(origin=self._origin(), continued=name, before=standing == _COMPLETE)
        if standing != _COMPLETE:
            self._state.bring_about(examined.excerpt, examined.loss, done, progress=progress)
            self._complete(examined)
        self._keep_checkpoint()  # also when a crash came just before it
        return done

    def _require_clock(self, latest: datetime | None, what: str) -> None:
        """Raises `NotRestorable` for a clock behind `latest`: codes that were used since would be good again."""
        if latest is not None and self._clock.now() < latest - CLOCK_TOLERANCE:
            raise NotRestorable(f"The clock is behind {what}, whose last entry is of {latest:%Y-%m-%d %H:%M} UTC.")

    def _require_schema(self, manifest: Manifest) -> None:
        if manifest.schema != self._schema:
            raise NotRestorable(
                f"The backup's schema is {manifest.schema}, this server's {self._schema}: restore it with the version"
                " of the server that made it, then run `trien-server migrate` with this one."
            )

    def _put_back(
        self,
        source: Source,
        examined: Examined,
        name: str,
        agreed: Sequence[str],
        approvals: Sequence[StatementApproval],
        progress: Progress,
    ) -> None:
        """Puts all rows back in one transaction; whatever happens before its end leaves the database empty."""
        at = self._clock.now()
        self._seals.prepare(at)
        origins = [*(() if examined.manifest.log is None else (examined.manifest.log.origin,))]
        origins += [known.origin for known in examined.loss.known]
        origin = next_origin(origins, self._randomness.bytes(_NONCE)) if origins else ""
        head = self._continued_head(examined, origin)
        entry = make_entry(
            name=name,
            time=at,
            kind="log_continued",
            details={
                "actor": "host",
                "restore": restore_name(examined.manifest),
                "backup": f"sha256:{examined.manifest.identity().hex()}",
                "backupTime": examined.manifest.create_time.isoformat(),
                "oldOrigin": origins[0] if origins else "",
                "oldCheckpoint": "" if examined.manifest.log is None else examined.manifest.log.checkpoint,
                "size": 0 if examined.manifest.log is None else examined.manifest.log.size,
                "lastKnown": [
                    {"found": one.found, "origin": one.origin, "size": one.size, "root": one.root.hex()}
                    for one in examined.loss.known
                ],
                "newOrigin": origin,
                "statement": f"sha256:{statement_digest(examined.statement).hex()}",
                "approvers": list(agreed),
                "approvals": [approval.signature.hex() for approval in approvals],
            },
            head_salt=self._randomness.bytes(16),
            salt=self._randomness.bytes(32),
        )
        sealed_entry = self._seals.seal_hot(entry, at=at)
        sealed_head = None if head is None else self._seals.seal_hot(head, at=at)

        def work(transaction: Transaction) -> None:
            if _standing(transaction, name) != _EMPTY:
                raise NotRestorable("The database is not empty any more: somebody else writes to it.")
            rows = 0

            def take(row: KeptRow) -> None:
                nonlocal rows
                rows += 1
                _put(transaction, row)
                progress("put back", rows)

            reading = Reading(decode=self._decode, take=take)
            source(reading.feed)
            if reading.end() != examined.manifest:
                raise NotABackup("It was changed while it was read.")
            if sealed_head is not None:
                transaction.put_back(sealed_head)
            transaction.insert(sealed_entry)

        self._store.transact(work, timeout=_LONGEST_SECONDS)

    def _continued_head(self, examined: Examined, origin: str) -> LogHead | None:
        row = examined.excerpt.get(LogHead, "log")
        if row is None:
            return None
        before = self._seals.verify(row)
        return LogHead(
            name=before.name,
            version=before.version + 1,
            origin=origin,
            size=before.size,
            root=before.root,
            frontier=before.frontier,
            time=self._clock.now(),
        )

    def _origin(self) -> str:
        head = self._store.read(lambda snapshot: snapshot.get(LogHead, "log"))
        return "" if head is None else head.record.origin

    def _complete(self, examined: Examined) -> None:
        """Puts the installation's row back: from then on servers start."""
        row = examined.excerpt.get(Installation, INSTALLATION)
        if row is None:
            raise NotABackup("It has no installation.")
        installation = row

        def work(transaction: Transaction) -> None:
            if transaction.get(Installation, INSTALLATION) is None:
                transaction.put_back(installation)

        self._store.transact(work, timeout=60.0)


def _entry_name(manifest: Manifest) -> str:
    """Returns the name of the audit entry with which the log continues after the restore of a backup."""
    return f"auditEntries/{restore_name(manifest).replace('/', '-')}"


_EMPTY, _BEGUN, _COMPLETE, _OTHER = "EMPTY", "BEGUN", "COMPLETE", "OTHER"


def _standing(snapshot: Snapshot, name: str) -> str:
    """Returns how far the restore that writes the entry `name` came in a database."""
    if snapshot.get(AuditEntry, name) is not None:
        return _COMPLETE if snapshot.get(Installation, INSTALLATION) is not None else _BEGUN
    empty = all(not snapshot.find(kind, limit=1) for kind in (*SLOW_RECORDS, *HOT_RECORDS))
    return _EMPTY if empty else _OTHER


def _put(transaction: Transaction, row: KeptRow) -> None:
    content = row.content
    if isinstance(content, Outcome):
        transaction.record_outcome(content)
    elif isinstance(content, Sealed):
        kind = type(content.record)
        # The head of the log goes on under another name; the installation's row comes last.
        if kind not in LEFT_OUT and kind not in {LogHead, Installation}:
            transaction.put_back(content, position=row.position)


def _still_officer(operator: Operator, lost: LostEntry) -> bool:
    """Tells whether a lost entry leaves an operator the officer that they are in the backup."""
    if lost.entry.subject != operator.name:
        return True
    said = lost.changed()
    return (
        said.get("public_key_hash") == operator.public_key_hash.hex()
        and Role.SECURITY_OFFICER.value in said.get("roles", ())
        and not said.get("organizations")
    )


def _is_older(manifest: Manifest, known: Sequence[KnownCheckpoint], keys: Sequence[LogKey]) -> bool:
    """Tells whether a backup lacks entries of a known checkpoint, or the token keeps none that its log's key signed.

    A checkpoint beside the token's is brought by whoever restores, who may leave a newer one out.
    """
    log = manifest.log
    if log is None or not any(one.on_token and one.is_signed(keys) for one in known):
        return True
    return any(one.origin != log.origin or one.size > log.size for one in known)


def _require_one_history(manifest: Manifest, replay: Replay, known: Sequence[KnownCheckpoint]) -> None:
    for one in known:
        if manifest.log is None or one.origin != manifest.log.origin or one.size > manifest.log.size:
            continue
        if replay.roots.get(one.size) != one.root:
            raise NotRestorable(
                f"The backup's log is not that of the checkpoint in {one.found}: they differ before entry {one.size}."
            )


def _log_keys(excerpt: Excerpt, seals: Seals) -> list[LogKey]:
    """Returns the log's keys that a backup has, by rows whose seals are good."""
    keys = read_log_keys(TrustedView(excerpt, seals, by_any=True))
    return [log_key_of(key) for key in generated(keys)]


def _verified(
    manifest: Manifest,
    replay: Replay,
    known: Sequence[KnownCheckpoint],
    lost: Sequence[LostEntry],
    leaves: Callable[[int], bytes | None],
    log_keys: Callable[[], Sequence[LogKey]],
) -> tuple[LostEntry, ...]:
    """Returns the lost entries, by position, once it is shown that each is in the log of the largest checkpoint.

    The leaves from the backup's end to that checkpoint have to be there: published, or among the entries.
    """
    log = manifest.log
    if not lost:
        return ()
    later = [one for one in known if log is not None and one.origin == log.origin and one.size > log.size]
    if log is None or not later:
        raise NotRestorable("No checkpoint is known that covers the exported entries, so they cannot be believed.")
    last = max(later, key=lambda one: one.size)
    last.require_signed(log_keys())
    given = {one.position: one for one in lost if log.size <= one.position < last.size}
    for position in range(log.size, last.size):
        leaf = leaves(position)
        entry = given.get(position)
        if leaf is None and entry is not None:
            leaf = entry.entry.leaf
        if leaf is None:
            raise NotRestorable(
                f"Entry {position} is neither published nor among the exported entries: without its leaf none of them"
                f" can be believed. The log of {last.found} has {last.size}."
            )
        if entry is not None and entry.entry.leaf != leaf:
            raise NotRestorable(f"The exported entry at {position} is not the one that was published.")
        replay.append(leaf)
    if replay.root() != last.root:
        raise NotRestorable(f"The leaves behind the backup do not come to the checkpoint in {last.found}.")
    return tuple(given[position] for position in sorted(given))
