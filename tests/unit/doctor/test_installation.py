"""Who is left to look after an installation, and whose certificates end."""

from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from tests.support.subjects import found, texts
from tests.support.world import OPERATOR, World, operators, populated

from trien_server.cli.doctor.findings import Finding, Severity
from trien_server.cli.doctor.installation import credentials, installation, officers, operator_certificates
from trien_server.core.records import InstallationKeyPurpose
from trien_server.core.sealing import HANDOVER
from trien_server.host.private_ca import PrivateCa

ISSUED = x509.load_pem_x509_certificate(operators()["first"].certificate).not_valid_before_utc
"""The operators' certificates are valid for a year from then, by the true clock."""


def look(check: Any, world: World, *, at: datetime, ca_file: Path = Path("/nonexistent")) -> list[Finding]:
    server = SimpleNamespace(client_ca_file=ca_file)
    return found(
        check, SimpleNamespace(instance=SimpleNamespace(use=world.use), now=at, config=SimpleNamespace(server=server))
    )


def after(days: int) -> datetime:
    return ISSUED + timedelta(days=days)


def test_a_wrapping_key_in_use_that_the_token_lacks_is_an_error_of_whichever_generation() -> None:
    world = populated()
    subject: Any = SimpleNamespace(instance=SimpleNamespace(use=world.use, hsm=world.hsm), events=[])
    world.agree(world.use.rotate_installation_key(OPERATOR, InstallationKeyPurpose.WRAPPING, deadline=world.deadline()))
    for _ in range(2):
        world.use.key_rotation.look()
        world.clock.advance(HANDOVER)
    assert found(installation, subject) == []
    second = world.hsm._wrapping_keys.pop(2)
    (told,) = texts(found(installation, subject))
    assert "lacks the wrapping key of generation 2" in told
    world.hsm._wrapping_keys[2] = second
    assert found(installation, subject) == []


@pytest.mark.promise("P9")
def test_two_officers_of_a_role_are_a_note_one_is_a_warning_and_none_an_error() -> None:
    world = populated()
    assert [finding.severity for finding in look(officers, world, at=after(1))] == [Severity.NOTE, Severity.NOTE]
    world.use.disable_operator(OPERATOR, "operators/second", deadline=world.deadline())
    told = texts(look(officers, world, at=after(1)), Severity.WARNING)
    assert told == [
        "One registration officer is left: nobody can approve what they propose.",
        "One security officer is left: nobody can approve what they propose.",
    ]
    assert [text.split(" is left")[0] for text in texts(look(officers, world, at=after(400)))] == [
        "No registration officer",
        "No security officer",
    ]


def test_operators_certificates_that_end_or_are_of_another_ca_are_told_by_name(tmp_path: Path) -> None:
    world = populated()
    assert look(operator_certificates, world, at=after(1)) == []
    stranger = tmp_path / "ca.pem"
    stranger.write_bytes(PrivateCa.create("another CA").identity.certificate)
    told = texts(look(operator_certificates, world, at=after(1), ca_file=stranger), Severity.WARNING)
    assert [text.split(" is of no CA")[0] for text in told] == [
        "The certificate of operators/first",
        "The certificate of operators/second",
    ]
    told = texts(look(operator_certificates, world, at=after(350)), Severity.WARNING)
    assert len(told) == 2
    assert all("expires on" in text for text in told)
    assert len(texts(look(operator_certificates, world, at=after(400)))) == 2


def test_credentials_that_end_are_counted_and_not_named() -> None:
    world = populated()
    ends = [one.expire_time for one in world.use.expiry_notices.certificates()]
    assert len(ends) > 1
    assert look(credentials, world, at=min(ends) - timedelta(days=31)) == []
    for at, words in (
        (min(ends) - timedelta(days=29), "expire within 30 days"),
        (max(ends) + timedelta(days=1), f"{len(ends)} credentials have expired"),
    ):
        (told,) = texts(look(credentials, world, at=at), Severity.WARNING)
        assert words in told
        assert "credentials/" not in told
