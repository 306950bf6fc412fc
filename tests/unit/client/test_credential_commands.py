"""Credentials as the SDK and officers' commands read and ask for them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.world import operators
from trien.v1 import credential_service_pb2, signer_service_pb2

from trien_client import CredentialState, Revocation, RevocationPolicy
from trien_client._resources import parse_credential
from trien_client.cli.credential_administration import Kind, StatusPolicy
from trien_client.cli.credential_terms import Terms, activators_of, changed
from trien_client.cli.credential_texts import expiry, read_chain, text
from trien_client.cli.outcome import CommandError

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NOTHING = Terms(None, None, None, [], [], None)


def present() -> credential_service_pb2.Credential:
    return credential_service_pb2.Credential(
        name="credentials/seal",
        key="keys/seal",
        signer="signers/agency",
        display_name="Con dấu",
        activators=[credential_service_pb2.Activator(signer="signers/hoa")],
        clients=["clients/e-office", "clients/portal"],
        max_items=50,
        client_collected_otp_allowed=True,
        authenticator_kinds=[signer_service_pb2.Authenticator.OCRA],
        hours=["mon-fri 07:00-17:30"],
        revocation_policy=credential_service_pb2.Credential.REFUSE_REVOKED,
        state=credential_service_pb2.Credential.SUSPENDED,
        certificate_chain=[operators()["first"].certificate_der],
    )


def change(terms: Terms = NOTHING, **given: Any) -> credential_service_pb2.Credential:
    lists: dict[str, Any] = {"activators": [], "without_activators": [], "clients": [], "without_clients": []}
    return changed(present(), terms, **(lists | given))


def test_the_sdk_reads_states_and_policy_and_does_not_stumble_over_newer_ones() -> None:
    message = present()
    message.certificate_status.not_after.FromDatetime(NOW)
    read = parse_credential(message)
    assert (read.state, read.revocation_policy) == (CredentialState.SUSPENDED, RevocationPolicy.REFUSE_REVOKED)
    assert (read.hours, read.authenticator_kinds) == (("mon-fri 07:00-17:30",), ("OCRA",))
    assert (read.valid_from, read.valid_until, read.revocation) == (None, NOW, Revocation.UNKNOWN)
    message.state = message.revocation_policy = 99  # type: ignore[assignment]
    message.certificate_status.revocation = 99  # type: ignore[assignment]
    message.authenticator_kinds.append(99)  # type: ignore[arg-type]
    newer = parse_credential(message)
    assert (newer.state, newer.revocation_policy) == (CredentialState.UNKNOWN, RevocationPolicy.UNKNOWN)
    assert (newer.revocation, newer.authenticator_kinds) == (Revocation.UNKNOWN, ("OCRA", "99"))
    message.revocation_policy = credential_service_pb2.Credential.REVOCATION_POLICY_UNSPECIFIED
    assert parse_credential(message).revocation_policy is RevocationPolicy.IGNORE
    assert "asks of status" in text(message)


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (timedelta(days=364, hours=1), "2027-11-23, in 364 days"),
        (timedelta(days=31), "2026-12-25, in 31 days"),
        (timedelta(days=30), "2026-12-24, expires in 30 days"),
        (timedelta(days=1, hours=1), "2026-11-25, expires in 1 day"),
        (timedelta(hours=3), "2026-11-24, expires within a day"),
        (timedelta(seconds=-1), "2026-11-24, expired"),
    ],
)
def test_an_expiry_is_told_in_days(left: timedelta, said: str) -> None:
    assert expiry(NOW + left, now=NOW) == said


def test_what_is_not_said_stays() -> None:
    wanted, before = change(), present()
    for name in ("key", "signer", "certificate_chain", "state"):
        before.ClearField(name)
    assert wanted == before


def test_what_is_said_is_changed() -> None:
    terms = Terms("Dấu", 7, False, [Kind.TOTP, Kind.SMS], ["sat 08:00-12:00"], StatusPolicy.REQUIRE_GOOD)
    wanted = change(
        terms,
        activators=["binh@2026-12-01..2027-02-01", "signers/hoa@..2027-01-01T00:00+07:00"],
        clients=["batch", "e-office"],
        without_clients=["clients/portal"],
    )
    kinds = signer_service_pb2.Authenticator
    assert (wanted.display_name, wanted.max_items, wanted.client_collected_otp_allowed) == ("Dấu", 7, False)
    assert (list(wanted.authenticator_kinds), list(wanted.hours)) == ([kinds.TOTP, kinds.SMS], ["sat 08:00-12:00"])
    assert wanted.revocation_policy == credential_service_pb2.Credential.REQUIRE_GOOD
    assert list(wanted.clients) == ["clients/e-office", "clients/batch"]
    hoa, binh = wanted.activators
    assert (hoa.signer, hoa.HasField("start_time"), hoa.end_time.ToDatetime()) == (
        "signers/hoa", False, datetime(2026, 12, 31, 17, 0),
    )  # fmt: skip
    assert binh.signer == "signers/binh"
    assert binh.start_time.ToDatetime(tzinfo=UTC) == datetime(2026, 12, 1).astimezone()
    nobody = change(without_activators=["hoa"])
    assert list(nobody.activators) == []
    anything = change(Terms(None, None, None, [], [], None, any_kind=True, any_hours=True))
    assert (list(anything.authenticator_kinds), list(anything.hours)) == ([], [])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"without_clients": ["batch"]}, "clients/batch may not ask for it now"),
        ({"without_activators": ["binh"]}, "signers/binh may not activate it now; those who may: signers/hoa"),
        ({"activators": ["hoa@"]}, "expected times such as"),
        ({"activators": ["hoa@2026-12-01"]}, "expected times such as"),
        ({"activators": ["hoa@.."]}, "expected times such as"),
        ({"activators": ["hoa@2026-13-01.."]}, "no day or time"),
        ({"activators": ["Hoa"]}, "not a name in signers"),
        ({"terms": Terms(None, None, None, [Kind.TOTP], [], None, any_kind=True)}, "either --kind or --any-kind"),
    ],
)
def test_what_cannot_be_meant_is_said_before_the_server_is_asked(given: dict[str, Any], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        change(**given)


def test_certificates_come_as_pem_or_der_in_one_file_or_several(tmp_path: Path) -> None:
    first, second = (operators()[name].certificate_der for name in ("first", "second"))
    pem = [x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in (first, second)]
    both, der, other, key = (tmp_path / name for name in ("both.pem", "one.der", "text", "key.pem"))
    both.write_bytes(b"a word before\n" + pem[0] + b"\n" + pem[1])
    der.write_bytes(second)
    other.write_bytes(b"nothing")
    key.write_bytes(operators()["first"].private_key)
    assert read_chain([both]) == read_chain([both])[:1] + read_chain([der]) == [first, second]
    assert read_chain([der, both]) == [second, first, second]
    for wrong in (other, key):
        with pytest.raises(CommandError, match="there is no certificate in it"):
            read_chain([wrong])
    with pytest.raises(OSError, match="missing"):
        read_chain([tmp_path / "missing"])


def test_times_are_those_of_this_computer() -> None:
    (activator,) = activators_of(["hoa@2026-12-01T07:00+07:00.."])
    assert activator.start_time.ToDatetime(tzinfo=UTC) == datetime(2026, 12, 1, tzinfo=UTC)
    assert not activator.HasField("end_time")
