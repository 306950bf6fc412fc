"""The log's keys: key pairs on the token, each signed in by the one before, that sign the log's checkpoints (P10)."""

import dataclasses
import threading
from collections.abc import Sequence

from trien_server.core.algorithms import KeyType
from trien_server.core.checkpoints import LogKey, NoteNotValid, format_note, succession_body
from trien_server.core.errors import HsmUnavailable, StateConflict
from trien_server.core.ports import Clock, Hsm, KeyMismatch, KeyReference, Randomness, Report
from trien_server.core.records import InstallationKey, InstallationKeyPurpose, InstallationKeyState, Record
from trien_server.core.signing_request import ALGORITHMS
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.leases import TOKEN_OBJECTS, Leases
from trien_server.services.sealing_generations import read_generations
from trien_server.services.token_signatures import not_verified
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView

_LEASE_SECONDS = 10.0
_SECONDS = 30.0
_KEY_TYPES = (KeyType.EC_ED25519, KeyType.EC_P256)
_TRIAL = "trien log key trial\n"
"""What a new key signs before it is used: no text that could pass for a checkpoint or a succession."""


def log_key_of(key: InstallationKey) -> LogKey:
    """Returns the public key of a generation that was generated. Raises `NoteNotValid` for one that cannot be."""
    if key.key_type is None or key.public_key is None or key.origin is None:
        raise NoteNotValid(f"{key.name} has no public key")
    return LogKey(key.origin, key.key_type, key.public_key)


def generated(keys: Sequence[InstallationKey]) -> list[InstallationKey]:
    """Returns the generations of the log's key that have a key pair: all but one that is being made."""
    return [key for key in keys if key.state is not InstallationKeyState.PENDING_GENERATION]


def active_log_key(keys: Sequence[InstallationKey]) -> InstallationKey | None:
    """Returns the generation that signs; None before the first one was generated."""
    return next((key for key in reversed(keys) if key.state is InstallationKeyState.ACTIVE), None)


def read_log_keys(view: TrustedView) -> list[InstallationKey]:
    """Returns all generations of the log's key, in order."""
    return read_generations(view, InstallationKeyPurpose.LOG)


def read_first_log_key(view: TrustedView) -> str:
    """Returns the first key of the log, as a line: whoever has it follows to all later ones.

    Raises `StateConflict` before there is one.
    """
    for key in generated(read_log_keys(view))[:1]:
        return log_key_of(key).vkey
    raise StateConflict("The log has no key yet: run this again.")


def sign_note(hsm: Hsm, key: InstallationKey, body: str) -> str:
    """Returns the signed note of a text, by the token; its signature was verified.

    Raises `HsmUnavailable`, also when the token does not hold the key.
    """
    return format_note(body, [(log_key_of(key), _sign(hsm, key, body))])


def _sign(hsm: Hsm, key: InstallationKey, body: str) -> bytes:
    public = log_key_of(key)
    reference = KeyReference(object_id=key.object_id or b"", key_type=public.key_type, public_key=public.public_key)
    try:
        (signature,) = hsm.sign(reference, ALGORITHMS[public.key_type], [public.message(body)], pss_salt_length=None)
    except KeyMismatch as mismatch:
        raise HsmUnavailable("The token does not hold the log's key.") from mismatch
    try:
        public.verify(body, signature)
    except NoteNotValid:
        raise not_verified() from None
    return signature


class LogKeyGeneration:
    """Carries out what the records ask for: the first key of the log, and each one that follows it.

    An attempt writes the id of the key pair into the record in PENDING_GENERATION, and then makes the pair. What a
    crash leaves of it the next attempt finds by that id and destroys, for it may be half a key that no longer signs.
    One transaction makes the new key ACTIVE, with its public key and with what the one before signed of it, and the one
    before RETIRED. The private key of that one stays on the token: a database that is restored from before the rotation
    needs it to name its successor.
    """

    def __init__(
        self,
        *,
        hsm: Hsm,
        transactions: Transactions,
        changes: Changes,
        leases: Leases,
        clock: Clock,
        randomness: Randomness,
        report: Report,
    ) -> None:
        self._hsm = hsm
        self._transactions = transactions
        self._changes = changes
        self._leases = leases
        self._clock = clock
        self._randomness = randomness
        self._report = report
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Waits for no lease any longer."""
        self._stopped.set()

    def look(self, *, wait: float = _LEASE_SECONDS) -> bool:
        """Makes the key that is asked for, if there is one, and puts it in use; returns whether it did.

        Raises `Busy` while another process creates or destroys objects on the token, and refusals of its ports.
        """
        keys = self._transactions.read(read_log_keys)
        if not keys or keys[-1].state is not InstallationKeyState.PENDING_GENERATION:
            return False
        with self._leases.hold(TOKEN_OBJECTS, wait=wait, stopped=self._stopped):
            keys = self._transactions.read(read_log_keys)
            pending, before = keys[-1], active_log_key(keys)
            if pending.state is not InstallationKeyState.PENDING_GENERATION:
                return False
            attempt = next_version(pending, object_id=self._randomness.bytes(16))
            if not self._swap(pending, attempt):
                return False
            if pending.object_id is not None:
                self._hsm.destroy_key_pair(pending.object_id)
            made = self._generate(attempt)
            if before is not None:
                text = succession_body(log_key_of(before).origin, log_key_of(made))
                made = dataclasses.replace(made, succession=sign_note(self._hsm, before, text))
            return self._activate(attempt, before, made)

    def _swap(self, pending: InstallationKey, attempt: InstallationKey) -> bool:
        # Each attempt has an id of its own: two processes that are at it never make two pairs under one.
        deadline = Deadline(self._clock, _SECONDS)
        return self._changes.swap("server", pending, attempt, kind="installation_key_begun", deadline=deadline)

    def _generate(self, pending: InstallationKey) -> InstallationKey:
        """Returns the record with a new key pair, which is on the token then.

        Whether the token makes and uses Ed25519 keys is found by trying; else it is P-256.
        """
        object_id = pending.object_id or b""
        for key_type in dict.fromkeys((pending.key_type or KeyType.EC_ED25519, KeyType.EC_P256)):
            try:
                public_key = self._hsm.generate_key_pair(object_id, key_type)
            except ValueError as refused:
                self._report("log_key_type_refused", {"key_type": key_type.value, "because": type(refused).__name__})
                continue
            made = self._tried(pending, key_type, public_key)
            if made is not None:
                return made
            self._hsm.destroy_key_pair(object_id)
        raise HsmUnavailable("The token makes no key that could sign the log.")

    def _tried(self, pending: InstallationKey, key_type: KeyType, public_key: bytes) -> InstallationKey | None:
        """Returns the record with a key pair that signs; None when it does not sign as a key of that type."""
        made = next_version(
            pending,
            state=InstallationKeyState.ACTIVE,
            state_time=self._clock.now(),
            key_type=key_type,
            public_key=public_key,
        )
        try:
            _sign(self._hsm, made, _TRIAL)
        except (NoteNotValid, ValueError):
            return None
        return made

    def _activate(self, pending: InstallationKey, before: InstallationKey | None, made: InstallationKey) -> bool:
        activated = False

        def prepare(view: TrustedView) -> Change:
            nonlocal activated
            keys = read_log_keys(view)
            slow: list[Record] = []
            activated = keys[-1] == pending and active_log_key(keys) == before
            if activated:
                slow.append(made)
                if before is not None:
                    at = made.state_time
                    slow.insert(0, next_version(before, state=InstallationKeyState.RETIRED, state_time=at))
            return Change(kind="installation_key_activated", slow=slow)

        self._changes.make("server", prepare, deadline=Deadline(self._clock, _SECONDS))
        if not activated:
            self._hsm.destroy_key_pair(pending.object_id or b"")  # another attempt is in force, with an id of its own
        return activated
