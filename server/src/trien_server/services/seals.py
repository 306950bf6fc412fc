"""Seals rows and verifies seals (P5)."""

import hashlib
import hmac
import threading
from collections import OrderedDict
from datetime import datetime

from trien_server.core import sealing
from trien_server.core.errors import RecordNotTrusted
from trien_server.core.ports import Hsm, KeyMismatch, R, Report, Sealed
from trien_server.core.records import InstallationKey


class DayKeyMissing(Exception):  # noqa: N818 - caught by `Transactions`
    """A day key is needed inside a transaction, where the token is not called; `seal_key` names it."""

    def __init__(self, seal_key: str) -> None:
        super().__init__(seal_key)
        self.seal_key = seal_key


class Seals:
    """Makes and checks seals with the token's sealing keys and the day keys derived from them.

    The active generation seals; every generation on the token verifies what it sealed, a retired one only hot records
    from before it retired. Which is which it is told by `learn`.

    Slow records cost the token one HMAC each the first time they are seen: what verified is remembered
    by its exact bytes, so nothing has to be invalidated. Hot records cost the token one HMAC a day; day
    keys are in this process's memory alone. May be used from any thread.
    """

    def __init__(self, *, hsm: Hsm, report: Report, remembered: int = 65_536) -> None:
        self._hsm = hsm
        self._report = report
        self._remembered = remembered
        self._verified: OrderedDict[bytes, None] = OrderedDict()
        self._day_keys: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._generations = sealing.Generations()

    @property
    def generations(self) -> sealing.Generations:
        """What this process knows of the sealing key's generations."""
        return self._generations

    def learn(self, found: sealing.Generations) -> None:
        """Takes over what the records say. It never goes back: raises `RecordNotTrusted` when the records do."""
        with self._lock:
            follows = found.follows(self._generations)
            if follows:
                self._generations = found
        if not follows:
            raise self.distrust(InstallationKey.table, "", "the generations of the sealing key went back")

    def seal(self, record: R) -> Sealed[R]:
        """Seals a slow record with the token. Raises `HsmUnavailable`."""
        generation = self._generations.active
        seal_key = sealing.slow_seal_key(generation)
        encoded = sealing.encode_row(record, seal_key)
        row = Sealed(record=record, seal_key=seal_key, seal=self._authenticate(encoded, generation))
        self._remember(self._fingerprint(encoded, row.seal))
        return row

    def prepare(self, at: datetime) -> None:
        """Derives the day key for a time, outside any transaction. Raises `HsmUnavailable`."""
        self.derive(sealing.day_seal_key(at, self._generations.active))

    def derive(self, seal_key: str) -> None:
        """Derives a day key unless this process has it. Raises `HsmUnavailable`, `RecordNotTrusted`."""
        if seal_key not in self._day_keys:
            generation = sealing.generation_of(seal_key, hot=True)
            if generation is None:
                raise ValueError("no name of a day key")
            self._day_keys[seal_key] = self._authenticate(sealing.day_key_message(seal_key), generation)

    def _authenticate(self, message: bytes, generation: int) -> bytes:
        try:
            return self._hsm.authenticate(message, generation=generation)
        except KeyMismatch as mismatch:
            raise self.distrust(
                "", "", f"a row is sealed by generation {generation}, which the token lacks"
            ) from mismatch

    def seal_hot(self, record: R, *, at: datetime) -> Sealed[R]:
        """Seals a hot record with the day's key, without the token. Raises `DayKeyMissing`."""
        seal_key = sealing.day_seal_key(at, self._generations.active)
        return Sealed(record=record, seal_key=seal_key, seal=self._day_seal(record, seal_key))

    def verify(self, row: Sealed[R], *, by_any: bool = False) -> R:
        """Returns the record when its seal is right; may call the token.

        With `by_any` also a generation counts of which this process knows nothing yet: to learn of it.

        Raises `RecordNotTrusted`, after reporting it, or `HsmUnavailable`.
        """
        generation = self._check_seal_key(row, by_any=by_any)
        if row.record.hot:
            self.derive(row.seal_key)
            return self._verify_hot(row)
        encoded = sealing.encode_row(row.record, row.seal_key)
        fingerprint = self._fingerprint(encoded, row.seal)
        with self._lock:
            if fingerprint in self._verified:
                self._verified.move_to_end(fingerprint)
                return row.record
        if not hmac.compare_digest(self._authenticate(encoded, generation), row.seal):
            raise self.distrust(row.record.table, row.record.name, "its seal does not verify")
        self._remember(fingerprint)
        return row.record

    def verify_hot(self, row: Sealed[R]) -> R:
        """Returns a hot record when its seal is right, without the token.

        Raises `RecordNotTrusted`, after reporting it, or `DayKeyMissing`.
        """
        self._check_seal_key(row, by_any=False)
        return self._verify_hot(row)

    def _verify_hot(self, row: Sealed[R]) -> R:
        if not hmac.compare_digest(self._day_seal(row.record, row.seal_key), row.seal):
            raise self.distrust(row.record.table, row.record.name, "its seal does not verify")
        if not sealing.seal_day_fits(row.record, row.seal_key):
            raise self.distrust(row.record.table, row.record.name, "its seal is by the key of another day")
        return row.record

    def distrust(self, table: str, name: str, finding: str) -> RecordNotTrusted:
        """Reports a row that cannot be trusted, and returns the refusal to raise."""
        self._report("record_not_trusted", {"table": table, "name": name, "finding": finding})
        return RecordNotTrusted(table, name, finding)

    def authenticate(self, message: bytes) -> bytes:
        """Returns the token's HMAC of a message by the sealing key that is in use. Raises `HsmUnavailable`."""
        return self._authenticate(message, self._generations.active)

    def authenticated(self, message: bytes, code: bytes, *, made: datetime) -> bool:
        """Tells whether `authenticate` can have returned `code`, for something that was made at that time.

        Costs the token one HMAC, and more only when the sealing key changed lately. Raises `HsmUnavailable`.
        """
        return any(
            hmac.compare_digest(self._authenticate(message, generation), code)
            for generation in self._generations.of(made)
        )

    def _check_seal_key(self, row: Sealed[R], *, by_any: bool) -> int:
        """Returns the generation of a seal key that may have sealed the row.

        One more than the active one may have come into use a moment ago. What is behind that somebody with the token's
        PIN put there: it would seal for them when the keys that are known were long replaced.
        """
        record = row.record
        generation = sealing.generation_of(row.seal_key, hot=record.hot)
        if generation is None:
            raise self.distrust(record.table, record.name, "its seal is by a key that seals no such rows")
        known = self._generations
        if generation > known.active + 1 and not by_any:
            raise self.distrust(record.table, record.name, "its seal is by a key that no record names")
        end = known.retired.get(generation)
        if end is not None and not (record.hot and sealing.is_from_before(record, end)):
            raise self.distrust(record.table, record.name, "its seal is by a retired key")
        return generation

    def _day_seal(self, record: R, seal_key: str) -> bytes:
        key = self._day_keys.get(seal_key)
        if key is None:
            raise DayKeyMissing(seal_key)
        return sealing.day_seal(key, record, seal_key)

    @staticmethod
    def _fingerprint(encoded: bytes, seal: bytes) -> bytes:
        return hashlib.sha256(seal + encoded).digest()

    def _remember(self, fingerprint: bytes) -> None:
        with self._lock:
            self._verified[fingerprint] = None
            while len(self._verified) > self._remembered:
                self._verified.popitem(last=False)
