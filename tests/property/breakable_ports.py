"""Ports that fail or crash at a chosen call, before or after its effect, over any store and a token in memory."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.errors import HsmUnavailable, StoreUnavailable
from trien_server.core.ports import KeyReference, Snapshot, Store, Transaction

T = TypeVar("T")


class Crashed(BaseException):
    """The process ended here: no handler of the product's may run to an effect."""


class Breaker:
    """Counts the calls of all ports, and breaks one of them.

    After a crash every call of the dead process crashes too, so that nothing it does while it unwinds has an effect.
    """

    def __init__(self) -> None:
        self.armed = False
        self.broke = 0
        self.crashed = False
        self._left = 0
        self._crash = False
        self._after = False
        self._method = ""

    def arm(self, *, call: int, crash: bool, after: bool, method: str = "") -> None:
        """Lets the `call`-th call from now, of one method or of any, fail, or crash the process.

        `after` its effect or before.
        """
        self.armed, self._left, self._crash, self._after, self._method = True, call, crash, after, method

    def disarm(self) -> None:
        """Is called between two questions."""
        self.armed = self.crashed = False

    def run(self, method: str, effect: Callable[[], T], failure: type[Exception]) -> T:
        """Runs one call's effect, or breaks it."""
        if self.crashed:
            raise Crashed
        if not self.armed or self._method not in ("", method):
            return effect()
        self._left -= 1
        if self._left != 0:
            return effect()
        self.broke += 1
        if self._after:
            effect()
        if self._crash:
            self.crashed = True
            raise Crashed
        raise failure


class BreakableStore:
    """The port `Store` over another one."""

    def __init__(self, store: Store, breaker: Breaker) -> None:
        self.store = store
        self._breaker = breaker

    def read(self, work: Callable[[Snapshot], T]) -> T:
        return self._breaker.run("read", lambda: self.store.read(work), StoreUnavailable)

    def transact(self, work: Callable[[Transaction], T], *, timeout: float) -> T:
        return self._breaker.run("transact", lambda: self.store.transact(work, timeout=timeout), StoreUnavailable)

    def now(self) -> datetime:
        return self._breaker.run("now", self.store.now, StoreUnavailable)

    def close(self) -> None:
        self.store.close()


class BreakableHsm:
    """The port `Hsm` over another one; `signing` is told of every use of a key, before it."""

    def __init__(self, hsm: Any, breaker: Breaker, signing: Callable[[Sequence[bytes]], None]) -> None:
        self.hsm = hsm
        self._breaker = breaker
        self._signing = signing

    def ready(self) -> bool:
        try:
            return bool(self._breaker.run("ready", self.hsm.ready, HsmUnavailable))
        except HsmUnavailable:
            return False

    def sign(
        self,
        key: KeyReference,
        algorithm: SignatureAlgorithm,
        messages: Sequence[bytes],
        *,
        pss_salt_length: int | None,
    ) -> list[bytes]:
        def effect() -> list[bytes]:
            self._signing(messages)
            return list(self.hsm.sign(key, algorithm, messages, pss_salt_length=pss_salt_length))

        return self._breaker.run("sign", effect, HsmUnavailable)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.hsm, name)
        return lambda *given, **named: self._breaker.run(name, lambda: method(*given, **named), HsmUnavailable)
