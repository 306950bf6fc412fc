"""Tries with throw-away keys what a thief of the PIN would try on wrapped keys, and tells what the token let happen."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from pkcs11 import Attribute, Mechanism, MechanismFlag, ObjectClass
from pkcs11 import KeyType as TokenKeyType
from pkcs11.exceptions import PKCS11Error

from trien_server.core.algorithms import KeyType
from trien_server.hsm.calls import Template
from trien_server.hsm.keys import generate_key_pair_to_wrap
from trien_server.hsm.sessions import TokenSession
from trien_server.hsm.wrapping import Wrapping, is_changeable, is_trusted, unwrapping_template, wrapping_key_template

_WEAKER: Final[tuple[tuple[str, Template], ...]] = (
    ("extractable", {Attribute.EXTRACTABLE: True}),
    ("not sensitive", {Attribute.SENSITIVE: False}),
    ("able to derive", {Attribute.DERIVE: True}),
    ("changeable", {Attribute.MODIFIABLE: True}),
    ("a secret key", {Attribute.CLASS: int(ObjectClass.SECRET_KEY), Attribute.KEY_TYPE: 0x10}),
)
_LEAVING: Final[Template] = {Attribute.EXTRACTABLE: True, Attribute.WRAP_WITH_TRUSTED: False}
_OTHER_USES: Final[tuple[tuple[str, Template], ...]] = (
    ("encrypts", {Attribute.ENCRYPT: True}),
    ("decrypts", {Attribute.DECRYPT: True}),
    ("derives", {Attribute.DERIVE: True}),
)
_OTHER_MECHANISMS: Final = ((Mechanism.AES_KEY_WRAP, b""), (Mechanism.AES_CBC_PAD, bytes(16)))


def wrapping_findings(wrapping: Wrapping, session: TokenSession) -> tuple[str, ...]:
    """Returns a sentence for the operator about each thing that should have been refused; none when all were.

    Nothing is left in the session, which must be able to write. The wrapping key itself is used, and
    never changed: whether a key like it can be changed is tried on another one.

    Raises `WrappingNotSupported` when the token wraps no keys at all.
    """
    found = tuple(_Attempts(wrapping, session).findings())
    session.probe()
    return found


class _Attempts:
    """Attempts in one session. What they make is destroyed again."""

    def __init__(self, wrapping: Wrapping, session: TokenSession) -> None:
        self._calls = wrapping.calls
        self._mechanism = wrapping.mechanism(session)
        self._session = session.session
        self._wrapping_key: Any = session.wrapping_key()
        self._trusted = is_trusted(self._wrapping_key)

    def findings(self) -> Iterator[str]:
        if not self._trusted:
            yield (
                "The wrapping key is not marked as trusted (CKA_TRUSTED), so for the moment until a new key is wrapped "
                "another key could wrap it too: provision a token with the security officer's PIN."
            )
        if is_changeable(self._wrapping_key):
            yield "The wrapping key can be changed (CKA_MODIFIABLE)."
        with self._key_pair(trusted=self._trusted) as private:
            wrapped = self._wrap(self._mechanism, self._wrapping_key.handle, private)
            for mechanism, parameter in _OTHER_MECHANISMS:
                if self._happens(partial(self._wrap, mechanism, self._wrapping_key.handle, private, parameter)):
                    yield f"The wrapping key also wraps with {mechanism.name} (CKA_ALLOWED_MECHANISMS)."
        for name, change in _WEAKER[1:] if self._trusted else _WEAKER:
            if self._makes(partial(self._unwrap, wrapped, change)):
                yield f"Whoever has the PIN can unwrap a key as one that is {name} (CKA_UNWRAP_TEMPLATE)."
        handle = self._unwrap(wrapped, {})
        try:
            yield from self._changes("An unwrapped key", handle, _WEAKER[:3], "one that is")
        finally:
            self._calls.destroy_object(self._session, handle)
        yield from self._changes_of_a_wrapping_key()
        if self._trusted and self._makes(partial(self._unwrap, wrapped, _LEAVING)):
            yield "Whoever has the PIN can unwrap a key as one that any key wraps (CKA_UNWRAP_TEMPLATE)."
        if self._untrusted_key_wraps() or (self._trusted and self._untrusted_key_wraps_unwrapped(wrapped)):
            yield "A key that asks for a trusted wrapping key is wrapped by any (CKA_WRAP_WITH_TRUSTED)."

    def _changes(self, what: str, handle: int, changes: tuple[tuple[str, Template], ...], to: str) -> Iterator[str]:
        for name, change in changes:
            if self._makes(partial(self._calls.copy_object, self._session, handle, change)):
                yield f"{what} can be copied to {to} {name} (CKA_COPYABLE, CKA_MODIFIABLE)."
            if self._happens(partial(self._calls.set_attributes, self._session, handle, change)):
                yield f"{what} can be changed to {to} {name} (CKA_MODIFIABLE)."

    def _changes_of_a_wrapping_key(self) -> Iterator[str]:
        template = {**wrapping_key_template(b"throw-away"), Attribute.TOKEN: False, Attribute.MODIFIABLE: False}
        try:
            handle = self._calls.generate_key(self._session, Mechanism.AES_KEY_GEN, template)
        except PKCS11Error:
            yield "The token makes no wrapping key with CKA_UNWRAP_TEMPLATE and CKA_ALLOWED_MECHANISMS."
            return
        try:
            yield from self._changes("A wrapping key", handle, _OTHER_USES, "one that")
        finally:
            self._calls.destroy_object(self._session, handle)

    def _untrusted_key_wraps(self) -> bool:
        other: Any = self._session.generate_key(
            TokenKeyType.AES, 256, store=False, capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP
        )
        try:
            with self._key_pair(trusted=True) as private:
                return self._happens(partial(self._wrap, self._mechanism, other.handle, private))
        finally:
            other.destroy()

    def _untrusted_key_wraps_unwrapped(self, wrapped: bytes) -> bool:
        """Tells whether a key that was unwrapped to be wrapped anew is wrapped by any key."""
        other: Any = self._session.generate_key(
            TokenKeyType.AES, 256, store=False, capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP
        )
        try:
            handle = self._unwrap(wrapped, {Attribute.EXTRACTABLE: True})
            try:
                return self._happens(partial(self._wrap, self._mechanism, other.handle, handle))
            finally:
                self._calls.destroy_object(self._session, handle)
        except PKCS11Error:
            return False  # the token lets no key be wrapped anew
        finally:
            other.destroy()

    @contextmanager
    def _key_pair(self, *, trusted: bool) -> Iterator[int]:
        public, private = generate_key_pair_to_wrap(self._session, KeyType.EC_P256, trusted=trusted)
        try:
            yield private.handle
        finally:
            private.destroy()
            public.destroy()

    def _wrap(self, mechanism: Mechanism, wrapping_key: int, key: int, parameter: bytes = b"") -> bytes:
        return self._calls.wrap_key(self._session, mechanism, wrapping_key, key, parameter=parameter)

    def _unwrap(self, wrapped: bytes, change: Template) -> int:
        template = {**unwrapping_template(KeyType.EC_P256, trusted=self._trusted), **change}
        template[Attribute.MODIFIABLE] = template.pop(Attribute.MODIFIABLE)  # the last one, as SoftHSM wants it
        if Attribute.CLASS in change:
            del template[Attribute.SIGN_RECOVER]  # a private key's alone
        return self._calls.unwrap_key(self._session, self._mechanism, self._wrapping_key.handle, wrapped, template)

    def _makes(self, attempt: Callable[[], int]) -> bool:
        """Tells whether the attempt made an object, and destroys it."""
        try:
            handle = attempt()
        except PKCS11Error:
            return False
        self._calls.destroy_object(self._session, handle)
        return True

    def _happens(self, attempt: Callable[[], object]) -> bool:
        try:
            attempt()
        except PKCS11Error:
            return False
        return True
