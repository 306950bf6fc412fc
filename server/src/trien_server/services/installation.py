"""The installation: made once by `init`, checked at every start."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trien_server.core.algorithms import KeyType
from trien_server.core.approval import public_key_hash
from trien_server.core.errors import LogNotTrusted, Refusal
from trien_server.core.installation_keys import installation_key_name
from trien_server.core.merkle import EMPTY_ROOT
from trien_server.core.ports import Clock, Hsm, KeyMismatch, Randomness, Report
from trien_server.core.records import (
    CertificateAuthority,
    Installation,
    InstallationKey,
    InstallationKeyPurpose,
    InstallationKeyState,
    LogHead,
    Operator,
)
from trien_server.core.roles import Role
from trien_server.services.changes import Change, Changes
from trien_server.services.clock_guard import ClockGuard
from trien_server.services.deadline import Deadline
from trien_server.services.identifiers import new_id
from trien_server.services.log_history import LOG_HEAD
from trien_server.services.log_witnesses import LogWitnesses
from trien_server.services.sealing_generations import INSTALLATION, read_generations
from trien_server.services.seals import Seals
from trien_server.services.transactions import Ledger, Transactions
from trien_server.services.trusted import TrustedView

NAME = INSTALLATION


class NotThisInstallation(Exception):  # noqa: N818
    """The database and the token do not belong together; the message says what was found."""


@dataclass(frozen=True, kw_only=True)
class FirstOperator:
    """An operator from the first moment on. `certificate` is DER."""

    identifier: str
    display_name: str
    certificate: bytes
    roles: tuple[Role, ...]


class CreateInstallation:
    """Enters the installation and its first operators."""

    def __init__(self, *, changes: Changes, clock: Clock, randomness: Randomness) -> None:
        self._changes = changes
        self._clock = clock
        self._randomness = randomness

    def __call__(self, operators: dict[str, bytes], *, log_host: str = "localhost") -> None:
        """Puts the installation in force with operators by certificate, as `agreed` does.

        Each is a security officer and a registration officer: every proposal needs both.
        """
        roles = (Role.SECURITY_OFFICER, Role.REGISTRATION_OFFICER)
        self.agreed(
            [
                FirstOperator(identifier=identifier, display_name=identifier, certificate=certificate, roles=roles)
                for identifier, certificate in operators.items()
            ],
            log_host=log_host,
        )

    def agreed(
        self,
        operators: Sequence[FirstOperator],
        *,
        authority: CertificateAuthority | None = None,
        details: Mapping[str, object] | None = None,
        log_host: str = "localhost",
        log_key_type: KeyType = KeyType.EC_ED25519,
    ) -> None:
        """Puts the installation in force, as one change: its keys' first generations, its operators, and its CA.

        Later a CA needs an officer's approval; here the first officers are present, and the entries' `details` say in
        what. The log begins empty, under an origin of its own on `log_host`; the key pair that signs it is made next,
        by `LogKeyGeneration`, of `log_key_type` if the token has such keys.

        Raises `AlreadyExists` when there is an installation.
        """
        now = self._clock.now()
        first = [
            Operator(
                name=f"operators/{operator.identifier}",
                display_name=operator.display_name,
                certificate=operator.certificate,
                certificate_fingerprint=hashlib.sha256(operator.certificate).digest(),
                public_key_hash=public_key_hash(operator.certificate, field="operators"),
                roles=tuple(role.value for role in operator.roles),
                create_time=now,
            )
            for operator in operators
        ]
        keys = [
            InstallationKey(
                name=installation_key_name(purpose, 1),
                purpose=purpose,
                generation=1,
                state=InstallationKeyState.ACTIVE,
                state_time=now,
                create_time=now,
            )
            for purpose in (InstallationKeyPurpose.WRAPPING, InstallationKeyPurpose.SEALING)
        ]

        origin = f"{log_host}/trien/{self._randomness.bytes(8).hex()}"
        log_key = InstallationKey(
            name=installation_key_name(InstallationKeyPurpose.LOG, 1),
            purpose=InstallationKeyPurpose.LOG,
            generation=1,
            state=InstallationKeyState.PENDING_GENERATION,
            state_time=now,
            create_time=now,
            key_type=log_key_type,
            object_id=self._randomness.bytes(16),
            origin=origin,
        )

        def begin_log(ledger: Ledger) -> dict[str, object]:
            ledger.insert(LogHead(name=LOG_HEAD, origin=origin, size=0, root=EMPTY_ROOT, frontier=(), time=ledger.at))
            return {}

        def prepare(_: TrustedView) -> Change:
            ca = [] if authority is None else [authority]
            slow = [Installation(name=NAME, create_time=now), *keys, log_key, *first, *ca]
            return Change(kind="installation_created", slow=slow, details=details or {}, decide=begin_log)

        self._changes.make(f"init/{new_id(self._randomness)}", prepare, deadline=Deadline(self._clock, 30.0))


class CheckStart:
    """What has to hold before a server serves (P8)."""

    def __init__(
        self,
        *,
        hsm: Hsm,
        seals: Seals,
        transactions: Transactions,
        clock_guard: ClockGuard,
        witnesses: LogWitnesses,
        report: Report,
    ) -> None:
        self._hsm = hsm
        self._witnesses = witnesses
        self._report = report
        self._seals = seals
        self._transactions = transactions
        self._clock_guard = clock_guard

    def __call__(self) -> None:
        """Checks token, installation and clock.

        Raises `HsmUnavailable`; `NotThisInstallation` when the token's sealing key did not seal this
        database; `ClockNotTrusted` when the log is ahead of the clock, or the clocks differ.
        """
        self._hsm.probe()
        try:
            installation = self._transactions.read(lambda view: view.get(Installation, NAME))
        except Refusal as refusal:
            if refusal.reason != "RECORD_NOT_TRUSTED":
                raise
            raise NotThisInstallation("The token's sealing key did not seal this database.") from refusal
        if installation is None and self._transactions.read(_is_half_restored):
            raise NotThisInstallation("The database is half restored: run the same `trien-server restore` again.")
        if installation is None:
            raise NotThisInstallation("The database has no installation: run `trien-server init`.")
        generations = self._seals.generations
        for generation in sorted({generations.active, *generations.others, *generations.retired}):
            try:
                self._hsm.authenticate(b"", generation=generation)
            except KeyMismatch as mismatch:
                raise NotThisInstallation(f"The token lacks the sealing key of generation {generation}.") from mismatch
        keys = self._transactions.read(lambda view: read_generations(view, InstallationKeyPurpose.SEALING))
        try:
            ahead = self._hsm.has_installation_key(InstallationKeyPurpose.SEALING, len(keys) + 1)
        except KeyMismatch as mismatch:
            raise NotThisInstallation(f"The token holds a key that it did not make itself: {mismatch}.") from mismatch
        if ahead:
            # A key that nobody asked for in this database: it was restored, or set back, to before a rotation.
            self._report("database_set_back", {"token_holds": f"sealing key {len(keys) + 1}"})
        self._require_witnessed_log()
        self._clock_guard.check()

    def _require_witnessed_log(self) -> None:
        try:
            self._witnesses.check()
        except LogNotTrusted as refusal:
            raise NotThisInstallation(
                f"The database's log does not continue what is known of it: {refusal.finding}. The database is an older"
                " copy, or another one: bring back the right one, or put a backup back with `trien-server restore`."
            ) from refusal
        except OSError as fault:
            # Whoever can make it unreadable can remove it.
            self._report("log_witness_garbled", {"witness": "the published checkpoint", "because": str(fault.strerror)})


def _is_half_restored(view: TrustedView) -> bool:
    """Tells whether a restore put the keys' records back and did not come to its end."""
    return view.get(InstallationKey, installation_key_name(InstallationKeyPurpose.SEALING, 1)) is not None
