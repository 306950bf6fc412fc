"""Evidence of one signature: what is gathered, for whom, and that nothing of it is taken unverified (P10, P6, P11)."""

import dataclasses
import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest
from tests.support.sealed_log import SealedLog
from tests.support.world import (
    AGENCY,
    CHAIR,
    CLERK,
    ED,
    FOREIGN,
    OFFICE,
    OPERATOR,
    P256,
    RSA,
    SEAL,
    World,
    data_items,
    digests,
    issue,
    new_request_id,
    populated,
)

from trien_server.core import errors
from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.receipts import verify_receipt
from trien_server.core.records import AuditEntry, LogTile, Outcome
from trien_server.services.credential_changes import Renewal
from trien_server.services.evidence import MOST_ITEM_RECEIPTS
from trien_server.services.transactions import Ledger
from trien_server.services.trusted import TrustedView

pytestmark = pytest.mark.promise("P10")


@pytest.fixture
def world() -> World:
    return populated()


@pytest.fixture
def log(world: World) -> SealedLog:
    sealed = SealedLog(world)
    sealed.enter_key()
    return sealed


def details_of(entry: AuditEntry) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(entry.details)
    return found


def test_a_signature_comes_with_who_when_and_by_which_authority(world: World, log: SealedLog) -> None:
    wanted = digests(3)
    signed = world.sign(wanted, credential=SEAL)
    log.seal()
    found = world.use.get_evidence(OFFICE, signed.audit_entry)
    assert found.signer is not None
    assert found.organization is not None
    assert found.approver is not None
    assert found.authenticator is not None
    assert found.client is not None
    assert (found.signer.name, found.approver.name, found.client.name) == (AGENCY, CLERK, OFFICE.name)
    assert found.organization.display_name == "Ủy ban nhân dân xã Phú Lâm"
    assert found.authenticator.kind.value == "TOTP"
    assert (found.credential, found.assurance) == (SEAL, "CLIENT_COLLECTED_OTP")
    assert found.approve_time == found.entry.entry.time
    assert found.certificate_chain == (world.certificate(SEAL),)
    assert found.algorithm is SignatureAlgorithm.ECDSA_P256_SHA256
    assert found.digests == tuple(wanted)
    assert found.signatures == signed.signatures
    assert found.later_entries == ()
    # An operator who reads the log gets the same.
    assert world.use.get_evidence(OPERATOR, signed.audit_entry) == found


def test_its_receipts_verify_one_for_the_entry_and_one_for_each_digest(world: World, log: SealedLog) -> None:
    signed = world.sign(digests(5))
    unsealed = world.use.get_evidence(OFFICE, signed.audit_entry)
    assert (unsealed.receipts, unsealed.entry.position) == ((), None)
    assert unsealed.log_keys is not None
    log.seal()
    found = world.use.get_evidence(OFFICE, signed.audit_entry)
    assert found.log_keys is not None
    for made in found.receipts:
        checkpoint = verify_receipt(made.receipt, found.log_keys.keys)
        assert checkpoint.size == made.size
        assert made.receipt.entry == signed.audit_entry
        assert made.receipt.position == found.entry.position
    assert [made.receipt.item.digest for made in found.receipts if made.receipt.item] == digests(5)
    assert len(found.receipts) == 6
    world.next_step()
    many = world.sign(digests(MOST_ITEM_RECEIPTS + 1))
    log.seal()
    assert len(world.use.get_evidence(OFFICE, many.audit_entry).receipts) == 1


def test_a_log_that_does_not_lead_to_its_checkpoint_gives_no_evidence(world: World, log: SealedLog) -> None:
    signed = world.sign(digests(1))
    log.seal()
    row = next(row for row in world.store.rows(LogTile) if row.record.name.startswith("logTiles/0/0"))
    spoilt = dataclasses.replace(row.record, hashes=bytes(len(row.record.hashes)))
    seals = world.use.seals
    world.store.overwrite(seals.seal_hot(spoilt, at=world.clock.now()))
    with pytest.raises(errors.LogNotTrusted):
        world.use.get_evidence(OFFICE, signed.audit_entry)
    assert world.events[-1].name == "log_not_trusted"


@pytest.mark.promise("P6")
def test_a_recorded_signature_that_does_not_verify_is_not_handed_out(world: World, log: SealedLog) -> None:
    signed = world.sign(digests(2))
    log.seal()
    outcome = world.store.outcomes()[-1]
    for signatures in ((outcome.signatures[1], outcome.signatures[0]), outcome.signatures[:1], (b"", b"")):
        spoilt = Outcome(request=outcome.request, signatures=signatures, create_time=outcome.create_time)
        world.store._tables = {
            **world.store._tables,
            "outcomes": {**world.store._tables["outcomes"], outcome.request: spoilt},
        }
        world.events.clear()
        assert world.use.get_evidence(OFFICE, signed.audit_entry).signatures == ()
        assert [event.name for event in world.events] == ["signature_does_not_verify"]


def test_the_certificate_is_the_one_of_then_or_none(world: World, log: SealedLog) -> None:
    signed = world.sign(digests(1))
    log.seal()
    entry = world.use.get_audit_entry(OPERATOR, signed.audit_entry).entry
    assert details_of(entry)["certificate"] == hashlib.sha256(world.certificate(P256)).hexdigest()
    world.use.suspend_credential(OPERATOR, P256, deadline=world.deadline())
    assert world.use.get_evidence(OFFICE, signed.audit_entry).certificate_chain == (world.certificate(P256),)
    request = world.use.generate_signing_request(
        OPERATOR, key=world.key(P256).name, signer=CHAIR, deadline=world.deadline()
    )
    renewal = Renewal(name=P256, key="", certificate_chain=(issue(request, world.clock),))
    world.agree(world.use.renew_credential(OPERATOR, renewal, deadline=world.deadline()))
    found = world.use.get_evidence(OFFICE, signed.audit_entry)
    assert found.certificate_chain == ()
    assert found.signatures == signed.signatures  # by the same key


def test_a_resumed_request_shows_what_followed(world: World, log: SealedLog) -> None:
    request_id = new_request_id()
    world.store.fail_transact(2, persisted=False)
    with pytest.raises(errors.StoreUnavailable):
        world.sign(digests(1), request_id=request_id, password=world.code())
    log.seal()
    granted = [row.record for row in world.store.rows(AuditEntry) if row.record.kind == "signing_granted"]
    assert len(granted) == 1
    world.clock.advance(timedelta(minutes=1))
    signed = world.sign(digests(1), request_id=request_id)
    log.seal()
    found = world.use.get_evidence(OFFICE, granted[0].name)
    assert [later.entry.kind for later in found.later_entries] == ["signing_resumed"]
    assert found.later_entries[0].entry.name == signed.audit_entry
    assert found.signatures == signed.signatures
    assert world.use.get_evidence(OFFICE, signed.audit_entry).signatures == signed.signatures


def test_a_refusal_has_evidence_without_signatures(world: World, log: SealedLog) -> None:
    with pytest.raises(errors.OneTimePasswordRejected):
        world.sign(digests(1), password=world.wrong_code())
    log.seal()
    entry = next(row.record for row in world.store.rows(AuditEntry) if row.record.kind == "refused")
    found = world.use.get_evidence(OFFICE, entry.name)
    assert found.signatures == ()
    assert found.approver is not None
    assert found.approver.name == CHAIR
    assert len(found.receipts) == 1


def test_signatures_over_data_and_of_rsa_are_there_as_far_as_they_can_be_verified(world: World, log: SealedLog) -> None:
    data = world.sign(data_items(b"a", b"b"), credential=ED, algorithm=SignatureAlgorithm.ED25519)
    world.next_step()
    rsa = world.sign(digests(2), credential=RSA, algorithm=SignatureAlgorithm.RSA_PSS_SHA256, pss_salt_length=20)
    log.seal()
    # Of the data only the digest was kept: nobody can verify those here.
    assert world.use.get_evidence(OFFICE, data.audit_entry).signatures == ()
    assert world.use.get_evidence(OFFICE, rsa.audit_entry).signatures == rsa.signatures


def test_erased_details_leave_the_proof_of_the_entry(world: World, log: SealedLog) -> None:
    signed = world.sign(digests(2))
    log.seal()
    row = next(row for row in world.store.rows(AuditEntry) if row.record.name == signed.audit_entry)
    erased = dataclasses.replace(row.record, version=2, details="", salt=b"")
    world.store.overwrite(world.use.seals.seal_hot(erased, at=world.clock.now()))
    found = world.use.get_evidence(OPERATOR, signed.audit_entry)
    assert (found.signer, found.digests, found.signatures) == (None, (), ())
    assert len(found.receipts) == 1
    with pytest.raises(errors.PermissionDenied):
        world.use.get_evidence(OFFICE, signed.audit_entry)


@pytest.mark.promise("P11")
def test_an_application_gets_evidence_of_its_own_requests_alone(world: World, log: SealedLog) -> None:
    signed = world.sign(digests(1))
    log.seal()
    others = [row.record.name for row in world.store.rows(AuditEntry) if row.record.name != signed.audit_entry]
    messages = set()
    for principal, names in ((FOREIGN, [signed.audit_entry]), (OFFICE, [*others, "auditEntries/nothing"])):
        for name in names:
            with pytest.raises(errors.PermissionDenied) as refused:
                world.use.get_evidence(principal, name)
            messages.add(refused.value.message)
    assert len(messages) == 1
    assert len(others) > 30


@pytest.mark.promise("P8")
def test_however_busy_the_log_was_few_entries_are_in_memory(
    world: World, log: SealedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = world.sign(digests(1))
    world.clock.advance(timedelta(seconds=1))  # entries of one time come in the order of their random names

    def work(ledger: Ledger) -> None:
        for _ in range(450):
            ledger.record("test", {})

    world.use.transactions.run(work, timeout=30.0)
    log.seal()
    spans: list[int] = []
    read = TrustedView.log

    def spanned(view: TrustedView, first: int, end: int) -> Any:
        spans.append(end - first)
        return read(view, first, end)

    monkeypatch.setattr(TrustedView, "log", spanned)
    assert world.use.get_evidence(OFFICE, signed.audit_entry).signatures
    assert sum(spans) >= 450
    assert max(spans) <= 100


@pytest.mark.promise("P12")
def test_evidence_holds_no_secret(world: World, log: SealedLog) -> None:
    code = world.code()
    signed = world.sign(digests(1), password=code)
    log.seal()
    shown = repr(world.use.get_evidence(OFFICE, signed.audit_entry))
    for secret in (world.tokens[OFFICE.name], *(otp.secret for otp in world.otp.values())):
        assert secret not in shown
    assert f"'{code}'" not in shown
    assert code not in details_of(world.use.get_audit_entry(OPERATOR, signed.audit_entry).entry).values()
