"""How a person gets, replaces and loses authenticators: no operator sees a secret, and none does it alone."""

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pyotp
import pytest
from tests.fakes.hsm import MemoryHsm
from tests.support.world import AGENCY, CHAIR, CLERK, OFFICE, OPERATOR, SECOND, World, digests, populated

from trien_server.core import errors
from trien_server.core.delivered_text import Language
from trien_server.core.enrolments import LIFETIME, enrolment_code, parse_code
from trien_server.core.notice_text import NoticeTexts, Telling
from trien_server.core.ports import DecryptionFailed
from trien_server.core.principal import Principal
from trien_server.core.records import (
    AuditEntry,
    Authenticator,
    AuthenticatorKind,
    Enrolment,
    EnrolmentState,
    Operator,
    Proposal,
    ProposalState,
    Signer,
    SignerKind,
    SignerState,
    State,
)
from trien_server.core.secret import Secret
from trien_server.services.authenticators import NewAuthenticator
from trien_server.services.changes import Change
from trien_server.services.enrolling import BegunEnrolment
from trien_server.services.enrolments import NewEnrolment, NewEnrolments
from trien_server.services.paging import Page
from trien_server.services.transactions import next_version

PHONE = f"{CHAIR}/authenticators/phone"
NEW = f"{CHAIR}/enrolments/new-phone"
MAIL = "chair@phulam.example"
TELEPHONE = "+84912345678"
WAIT = timedelta(hours=24)
EMAIL, SMS = AuthenticatorKind.EMAIL, AuthenticatorKind.SMS
LINK = re.compile(r"https://sign\.example/enrol/([a-z2-7]{32}) ")


@pytest.fixture
def world() -> World:
    return populated(replacement_wait=WAIT)


def change(world: World, kind: type[Any], name: str, **fields: Any) -> None:
    """Changes a record as the use case for it would."""

    def prepare(view: Any) -> Change:
        return Change(kind="changed", slow=[next_version(view.require(kind, name), **fields)])

    world.use.changes.make("test", prepare, deadline=world.deadline())


def propose(world: World, name: str = NEW, *, replaces: str | None = PHONE, **made: Any) -> Any:
    wanted = NewEnrolment(name=name, kind=made.pop("kind", AuthenticatorKind.TOTP), replaces=replaces, **made)
    new = NewEnrolments(enrolments=(wanted,))
    return world.use.create_enrolments(OPERATOR, new, deadline=world.deadline())


def told(world: World, kind: AuthenticatorKind = EMAIL) -> list[tuple[str, str]]:
    """Returns the notices that were delivered since the last call: address and text."""
    world.use.notices.work_off()
    taken = [(one.address, one.text.body.reveal().decode()) for one in world.deliveries[kind].taken]
    world.deliveries[kind].taken.clear()
    return taken


def send(world: World, name: str = NEW, by: Principal = OPERATOR) -> Any:
    return world.use.send_enrolment_code(by, name, deadline=world.deadline())


def person_with_link(world: World, text: str) -> Principal:
    found = LINK.search(text)
    assert found is not None, text
    return world.use.authenticate.by_token(Secret(b"trien-enrol-" + found[1].encode()))


def begin(world: World, person: Principal, password: str | None = None) -> BegunEnrolment:
    given = None if password is None else Secret(password.encode())
    return world.use.begin_enrolment(person, password=given, deadline=world.deadline())


def confirm(world: World, person: Principal, begun: BegunEnrolment, code: str | None = None) -> Authenticator:
    shown = code if code is not None else world.first_code(begun)
    return world.use.confirm_enrolment(
        person,
        confirmation_key=begun.confirmation_key,
        password=Secret(shown.encode()),
        deadline=world.deadline(),
    )


def together(callers: int, act: Callable[[], Any]) -> list[Any]:
    """Calls `act` at the same time; returns what each call returned or raised."""
    barrier = threading.Barrier(callers)

    def call(_: int) -> Any:
        barrier.wait(30)
        try:
            return act()
        except errors.Refusal as refusal:
            return refusal

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(call, range(callers)))


def enrolled(world: World, name: str = NEW) -> Enrolment:
    return world.use.get_enrolment(OPERATOR, name)


def refused(world: World, kind: type[errors.Refusal], act: Any) -> errors.Refusal:
    with pytest.raises(kind) as caught:
        act()
    return caught.value


@pytest.mark.requirement("ASVS 5.0.0-6.4.6")
@pytest.mark.promise("P9", "P12")
def test_a_code_goes_to_the_person_alone_where_there_is_an_address(world: World) -> None:
    change(world, Signer, CLERK, email="hoa@phulam.example")
    clerk = f"{CLERK}/enrolments/tablet"
    change(world, Authenticator, f"{CLERK}/authenticators/phone", state=State.DISABLED)
    world.replacement_wait = timedelta(0)
    world.use = world.new_process()
    world.agree(propose(world, clerk, replaces=None))
    for operator in (OPERATOR, SECOND):
        world.clock.advance(timedelta(minutes=1))
        sent = send(world, clerk, by=operator)
        assert sent.half is None
        assert sent.sent_to == "h•••@phulam.example"
    (first, text), (_, again) = told(world)
    assert first == "hoa@phulam.example"
    assert refused(world, errors.Unauthenticated, lambda: person_with_link(world, text)), "a new code ends the old one"
    person = person_with_link(world, again)
    made = confirm(world, person, begin(world, person))
    assert made.name == f"{CLERK}/authenticators/tablet"
    code = LINK.search(again)
    assert code is not None
    stored = repr([world.store.rows(kind) for kind in (Enrolment, AuditEntry, Authenticator)])
    assert code[1] not in stored
    assert code[1][:16] not in stored


@pytest.mark.requirement("ASVS 5.0.0-6.4.4", "NIST 800-63B-4 4.2.2.2")
@pytest.mark.promise("P9")
def test_no_operator_alone_redirects_a_code(world: World) -> None:
    """Both agree on the address, and it has to be the person's still when the code is sent."""
    change(world, Signer, CHAIR, email=MAIL)
    proposal = propose(world)
    assert MAIL in proposal.statement
    assert "they can begin after 24 hours" in proposal.statement
    change(world, Signer, CHAIR, email="attacker@example.net")
    assert world.approve_proposal(proposal).state is ProposalState.OUTDATED
    world.agree(propose(world))
    change(world, Signer, CHAIR, email=MAIL)
    world.use.notices.work_off()
    refusal = refused(world, errors.StateConflict, lambda: send(world))
    assert "agreed on" in refusal.message
    assert not [text for _, text in told(world) if LINK.search(text)]


@pytest.mark.requirement("ASVS 5.0.0-6.4.6")
@pytest.mark.promise("P9")
def test_a_failing_carrier_gives_no_operator_the_code(world: World) -> None:
    change(world, Signer, CHAIR, email=MAIL)
    world.agree(propose(world))
    told(world)
    world.deliveries[EMAIL].fails = True
    refused(world, errors.DeliveryFailed, lambda: send(world))
    del world.deliveries[EMAIL]
    world.use = world.new_process()
    world.clock.advance(timedelta(minutes=1))
    refused(world, errors.DeliveryFailed, lambda: send(world))


@pytest.mark.requirement("ASVS 5.0.0-6.4.6")
@pytest.mark.promise("P9")
def test_halves_are_for_the_two_who_agreed_where_nothing_can_be_sent(world: World) -> None:
    world.agree(propose(world))
    third = Principal(kind=OPERATOR.kind, name="operators/third", authenticated_by=OPERATOR.authenticated_by)
    first = world.use.transactions.read(lambda view: view.require(Operator, OPERATOR.name))
    another = {"name": third.name, "version": 1, "certificate_fingerprint": bytes(32), "public_key_hash": bytes(32)}
    record = Operator(**{**vars(first), **another})
    world.use.changes.make("test", lambda _: Change(kind="x", slow=[record]), deadline=world.deadline())
    refused(world, errors.StateConflict, lambda: send(world, by=third))
    halves = [send(world, by=operator).half for operator in (OPERATOR, SECOND)]
    alone = [enrolment_code(half, half) for half in halves]
    for code in (*alone, enrolment_code(halves[1], halves[0])):
        refused(world, errors.Unauthenticated, lambda code=code: world.use.authenticate.by_token(code))
    assert world.use.authenticate.by_token(enrolment_code(*halves)).name == NEW


def test_codes_are_limited_by_signer_and_day(world: World) -> None:
    change(world, Signer, CHAIR, email=MAIL)
    world.agree(propose(world))
    send(world)
    refused(world, errors.DeliveryLimitReached, lambda: send(world))
    sent = 1
    while True:
        world.clock.advance(timedelta(seconds=31))
        try:
            send(world)
        except errors.DeliveryLimitReached:
            break
        sent += 1
    assert sent == 15
    entries = [row.record for row in world.store.rows(AuditEntry) if row.record.kind == "enrolment_code_sent"]
    assert len(entries) == sent


@pytest.mark.requirement("ASVS 5.0.0-6.3.7", "NIST 800-63B-4 4.3", "NIST 800-63B-4 4.6")
@pytest.mark.promise("P9", "P4")
def test_a_lost_phone_ends_at_once_and_the_new_one_waits(world: World) -> None:
    change(world, Signer, CHAIR, email=MAIL, phone=TELEPHONE)
    world.add_delivery(CHAIR, kind=EMAIL)
    told(world)
    told(world, SMS)
    old = world.code()
    world.agree(propose(world))
    assert refused(world, errors.OneTimePasswordRejected, lambda: world.sign(digests(1), password=old))
    begins = "2026-11-25 15:00 +07:00"
    assert (world.clock.now() + WAIT).isoformat() == "2026-11-25T08:00:00+00:00"
    mails, messages = told(world), told(world, SMS)
    assert {address for address, _ in mails} == {MAIL, "hoang.trinh.don@phulam.example"}
    assert [address for address, _ in messages] == [TELEPHONE]
    assert all(begins in text and "trien signers freeze" in text for _, text in mails + messages)

    send(world)
    [(address, text)] = told(world)
    assert address == MAIL
    person = person_with_link(world, text)
    refused(world, errors.EnrolmentNotPending, lambda: begin(world, person))
    world.clock.advance(WAIT)
    begun = begin(world, person)
    made = confirm(world, person, begun)
    assert {address for address, _ in told(world)} == {MAIL, "hoang.trinh.don@phulam.example"}
    assert made.kind is AuthenticatorKind.TOTP
    generator = pyotp.parse_uri(begun.uri.reveal().decode())
    assert isinstance(generator, pyotp.TOTP)
    assert world.sign(digests(1), password=generator.at(world.clock.now())).signatures
    world.next_step()
    refused(world, errors.OneTimePasswordRejected, lambda: world.sign(digests(1), password=world.code()))


@pytest.mark.requirement("NIST 800-63B-4 4.1.2.1")
@pytest.mark.promise("P9")
def test_a_further_authenticator_waits_like_a_replacement(world: World) -> None:
    """Else the waiting time would be gone round by naming nothing that is replaced."""
    change(world, Signer, CHAIR, email=MAIL)
    world.use.disable_authenticator(OPERATOR, PHONE, deadline=world.deadline())
    told(world)
    world.agree(propose(world, replaces=None))
    assert enrolled(world).start_time == world.clock.now() + WAIT
    assert len(told(world)) == 1


@pytest.mark.promise("P9")
def test_the_code_of_a_replacement_is_not_sent_to_the_phone(world: World) -> None:
    change(world, Signer, CHAIR, phone=TELEPHONE)
    world.agree(propose(world))
    assert send(world).half is not None
    assert len(told(world, SMS)) == 1, "it is told of it, though"


@pytest.mark.requirement("NIST 800-63B-4 4.1.2.1")
@pytest.mark.promise("P2")
@pytest.mark.parametrize("replaces", [PHONE, None], ids=["the replaced one", "one that stays"])
def test_a_code_of_an_authenticator_that_the_person_has_spares_the_wait(world: World, replaces: str | None) -> None:
    world.agree(propose(world, replaces=replaces))
    person = world.enrolling(NEW)
    refused(world, errors.OneTimePasswordRejected, lambda: begin(world, person, world.wrong_code()))
    assert enrolled(world).state is EnrolmentState.PENDING
    code = world.code()
    begun = begin(world, person, code)
    confirm(world, person, begun)
    world.agree(propose(world, f"{CHAIR}/enrolments/third", replaces=None))
    another = world.enrolling(f"{CHAIR}/enrolments/third")
    refused(world, errors.OneTimePasswordRejected, lambda: begin(world, another, code))


@pytest.mark.promise("P2")
def test_wrong_codes_before_the_time_lock_as_any_other(world: World) -> None:
    world.agree(propose(world))
    person = world.enrolling(NEW)
    remaining = []
    for _ in range(3):
        refusal = refused(world, errors.OneTimePasswordRejected, lambda: begin(world, person, world.wrong_code()))
        remaining.append(refusal.metadata["remainingAttempts"])
    assert remaining == ["2", "1", "0"]
    refused(world, errors.SignerLocked, lambda: begin(world, person, world.code()))


@pytest.mark.promise("P4")
def test_the_old_secret_never_decrypts_under_the_new_name(world: World) -> None:
    old = world.use.transactions.read(lambda view: view.require(Authenticator, PHONE)).encrypted_secret
    world.agree(propose(world))
    person = world.enrolling(NEW)
    begun = begin(world, person, world.code())
    for stored in (old, enrolled(world).encrypted_secret):
        for name in (PHONE, f"{CHAIR}/authenticators/new-phone", f"{CLERK}/authenticators/phone"):
            right = (stored == old) == (name == PHONE) and not name.startswith(CLERK)
            if right:
                assert world.hsm.decrypt(stored, associated_data=name.encode())
            else:
                with pytest.raises(DecryptionFailed):
                    world.hsm.decrypt(stored, associated_data=name.encode())
    change(world, Enrolment, NEW, encrypted_secret=old)
    refusal = refused(world, errors.RecordNotTrusted, lambda: confirm(world, person, begun))
    assert "verification" in refusal.message


@pytest.mark.requirement("NIST 800-63B-4 4.2.3")
@pytest.mark.promise("P9")
def test_after_a_crash_the_wait_begins_when_the_person_is_told(world: World) -> None:
    change(world, Signer, CHAIR, email=MAIL)
    world.approve_proposal(propose(world))
    agreed = enrolled(world).start_time
    world.use = world.new_process()  # what waited to be told is lost
    world.clock.advance(timedelta(hours=30))
    send(world)
    texts = [text for _, text in told(world)]
    assert len(texts) == 2
    assert enrolled(world).start_time == world.clock.now() + WAIT > agreed
    refused(world, errors.EnrolmentNotPending, lambda: begin(world, person_with_link(world, texts[1])))


@pytest.mark.requirement("NIST 800-63B-4 4.2.3")
@pytest.mark.promise("P9")
def test_a_person_who_cannot_be_told_gets_no_code(world: World) -> None:
    change(world, Signer, CHAIR, email=MAIL)
    world.deliveries[EMAIL].fails = True
    world.agree(propose(world))
    refused(world, errors.DeliveryFailed, lambda: send(world))
    assert any(event.name == "notice_not_delivered" for event in world.events)


@pytest.mark.promise("P9")
@pytest.mark.parametrize("step", ["begin", "confirm"])
def test_freezing_with_the_phone_that_is_said_to_be_lost_stops_its_replacement(world: World, step: str) -> None:
    world.agree(propose(world))
    person = world.enrolling(NEW)
    begun = None
    if step == "confirm":
        world.clock.advance(WAIT)
        begun = begin(world, person)
    frozen = world.use.freeze_signer(OFFICE, CHAIR, password=Secret(world.code().encode()), deadline=world.deadline())
    assert frozen.state is SignerState.FROZEN
    world.clock.advance(WAIT)
    if begun is None:
        refused(world, errors.EnrolmentNotPending, lambda: begin(world, person))
    else:
        refused(world, errors.EnrolmentNotPending, lambda: confirm(world, person, begun))
    assert (
        world.use.transactions.read(lambda view: view.get(Authenticator, f"{CHAIR}/authenticators/new-phone")) is None
    )


@pytest.mark.promise("P9")
def test_what_was_begun_by_another_is_not_completed_by_who_has_the_code(world: World) -> None:
    world.agree(propose(world))
    world.clock.advance(WAIT)
    person = world.enrolling(NEW)
    begun = begin(world, person)
    refused(world, errors.EnrolmentNotPending, lambda: begin(world, person))
    foreign = BegunEnrolment(
        enrolment=begun.enrolment, uri=begun.uri, confirmation_key=Secret(b"x" * 43), question=None
    )
    refused(world, errors.EnrolmentNotPending, lambda: confirm(world, person, foreign))
    renewed = world.enrolling(NEW)
    refused(world, errors.EnrolmentNotPending, lambda: confirm(world, renewed, begun))
    again = begin(world, renewed)
    assert again.uri.reveal() != begun.uri.reveal()
    assert confirm(world, renewed, again)


def test_five_wrong_first_codes_end_it(world: World) -> None:
    world.agree(propose(world))
    world.clock.advance(WAIT)
    person = world.enrolling(NEW)
    begun = begin(world, person)
    right = world.first_code(begun)
    wrong = next(f"{value:06}" for value in range(10) if f"{value:06}" != right)
    remaining = [
        refused(world, errors.OneTimePasswordRejected, lambda: confirm(world, person, begun, wrong)).metadata[
            "remainingAttempts"
        ]
        for _ in range(5)
    ]
    assert remaining == ["4", "3", "2", "1", "0"]
    refused(world, errors.EnrolmentNotPending, lambda: confirm(world, person, begun, right))
    assert enrolled(world).state is EnrolmentState.CANCELLED
    assert enrolled(world).encrypted_secret == b""


@pytest.mark.requirement("ASVS 5.0.0-6.4.1", "NIST 800-63B-4 4.1.2.2")
@pytest.mark.promise("P2")
def test_of_those_who_begin_together_exactly_one_gets_the_secret(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    world.replacement_wait = timedelta(0)
    world.use = world.new_process()
    world.seconds = 120.0
    rounds, callers = 8, 8
    for number in range(rounds):
        name = f"{CLERK}/enrolments/race-{number}"
        world.agree(propose(world, name, replaces=None))
        person = world.enrolling(name)
        outcomes = together(callers, partial(begin, world, person))
        won = [outcome for outcome in outcomes if isinstance(outcome, BegunEnrolment)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, errors.EnrolmentNotPending | errors.Busy)]
        assert (len(won), len(lost)) == (1, callers - 1), outcomes
        assert confirm(world, person, won[0]).name == f"{CLERK}/authenticators/race-{number}"
    record_property("count", f"enrolments that {callers} began together: {rounds}")


def test_an_enrolment_is_withdrawn_for_good(world: World) -> None:
    world.agree(propose(world))
    person = world.enrolling(NEW)
    assert world.use.cancel_enrolment(SECOND, NEW, deadline=world.deadline()).state is EnrolmentState.CANCELLED
    refused(world, errors.EnrolmentNotPending, lambda: begin(world, person))
    refused(world, errors.EnrolmentNotPending, lambda: send(world))
    refused(
        world, errors.EnrolmentNotPending, lambda: world.use.cancel_enrolment(SECOND, NEW, deadline=world.deadline())
    )
    refused(world, errors.AlreadyExists, lambda: propose(world))


@pytest.mark.requirement("ASVS 5.0.0-6.4.1", "NIST 800-63B-4 4.1.2.2")
def test_an_enrolment_ends_after_two_weeks(world: World) -> None:
    world.agree(propose(world))
    person = world.enrolling(NEW)
    world.clock.advance(WAIT + timedelta(days=14))
    refused(world, errors.EnrolmentNotPending, lambda: begin(world, person))
    refused(world, errors.EnrolmentNotPending, lambda: send(world))


@pytest.mark.requirement("ASVS 5.0.0-6.3.7", "ASVS 5.0.0-6.5.6", "NIST 800-63B-4 3.2.1", "NIST 800-63B-4 4.1")
@pytest.mark.promise("P9")
def test_authenticators_are_listed_and_disabled_for_ever(world: World) -> None:
    change(world, Signer, CHAIR, email=MAIL)
    found, token = world.use.list_authenticators(OPERATOR, CHAIR, page=Page.parse(0, ""))
    assert ([one.name for one in found], token) == ([PHONE], "")
    disabled = world.use.disable_authenticator(OPERATOR, PHONE, deadline=world.deadline())
    assert disabled.state is State.DISABLED
    assert len(told(world)) == 1
    refused(world, errors.OneTimePasswordRejected, lambda: world.sign(digests(1)))
    refused(
        world,
        errors.StateConflict,
        lambda: world.use.disable_authenticator(OPERATOR, PHONE, deadline=world.deadline()),
    )
    world.agree(propose(world, replaces=PHONE))
    enrolments, _ = world.use.list_enrolments(OPERATOR, CHAIR, page=Page.parse(0, ""))
    assert NEW in [one.name for one in enrolments]


def test_what_makes_no_enrolment(world: World) -> None:
    for made in (
        {"replaces": f"{CLERK}/authenticators/phone"},
        {"replaces": f"{CHAIR}/authenticators/none"},
        {"kind": SMS},
        {"digits": 5},
        {"name": f"{AGENCY}/enrolments/phone", "replaces": None},
        {"name": "signers/nobody/enrolments/phone", "replaces": None},
    ):
        refused(world, errors.InvalidArgument, lambda made=made: propose(world, **made))
    refused(world, errors.AlreadyExists, lambda: propose(world, f"{CHAIR}/enrolments/phone"))


@pytest.fixture
def limited(world: World) -> Iterator[Principal]:
    """The first operator, limited to an organization that none of the persons belongs to."""
    world.use.create_organization(
        OPERATOR,
        name="organizations/other",
        display_name="Xã khác",
        parent=None,
        start_time=None,
        end_time=None,
        deadline=world.deadline(),
    )
    world.agree(propose(world))
    change(world, Operator, OPERATOR.name, organizations=("organizations/other",))
    return OPERATOR


@pytest.mark.promise("P11")
def test_an_officer_of_another_organization_can_do_nothing(world: World, limited: Principal) -> None:
    page = Page.parse(0, "")
    acts = [
        lambda: propose(world, f"{CHAIR}/enrolments/x"),
        lambda: world.use.get_enrolment(limited, NEW),
        lambda: world.use.list_enrolments(limited, CHAIR, page=page),
        lambda: world.use.cancel_enrolment(limited, NEW, deadline=world.deadline()),
        lambda: send(world),
        lambda: world.use.list_authenticators(limited, CHAIR, page=page),
        lambda: world.use.disable_authenticator(limited, PHONE, deadline=world.deadline()),
    ]
    for act in acts:
        refused(world, errors.PermissionDenied, act)
    assert len(acts) == 7


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "trien-enrol-",
        "trien_enrol_" + "a" * 32,
        "trien-enrol-" + "a" * 31,
        "trien-enrol-" + "1" * 32,
        "trien-enrol-" + "а" * 32,
        "trien-enrol-" + "-" * 200 + "a" * 32,
    ],
)
def test_what_is_no_enrolment_code(typed: str) -> None:
    assert parse_code(typed) is None


def test_hyphens_and_case_of_a_code_are_free() -> None:
    assert parse_code("TRIEN-ENROL-" + "AB27" * 8) == parse_code("trien-enrol-" + "ab27-" * 8) is not None


@pytest.mark.parametrize("language", list(Language))
@pytest.mark.parametrize("what", list(Telling))
def test_notices_are_one_line_without_links(language: Language, what: Telling, world: World) -> None:
    texts = NoticeTexts(service="Chữ ký số. http://evil.example/x", language=language, public_url=None)
    for kind in (EMAIL, SMS):
        text = texts.told(kind, what, authenticator=PHONE, start=world.clock.now())
        body = text.body.reveal().decode()
        assert "\n" not in body
        assert "{" not in body
        assert "//" not in body
        assert "@" not in body
        assert bool(text.subject) == (kind is EMAIL)
    assert isinstance(world.hsm, MemoryHsm)


@pytest.mark.promise("P9")
@pytest.mark.parametrize(("address", "foreign"), [(MAIL, False), ("somebody@elsewhere.example", True)])
def test_whoever_approves_delivered_codes_learns_whether_the_address_is_the_persons(
    world: World, address: str, foreign: bool
) -> None:
    change(world, Signer, CHAIR, email=MAIL)
    new = NewAuthenticator(name=f"{CHAIR}/authenticators/mail", signer=CHAIR, kind=EMAIL, digits=0, address=address)
    proposal = world.use.create_authenticator(OPERATOR, new, deadline=world.deadline())
    assert ("none of the person's own" in proposal.statement) is foreign
    change(world, Signer, CHAIR, email=address if foreign else "new@phulam.example")
    assert world.approve_proposal(proposal).state is ProposalState.OUTDATED


@pytest.mark.promise("P9")
def test_a_person_has_one_open_enrolment_so_that_no_second_one_of_before_begins_unannounced(world: World) -> None:
    name = add_newcomer(world)
    first = NewEnrolment(name=f"{name}/enrolments/first", kind=AuthenticatorKind.TOTP)
    second = NewEnrolment(name=f"{name}/enrolments/second", kind=AuthenticatorKind.TOTP)
    use = world.use

    def propose(wanted: NewEnrolment) -> Proposal:
        return use.create_enrolments(OPERATOR, NewEnrolments(enrolments=(wanted,)), deadline=world.deadline())

    one, other = propose(first), propose(second)
    world.agree(one)
    assert world.approve_proposal(other).state is ProposalState.OUTDATED
    with pytest.raises(errors.StateConflict, match="first is open"):
        propose(second)
    use.cancel_enrolment(OPERATOR, first.name, deadline=world.deadline())
    world.agree(propose(second))
    world.clock.advance(LIFETIME)
    world.agree(propose(NewEnrolment(name=f"{name}/enrolments/third", kind=AuthenticatorKind.TOTP)))


@pytest.mark.promise("P9")
def test_whoever_lets_a_frozen_person_sign_again_learns_of_what_is_still_open(world: World) -> None:
    change(world, Signer, CHAIR, email=MAIL)
    new = NewEnrolments(enrolments=(NewEnrolment(name=NEW, kind=AuthenticatorKind.TOTP),))
    world.agree(world.use.create_enrolments(OPERATOR, new, deadline=world.deadline()))
    change(world, Signer, CHAIR, state=SignerState.FROZEN)
    proposal = world.use.enable_signer(OPERATOR, CHAIR, deadline=world.deadline())
    assert f"{NEW} is open" in proposal.statement
    world.use.cancel_enrolment(OPERATOR, NEW, deadline=world.deadline())
    assert world.approve_proposal(proposal).state is ProposalState.OUTDATED
    assert "is open" not in world.use.enable_signer(OPERATOR, CHAIR, deadline=world.deadline()).statement


def add_newcomer(world: World) -> str:
    """Enters a person who has no authenticator yet."""
    return world.use.create_signer(
        OPERATOR,
        name="signers/newcomer",
        display_name="Người mới",
        kind=SignerKind.PERSON,
        organization="organizations/commune",
        position="",
        deadline=world.deadline(),
    ).name
