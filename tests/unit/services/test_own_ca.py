"""The installation's own CA: who makes it, what it issues, and what it lists as revoked."""

import dataclasses
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID, NameOID
from tests.support.own_ca import ORGANIZATION, certify, create_ca, grant, issue_certificate, issued_record
from tests.support.world import AGENCY, CHAIR, CLERK, OFFICE, OPERATOR, P256, World, operators

from trien_server.core import der
from trien_server.core.algorithms import KeyType
from trien_server.core.errors import (
    AlreadyExists,
    CertificateNotValid,
    HsmUnavailable,
    InvalidArgument,
    OwnProposal,
    PermissionDenied,
    Refusal,
    StateConflict,
)
from trien_server.core.records import (
    AuditEntry,
    CertificateAuthority,
    Credential,
    IssuedCertificate,
    IssuedCertificateState,
    Key,
    KeyPurpose,
    ProposalState,
    RevocationReason,
    State,
)
from trien_server.host.published_lists import ListFolder
from trien_server.services.changes import Change
from trien_server.services.own_ca import OwnCaSettings
from trien_server.services.paging import Page
from trien_server.services.revocation_lists import ListPublisher

pytestmark = pytest.mark.promise("P9")


@pytest.fixture
def world() -> World:
    return World().populate()


def authorities(world: World) -> list[CertificateAuthority]:
    return world.use.own_ca.authorities.list_()


def test_without_a_ca_no_certificate_is_proposed(world: World) -> None:
    with pytest.raises(StateConflict, match="trien-server ca create"):
        world.use.own_ca.issue(
            OPERATOR, key=world.key(P256).name, signer=CHAIR, valid_days=0, deadline=world.deadline()
        )


def test_the_host_makes_a_ca_that_issues_nothing_before_an_officer_approved_it(world: World) -> None:
    certificate = certify(world)
    proposal = world.use.own_ca.authorities.propose([certificate], replace=False)
    assert authorities(world) == []
    with pytest.raises(StateConflict):
        grant(world, world.key(P256).name)

    world.agree(proposal)

    (authority,) = authorities(world)
    assert (authority.state, authority.certificate_chain) == (State.ENABLED, (certificate,))
    key = world.use.transactions.read(lambda view: view.require(Key, authority.key))
    assert key.purpose is KeyPurpose.CA
    kinds = [row.record.kind for row in world.store.rows(AuditEntry)]
    assert "ca_certificate_granted" in kinds


def test_a_ca_certificate_says_that_it_is_no_public_ca(world: World) -> None:
    certificate = x509.load_der_x509_certificate(certify(world, days=100))
    (unit,) = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    assert unit.value == "Private CA - not a public CA"
    policies = certificate.extensions.get_extension_for_class(x509.CertificatePolicies).value
    (qualifier,) = policies[0].policy_qualifiers or []
    assert isinstance(qualifier, x509.UserNotice)
    assert "no public CA" in (qualifier.explicit_text or "")
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert certificate.not_valid_before_utc == world.clock.now()
    assert certificate.not_valid_after_utc == world.clock.now() + timedelta(days=100, seconds=-1)


def test_the_audit_entry_is_durable_before_a_ca_key_certifies_itself(world: World) -> None:
    key = world.use.own_ca.authorities.make_key(KeyType.EC_P256)
    world.hsm.fail_next(method="sign")
    before = {row.record.name for row in world.store.rows(AuditEntry)}
    with pytest.raises(HsmUnavailable):
        world.use.own_ca.authorities.certify_itself(key, common_name="x", organization="y", days=1)
    added = [row.record for row in world.store.rows(AuditEntry) if row.record.name not in before]
    assert [entry.kind for entry in added] == ["ca_certificate_granted"]


def test_a_ca_key_that_a_crash_left_is_taken_up_and_not_made_anew(world: World) -> None:
    world.hsm.fail_next(method="generate_key_pair")
    with pytest.raises(HsmUnavailable):
        world.use.own_ca.authorities.make_key(KeyType.EC_P384)
    again = world.new_process().own_ca.authorities.make_key(KeyType.EC_P384)
    assert again.name == "keys/ca-1"
    assert world.use.own_ca.authorities.make_key(KeyType.EC_P384).name == "keys/ca-1"
    assert world.use.own_ca.authorities.make_key(KeyType.EC_P256).name == "keys/ca-2"


def test_two_proposals_of_a_first_ca_come_to_one_ca(world: World) -> None:
    first = world.use.own_ca.authorities.propose([certify(world)], replace=False)
    second = world.use.own_ca.authorities.propose([certify(world)], replace=False)
    world.agree(first)
    assert world.approve_proposal(second).state is ProposalState.OUTDATED
    assert len(authorities(world)) == 1
    with pytest.raises(StateConflict, match="ca rotate"):
        world.use.own_ca.authorities.propose([certify(world)], replace=False)


def test_a_chain_that_is_no_ca_of_ours_is_not_proposed(world: World) -> None:
    propose = world.use.own_ca.authorities.propose
    ours = certify(world)
    foreign = operators()["first"].certificate_der
    with pytest.raises(InvalidArgument, match="none of this installation's CA keys"):
        propose([foreign], replace=False)
    with pytest.raises(InvalidArgument, match="did not issue it"):
        propose([ours, certify(world, key_type=KeyType.EC_P256)], replace=False)
    with pytest.raises(InvalidArgument, match="not a certificate"):
        propose([b"x"], replace=False)
    with pytest.raises(InvalidArgument):
        propose([], replace=False)
    with pytest.raises(StateConflict, match="no CA to be replaced"):
        propose([ours], replace=True)
    world.clock.advance(timedelta(days=4000))
    with pytest.raises(CertificateNotValid):
        propose([ours], replace=False)


def test_an_issued_certificate_is_the_signers_by_the_records_and_for_documents_alone(world: World) -> None:
    ca = x509.load_der_x509_certificate(create_ca(world))
    view = issue_certificate(world, world.key(P256).name, valid_days=30)
    assert view.issued.state is IssuedCertificateState.ISSUED
    certificate = x509.load_der_x509_certificate(view.chain[0])
    certificate.verify_directly_issued_by(ca)
    assert view.chain[1] == ca.public_bytes(Encoding.DER)
    assert certificate.subject.rfc4514_string() == f"CN=Hoàng Trịnh Đôn,O={ORGANIZATION}"
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert spki == world.public_key(P256)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.content_commitment
    assert not any((usage.value.key_cert_sign, usage.value.crl_sign, usage.value.key_encipherment))
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_after_utc == world.clock.now() + timedelta(days=30, seconds=-1)
    assert view.issued.expire_time == certificate.not_valid_after_utc
    assert f"{certificate.serial_number:040x}" == view.issued.name.rpartition("/")[2]
    assert certificate.tbs_certificate_bytes == view.issued.to_be_signed
    der.parse(view.chain[0])
    for oid in (ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.SUBJECT_KEY_IDENTIFIER):
        assert certificate.extensions.get_extension_for_oid(oid)


def test_serial_numbers_are_random_and_fit(world: World) -> None:
    create_ca(world)
    serials = {int(grant(world, world.key(P256).name).rpartition("/")[2], 16) for _ in range(8)}
    assert len(serials) == 8
    assert all(0 < serial < 1 << 159 for serial in serials)
    assert max(serials) > 1 << 140


@pytest.mark.parametrize("days", [-1, 1826])
def test_the_days_of_a_certificate_have_bounds(world: World, days: int) -> None:
    create_ca(world)
    with pytest.raises(InvalidArgument, match="valid_days"):
        grant(world, world.key(P256).name, valid_days=days)


def test_no_certificate_outlives_the_ca_also_when_time_passes_before_the_approval(world: World) -> None:
    create_ca(world, days=100)
    with pytest.raises(InvalidArgument, match="the CA itself is valid for 99 days more"):
        grant(world, world.key(P256).name, valid_days=101)
    proposal = world.use.own_ca.issue(
        OPERATOR, key=world.key(P256).name, signer=CHAIR, valid_days=100, deadline=world.deadline()
    )
    world.clock.advance(timedelta(days=1))
    assert world.approve_proposal(proposal).state is ProposalState.OUTDATED
    assert world.store.rows(IssuedCertificate) == []


def test_a_certificate_needs_a_key_that_is_the_signers(world: World) -> None:
    create_ca(world)
    with pytest.raises(InvalidArgument, match="another signer's"):
        grant(world, world.key(P256).name, CLERK)
    for key in ("keys/none", authorities(world)[0].key):
        with pytest.raises(InvalidArgument, match="no such enabled signing key"):
            grant(world, key)
    with pytest.raises(InvalidArgument, match="signer"):
        grant(world, world.key(P256).name, "signers/none")
    world._add_key("keys/free", KeyType.EC_P256)
    grant(world, "keys/free", CLERK)
    with pytest.raises(InvalidArgument, match="another signer's"):
        grant(world, "keys/free", CHAIR)


@pytest.mark.promise("P9")
def test_a_key_that_becomes_another_signers_while_a_certificate_is_approved_gets_none(world: World) -> None:
    create_ca(world)
    world._add_key("keys/free", KeyType.EC_P256)
    proposal = world.use.own_ca.issue(OPERATOR, key="keys/free", signer=CHAIR, valid_days=0, deadline=world.deadline())
    transact = world.store.transact

    def raced(*arguments: object, **named: object) -> object:
        world.store.transact = transact
        spare = next(row.record for row in world.store.rows(Credential) if row.record.name == P256)
        stolen = dataclasses.replace(spare, name="credentials/first", key="keys/free", signer=CLERK)
        change = Change(kind="credential_created", slow=[dataclasses.replace(stolen, version=1)])
        world.use.changes.make("test", lambda _: change, deadline=world.deadline())
        return transact(*arguments, **named)

    world.store.transact = raced
    assert world.approve_proposal(proposal).state is ProposalState.OUTDATED
    assert world.store.rows(IssuedCertificate) == []


def test_nobody_approves_the_certificate_that_they_proposed_and_no_client_proposes_one(world: World) -> None:
    create_ca(world)
    key = world.key(P256).name
    proposal = world.use.own_ca.issue(OPERATOR, key=key, signer=CHAIR, valid_days=0, deadline=world.deadline())
    with pytest.raises(OwnProposal):
        world.approve_proposal(proposal, by=OPERATOR)
    with pytest.raises(PermissionDenied):
        world.use.own_ca.issue(OFFICE, key=key, signer=CHAIR, valid_days=0, deadline=world.deadline())


def test_a_certificate_is_signed_once_whoever_takes_it_up(world: World) -> None:
    create_ca(world)
    name = grant(world, world.key(P256).name)
    pending = issued_record(world, name)
    world.hsm.fail_next(method="sign")
    with pytest.raises(HsmUnavailable):
        world.use.own_ca.issuance.issue(name)
    assert issued_record(world, name) == pending

    both = threading.Barrier(2)
    first, second = (world.new_process().own_ca.issuance for _ in range(2))
    signed: list[bytes] = []
    sign = world.hsm.sign

    def sign_together(key: object, algorithm: object, messages: object, **parameters: object) -> list[bytes]:
        made: list[bytes] = sign(key, algorithm, messages, **parameters)
        signed.extend(made)
        both.wait(30)
        return made

    world.hsm.sign = sign_together
    threads = [threading.Thread(target=worker.issue, args=(name,)) for worker in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    issued = issued_record(world, name)
    assert len(set(signed)) == 2
    assert issued.state is IssuedCertificateState.ISSUED
    assert issued.version == pending.version + 1
    assert issued.to_be_signed == pending.to_be_signed
    certificate = x509.load_der_x509_certificate(issued.certificate)
    assert certificate.tbs_certificate_bytes == pending.to_be_signed
    assert certificate.signature in signed


def test_what_a_crash_left_pending_is_issued_by_the_next_process(world: World) -> None:
    create_ca(world)
    names = [grant(world, world.key(P256).name) for _ in range(3)]
    worker = world.new_process().own_ca.issuance
    assert worker.pending() == sorted(names)
    worker.start()
    deadline = threading.Event()
    for _ in range(600):
        if not worker.pending():
            break
        deadline.wait(0.05)
    worker.stop()
    assert [issued_record(world, name).state for name in names] == [IssuedCertificateState.ISSUED] * 3


def test_a_token_that_signs_something_else_issues_nothing(world: World) -> None:
    create_ca(world)
    name = grant(world, world.key(P256).name)
    sign = world.hsm.sign
    world.hsm.sign = lambda key, algorithm, messages, **rest: sign(key, algorithm, [bytes(48)], **rest)
    with pytest.raises(HsmUnavailable):
        world.use.own_ca.issuance.issue(name)
    with pytest.raises(HsmUnavailable):
        world.use.own_ca.lists.make(authorities(world)[0].name)
    assert issued_record(world, name).certificate == b""


def test_a_certificate_that_is_revoked_before_it_is_signed_is_never_issued(world: World) -> None:
    create_ca(world)
    name = grant(world, world.key(P256).name)
    sign = world.hsm.sign

    def revoke_meanwhile(*arguments: object, **parameters: object) -> list[bytes]:
        world.hsm.sign = sign
        revoke(world, name)
        made: list[bytes] = sign(*arguments, **parameters)
        return made

    world.hsm.sign = revoke_meanwhile
    world.use.own_ca.issuance.issue(name)
    assert issued_record(world, name).state is IssuedCertificateState.REVOKED
    assert issued_record(world, name).certificate == b""


def revoke(world: World, name: str, reason: RevocationReason = RevocationReason.UNSPECIFIED) -> None:
    world.use.own_ca.revoke(OPERATOR, name, reason=reason, deadline=world.deadline())


def test_a_list_has_what_is_revoked_with_when_and_why_and_numbers_that_grow(world: World) -> None:
    ca = x509.load_der_x509_certificate(create_ca(world))
    (authority,) = authorities(world)
    names = [issue_certificate(world, world.key(P256).name).issued.name for _ in range(6)]
    empty = x509.load_der_x509_crl(world.use.own_ca.lists.make(authority.name))
    assert len(empty) == 0
    for name, reason in zip(names, RevocationReason, strict=False):
        world.clock.advance(timedelta(seconds=1))
        revoke(world, name, reason)
    with pytest.raises(StateConflict):
        revoke(world, names[0])
    encoded = world.use.own_ca.lists.make(authority.name)
    der.parse(encoded)
    listed = x509.load_der_x509_crl(encoded)
    assert listed.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
    numbers = [one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for one in (empty, listed)]
    assert numbers == [1, 2]
    assert listed.last_update_utc == world.clock.now()
    assert listed.next_update_utc == world.clock.now() + timedelta(days=7)
    serials = {int(name.rpartition("/")[2], 16) for name in names[:5]}
    assert {entry.serial_number for entry in listed} == serials
    found = {}
    for entry in listed:
        reasons = [extension.value for extension in entry.extensions]
        found[f"{entry.serial_number:040x}"] = reasons[0].reason.name if reasons else ""
    said = [found[name.rpartition("/")[2]] for name in names[:5]]
    assert said == ["", "key_compromise", "affiliation_changed", "superseded", "cessation_of_operation"]


def test_a_list_number_that_a_crash_took_is_never_used_again(world: World) -> None:
    create_ca(world)
    (authority,) = authorities(world)
    world.hsm.fail_next(method="sign")
    with pytest.raises(HsmUnavailable):
        world.use.own_ca.lists.make(authority.name)
    listed = x509.load_der_x509_crl(world.use.own_ca.lists.make(authority.name))
    assert listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 2


def test_after_a_rotation_the_new_ca_issues_and_the_old_ones_certificates_and_lists_go_on(world: World) -> None:
    old = x509.load_der_x509_certificate(create_ca(world))
    before = issue_certificate(world, world.key(P256).name)
    new = x509.load_der_x509_certificate(create_ca(world, replace=True))
    first, second = authorities(world)
    assert (first.state, second.state) == (State.DISABLED, State.ENABLED)
    after = issue_certificate(world, world.key(P256).name)
    x509.load_der_x509_certificate(after.chain[0]).verify_directly_issued_by(new)
    still = world.use.own_ca.get(OPERATOR, before.issued.name)
    x509.load_der_x509_certificate(still.chain[0]).verify_directly_issued_by(old)
    revoke(world, before.issued.name)
    listed = x509.load_der_x509_crl(world.use.own_ca.lists.make(first.name))
    assert len(listed) == 1
    assert listed.is_signature_valid(old.public_key())  # type: ignore[arg-type]
    assert len(x509.load_der_x509_crl(world.use.own_ca.lists.make(second.name))) == 0


def test_a_certificate_proposed_before_a_rotation_is_not_issued_by_the_old_ca(world: World) -> None:
    create_ca(world)
    proposal = world.use.own_ca.issue(
        OPERATOR, key=world.key(P256).name, signer=CHAIR, valid_days=0, deadline=world.deadline()
    )
    create_ca(world, replace=True)
    assert world.approve_proposal(proposal).state is ProposalState.OUTDATED


def test_issued_certificates_are_listed_by_name_in_pages(world: World) -> None:
    create_ca(world)
    names = sorted(issue_certificate(world, world.key(P256).name).issued.name for _ in range(5))
    shown, token = world.use.own_ca.list_(OPERATOR, page=Page(size=3, after=""))
    assert [view.issued.name for view in shown] == names[:3]
    rest, end = world.use.own_ca.list_(OPERATOR, page=Page.parse(3, token))
    assert ([view.issued.name for view in rest], end) == (names[3:], "")
    with pytest.raises(PermissionDenied):
        world.use.own_ca.get(OPERATOR, f"{names[0][:-1]}x")


def publisher(world: World, folder: Path) -> ListPublisher:
    settings = OwnCaSettings(publication=ListFolder(folder), crl_url="http://pki.example/crl/")
    found = world.new_process(own_ca=settings).own_ca.publisher
    assert found is not None
    return found


def test_a_published_list_is_made_anew_when_old_broken_or_without_a_revocation(world: World, tmp_path: Path) -> None:
    create_ca(world)
    name = issue_certificate(world, world.key(P256).name).issued.name
    nodes = [publisher(world, tmp_path) for _ in range(2)]
    assert [node.publish() for node in nodes] == [1, 0]
    path = tmp_path / "ca-1.crl"
    assert path.stat().st_mode & 0o777 == 0o644

    revoke(world, name)
    assert [node.publish() for node in nodes] == [1, 0]
    assert len(x509.load_der_x509_crl(path.read_bytes())) == 1

    world.clock.advance(timedelta(hours=23))
    assert nodes[0].publish() == 0
    world.clock.advance(timedelta(hours=1))
    assert nodes[0].publish() == 1

    for broken in (b"", b"x", path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])):
        path.write_bytes(broken)
        assert nodes[1].publish() == 1
        assert len(x509.load_der_x509_crl(path.read_bytes())) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["ca-1.crl"]


@pytest.mark.promise("P5")
def test_a_revocation_whose_record_is_deleted_or_put_back_does_not_leave_the_published_list(
    world: World, tmp_path: Path
) -> None:
    create_ca(world)
    name = issue_certificate(world, world.key(P256).name).issued.name
    node = publisher(world, tmp_path)
    revoke(world, name)
    assert node.publish() == 1
    published = (tmp_path / "ca-1.crl").read_bytes()
    world.store.delete(IssuedCertificate, name)
    for hours in (0, 30):
        world.clock.advance(timedelta(hours=hours))
        with pytest.raises(StateConflict, match="revokes 1 certificates that no record says are revoked"):
            node.publish()
    assert (tmp_path / "ca-1.crl").read_bytes() == published


def test_the_certificate_names_where_the_list_is_served(world: World) -> None:
    world.use = world.new_process(own_ca=OwnCaSettings(crl_url="http://pki.example/crl/"))
    create_ca(world)
    certificate = x509.load_der_x509_certificate(issue_certificate(world, world.key(P256).name).chain[0])
    (point,) = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert [name.value for name in point.full_name or []] == ["http://pki.example/crl/ca-1.crl"]


@pytest.mark.promise("P5")
def test_an_edited_to_be_signed_is_never_signed(world: World) -> None:
    create_ca(world)
    name = grant(world, world.key(P256).name)
    row = world.store.rows(IssuedCertificate)[0]
    forged = dataclasses.replace(row.record, to_be_signed=row.record.to_be_signed[:-1] + b"\x00")
    world.store.overwrite(dataclasses.replace(row, record=forged))
    before = world.hsm.signatures
    with pytest.raises(Refusal, match="failed verification"):
        world.new_process().own_ca.issuance.issue(name)
    assert world.hsm.signatures == before


def test_an_agency_gets_its_certificate_too(world: World) -> None:
    create_ca(world)
    world._add_key("keys/agency", KeyType.EC_P256)
    view = issue_certificate(world, "keys/agency", AGENCY)
    subject = x509.load_der_x509_certificate(view.chain[0]).subject
    assert subject.rfc4514_string() == f"CN={ORGANIZATION},O={ORGANIZATION}"


def test_a_name_that_is_taken_is_refused(world: World) -> None:
    create_ca(world)
    world.use.own_ca.issue._randomness = type("Same", (), {"bytes": staticmethod(lambda size: b"\x11" * size)})()
    grant(world, world.key(P256).name)
    with pytest.raises(AlreadyExists):
        grant(world, world.key(P256).name)


def test_a_key_that_is_disabled_keeps_back_its_own_certificates_and_lists_alone(world: World, tmp_path: Path) -> None:
    create_ca(world)
    waiting = grant(world, world.key(P256).name)
    create_ca(world, replace=True)
    other = grant(world, world.key(P256).name)
    world.use.disable_key(OPERATOR, "keys/ca-1", deadline=world.deadline())
    with pytest.raises(StateConflict, match="not enabled"):
        world.use.own_ca.issuance._issue_all([waiting, other])
    assert issued_record(world, waiting).state is IssuedCertificateState.PENDING_ISSUANCE
    assert issued_record(world, other).state is IssuedCertificateState.ISSUED
    with pytest.raises(StateConflict, match="not enabled"):
        publisher(world, tmp_path).publish()
    assert [one.name for one in tmp_path.iterdir()] == ["ca-2.crl"]
