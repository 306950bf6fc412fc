"""A disposable instance that anyone can try: `trien-server sandbox`.

The one place where one-time password secrets lie in clear: in `connection.json`, so that a test or a
curious person can make codes. Never for real documents.
"""

import fcntl
import json
import shutil
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import IO, Any

import pyotp
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from trien_server import config as configuration
from trien_server.core.algorithms import KeyType
from trien_server.core.approval import approval_text
from trien_server.core.enrolments import enrolment_code
from trien_server.core.errors import HsmUnavailable
from trien_server.core.one_time_password import TOTP_PERIOD
from trien_server.core.principal import AuthenticatedBy, Principal, PrincipalKind
from trien_server.core.records import AuthenticatorKind, KeyState, Proposal, ProposalState, SignerKind
from trien_server.core.secret import Secret
from trien_server.founding import CONFIG_NAME
from trien_server.host.files import require_own, write_private
from trien_server.host.log import Log
from trien_server.host.private_ca import PrivateCa
from trien_server.initialize import initialize
from trien_server.services.authenticate import hash_token, new_token
from trien_server.services.clients import NewClient
from trien_server.services.credential_holders import Entitlement
from trien_server.services.credentials import NewCredential
from trien_server.services.deadline import Deadline
from trien_server.services.enrolments import NewEnrolment, NewEnrolments
from trien_server.services.signed_log import read_published_keys
from trien_server.wiring import Instance, Server

WARNING = (
    "This is a sandbox: its token is made of files, its CA is private, and the one-time password secrets lie in clear "
    "in connection.json. Never sign real documents with it."
)
CONNECTION_NAME = "connection.json"
_MARKER = "THIS-IS-A-SANDBOX.txt"
_POPULATION = "population.json"
_OPERATOR = Principal(kind=PrincipalKind.OPERATOR, name="operators/first", authenticated_by=AuthenticatedBy.CERTIFICATE)
_SECOND = Principal(kind=PrincipalKind.OPERATOR, name="operators/second", authenticated_by=AuthenticatedBy.CERTIFICATE)
_ORGANIZATION = "organizations/ubnd-xa-phu-lam"
_CHAIR, _CLERK, _AGENCY = "signers/hoang-trinh-don", "signers/nguyen-thi-hoa", "signers/ubnd-xa-phu-lam"
_CLIENT = "clients/e-office"


class NotASandbox(Exception):  # noqa: N818
    """The folder holds something else, or another process serves it; nothing was touched."""


class Sandbox:
    """A running sandbox in a folder; one that is there already is used again."""

    def __init__(self, directory: Path, *, token_address: str, certificate_address: str, log_format: str) -> None:
        """Makes or opens it, and binds the ports. Raises `NotASandbox`, `HsmUnavailable`, `OSError`."""
        self._directory = directory.absolute()
        self._connection = self._directory / CONNECTION_NAME
        self._lock = self._prepare_folder()
        self._connection.unlink(missing_ok=True)
        population = self._directory / _POPULATION
        if not population.exists():
            self._make(log_format)
        settings = [f"server.token_address={token_address}", f"server.certificate_address={certificate_address}"]
        loaded = configuration.load(
            self._directory / CONFIG_NAME,
            environment={},
            overrides=[
                *settings,
                f"log.format={log_format}",
                "server.reflection=true",
                "server.drain_seconds=0",
                "enrolment.replacement_wait_hours=0",
            ],
        )
        self.instance = Instance(loaded.config, log=Log(form=log_format))
        try:
            self.server = Server(self.instance)
        except BaseException:
            self.instance.close()
            raise
        self._host = token_address.rpartition(":")[0]
        self.population: dict[str, Any] = json.loads(population.read_text())

    def start(self) -> Path:
        """Begins to serve, then writes `connection.json` (mode 0600) and returns its path."""
        self.server.start()
        keys = self.instance.use.transactions.read(read_published_keys)
        connection = {
            "sandbox": True,
            "warning": WARNING,
            "address": f"{self._host}:{self.server.grpc.token_port}",
            "mutual_tls_address": f"{self._host}:{self.server.grpc.certificate_port}",
            "ca_file": str(self._directory / "tls" / "ca.pem"),
            "trust_anchors_file": str(self._directory / "signing-ca" / "ca.pem"),
            "log_key": None if keys is None else keys.keys[0].vkey,
            "operators": [
                {
                    "name": operator.name,
                    "certificate_file": str(self._directory / f"{operator.name}.pem"),
                    "key_file": str(self._directory / f"{operator.name}.key"),
                }
                for operator in (_OPERATOR, _SECOND)
            ],
            **self.population,
        }
        write_private(self._connection, (json.dumps(connection, ensure_ascii=False, indent=2) + "\n").encode())
        return self._connection

    def stop(self) -> None:
        """Stops serving; `connection.json` goes first, so that nobody connects to a server that ends."""
        self._connection.unlink(missing_ok=True)
        self.server.stop()
        self._lock.close()

    def _prepare_folder(self) -> IO[str]:
        """Takes the folder, empty or a sandbox, for this process alone; returns what holds it while it is open."""
        marker = self._directory / _MARKER
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (".", _MARKER, CONFIG_NAME, _POPULATION, "token-pin", "tls", "token", "signing-ca"):
            require_own(self._directory / name)
        if not marker.exists() and any(self._directory.iterdir()):
            raise NotASandbox(f"{self._directory} is not empty and no sandbox: choose another folder.")
        lock = marker.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise NotASandbox(
                f"A sandbox already runs in {self._directory}: use it, or choose another folder."
            ) from None
        if not (self._directory / _POPULATION).exists():
            # What an interrupted start left half made.
            for path in self._directory.iterdir():
                if path != marker:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        lock.truncate(0)
        lock.write(WARNING + "\n")
        lock.flush()
        return lock

    def _make(self, log_format: str) -> None:
        loaded = initialize(
            self._directory,
            hosts=["localhost", "127.0.0.1", "::1"],
            token=None,
            token_address="127.0.0.1:0",
            certificate_address="127.0.0.1:0",
            service_name="Trien sandbox",
            log_format=log_format,
        )
        instance = Instance(loaded.config, log=Log(form=log_format))
        try:
            population = _Population(instance, self._directory).make()
        finally:
            instance.close()
        write_private(self._directory / _POPULATION, json.dumps(population, ensure_ascii=False, indent=2).encode())


class _Population:
    """Enters people, keys and credentials by the same use cases that operators call."""

    def __init__(self, instance: Instance, directory: Path) -> None:
        self._instance = instance
        self._use = instance.use
        self._directory = directory
        self._ca = PrivateCa.create("Trien sandbox CA (not a public CA)")

    def make(self) -> dict[str, Any]:
        write_private(self._directory / "signing-ca" / "ca.pem", self._ca.identity.certificate)
        write_private(self._directory / "signing-ca" / "ca.key", self._ca.identity.private_key)
        use = self._use
        use.create_organization(
            _OPERATOR,
            name=_ORGANIZATION,
            display_name="Ủy ban nhân dân xã Phú Lâm",
            parent=None,
            start_time=None,
            end_time=None,
            deadline=self._deadline(),
        )
        token = new_token(self._instance.randomness)
        new = NewClient(
            name=_CLIENT,
            display_name="Sandbox e-office",
            token_hash=hash_token(token),
            certificate_fingerprint=None,
        )
        self._agree(use.create_client(_OPERATOR, new, deadline=self._deadline()))
        signers = [
            self._person(_CHAIR, "Hoàng Trịnh Đôn", "Chủ tịch Ủy ban nhân dân xã", digits=6),
            self._person(_CLERK, "Nguyễn Thị Hoa", "Văn thư", digits=8),
        ]
        self._signer(_AGENCY, "Ủy ban nhân dân xã Phú Lâm", SignerKind.AGENCY, "")
        use.key_generation.start()
        try:
            credentials = [
                self._credential("hoang-trinh-don-rsa", _CHAIR, KeyType.RSA_3072, "Hoàng Trịnh Đôn (RSA-3072)", _CHAIR),
                self._credential("hoang-trinh-don-p256", _CHAIR, KeyType.EC_P256, "Hoàng Trịnh Đôn (P-256)", _CHAIR),
                self._credential("ubnd-seal", _AGENCY, KeyType.RSA_3072, "Con dấu UBND xã Phú Lâm", _CLERK),
            ]
        finally:
            use.key_generation.stop()
        return {
            "client": {"name": _CLIENT, "token": token.reveal().decode()},
            "organization": _ORGANIZATION,
            "signers": signers,
            "credentials": credentials,
        }

    def _deadline(self) -> Deadline:
        return Deadline(self._instance.clock, 30.0)

    def _signer(self, name: str, display_name: str, kind: SignerKind, position: str) -> None:
        self._use.create_signer(
            _OPERATOR,
            name=name,
            display_name=display_name,
            kind=kind,
            organization=_ORGANIZATION,
            position=position,
            deadline=self._deadline(),
        )

    def _person(self, name: str, display_name: str, position: str, *, digits: int) -> dict[str, Any]:
        self._signer(name, display_name, SignerKind.PERSON, position)
        uri = self._enrol(f"{name}/enrolments/phone", digits)
        return {"name": name, "display_name": display_name, "position": position, "otpauth_uri": uri}

    def _enrol(self, name: str, digits: int) -> str:
        """Enrols a TOTP authenticator as the person would; returns its URI."""
        use = self._use
        wanted = NewEnrolment(name=name, kind=AuthenticatorKind.TOTP, digits=digits)
        new = NewEnrolments(enrolments=(wanted,))
        self._agree(use.create_enrolments(_OPERATOR, new, deadline=self._deadline()))
        halves = [
            sent.half
            for operator in (_OPERATOR, _SECOND)
            if (sent := use.send_enrolment_code(operator, name, deadline=self._deadline())).half is not None
        ]
        person = use.authenticate.by_token(enrolment_code(*halves))
        begun = use.begin_enrolment(person, deadline=self._deadline())
        generator = pyotp.parse_uri(begun.uri.reveal().decode())
        if not isinstance(generator, pyotp.TOTP):
            raise AssertionError("a TOTP authenticator was asked for")
        # The code before the present one, so that the present one can still be used.
        earlier = generator.at(self._instance.clock.now() - timedelta(seconds=TOTP_PERIOD))
        use.confirm_enrolment(
            person,
            confirmation_key=begun.confirmation_key,
            password=Secret(earlier.encode()),
            deadline=self._deadline(),
        )
        return begun.uri.reveal().decode()

    def _agree(self, proposal: Proposal) -> None:
        """Approves a proposal as the second operator."""
        key = load_pem_private_key((self._directory / "operators" / "second.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AssertionError("init makes elliptic curve keys")
        text = approval_text(proposal.name, proposal.digest)
        decided = self._use.proposals.approve(
            _SECOND,
            proposal.name,
            digest=proposal.digest,
            signature=key.sign(text, ec.ECDSA(SHA256())),
            deadline=self._deadline(),
        )
        if decided.state is not ProposalState.EXECUTED:
            raise AssertionError(f"{proposal.method} was not carried out")

    def _credential(
        self, identifier: str, signer: str, key_type: KeyType, display_name: str, activator: str
    ) -> dict[str, Any]:
        key = f"keys/{identifier}"
        self._use.create_key(_OPERATOR, name=key, key_type=key_type, deadline=self._deadline())
        self._wait_for(key)
        request = self._use.generate_signing_request(_OPERATOR, key=key, signer=signer, deadline=self._deadline())
        root = self._ca.identity.certificate_der
        new = NewCredential(
            name=f"credentials/{identifier}",
            key=key,
            signer=signer,
            display_name=display_name,
            certificate_chain=(self._ca.issue_signer(request), root),
            activators=(Entitlement(signer=activator),),
            clients=(_CLIENT,),
            max_items=0,
            client_collected_otp=True,
        )
        self._agree(self._use.create_credential(_OPERATOR, new, self._deadline()))
        return {
            "name": new.name,
            "display_name": display_name,
            "signer": signer,
            "key_type": key_type.value,
            "activators": [activator],
        }

    def _wait_for(self, key: str) -> None:
        pause = Event()
        deadline = Deadline(self._instance.clock, 60.0)
        while (state := self._use.get_key(_OPERATOR, key).state) is KeyState.PENDING_GENERATION:
            if deadline.remaining() == 0:
                break
            pause.wait(0.02)
        if state is not KeyState.ENABLED:
            raise HsmUnavailable(f"The sandbox's {key} was not generated.")
