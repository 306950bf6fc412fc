"""The adapter of `core.ports.Hsm` for any PKCS#11 module."""

import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from pkcs11 import Attribute, GCMParams, Mechanism
from pkcs11.exceptions import (
    EncryptedDataInvalid,
    EncryptedDataLenRange,
    KeyHandleInvalid,
    ObjectHandleInvalid,
    PKCS11Error,
)

from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import DecryptionFailed, KeyMismatch, KeyReference, WrappedKeyPair
from trien_server.core.records import InstallationKeyPurpose
from trien_server.core.secret import Secret
from trien_server.hsm.check_values import ExportedKeys, none_exported
from trien_server.hsm.connection import Connection, Report
from trien_server.hsm.failures import CallRefused, Failure, TokenFailed, classify, describe
from trien_server.hsm.findings import wrapping_findings
from trien_server.hsm.keys import (
    FIRST_LABELS,
    create_data,
    encode_public_key,
    find_all_key_pairs,
    find_data,
    find_key_pair,
    find_secret_keys,
    generate_key_pair,
)
from trien_server.hsm.mechanisms import signing_mechanism, standard_signature, token_input
from trien_server.hsm.module import load_module
from trien_server.hsm.provisioning import make_installation_key
from trien_server.hsm.recovery import LONGEST_PROBE_INTERVAL, Recovery
from trien_server.hsm.selftest import prove_locking
from trien_server.hsm.sessions import SessionPool, Slot, TokenSession
from trien_server.hsm.unwrapped import UNWRAPPED_KEYS, Run
from trien_server.hsm.wrapping import UnwrappedKey

_NEW_KEY_PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.4)
"""How long, in seconds, a key that is not found is waited for before it counts as missing."""

T = TypeVar("T")

WAIT_FOR_SESSION: Final = 5.0
"""How long a call waits for a free session (seconds)."""

WAIT_FOR_WRITER: Final = 30.0
"""How long making or destroying a key pair waits for its turn (seconds)."""

PROBE_INTERVAL: Final = 1.0
"""How often an idle token is probed (seconds)."""

NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16


class Pkcs11Hsm:
    """A token, found by label or serial number and opened with its PIN. One for each module in a process.

    A call that runs inside a hung module cannot be interrupted; calls that come later are refused
    within seconds, and so is the process by its readiness: it must then be replaced.

    Events that are reported, with no secret in them: `hsm.unavailable`, `hsm.recovered`, `hsm.hung`,
    `hsm.pin_rejected`, `hsm.fewer_sessions`, `hsm.call_refused`. What a session cannot do twice it tries on another one
    once, so a signature may have been made twice; only one is handed out.
    """

    def __init__(
        self,
        *,
        module_path: str,
        pin: Secret,
        token_label: str | None = None,
        token_serial: str | None = None,
        sessions: int | None = None,
        report: Report | None = None,
        probe_interval: float = PROBE_INTERVAL,
        self_test: bool = True,
        unwrapped_keys: int = UNWRAPPED_KEYS,
        reopen_interval: float | None = None,
        exported: ExportedKeys = none_exported,
    ) -> None:
        """Loads the module, logs in, probes, and with `self_test` proves that it bears threads.

        `sessions` is the size of the pool, by default the number of processors, at most 8. Up to
        `unwrapped_keys` wrapped keys are kept ready. With `reopen_interval`, in seconds, a key that is not found
        has the module started anew, at most so often: for tokens that other processes write to. `exported` names the
        keys that custodians can bring back, by their check values.

        Raises `PinRejected` (do not start again without an operator: tokens lock), `NotProvisioned`, or
        `HsmUnavailable`.
        """
        if token_label is None and token_serial is None:
            raise ValueError("a token is found by its label or its serial number")
        if not 0 < probe_interval <= LONGEST_PROBE_INTERVAL:
            raise ValueError(f"the token is probed every {LONGEST_PROBE_INTERVAL} s or more often")
        if unwrapped_keys < 1:
            raise ValueError("at least one unwrapped key is kept")
        self._reopen_interval = reopen_interval
        self._next_reopening = 0.0
        self._exported = exported
        tell: Report = report if report is not None else _tell_nobody
        self._tell = tell
        counts = self._counts = Counter[str]()
        module = load_module(module_path)

        def connect() -> Connection:
            return Connection(
                module=module,
                token_label=token_label,
                token_serial=token_serial,
                pin=pin,
                sessions=sessions if sessions is not None else min(os.cpu_count() or 1, 8),
                report=tell,
                unwrapped_keys=unwrapped_keys,
                counted=lambda: counts.update(("unwrapped",)),  # not a method: a cycle would keep the module alive
                exported=exported,
            )

        self._recovery = Recovery(module=module, connect=connect, report=tell, probe_interval=probe_interval)
        try:
            self.probe()
            if self_test:
                prove_locking(
                    module_path=module_path,
                    token_label=token_label,
                    token_serial=token_serial,
                    pin=pin,
                    exported=exported,
                )
        except BaseException:
            self._recovery.close()
            raise
        self._recovery.start(self.probe)

    def ready(self) -> bool:
        """Tells, without touching the token, whether its last probe or use went well, and lately."""
        return self._recovery.ready()

    @property
    def unwrappings(self) -> int:
        """How many times a wrapped key was unwrapped since the start."""
        return self._counts["unwrapped"]

    def prepare(self, key: KeyReference) -> None:
        """Finds the key in every session of the pool, or unwraps it for all of them. See `Hsm.prepare`."""
        connection = self._recovery.connection()
        if key.wrapped_key is not None:
            with connection.unwrapped.use(key, self._keep(connection)):
                return
        readers = connection.readers
        for slot in readers.slots:
            if not slot.knows(key):
                self._find(key, slot)

    def _find(self, key: KeyReference, slot: Slot) -> None:
        """Finds the key in one session. Another process may have made it just now, and still be writing it."""
        self._with_new_key(lambda: self._use(lambda session: session.private_key(key), wanted=slot))

    def _with_new_key(self, use: Callable[[], T]) -> T:
        """Runs what needs a key that another process may be writing just now. Raises `KeyMismatch` in its absence."""
        for pause in _NEW_KEY_PAUSES:
            try:
                return use()
            except KeyMismatch:
                time.sleep(pause)
        try:
            return use()
        except KeyMismatch as mismatch:
            if not self._may_reopen():
                raise
            # SoftHSM can miss for good what another process wrote just when it looked: only starting it anew helps.
            self._recovery.failed(self._recovery.connection(), mismatch)
            raise HsmUnavailable from mismatch

    def _may_reopen(self) -> bool:
        """Tells whether the module may be started anew for a key that is missing: seldom, for it stops all else."""
        now = time.monotonic()
        if self._reopen_interval is None or now < self._next_reopening:
            return False
        self._next_reopening = now + self._reopen_interval
        return True

    def sign(
        self,
        key: KeyReference,
        algorithm: SignatureAlgorithm,
        messages: Sequence[bytes],
        *,
        pss_salt_length: int | None,
    ) -> list[bytes]:
        """Signs all messages in one session. See `Hsm.sign`.

        Raises `KeyMismatch` when the key is not prepared and not on the token, and `ValueError` also
        when the token knows no such mechanism.
        """
        mechanism, parameter = signing_mechanism(algorithm, key.key_type, pss_salt_length)
        inputs = [token_input(algorithm, message) for message in messages]
        signatures: list[bytes] = []

        def sign_with(private: Any) -> list[bytes]:
            for data in inputs[len(signatures) :]:
                raw = private.sign(data, mechanism=mechanism, mechanism_param=parameter)
                signatures.append(standard_signature(algorithm, key.key_type, raw))
                self._recovery.answered()
            return signatures

        if key.wrapped_key is not None:
            return self._use_unwrapped(key, sign_with)
        return self._use(lambda session: sign_with(session.private_key(key)))

    def authenticate(self, message: bytes, *, generation: int = 1) -> bytes:
        """See `Hsm.authenticate`. Raises `HsmUnavailable` while the module is started anew to look for the key."""

        def work(session: TokenSession) -> bytes:
            code: bytes = session.sealing_key(generation).sign(message, mechanism=Mechanism.SHA256_HMAC)
            if len(code) != 32:
                raise TokenFailed(f"The token returned {len(code)} bytes as an HMAC of 32.")
            return code

        return self._with_new_key(lambda: self._use(work))

    def encrypt(self, plaintext: Secret, *, associated_data: bytes) -> bytes:
        """See `Hsm.encrypt`. The nonce is random: 2^32 encryptions are safe with one key (SP 800-38D, 8.3)."""
        nonce = secrets.token_bytes(NONCE_SIZE)
        parameters = GCMParams(nonce, associated_data, 8 * TAG_SIZE)

        def work(session: TokenSession) -> bytes:
            sealed: bytes = session.password_key.encrypt(
                plaintext.reveal(), mechanism=Mechanism.AES_GCM, mechanism_param=parameters
            )
            if len(sealed) != len(plaintext.reveal()) + TAG_SIZE:
                raise TokenFailed("The token's ciphertext has another length than it must have.")
            return nonce + sealed

        return self._use(work)

    def decrypt(self, ciphertext: bytes, *, associated_data: bytes) -> Secret:
        """See `Hsm.decrypt`. An error that a lost token would give too is decided by what else the token can do."""
        if len(ciphertext) < NONCE_SIZE + TAG_SIZE:
            raise DecryptionFailed("the ciphertext is too short")
        parameters = GCMParams(ciphertext[:NONCE_SIZE], associated_data, 8 * TAG_SIZE)

        def attempt(session: TokenSession) -> Secret:
            return Secret(
                session.password_key.decrypt(
                    ciphertext[NONCE_SIZE:], mechanism=Mechanism.AES_GCM, mechanism_param=parameters
                )
            )

        def work(session: TokenSession) -> Secret:
            try:
                return attempt(session)
            except (EncryptedDataInvalid, EncryptedDataLenRange):
                pass
            except PKCS11Error as error:
                if classify(error) is not Failure.DEVICE:
                    raise
                session.probe()
                try:
                    return attempt(session)
                except PKCS11Error as again:
                    if classify(again) is not Failure.DEVICE:
                        raise
            # Whose fault it is shows a ciphertext of the token's own: when it does not open that, this raises.
            own = GCMParams(secrets.token_bytes(NONCE_SIZE), b"", 8 * TAG_SIZE)
            key = session.password_key
            sealed = key.encrypt(b"probe", mechanism=Mechanism.AES_GCM, mechanism_param=own)
            if key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=own) != b"probe":
                raise TokenFailed("The token does not decrypt what it encrypted.")
            raise DecryptionFailed("ciphertext or associated data are not what was encrypted")

        return self._use(work)

    def generate_key_pair(self, object_id: bytes, key_type: KeyType) -> bytes:
        """See `Hsm.generate_key_pair`. One at a time in this process.

        Raises `KeyMismatch` when the id is taken, and `ValueError` when the token makes no such keys.
        """
        _check_id(object_id)

        def work(session: TokenSession) -> bytes:
            if any(find_key_pair(session.session, object_id)):
                raise KeyMismatch("the token holds a key with that id")
            return generate_key_pair(session.session, object_id, key_type)

        # Tried once: a second attempt could leave two keys with one id.
        return self._write(work, attempts=1)

    def generate_wrapped_key_pair(self, key_type: KeyType, *, generation: int = 1) -> WrappedKeyPair:
        """See `Hsm.generate_wrapped_key_pair`. One at a time in this process, and one with `generate_key_pair`."""
        wrapping = self._recovery.connection().wrapping
        return self._with_new_key(
            lambda: self._write(lambda session: wrapping.generate(session, key_type, generation), attempts=2)
        )

    def rewrap(self, key: KeyReference, *, generation: int) -> WrappedKeyPair:
        """See `Hsm.rewrap`. One at a time in this process; sessions that sign go on meanwhile."""
        wrapping = self._recovery.connection().wrapping
        return self._write(lambda session: wrapping.rewrap(session, key, generation), attempts=2)

    def has_installation_key(self, purpose: InstallationKeyPurpose, generation: int) -> bool:
        """See `Hsm.has_installation_key`."""
        first = FIRST_LABELS[purpose]
        return self._use(
            lambda session: bool(find_secret_keys(session.session, first, generation, exported=self._exported))
        )

    def make_installation_key(self, purpose: InstallationKeyPurpose, generation: int) -> None:
        """See `Hsm.make_installation_key`."""
        calls = self._recovery.connection().wrapping.calls
        self._write(
            lambda session: make_installation_key(session.session, calls, purpose, generation, exported=self._exported),
            attempts=1,
        )

    def wrapping_findings(self) -> tuple[str, ...]:
        """Tries to open and to weaken wrapped keys as a thief of the PIN would; returns what the token let happen.

        One sentence for the operator each; none when the token refuses all. Takes milliseconds.

        Raises `WrappingNotSupported` when the token wraps no keys.
        """
        wrapping = self._recovery.connection().wrapping
        return self._write(lambda session: wrapping_findings(wrapping, session), attempts=1)

    def destroy_key_pair(self, object_id: bytes) -> None:
        """See `Hsm.destroy_key_pair`. Private keys go first: after a crash here a public key may be left."""
        _check_id(object_id)

        def work(session: TokenSession) -> None:
            private, public = find_key_pair(session.session, object_id)
            if not private and not public:
                session.probe()
            for item in (*private, *public):
                item.destroy()

        for slot in self._recovery.connection().readers.slots:
            slot.forget(object_id)
        self._write(work, attempts=2)
        for slot in self._recovery.connection().readers.slots:
            slot.forget(object_id)

    def public_key(self, object_id: bytes) -> bytes | None:
        """See `Hsm.public_key`. Raises `KeyMismatch` when several objects of a kind have the id."""
        _check_id(object_id)

        def work(session: TokenSession) -> bytes | None:
            private, public = find_key_pair(session.session, object_id)
            if len(private) > 1 or len(public) > 1:
                raise KeyMismatch("several keys have the id")
            if not private or not public:
                session.probe()
                return None
            return encode_public_key(public[0])

        return self._use(work)

    def key_pairs(self) -> Mapping[bytes, bytes | None]:
        """See `Hsm.key_pairs`. Holds one session for the walk."""

        def work(session: TokenSession) -> dict[bytes, bytes | None]:
            found = find_all_key_pairs(session.session)
            if not found:
                session.probe()
            return found

        return self._use(work)

    def read_data(self, label: str) -> list[bytes]:
        """See `Hsm.read_data`."""

        def work(session: TokenSession) -> list[bytes]:
            found = find_data(session.session, label)
            if not found:
                session.probe()
            return [bytes(item[Attribute.VALUE]) for item in found]

        return self._use(work)

    def write_data(self, label: str, value: bytes) -> None:
        """See `Hsm.write_data`."""

        def work(session: TokenSession) -> None:
            before = find_data(session.session, label)
            create_data(session.session, label, value)
            for item in before:
                item.destroy()

        self._write(work, attempts=1)

    def probe(self) -> None:
        """See `Hsm.probe`."""
        connection = self._recovery.connection(probing=True)
        try:
            self._use(lambda session: session.probe(), probing=True)
        except CallRefused as refused:
            # A token that will not sign with its own probe key signs nothing else.
            self._recovery.failed(connection, refused)
            raise

    def close(self) -> None:
        """See `Hsm.close`. Waits a bounded time; with calls that hang, the process has to end."""
        self._recovery.close()

    def _use(self, work: Callable[[TokenSession], T], *, wanted: Slot | None = None, probing: bool = False) -> T:
        """Runs `work` with a session of the pool, after a session's failure once more with another."""
        connection = self._recovery.connection(probing=probing)
        return self._run(connection, connection.readers, work, attempts=2, timeout=WAIT_FOR_SESSION, wanted=wanted)

    def _use_unwrapped(self, key: KeyReference, work: Callable[[Any], T]) -> T:
        """Runs `work` with an unwrapped key: unwraps it first, so that no session that signs waits for that.

        Raises `KeyMismatch` also when the key signs as one of another type does.
        """
        connection = self._recovery.connection()
        keep = self._keep(connection)

        def sign(session: TokenSession) -> T:
            keeper = connection.keeper.slots[0].present
            with connection.unwrapped.use(key, keep) as handle:
                try:
                    return work(UnwrappedKey(session.session, handle, key.key_type))
                except (KeyHandleInvalid, ObjectHandleInvalid):
                    self._drop_keeper(connection, keeper)
                    raise
                except TokenFailed as error:
                    raise KeyMismatch("the unwrapped key is of another type") from error

        with connection.unwrapped.use(key, keep):
            return self._run(
                connection, connection.readers, sign, attempts=2, timeout=WAIT_FOR_SESSION, proves_token=False
            )

    def _keep(self, connection: Connection) -> Run:
        """Returns what runs work with the session that holds the unwrapped keys."""
        return partial(self._run, connection, connection.keeper, attempts=2, timeout=WAIT_FOR_SESSION)

    def _drop_keeper(self, connection: Connection, keeper: TokenSession | None) -> None:
        """Drops the session that holds the unwrapped keys, and so all their handles, unless that was done."""
        with connection.keeper.lease(WAIT_FOR_SESSION) as slot:
            if slot.present is keeper:
                slot.drop()

    def _write(self, work: Callable[[TokenSession], T], *, attempts: int) -> T:
        """Runs `work` with the one session that creates and destroys: SoftHSM does not bear two."""
        connection = self._recovery.connection()
        return self._run(connection, connection.writer, work, attempts=attempts, timeout=WAIT_FOR_WRITER)

    def _run(
        self,
        connection: Connection,
        pool: SessionPool,
        work: Callable[[TokenSession], T],
        *,
        attempts: int,
        timeout: float,
        wanted: Slot | None = None,
        proves_token: bool = True,
    ) -> T:
        """Runs `work` with a session and judges its errors. With `proves_token` its success is as good as a probe."""
        while True:
            attempts -= 1
            with pool.lease(timeout, wanted) as slot:
                try:
                    result = work(slot.session())
                except (ValueError, KeyMismatch, DecryptionFailed):
                    raise
                except PKCS11Error as error:
                    failure = classify(error)
                    if failure is Failure.REQUEST:
                        if pool is connection.writer:
                            raise ValueError(f"the token refused the call: {describe(error)}") from error
                        self._tell("hsm.call_refused", {"error": describe(error)})
                        raise CallRefused(f"the token refused the call: {describe(error)}") from error
                    slot.drop()
                    if failure is Failure.SESSION_COUNT and pool.retire(slot):
                        attempts += 1
                    elif failure is Failure.PIN:
                        self._recovery.pin_refused(connection, error)
                        raise HsmUnavailable from error
                    elif failure is not Failure.SESSION or not attempts:
                        self._recovery.failed(connection, error)
                        raise HsmUnavailable from error
                except BaseException as error:
                    slot.drop()
                    if isinstance(error, HsmUnavailable):
                        self._recovery.failed(connection, error)
                    raise
                else:
                    if proves_token:
                        self._recovery.good()
                    else:
                        self._recovery.answered()
                    return result


def _check_id(object_id: bytes) -> None:
    if not object_id:
        raise ValueError("the id is empty")


def _tell_nobody(event: str, details: Mapping[str, str]) -> None:
    """Takes reports that nobody asked for."""
