"""What the core and the use cases need from outside, as protocols.

Each port has a fake for unit tests and one contract suite (`tests/contract/`) that every adapter
passes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.records import AuditEntry, InstallationKeyPurpose, Outcome, Record, Revocation
from trien_server.core.secret import Secret

R = TypeVar("R", bound=Record)
R_co = TypeVar("R_co", bound=Record, covariant=True)
T = TypeVar("T")


class Clock(Protocol):
    """The time. May be called from any thread; never fails."""

    def now(self) -> datetime:
        """Returns the present time, aware, in UTC."""

    def monotonic(self) -> float:
        """Returns seconds that never go back, from an arbitrary start."""


class Randomness(Protocol):
    """A cryptographic random source. May be called from any thread."""

    def bytes(self, size: int) -> bytes:
        """Returns `size` random bytes, or raises `OSError`: never weaker ones."""


class Report(Protocol):
    """Where operators learn what needs their attention. May be called from any thread; never raises."""

    def __call__(self, event: str, fields: Mapping[str, str]) -> None:
        """Tells of an event by its name; the fields hold names and reasons, never a secret (P12)."""


@dataclass(frozen=True, kw_only=True)
class KeyReference:
    """What finds a key in the token and proves that it is the one: its public key (SPKI, DER).

    Without `wrapped_key` the key is an object on the token, found by `object_id` (protection level
    TOKEN). With it the key is kept outside, and the token unwraps it when it is used (WRAPPED), by the wrapping
    key of `wrapping_generation`.
    """

    object_id: bytes
    key_type: KeyType
    public_key: bytes
    wrapped_key: bytes | None = field(default=None, repr=False)
    wrapping_generation: int = 1


@dataclass(frozen=True, kw_only=True)
class WrappedKeyPair:
    """A public key (SPKI, DER), and its private key as only the token's wrapping key of a generation can open it."""

    public_key: bytes
    wrapped_key: bytes = field(repr=False)
    wrapping_generation: int = 1


class Hsm(Protocol):
    """The hardware security module: one logged-in token.

    All methods may be called from any thread at once. All raise `HsmUnavailable` when the token
    cannot be used: at once when that is known, else within the module's own time. After it a
    signature may or may not have been made, but none was handed out.
    """

    def ready(self) -> bool:
        """Tells, without touching the token, whether its last probe or use went well."""

    def prepare(self, key: KeyReference) -> None:
        """Finds the key's object and caches its handle, so that `sign` need not search.

        Raises `KeyMismatch` unless exactly one private key has `object_id` and its public key, where
        the token shows it, equals the record's.

        A wrapped key is unwrapped, once for all who use it at the same time, and kept until others
        were used more lately. Raises `KeyMismatch` when the token does not open it: other bytes, or
        wrapped by another token. What it opens shows no public key, so the comparison with the record
        is the first signature that the caller verifies; no signature is spent on it here.
        """

    def sign(
        self,
        key: KeyReference,
        algorithm: SignatureAlgorithm,
        messages: Sequence[bytes],
        *,
        pss_salt_length: int | None,
    ) -> list[bytes]:
        """Signs each message in order: a digest of the algorithm's length, or for Ed25519 the data.

        ECDSA signatures come back as DER (RFC 3279, section 2.2.3), RSA as octet strings of the
        modulus's length (RFC 8017), Ed25519 as 64 bytes (RFC 8032). Lengths are checked here, for
        tokens do not: `ValueError` when a digest is too short or long. Finds the key first when it is
        not prepared, and raises what `prepare` raises.
        """

    def authenticate(self, message: bytes, *, generation: int = 1) -> bytes:
        """Returns HMAC-SHA256 of the message by the installation's sealing key of a generation (32 bytes).

        Raises `KeyMismatch` when the token has no such key. One that another process made since is found.
        """

    def encrypt(self, plaintext: Secret, *, associated_data: bytes) -> bytes:
        """Encrypts with the one-time password key: AES-256-GCM, nonce ‖ ciphertext ‖ tag."""

    def decrypt(self, ciphertext: bytes, *, associated_data: bytes) -> Secret:
        """Opens what `encrypt` made.

        Raises `DecryptionFailed` when ciphertext or associated data are not the ones that were
        encrypted: SoftHSM says for it the same as for a lost token, so the adapter finds out which.
        """

    def generate_key_pair(self, object_id: bytes, key_type: KeyType) -> bytes:
        """Generates a private key that is sensitive and not extractable; returns the SPKI in DER.

        The objects are on the token once it returns. After a failure objects with that id may be
        there: `destroy_key_pair` removes them, or the caller takes a new id.
        """

    def generate_wrapped_key_pair(self, key_type: KeyType, *, generation: int = 1) -> WrappedKeyPair:
        """Generates a key pair in the token, wraps its private key, and leaves nothing on the token.

        The private key was unwrapped, and its signature verified, before it is returned. It exists
        only in what is returned: the caller keeps it, and destroys it by forgetting it.

        Raises `WrappingNotSupported` when this token does not wrap such keys, as trying showed, and `KeyMismatch`
        when it has no wrapping key of that generation.
        """

    def rewrap(self, key: KeyReference, *, generation: int) -> WrappedKeyPair:
        """Wraps a wrapped key by the wrapping key of another generation, inside the token, and leaves nothing on it.

        The result was unwrapped, and its signature verified with the record's public key, before it is returned;
        what the key was before stays good. Raises what `prepare` raises, and `WrappingNotSupported` when the
        token does not let an unwrapped key be wrapped again.
        """

    def has_installation_key(self, purpose: InstallationKeyPurpose, generation: int) -> bool:
        """Tells whether the token shows the installation's key of a purpose and generation now.

        Raises `KeyMismatch` when it shows one that it did not generate itself, or that could leave it.
        """

    def make_installation_key(self, purpose: InstallationKeyPurpose, generation: int) -> None:
        """Makes the installation's key of a purpose and generation, unless the token has it; then it is on the token.

        One process at a time. Raises `SecurityOfficerNeeded` when only the token's security officer can make it, and
        `KeyMismatch` when another process made one too: try again; or for one that is not to be trusted.
        """

    def destroy_key_pair(self, object_id: bytes) -> None:
        """Removes the objects with that id. Does nothing when there are none."""

    def public_key(self, object_id: bytes) -> bytes | None:
        """Returns the SPKI (DER) of the key pair with that id, or None when there is none whole."""

    def key_pairs(self) -> Mapping[bytes, bytes | None]:
        """Returns the SPKI (DER) of every key pair on the token but the probe's, by id.

        None for an id that has not exactly one private and one public key, or keys of no known type. Walks the
        whole token, which holds thousands of keys at most.
        """

    def read_data(self, label: str) -> list[bytes]:
        """Returns what is kept on the token under a label: nothing, one value, or after a crash two."""

    def write_data(self, label: str, value: bytes) -> None:
        """Keeps a value on the token, only for who has the PIN, in the place of what has that label.

        One process at a time. It is there before what was there goes: a crash leaves one of them, or both.
        """

    def probe(self) -> None:
        """Signs a random message with the token's probe key and verifies it."""

    def close(self) -> None:
        """Ends the sessions. Calls that are under way end first."""


@dataclass(frozen=True, kw_only=True)
class DeliveredText:
    """What a person gets with a one-time password: one line, and for mail a subject. `body` holds the code."""

    subject: str
    body: Secret = field(repr=False)


class Delivery(Protocol):
    """Takes one-time passwords to people, by one kind of carrier. May be called from any thread."""

    def deliver(self, *, address: str, text: DeliveredText, message: str, timeout: float) -> None:
        """Hands a text over; once it returns, the carrier (a mail server, an SMS gateway) has taken it on.

        `message` is a random id of this text, so that a carrier which gets it twice can tell. Raises
        `DeliveryFailed` within `timeout` seconds when the carrier refused it, cannot be reached, or it is not
        known whether it took it: the text may then still arrive.
        """

    def reach(self, *, timeout: float) -> None:
        """Connects to the carrier, as far as that goes without a text: TLS, and a log-in where there is one.

        Raises `DeliveryFailed` within `timeout` seconds when that fails, and reports why.
        """


class ListPublication(Protocol):
    """Where the revocation lists of the installation's own CAs are fetched from. May be called from any thread."""

    def published(self, authority: str) -> bytes | None:
        """Returns what is published of a CA, or None. Raises `OSError` when that cannot be told."""

    def publish(self, authority: str, encoded: bytes) -> None:
        """Puts a CA's list (DER) in the place of the one before, at once: a reader finds one or the other, whole.

        Raises `OSError`; then the one before is still there.
        """


@dataclass(frozen=True, kw_only=True)
class LogUpdate:
    """What is to be published of the log: `files` by their paths, then `checkpoint`, a signed note that needs them.

    `outdated` are folders of partial tiles whose full tiles are among the files.
    """

    files: Iterable[tuple[str, bytes]]
    outdated: Sequence[str]
    checkpoint: str


class LogPublication(Protocol):
    """Where the log is published as files that any web server can serve (C2SP tlog-tiles).

    May be used from any thread, and by several processes and nodes at once. All methods raise `OSError`.
    """

    def checkpoint(self) -> str | None:
        """Returns the signed note that is published, as it is there: unverified; None when there is none."""

    def publish(self, update: Callable[[str | None], LogUpdate | None]) -> bool:
        """Publishes what `update` returns for the note that is published; tells whether there was something.

        Nobody else publishes meanwhile, so that an update made of what is read inside never takes the place of a later
        one. The files are durable before the checkpoint takes its place at once; after a failure or a crash the one
        before is there, with all files that it needs, and what was written for the next.
        """


@dataclass(frozen=True, kw_only=True)
class RevocationAnswer:
    """What a certificate's CA says of it: GOOD or REVOKED; `on_hold` when that may be taken back (certificateHold).

    `source` says for people where it comes from; the answer counts until before `valid_until`.
    """

    revocation: Revocation
    revoke_time: datetime | None = None
    on_hold: bool = False
    source: str
    valid_until: datetime


class RevocationSource(Protocol):
    """Asks the CAs of certificates for their revocation status. May be used from any thread; may take a while."""

    def status_of(self, certificate: bytes, issuer: bytes, *, at: datetime) -> RevocationAnswer:
        """Returns what is known of a certificate (DER) at a time, by an answer that its issuer (DER) stands for.

        Raises `StatusNotKnown` when nobody can be asked, nobody answers, or no answer can be believed: wrong
        signature, other certificate, too old, from the future, too large.
        """


class AuditSink(Protocol):
    """Where audit entries are handed over to other systems. Used by one thread at a time."""

    def write(self, entries: Sequence[tuple[int, AuditEntry]]) -> None:
        """Hands over entries with their positions, in order; once it returns each of them was taken.

        Taken: a file's lines are durable; a receiver's system has acknowledged the messages. Returns or raises within a
        bounded time. Raises `OSError` when it is not known that all were taken: some may have been, and the next write
        begins with them again.
        """

    def close(self) -> None:
        """Ends what is open. The next write opens it anew."""


class StatusNotKnown(Exception):  # noqa: N818
    """Nothing is known of a certificate now; the message says why, for operators."""


class KeyMismatch(Exception):  # noqa: N818
    """The token holds no such key, more than one, or one with another public key; or opens no such wrapped key."""


class WrappingNotSupported(ValueError):  # noqa: N818
    """The token does not wrap and unwrap keys of this type; the text says what it answered."""


class SecurityOfficerNeeded(Exception):  # noqa: N818
    """The token has no such key, and only its security officer can make one that is as good as the one before."""


class DecryptionFailed(Exception):  # noqa: N818
    """A ciphertext or its associated data are not what the token encrypted."""


@dataclass(frozen=True, kw_only=True)
class Sealed(Generic[R_co]):
    """A record with its seal: `seal_key` names the key (`1`: generation 1; `1/2026-11-24`: its day key)."""

    record: R_co
    seal_key: str
    seal: bytes


class Snapshot(Protocol):
    """One consistent view of the store. Used by one thread, only inside `work`.

    What it returns is not verified: whoever decides on a row checks its seal first. A row that cannot
    even be read as its record (a mangled enum, a text where a number belongs) raises
    `RecordNotTrusted`.
    """

    def get(self, kind: type[R], name: str) -> Sealed[R] | None:
        """Returns the record of that name."""

    def find(self, kind: type[R], /, *, limit: int, after: str = "", **equal: object) -> list[Sealed[R]]:
        """Returns up to `limit` records whose fields equal the given values, by name, from behind `after`.

        Fields that are searched on the way of a request have an index.
        """

    def count(self, kind: type[Record]) -> int:
        """Returns how many records of a kind there are; may read all of their names."""

    def latest_change(self, subject: str) -> Sealed[AuditEntry] | None:
        """Returns the entry with the highest `subject_version` that names `subject`."""

    def latest_time(self) -> datetime | None:
        """Returns the highest `time` of any audit entry: a clock that is behind it went back (P8)."""

    def outcome(self, request: str) -> Outcome | None:
        """Returns a granted request's recorded signatures."""

    def unsealed(self, *, limit: int, after: str = "") -> list[Sealed[AuditEntry]]:
        """Returns up to `limit` audit entries that have no position in the log, by name, from behind `after`."""

    def oldest_unsealed(self) -> datetime | None:
        """Returns the earliest `time` of the entries that have no position; None when all have one."""

    def log(self, first: int, *, limit: int) -> list[tuple[int, Sealed[AuditEntry]]]:
        """Returns the audit entries at the `limit` positions of the log from `first` on, each with its position.

        One whose entry is missing is left out: whoever counts on each one compares the positions.
        """

    def position(self, entry: str) -> int | None:
        """Returns the position of an audit entry; None when it has none yet, or does not exist."""


class Transaction(Snapshot, Protocol):
    """A view that can write. It sees its own writes."""

    def insert(self, row: Sealed[R]) -> None:
        """Adds a record of version 1.

        Raises `NameTaken` when the name, or the token of another client, exists; the transaction goes on.
        """

    def replace(self, row: Sealed[R]) -> None:
        """Puts a record in the place of its version - 1.

        Raises `VersionConflict` when the stored version is another, or there is none; the transaction
        goes on.
        """

    def record_outcome(self, outcome: Outcome) -> None:
        """Keeps a granted request's signatures; the first one stays."""

    def assign_positions(self, first: int, entries: Sequence[str]) -> None:
        """Gives audit entries the positions `first`, `first + 1`, …

        Raises `VersionConflict` unless each has none, and `NameTaken` when a position is taken; the work then has to
        be given up.
        """

    def remove(self, kind: type[Record], name: str, *, version: int) -> None:
        """Removes a record of that version, for good; for a `GrantedRequest` with its outcome.

        Raises `VersionConflict` when the stored version is another, or there is none; the transaction goes on.
        """

    def put_back(self, row: Sealed[R], *, position: int | None = None) -> None:
        """Adds a record of any version with the seal that it has: what a backup kept.

        An audit entry gets its `position`, or none yet. Raises `NameTaken` as `insert` does.
        """


class NameTaken(Exception):  # noqa: N818
    """A record of that name exists."""


class VersionConflict(Exception):  # noqa: N818
    """The record was changed meanwhile."""


class Store(Protocol):
    """The database. All methods may be called from any thread at once.

    All raise `StoreUnavailable` when the database cannot be used.
    """

    def read(self, work: Callable[[Snapshot], T]) -> T:
        """Runs `work` on a consistent snapshot of what is committed, and returns its result."""

    def transact(self, work: Callable[[Transaction], T], *, timeout: float) -> T:
        """Runs `work` in a transaction of its own and commits; durable once it returns (P1).

        Serializable. `work` makes no token or network call, is quick, and may run more than once, so
        it has no effect but through its transaction. What it raises rolls back its writes alone, and
        is raised here. Requests that wait at the same time share one commit, each behind a savepoint.

        Raises `StoreUnavailable` when `timeout` seconds pass or the commit's result is not known:
        the writes may then be there, later, or never; the caller acts on none of them.
        """

    def now(self) -> datetime:
        """Returns the time by the database's clock."""

    def close(self) -> None:
        """Finishes what is queued, and closes."""
