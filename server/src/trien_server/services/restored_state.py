"""What a restore changes of what it put back: what was under way, was used since, or was taken away since."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from trien_server.core.encoding import microseconds
from trien_server.core.errors import RecordNotTrusted
from trien_server.core.installation_keys import installation_key_name
from trien_server.core.one_time_password import TOTP_PERIOD, TOTP_WINDOW
from trien_server.core.ports import Clock, Hsm, KeyMismatch, Randomness, Store
from trien_server.core.records import (
    Authenticator,
    AuthenticatorKind,
    AuthenticatorState,
    Authorization,
    CertificateAuthority,
    Challenge,
    Enrolment,
    EnrolmentState,
    InstallationKey,
    InstallationKeyPurpose,
    InstallationKeyState,
    IssuedCertificate,
    IssuedCertificateState,
    Key,
    KeyState,
    LogHead,
    Proposal,
    ProposalState,
    ProtectionLevel,
    Record,
    RevocationReason,
)
from trien_server.core.restores import Loss, LostRestriction, restrictions
from trien_server.services.backup_excerpts import Excerpt
from trien_server.services.backups import Progress
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.enrolments import ended
from trien_server.services.integrity_rules import kind_of
from trien_server.services.proposals import HOST
from trien_server.services.sealing_generations import read_generations
from trien_server.services.transactions import Ledger, Transactions, next_version
from trien_server.services.trusted import TrustedView

WHAT_HAPPENS: Mapping[str, str] = {
    "installations": "put back last: until then no server starts",
    "organizations": "as it was",
    "signers": "as it was; frozen or disabled when the lost entries say so",
    "authenticators": "as it was; disabled when the lost entries say so",
    "enrolments": "open ones are cancelled",
    "installation_keys": "as it was; a new log key, and a sealing key behind those that only the token knows, follow",
    "keys": "as it was; disabled or destroyed when the lost entries say so; a scheduled destruction is cancelled",
    "credentials": "as it was; suspended or revoked when the lost entries say so",
    "activators": "as it was; disabled when the lost entries say so",
    "credential_clients": "as it was; disabled when the lost entries say so",
    "clients": "as it was; disabled when the lost entries say so",
    "operators": "as it was; disabled when the lost entries say so",
    "proposals": "pending ones are cancelled",
    "certificate_authorities": "the numbers of revocation lists go on 10,000 higher",
    "issued_certificates": "as it was; revoked when the lost entries say so",
    "request_purges": "as it was",
    "audit_erasures": "as it was; those of the lost entries have to be agreed on anew",
    "authenticator_states": "TOTP: every step up to now is used; HOTP: out of step until two codes in a row",
    "signer_attempts": "as it was",
    "client_attempts": "as it was",
    "authorizations": "open ones expire",
    "challenges": "open ones expire",
    "delivery_counts": "as it was",
    "approvals": "as it was",
    "signature_uses": "as it was",
    "granted_requests": "as it was, with outcomes: a retry within its 15 minutes signs the same digests again",
    "leases": "left out: whoever held one does not live",
    "certificate_statuses": "left out: the CAs are asked anew",
    "notices": "as it was",
    "audit_entries": "as it was, in the same positions; log_continued follows",
    "log_heads": "the same tree under a new name",
    "log_tiles": "as it was",
    "log_checkpoints": "left out: the first one under the new name is signed before a server starts",
    "audit_exports": "as it was",
    "outcomes": "as it was",
}
"""What a restore does with the rows of each table."""

LOG_HEAD = "log"
CRL_NUMBERS_SKIPPED = 10_000
_PAGE = 200
_SECONDS = 30.0
_LEDGER_SECONDS = 30.0
_STRONGEST_KEY = (KeyState.ENABLED, KeyState.DISABLED, KeyState.DESTROYING, KeyState.DESTROYED)


class Account(Protocol):
    """Where a restore notes what it did."""

    counts: dict[str, int]
    applied: list[str]
    left: list[str]


@dataclass(frozen=True, kw_only=True)
class _Step:
    """Names of rows of a kind, and what they become; None for one that is so already."""

    names: Iterable[str]
    kind: type[Record]
    entry: str
    become: Callable[[Record, datetime], Record | None]
    counted: str


class RestoredState:
    """Brings about what has to hold before a server starts on a restored database. Each step may be the last."""

    def __init__(
        self,
        *,
        hsm: Hsm,
        store: Store,
        transactions: Transactions,
        changes: Changes,
        clock: Clock,
        randomness: Randomness,
        seal_log: Callable[[], None],
    ) -> None:
        """`seal_log` makes the log's key that is asked for, seals what waits, and has the log signed."""
        self.hsm = hsm
        self._seal_log = seal_log
        self._randomness = randomness
        self._store = store
        self._transactions = transactions
        self._changes = changes
        self._clock = clock

    def bring_about(self, excerpt: Excerpt, loss: Loss, done: Account, *, progress: Progress) -> None:
        """Takes every step that is not taken yet. Rows whose seal is not good are left, and told of.

        Raises `HsmUnavailable`, `StoreUnavailable`.
        """
        self._replace_lost_sealing_keys(done)
        self._continue_log(done)
        # Before all else, while a record's version tells whether it is from before a lost entry.
        for restriction in restrictions(loss.lost):
            self._apply(restriction, done)
        self._use_up(done, progress)
        self._expire(Authorization, excerpt, done)
        self._expire(Challenge, excerpt, done)
        for step in (
            _Step(
                names=excerpt.open.get(Enrolment, ()),
                kind=Enrolment,
                entry="enrolment_cancelled",
                become=_cancelled_enrolment,
                counted="enrolments cancelled",
            ),
            _Step(
                names=excerpt.open.get(Proposal, ()),
                kind=Proposal,
                entry="proposal_cancelled",
                become=_cancelled_proposal,
                counted="proposals cancelled",
            ),
            _Step(
                names=excerpt.open.get(Key, ()),
                kind=Key,
                entry="key_destruction_cancelled",
                become=_kept_key,
                counted="scheduled destructions of keys cancelled",
            ),
            _Step(
                names=excerpt.open.get(CertificateAuthority, ()),
                kind=CertificateAuthority,
                entry="revocation_list_numbers_skipped",
                become=_skipped_numbers,
                counted="CAs whose lists go on with higher numbers",
            ),
        ):
            self._take(step, done)
        # Last: it signs what was done here too, and a server that starts finds a log that is sealed.
        self._seal_log()

    def _replace_lost_sealing_keys(self, done: Account) -> None:
        """Puts a new sealing key behind those that the token has and no record names.

        The database was set back to before a rotation. The keys of that rotation may be used up or stolen: they are
        retired since before anything was sealed, so that nothing which they sealed is believed, and they are never
        taken into use again.
        """
        sealing = InstallationKeyPurpose.SEALING
        keys = self._transactions.read(lambda view: read_generations(view, sealing))
        active = next(key for key in keys if key.state is InstallationKeyState.ACTIVE)
        free = active.generation + 1
        while self._on_token(free):
            free += 1
        if free == active.generation + 1:
            return
        # A crash behind this line leaves a key more on the token: then this begins anew, behind that one.
        self.hsm.make_installation_key(sealing, free)

        def prepare(view: TrustedView) -> Change:
            at = self._clock.now()
            current = {key.generation: key for key in read_generations(view, sealing)}
            never = current[1].create_time
            slow = [next_version(current[active.generation], state=InstallationKeyState.RETIRING, state_time=at)]
            for generation in range(active.generation + 1, free + 1):
                last = generation == free
                state = InstallationKeyState.ACTIVE if last else InstallationKeyState.RETIRED
                since = at if last else never
                known = current.get(generation)
                if known is not None:
                    slow.append(next_version(known, state=state, state_time=since))
                    continue
                slow.append(
                    InstallationKey(
                        name=installation_key_name(sealing, generation),
                        purpose=sealing,
                        generation=generation,
                        state=state,
                        state_time=since,
                        create_time=at,
                    )
                )
            return Change(kind="installation_key_activated", slow=slow)

        self._changes.make(HOST, prepare, deadline=Deadline(self._clock, _SECONDS))
        self._transactions.follow()
        done.counts["sealing keys of the token that no record named, retired unused"] = free - active.generation - 1

    def _continue_log(self, done: Account) -> None:
        """Asks for the key that signs the log under its new name.

        The one before signs it in. Where the token does not hold that one, the new key stands for itself: then people
        have to hand it to whoever checks the log.
        """
        log = InstallationKeyPurpose.LOG
        orphaned = False

        def prepare(view: TrustedView) -> Change:
            nonlocal orphaned
            at = self._clock.now()
            head, keys = view.get(LogHead, LOG_HEAD), read_generations(view, log)
            slow: list[Record] = []
            origin = "" if head is None else head.origin
            if not keys or keys[-1].origin == origin:
                return Change(kind="installation_key_requested", slow=slow)
            active = [key for key in keys if key.state is InstallationKeyState.ACTIVE]
            lacking = [key for key in active if self.hsm.public_key(key.object_id or b"") != key.public_key]
            orphaned = bool(lacking)
            slow += [next_version(key, state=InstallationKeyState.RETIRED, state_time=at) for key in lacking]
            if keys[-1].state is InstallationKeyState.PENDING_GENERATION:
                slow.append(next_version(keys[-1], origin=origin))
            else:
                slow.append(
                    InstallationKey(
                        name=installation_key_name(log, len(keys) + 1),
                        purpose=log,
                        generation=len(keys) + 1,
                        state=InstallationKeyState.PENDING_GENERATION,
                        state_time=at,
                        create_time=at,
                        key_type=keys[-1].key_type,
                        object_id=self._randomness.bytes(16),
                        origin=origin,
                    )
                )
            return Change(kind="installation_key_requested", slow=slow)

        self._changes.make(HOST, prepare, deadline=Deadline(self._clock, _SECONDS))
        if orphaned:
            done.counts["log keys that the token lacks: the log's new key is signed in by nobody"] = 1

    def _on_token(self, generation: int) -> bool:
        try:
            return self.hsm.has_installation_key(InstallationKeyPurpose.SEALING, generation)
        except KeyMismatch:
            return True

    def _use_up(self, done: Account, progress: Progress) -> None:
        """Uses up every TOTP step to now and the next, which could be shown already; HOTP gets out of step."""
        after, used, looked_at = "", 0, 0
        while names := self._store.read(
            lambda snapshot, after=after: _names(
                snapshot.find(  # type: ignore[misc]
                    AuthenticatorState, limit=_PAGE, after=after
                )
            )
        ):
            kinds = {name: self._kind(name, done) for name in names}

            def work(ledger: Ledger, kinds: Mapping[str, AuthenticatorKind | None] = kinds) -> int:
                return sum(_used_up(ledger, name, kind, done) for name, kind in kinds.items())

            used += self._transactions.run(work, timeout=_LEDGER_SECONDS)
            looked_at += len(names)
            progress("used up", looked_at)
            after = names[-1]
        done.counts["authenticators whose codes up to now are used up"] = used

    def _kind(self, name: str, done: Account) -> AuthenticatorKind | None:
        try:
            found = self._transactions.read(lambda view: view.get(Authenticator, name))
        except RecordNotTrusted as fault:
            _leave(done, fault)
            return None
        return None if found is None else found.kind

    def _expire(self, kind: type[Authorization] | type[Challenge], excerpt: Excerpt, done: Account) -> None:
        names = excerpt.open.get(kind, [])
        expired = 0
        for begin in range(0, len(names), _PAGE):
            page = names[begin : begin + _PAGE]

            def work(ledger: Ledger, page: list[str] = page) -> int:
                return sum(_expired(ledger, kind, name, done) for name in page)

            expired += self._transactions.run(work, timeout=_LEDGER_SECONDS)
        done.counts[f"{kind.table} expired"] = expired

    def _take(self, step: _Step, done: Account) -> None:
        taken = 0
        for name in step.names:

            def prepare(view: TrustedView, name: str = name) -> Change:
                record = view.get(step.kind, name)
                changed = None if record is None else step.become(record, self._clock.now())
                return Change(kind=step.entry, slow=[] if changed is None else [changed])

            try:
                self._changes.make(HOST, prepare, deadline=Deadline(self._clock, _SECONDS))
                taken += 1
            except RecordNotTrusted as fault:
                _leave(done, fault)
        done.counts[step.counted] = taken

    def _apply(self, restriction: LostRestriction, done: Account) -> None:
        kind = kind_of(restriction.subject)
        if kind is None:
            return
        found: type[Record] = kind
        applied = False

        def prepare(view: TrustedView) -> Change:
            nonlocal applied
            record = view.get(found, restriction.subject)
            restricted = None if record is None else _restricted(record, restriction)
            applied = restricted is not None
            lost = restriction.lost
            details = {
                "lostEntry": lost.entry.name,
                "lostPosition": lost.position,
                "lostKind": lost.entry.kind,
                "lostTime": lost.entry.time.isoformat(),
            }
            slow = [] if restricted is None else [restricted]
            return Change(kind="lost_restriction_applied", slow=slow, details=details)

        try:
            self._changes.make(HOST, prepare, deadline=Deadline(self._clock, _SECONDS))
        except RecordNotTrusted as fault:
            _leave(done, fault)
            return
        if applied:
            done.applied.append(f"{restriction.subject}: {restriction.state}")


def _leave(done: Account, fault: RecordNotTrusted) -> None:
    text = f"{fault.table} {fault.name}: {fault.finding}"
    if text not in done.left:
        done.left.append(text)


def _names(rows: Iterable[object]) -> list[str]:
    return [row.record.name for row in rows]  # type: ignore[attr-defined]


def _used_up(ledger: Ledger, name: str, kind: AuthenticatorKind | None, done: Account) -> int:
    try:
        state = ledger.require(AuthenticatorState, name)
    except RecordNotTrusted as fault:
        _leave(done, fault)
        return 0
    if kind is AuthenticatorKind.TOTP:
        free = microseconds(ledger.at) // (TOTP_PERIOD * 1_000_000) + TOTP_WINDOW + 1
        if state.next_value >= free:
            return 0
        ledger.replace(next_version(state, next_value=free, resynchronization=None))
        return 1
    if kind is AuthenticatorKind.HOTP and not state.out_of_step:
        ledger.replace(next_version(state, resynchronization=None, out_of_step=True))
        return 1
    return 0


def _expired(ledger: Ledger, kind: type[Authorization] | type[Challenge], name: str, done: Account) -> int:
    try:
        record: Authorization | Challenge = ledger.require(kind, name)
    except RecordNotTrusted as fault:
        _leave(done, fault)
        return 0
    if record.expire_time <= ledger.at:
        return 0
    ledger.replace(next_version(record, expire_time=ledger.at))
    return 1


def _cancelled_enrolment(record: Record, at: datetime) -> Record | None:  # noqa: ARG001
    if isinstance(record, Enrolment) and record.state in {EnrolmentState.PENDING, EnrolmentState.BEGUN}:
        return ended(record, EnrolmentState.CANCELLED)
    return None


def _cancelled_proposal(record: Record, at: datetime) -> Record | None:
    if isinstance(record, Proposal) and record.state is ProposalState.PENDING:
        return next_version(record, state=ProposalState.CANCELLED, decider=HOST, decide_time=at)
    return None


def _kept_key(record: Record, at: datetime) -> Record | None:  # noqa: ARG001
    if isinstance(record, Key) and record.state is KeyState.DESTROY_SCHEDULED:
        return next_version(record, state=KeyState.DISABLED, destroy_time=None)
    return None


def _skipped_numbers(record: Record, at: datetime) -> Record | None:  # noqa: ARG001
    if isinstance(record, CertificateAuthority):
        return next_version(record, next_crl_number=record.next_crl_number + CRL_NUMBERS_SKIPPED)
    return None


def _restricted(record: Record, restriction: LostRestriction) -> Record | None:
    """Returns a record as a lost entry restricted it; None when it is restricted as much, or newer than that entry."""
    if record.version >= (restriction.lost.entry.subject_version or 0):
        return None
    if isinstance(record, Key):
        return _restricted_key(record, restriction.state)
    if isinstance(record, IssuedCertificate):
        said = restriction.lost.changed()
        return next_version(
            record,
            state=IssuedCertificateState.REVOKED,
            revoke_time=datetime.fromisoformat(said["revoke_time"]),
            revoke_reason=RevocationReason(said["revoke_reason"]),
        )
    state = record.state  # type: ignore[attr-defined]
    wanted = type(state)(restriction.state)
    return None if state is wanted else next_version(record, state=wanted)


def _restricted_key(key: Key, state: str) -> Key | None:
    """A key whose destruction was only scheduled is disabled: two officers schedule it again. A destroyed one goes."""
    wanted = KeyState.DISABLED if state == KeyState.DESTROY_SCHEDULED else KeyState(state)
    if wanted in {KeyState.DESTROYING, KeyState.DESTROYED}:
        if key.protection_level is ProtectionLevel.WRAPPED:
            return next_version(key, state=KeyState.DESTROYED, wrapped_key=None)
        wanted = KeyState.DESTROYING  # the server removes the object, where this token has it, and ends it
    if key.state in _STRONGEST_KEY and _STRONGEST_KEY.index(key.state) >= _STRONGEST_KEY.index(wanted):
        return None
    return next_version(key, state=wanted, destroy_time=None)
