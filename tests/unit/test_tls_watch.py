"""TLS files that are renewed while the server runs: only what is good and fits together is taken into use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.fakes.clock import ManualClock

from trien_server.core.tls import TlsIdentity
from trien_server.host.files import write_private
from trien_server.host.private_ca import PrivateCa
from trien_server.host.tls_watch import TlsFiles, TlsWatch


@dataclass
class Watched:
    """A watch over files, what it took into use and what it reported."""

    folder: Path
    ca: PrivateCa = field(default_factory=lambda: PrivateCa.create("Test CA"))
    clock: ManualClock = field(default_factory=lambda: ManualClock(datetime.now(UTC)))
    applied: list[TlsIdentity] = field(default_factory=list)
    events: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.files = TlsFiles(
            certificate=self.folder / "server.pem", key=self.folder / "server.key", client_ca=self.folder / "ca.pem"
        )
        self.renew()
        write_private(self.files.client_ca, self.ca.identity.certificate)
        self.watch = TlsWatch(
            files=self.files,
            present=self.files.read(),
            apply=self.applied.append,
            clock=self.clock,
            report=lambda event, fields: self.events.append((event, dict(fields))),
        )

    def renew(self) -> None:
        self.write(*self.new())

    def new(self) -> tuple[bytes, bytes]:
        made = self.ca.issue_server(["localhost"])
        return made.certificate, made.private_key

    def write(self, certificate: bytes | None = None, key: bytes | None = None) -> None:
        if key is not None:
            write_private(self.files.key, key)
        if certificate is not None:
            write_private(self.files.certificate, certificate)

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


def self_signed(key: ec.EllipticCurvePrivateKey) -> tuple[bytes, bytes]:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=90))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return pem, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_what_did_not_change_is_not_taken_again(watched: Watched) -> None:
    for _ in range(3):
        watched.watch.look()
    assert (watched.applied, watched.events) == ([], [])


def test_a_renewal_that_is_half_written_is_waited_for(watched: Watched) -> None:
    certificate, key = watched.new()
    watched.write(key=key)
    watched.watch.look()
    assert (watched.applied, watched.events) == ([], [])
    watched.write(certificate=certificate)
    watched.watch.look()
    assert [identity.certificate_chain for identity in watched.applied] == [certificate]
    assert watched.names() == ["tls_reloaded"]


@pytest.mark.parametrize(
    "bad", ["another key", "no key", "no certificate", "no CA", "a file is missing", "open", "P-521"]
)
def test_what_is_bad_keeps_what_was_good_and_is_told_once(watched: Watched, bad: str) -> None:
    match bad:
        case "another key":
            watched.write(key=watched.new()[1])
        case "no key":
            watched.write(key=b"nonsense")
        case "no certificate":
            watched.write(certificate=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        case "no CA":
            watched.files.client_ca.write_bytes(b"")
        case "P-521":
            watched.write(*self_signed(ec.generate_private_key(ec.SECP521R1())))
        case "a file is missing":
            watched.files.certificate.unlink()
        case _:
            watched.files.key.chmod(0o644)
    for _ in range(4):
        watched.watch.look()
    assert watched.applied == []
    assert watched.names() == ["tls_reload_failed"]
    assert "PRIVATE KEY" not in str(watched.events)
    watched.watch.look(at_once=True)  # who asks is answered
    assert watched.names() == ["tls_reload_failed"] * 2
    watched.files.client_ca.write_bytes(watched.ca.identity.certificate)
    watched.renew()
    watched.watch.look()
    assert len(watched.applied) == 1
    assert watched.names()[-1] == "tls_reloaded"


def test_who_asks_is_told_at_once(watched: Watched) -> None:
    watched.write(key=watched.new()[1])
    watched.watch.look(at_once=True)
    assert watched.names() == ["tls_reload_failed"]


def test_certificates_are_warned_about_once_at_each_time_and_when_they_expired(watched: Watched) -> None:
    told = []
    for days in range(1, 368):
        watched.clock.advance(timedelta(days=1))
        before = len(watched.events)
        watched.watch.look()
        told += [(365 - days, name) for name, _ in watched.events[before:]]
        watched.watch.look()
    assert told == [
        (30, "tls_certificate_expires"),
        (7, "tls_certificate_expires"),
        (1, "tls_certificate_expires"),
        (0, "tls_certificate_expired"),
    ]
    assert "CN=localhost" in watched.events[-1][1]["certificate"]


def test_the_thread_takes_what_is_new_and_ends(watched: Watched) -> None:
    watched.watch.start()
    try:
        watched.renew()
        watched.watch.reload()
        end = datetime.now(UTC) + timedelta(seconds=30)
        while not watched.applied and datetime.now(UTC) < end:
            watched.watch._thread.join(0.02)
    finally:
        watched.watch.stop()
    assert len(watched.applied) == 1
    assert not watched.watch._thread.is_alive()
