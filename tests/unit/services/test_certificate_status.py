"""What is known of certificates, how it is learnt, and what a credential's policy makes of it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key
from tests.fakes.hsm import MemoryHsm
from tests.fakes.public_ca import DAY, Issued, PublicCa, ca_extensions, issue
from tests.support.own_ca import create_ca, issue_certificate
from tests.support.world import CHAIR, OFFICE, OPERATOR, P256, World, digests

from trien_server.core.algorithms import KeyType
from trien_server.core.errors import (
    Busy,
    CertificateRevoked,
    CertificateStatusUnknown,
    OneTimePasswordRejected,
    RecordNotTrusted,
    Refusal,
    StoreUnavailable,
)
from trien_server.core.ports import RevocationAnswer, StatusNotKnown
from trien_server.core.records import (
    AuditEntry,
    AuthenticatorState,
    CertificateStatus,
    IssuedCertificate,
    IssuedCertificateState,
    Revocation,
    RevocationPolicy,
    RevocationReason,
)
from trien_server.services.certificate_checks import LEASE, CertificateChecks, RevocationSettings
from trien_server.services.certificate_statuses import KnownStatus
from trien_server.services.credentials import NewCredential
from trien_server.services.issued_certificates import serial_of

GOOD, REVOKED, UNKNOWN = Revocation.GOOD, Revocation.REVOKED, Revocation.UNKNOWN
NEW = "credentials/checked"
HOUR = timedelta(hours=1)


@dataclass
class Said:
    """The port `RevocationSource`: says what a test wants, of each certificate by its DER."""

    answers: dict[bytes, Callable[[datetime], RevocationAnswer]] = field(default_factory=dict)
    asked: list[bytes] = field(default_factory=list)
    before: Callable[[], None] = field(default=lambda: None)

    def status_of(self, certificate: bytes, issuer: bytes, *, at: datetime) -> RevocationAnswer:
        assert issuer
        self.asked.append(certificate)
        self.before()
        say = self.answers.get(certificate)
        if say is None:
            raise StatusNotKnown("OCSP ca.example: did not answer in time")
        return say(at)

    def good(self, certificate: bytes, *, for_: timedelta = 2 * DAY) -> None:
        self.answers[certificate] = lambda at: RevocationAnswer(
            revocation=GOOD, source="OCSP ca.example", valid_until=at + for_
        )

    def revoked(self, certificate: bytes, *, on_hold: bool = False) -> None:
        self.answers[certificate] = lambda at: RevocationAnswer(
            revocation=REVOKED, revoke_time=at, on_hold=on_hold, source="OCSP ca.example", valid_until=at + DAY
        )


@dataclass
class Case:
    world: World
    source: Said
    leaf: bytes
    intermediate: bytes
    checks: CertificateChecks

    def node(self) -> CertificateChecks:
        """Returns another node's checks."""
        settings = RevocationSettings(source=self.source, every=HOUR, most_age=DAY)
        found = self.world.new_process(revocation=settings).certificate_checks
        assert found is not None
        return found

    def sign(self, **given: Any) -> None:
        self.world.sign(digests(1), credential=NEW, signer=CHAIR, **given)

    def known(self) -> KnownStatus:
        return self.world.use.get_credential(OPERATOR, NEW).status.as_of(self.world.clock.now())


def case_of(policy: RevocationPolicy) -> Case:
    world = World().populate()
    world._add_key("keys/checked", KeyType.EC_P256)
    now = world.clock.now()
    ca = PublicCa(now)
    middle = issue("Intermediate", at=now, by=ca.root, extensions=ca_extensions())
    public_key = load_der_public_key(world.use.get_key(OPERATOR, "keys/checked").public_key)
    leaf = issue("Leaf", at=now, by=middle, public_key=public_key)
    add(world, policy, leaf, middle, ca.root)
    source = Said()
    settings = RevocationSettings(source=source, every=HOUR, most_age=DAY)
    world.use = world.new_process(revocation=settings)
    assert world.use.certificate_checks is not None
    return Case(world, source, leaf.der, middle.der, world.use.certificate_checks)


def add(world: World, policy: RevocationPolicy, *chain: Issued, key: str = "keys/checked") -> None:
    new = NewCredential(
        name=NEW,
        key=key,
        signer=CHAIR,
        display_name="Checked",
        certificate_chain=tuple(one.der for one in chain),
        activators=(),
        clients=(OFFICE.name,),
        max_items=0,
        client_collected_otp=True,
        revocation_policy=policy,
    )
    world.agree(world.use.create_credential(OPERATOR, new, world.deadline()))


@pytest.fixture
def strict() -> Case:
    return case_of(RevocationPolicy.REQUIRE_GOOD)


@pytest.fixture
def mild() -> Case:
    return case_of(RevocationPolicy.REFUSE_REVOKED)


def test_a_policy_that_looks_at_nothing_signs_whatever_is_known() -> None:
    case = case_of(RevocationPolicy.IGNORE)
    case.source.revoked(case.leaf)
    case.checks.check()
    case.sign()
    assert case.known().revocation is REVOKED


def test_what_is_not_known_stops_only_the_strict_policy(strict: Case, mild: Case) -> None:
    mild.sign()
    with pytest.raises(CertificateStatusUnknown):
        strict.sign()
    assert strict.known().source == "not asked yet"


def test_a_chain_is_good_when_all_its_certificates_are(strict: Case) -> None:
    strict.source.good(strict.leaf)
    assert strict.checks.check() == 1
    assert strict.known().revocation is UNKNOWN
    with pytest.raises(CertificateStatusUnknown):
        strict.sign()
    strict.source.good(strict.intermediate, for_=3 * HOUR)
    strict.world.clock.advance(timedelta(minutes=5))
    assert strict.checks.check() == 1
    assert strict.source.asked == [strict.leaf, strict.intermediate] * 2
    assert (strict.known().revocation, strict.known().source) == (GOOD, "OCSP ca.example")
    strict.sign()


@pytest.mark.parametrize("which", ["leaf", "intermediate"])
def test_a_revoked_certificate_anywhere_in_the_chain_stops_signing(mild: Case, which: str) -> None:
    mild.source.good(mild.leaf)
    mild.source.good(mild.intermediate)
    mild.source.revoked(getattr(mild, which))
    mild.checks.check()
    with pytest.raises(CertificateRevoked):
        mild.sign()
    with pytest.raises(CertificateRevoked):
        mild.world.authorize(digests(1), credential=NEW)
    assert [event.fields["credential"] for event in mild.world.events if event.name == "certificate_revoked"] == [NEW]


@pytest.mark.promise("P2", "P8")
def test_no_password_is_consumed_when_the_certificate_stops_signing(strict: Case) -> None:
    code = strict.world.code()
    before = strict.world.store.rows(AuthenticatorState)
    with pytest.raises(CertificateStatusUnknown):
        strict.sign(password=code)
    assert strict.world.store.rows(AuthenticatorState) == before
    for certificate in (strict.leaf, strict.intermediate):
        strict.source.good(certificate)
    strict.checks.check()
    strict.sign(password=code)
    with pytest.raises(OneTimePasswordRejected):
        strict.sign(password=code)


def test_an_approved_authorization_is_not_used_after_a_revocation(mild: Case) -> None:
    authorization = mild.world.authorize(digests(1), credential=NEW)
    mild.world.approve(authorization)
    data = mild.world.activation_data(authorization)
    mild.source.revoked(mild.leaf)
    mild.checks.check()
    with pytest.raises(CertificateRevoked):
        mild.world.sign(digests(1), credential=NEW, activated=(authorization.name, data))


def test_a_good_status_counts_until_the_next_is_due_and_never_longer_than_configured(strict: Case) -> None:
    strict.source.good(strict.leaf, for_=3 * HOUR)
    strict.source.good(strict.intermediate, for_=30 * DAY)
    strict.checks.check()
    strict.source.answers.clear()
    strict.world.clock.advance(3 * HOUR - timedelta(seconds=1))
    strict.checks.check()
    strict.sign()
    strict.world.clock.advance(timedelta(seconds=1))
    assert strict.known().source.endswith("too old")
    with pytest.raises(CertificateStatusUnknown):
        strict.sign()
    strict.source.good(strict.leaf, for_=30 * DAY)
    strict.world.clock.advance(timedelta(minutes=5))
    strict.source.good(strict.intermediate, for_=30 * DAY)
    strict.checks.check()
    strict.world.clock.advance(DAY - timedelta(seconds=1))
    strict.sign()
    strict.world.clock.advance(timedelta(seconds=1))
    with pytest.raises(CertificateStatusUnknown):
        strict.sign()


def test_what_is_revoked_stays_so_whatever_the_ca_says_later(mild: Case) -> None:
    mild.source.revoked(mild.leaf)
    mild.checks.check()
    for change in (mild.source.answers.clear, lambda: mild.source.good(mild.leaf)):
        change()
        mild.source.good(mild.intermediate)
        for _ in range(3):
            mild.world.clock.advance(30 * HOUR)
            assert mild.checks.check() == 1
            assert mild.known().revocation is REVOKED
            with pytest.raises(CertificateRevoked):
                mild.sign()


def test_what_is_on_hold_can_be_good_again_but_not_by_silence(mild: Case) -> None:
    mild.source.revoked(mild.leaf, on_hold=True)
    mild.source.good(mild.intermediate)
    mild.checks.check()
    mild.source.answers.pop(mild.leaf)
    mild.world.clock.advance(2 * HOUR)
    mild.checks.check()
    with pytest.raises(CertificateRevoked):
        mild.sign()
    mild.source.good(mild.leaf)
    mild.world.clock.advance(2 * HOUR)
    mild.checks.check()
    mild.sign()


def test_a_status_of_another_chain_says_nothing(strict: Case) -> None:
    strict.source.good(strict.leaf)
    strict.source.good(strict.intermediate)
    strict.checks.check()
    world = strict.world
    row = next(row for row in world.store.rows(CertificateStatus) if row.record.credential == NEW)
    other = world.use.seals.seal_hot(
        CertificateStatus(**{**vars(row.record), "chain_hash": bytes(32)}), at=world.clock.now()
    )
    world.store.overwrite(other)
    with pytest.raises(CertificateStatusUnknown):
        strict.sign()
    assert strict.node().check() == 1
    strict.sign()


@pytest.mark.promise("P5")
def test_a_forged_status_is_refused(strict: Case) -> None:
    strict.checks.check()
    row = strict.world.store.rows(CertificateStatus)[0]
    forged = CertificateStatus(**{**vars(row.record), "revocation": GOOD})
    strict.world.store.overwrite(type(row)(record=forged, seal_key=row.seal_key, seal=row.seal))
    with pytest.raises(Refusal) as caught:
        strict.sign()
    assert caught.value.reason == "RECORD_NOT_TRUSTED"


def test_a_warm_request_asks_the_token_no_more_than_without_a_policy(strict: Case) -> None:
    for certificate in (strict.leaf, strict.intermediate):
        strict.source.good(certificate)
    strict.checks.check()
    hsm = strict.world.hsm
    assert isinstance(hsm, MemoryHsm)

    def calls_of(credential: str) -> dict[str, int]:
        for _ in range(2):
            strict.world.next_step()
            hsm.calls.clear()
            strict.world.sign(digests(1), credential=credential, signer=CHAIR)
        return dict(hsm.calls)

    asked = len(strict.source.asked)
    assert calls_of(NEW) == calls_of(P256)
    assert len(strict.source.asked) == asked


def test_each_certificate_is_asked_about_once_an_interval_over_all_nodes(strict: Case) -> None:
    for certificate in (strict.leaf, strict.intermediate):
        strict.source.good(certificate)
    nodes = [strict.checks, strict.node(), strict.node()]
    assert [node.check() for node in nodes] == [1, 0, 0]
    strict.world.clock.advance(HOUR)
    assert [node.check() for node in reversed(nodes)] == [1, 0, 0]
    assert len(strict.source.asked) == 4


def test_one_node_asks_at_a_time(strict: Case) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait(30)

    strict.source.before = wait
    thread = threading.Thread(target=strict.checks.check)
    thread.start()
    assert begun.wait(30)
    with pytest.raises(Busy, match=LEASE):
        strict.node().check()
    go_on.set()
    thread.join(30)


def test_a_ca_that_is_away_is_asked_again_after_a_while_and_the_log_tells_it_once(strict: Case) -> None:
    counts = [strict.checks.check() for _ in range(5)]
    strict.world.clock.advance(timedelta(minutes=5))
    counts += [strict.checks.check() for _ in range(5)]
    assert counts == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    kinds = [row.record.kind for row in strict.world.store.rows(AuditEntry)]
    assert kinds.count("certificate_status_changed") == 1
    assert strict.known().source == "OCSP ca.example: did not answer in time"


def test_what_a_crash_lost_is_asked_again(strict: Case) -> None:
    for certificate in (strict.leaf, strict.intermediate):
        strict.source.good(certificate)
    strict.source.before = lambda: strict.world.store.fail_transact(persisted=False)
    with pytest.raises(StoreUnavailable):
        strict.checks.check()
    strict.source.before = lambda: None
    strict.world.clock.advance(timedelta(minutes=2))
    strict.world.store = strict.world.store.reopened()
    assert strict.node().check() == 1


def own_credential(policy: RevocationPolicy = RevocationPolicy.REQUIRE_GOOD) -> tuple[World, str]:
    """Returns a world with a credential of the own CA that has to be good, and its certificate's name."""
    world = World().populate()
    world._add_key("keys/checked", KeyType.EC_P256)
    create_ca(world)
    view = issue_certificate(world, "keys/checked")
    new = NewCredential(
        name=NEW,
        key="keys/checked",
        signer=CHAIR,
        display_name="Checked",
        certificate_chain=tuple(view.chain),
        activators=(),
        clients=(OFFICE.name,),
        max_items=0,
        client_collected_otp=True,
        revocation_policy=policy,
    )
    world.agree(world.use.create_credential(OPERATOR, new, world.deadline()))
    return world, view.issued.name


def test_the_own_cas_word_is_in_force_at_once_without_any_check() -> None:
    world, name = own_credential()
    other = world.new_process()
    world.sign(digests(1), credential=NEW, signer=CHAIR)
    world.next_step()
    world.sign(digests(1), credential=NEW, signer=CHAIR, use=other)
    world.next_step()
    world.use.own_ca.revoke(OPERATOR, name, reason=RevocationReason.SUPERSEDED, deadline=world.deadline())
    for use in (world.use, other):
        with pytest.raises(CertificateRevoked):
            world.sign(digests(1), credential=NEW, signer=CHAIR, use=use)
    status = world.use.get_credential(OPERATOR, NEW).status
    assert (status.revocation, status.source) == (REVOKED, "the installation's own CA")
    assert status.revoke_time == world.clock.now()


def test_a_revocation_that_is_committed_while_a_request_is_at_work_stops_it() -> None:
    world, name = own_credential()
    revoked = []

    def revoke_once(method: str) -> None:
        if method == "prepare" and not revoked:
            revoked.append(method)
            world.new_process().own_ca.revoke(
                OPERATOR, name, reason=RevocationReason.KEY_COMPROMISE, deadline=world.deadline()
            )

    before = world.store.rows(AuthenticatorState)
    signatures = world.hsm.signatures
    world.hsm.before = revoke_once
    with pytest.raises(CertificateRevoked):
        world.sign(digests(1), credential=NEW, signer=CHAIR)
    assert revoked
    assert world.store.rows(AuthenticatorState) == before
    assert world.hsm.signatures == signatures


@pytest.mark.promise("P5")
@pytest.mark.parametrize("policy", [RevocationPolicy.REFUSE_REVOKED, RevocationPolicy.REQUIRE_GOOD])
def test_a_revoked_certificate_whose_record_is_deleted_signs_nothing(policy: RevocationPolicy) -> None:
    world, name = own_credential(policy)
    world.use.own_ca.revoke(OPERATOR, name, reason=RevocationReason.KEY_COMPROMISE, deadline=world.deadline())
    world.store.delete(IssuedCertificate, name)
    signatures = world.hsm.signatures
    for use in (world.use, world.new_process()):
        with pytest.raises(RecordNotTrusted):
            world.sign(digests(1), credential=NEW, signer=CHAIR, use=use)
    assert world.hsm.signatures == signatures


@pytest.mark.parametrize("known_before", [True, False])
def test_a_status_that_is_written_while_a_request_is_at_work_stops_it(mild: Case, known_before: bool) -> None:
    """Also the first one: of what was not known, somebody may just have learnt that it is revoked."""
    if known_before:
        mild.source.good(mild.leaf)
        mild.source.good(mild.intermediate)
        mild.checks.check()
        mild.world.clock.advance(HOUR)
    told = []

    def learn_once(method: str) -> None:
        if method == "prepare" and not told:
            told.append(method)
            mild.source.revoked(mild.leaf)
            assert mild.node().check() == 1

    before = mild.world.store.rows(AuthenticatorState)
    signatures = mild.world.hsm.signatures
    mild.world.hsm.before = learn_once
    with pytest.raises(CertificateRevoked):
        mild.sign()
    assert told
    assert mild.world.store.rows(AuthenticatorState) == before
    assert mild.world.hsm.signatures == signatures


def test_revoking_a_credential_of_the_own_ca_revokes_its_certificate_and_lists_it() -> None:
    world, name = own_credential()
    world.use.revoke_credential(OPERATOR, NEW, reason=RevocationReason.AFFILIATION_CHANGED, deadline=world.deadline())
    issued = world.use.own_ca.get(OPERATOR, name).issued
    assert (issued.state, issued.revoke_reason) == (
        IssuedCertificateState.REVOKED,
        RevocationReason.AFFILIATION_CHANGED,
    )
    listed = x509.load_der_x509_crl(world.use.own_ca.lists.make(issued.authority))
    assert [entry.serial_number for entry in listed] == [serial_of(name)]
