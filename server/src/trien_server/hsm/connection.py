"""One generation of the token: everything between one start of the module and its end.

Sessions, handles and the login belong to a generation and end with it. Nothing is carried over, so
that no handle of a lost token is ever used again.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11 import Mechanism, Session
from pkcs11.exceptions import PKCS11Error

from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import KeyMismatch
from trien_server.core.secret import Secret
from trien_server.hsm.calls import Calls
from trien_server.hsm.check_values import ExportedKeys, none_exported
from trien_server.hsm.failures import Failure, NotProvisioned, PinRejected, TokenFailed, classify, describe
from trien_server.hsm.keys import (
    ONE_TIME_PASSWORD_KEY,
    PROBE_KEY,
    SEALING_KEY,
    WRAPPING_KEY,
    encode_public_key,
    find_probe_keys,
    find_secret_keys,
)
from trien_server.hsm.mechanisms import standard_signature
from trien_server.hsm.module import Module, function_list
from trien_server.hsm.sessions import SessionPool, TokenSession
from trien_server.hsm.unwrapped import UNWRAPPED_KEYS, UnwrappedKeys
from trien_server.hsm.wrapping import Wrapping

Report = Callable[[str, Mapping[str, str]], None]
"""Tells the operator of an event: its name and what is known. Called from any thread; must not raise."""


class Connection:
    """The anchor session, logged in, and the pools of sessions that share its login."""

    def __init__(
        self,
        *,
        module: Module,
        token_label: str | None,
        token_serial: str | None,
        pin: Secret,
        sessions: int,
        report: Report,
        unwrapped_keys: int = UNWRAPPED_KEYS,
        counted: Callable[[], None] = lambda: None,
        exported: ExportedKeys = none_exported,
    ) -> None:
        """Logs in and opens the sessions. The PIN is tried once. `counted` is told of each unwrapped key.

        Raises `PinRejected`, `NotProvisioned`, or `HsmUnavailable`; the caller then ends the module.
        """
        self._opened = False
        self._exported = exported
        try:
            self._token = module.find_token(label=token_label, serial=token_serial)
            self._anchor: Final = log_in(self._token, pin)
            self._probe_public_key = self._read_probe_public_key()
            self.readers: Final = SessionPool(lambda: self._open(rw=False), sessions)
            self.writer: Final = SessionPool(lambda: self._open(rw=True), 1)
            self.keeper: Final = SessionPool(lambda: self._open(rw=False), 1)
            self.wrapping: Final = Wrapping(Calls(function_list(module.so)))
            self.unwrapped: Final = UnwrappedKeys(self.keeper, self.wrapping, size=unwrapped_keys, counted=counted)
            opened = self.readers.open_all()
            self.writer.open_all()
            self.keeper.open_all()
        except KeyMismatch as error:
            raise NotProvisioned(f"The token's keys are not Trien's: {error}.") from error
        except PKCS11Error as error:
            raise HsmUnavailable(f"The token could not be opened: {describe(error)}.") from error
        self._opened = True
        if opened < sessions:
            report("hsm.fewer_sessions", {"wanted": str(sessions), "opened": str(opened)})

    @property
    def pools(self) -> tuple[SessionPool, ...]:
        """The sessions that sign; the one that writes; the one that holds unwrapped keys."""
        return (self.readers, self.writer, self.keeper)

    def refuse(self) -> None:
        """Lets no new call in."""
        for pool in self.pools:
            pool.refuse()

    def drain(self, timeout: float) -> bool:
        """Waits for the calls under way; tells whether all ended. Each pool may take `timeout` seconds."""
        return all(pool.drain(timeout) for pool in self.pools)

    def _open(self, *, rw: bool) -> TokenSession:
        """Opens a session without the PIN (a second login would fail) and finds the installation's keys in it."""
        session = self._token.open(rw=rw)
        try:
            return self._with_installation_keys(session)
        except BaseException:
            with suppress(PKCS11Error):
                session.close()
            raise

    def _with_installation_keys(self, session: Session) -> TokenSession:
        private, _ = find_probe_keys(session)
        try:
            return TokenSession(
                session,
                sealing_key=self._secret_key(session, SEALING_KEY),
                password_key=self._secret_key(session, ONE_TIME_PASSWORD_KEY),
                wrapping_key=self._secret_key(session, WRAPPING_KEY),
                probe_key=self._only(PROBE_KEY, private),
                probe=self._probe,
                exported=self._exported,
            )
        except KeyMismatch as error:
            raise NotProvisioned(f"The token's keys are not Trien's: {error}.") from error

    def _secret_key(self, session: Session, label: str) -> Any:
        return self._only(label, find_secret_keys(session, label, exported=self._exported))

    def _only(self, label: str, found: list[Any]) -> Any:
        if len(found) == 1:
            return found[0]
        if self._opened:
            raise TokenFailed(f"The token no longer shows {label!r}.")
        raise NotProvisioned(f"The token holds {len(found)} keys {label!r}, not one: run `trien-server init`.")

    def _read_probe_public_key(self) -> ec.EllipticCurvePublicKey:
        _, public = find_probe_keys(self._anchor)
        key = load_der_public_key(encode_public_key(self._only(PROBE_KEY, public)))
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise NotProvisioned(f"{PROBE_KEY!r} is of another type.")
        return key

    def _probe(self, session: TokenSession) -> None:
        digest = os.urandom(32)
        raw = session.probe_key.sign(digest, mechanism=Mechanism.ECDSA)
        signature = standard_signature(SignatureAlgorithm.ECDSA_P256_SHA256, KeyType.EC_P256, raw)
        try:
            self._probe_public_key.verify(signature, digest, ec.ECDSA(Prehashed(SHA256())))
        except InvalidSignature as error:
            raise TokenFailed("The token's probe signature does not verify.") from error


def log_in(token: Any, pin: Secret) -> Session:
    """Opens a session with the PIN, which is tried once. Raises `PinRejected`, or what the module raises."""
    try:
        session: Session = token.open(rw=True, user_pin=pin.reveal().decode())
    except PKCS11Error as error:
        if classify(error) is Failure.PIN:
            raise PinRejected(f"The token refused the PIN ({describe(error)}); an operator must act.") from None
        raise
    return session
