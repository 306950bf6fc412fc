"""Codes that answer a challenge: of an OCRA authenticator, and delivered ones (P2)."""

import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import pytest
from tests.support.world import (
    AGENCY,
    CHAIR,
    CLERK,
    OFFICE,
    OPERATOR,
    PORTAL,
    SEAL,
    World,
    digests,
    new_request_id,
    pad_base32,
)

from trien_server.core import errors
from trien_server.core.algorithms import KeyType
from trien_server.core.challenges import LIFETIME
from trien_server.core.records import (
    HOT_RECORDS,
    Approval,
    AuditEntry,
    Authenticator,
    AuthenticatorKind,
    AuthenticatorState,
    Authorization,
    AuthorizationState,
    Challenge,
    DeliveryCount,
    Record,
    SignerAttempts,
)
from trien_server.core.secret import Secret
from trien_server.services.approve_authorizations import ApproveAuthorizationsCommand

R = TypeVar("R", bound=Record)


@pytest.fixture
def world() -> World:
    return World().populate()


@pytest.mark.promise("P2")
def test_the_answer_of_an_ocra_authenticator_approves_exactly_its_list(world: World) -> None:
    world.add_ocra()
    first, second = world.authorize(digests(2)), world.authorize(digests(1, of="other"))
    made = world.challenge(first, second)
    approved = world.approve(first, second, password=world.answer(made), challenge=made.challenge.name)
    assert approved.approval.authorizations == (first.name, second.name)
    assert approved.approval.authenticator == f"{CHAIR}/authenticators/ocra"
    data = world.activation_data(first)
    assert len(world.sign(digests(2), activated=(first.name, data)).signatures) == 2


@pytest.mark.requirement("ASVS 5.0.0-6.6.2")
@pytest.mark.promise("P2")
@pytest.mark.parametrize("kind", [AuthenticatorKind.SMS, AuthenticatorKind.EMAIL])
def test_a_delivered_code_approves_exactly_its_list(world: World, kind: AuthenticatorKind) -> None:
    name = world.add_delivery(kind=kind)
    authorization = world.authorize(digests(3))
    made, delivered = world.send(authorization)
    approved = world.approve(authorization, password=delivered.code, challenge=made.challenge.name)
    assert approved.approval.authorizations == (authorization.name,)
    assert approved.approval.authenticator == name
    data = world.activation_data(authorization)
    assert len(world.sign(digests(3), activated=(authorization.name, data)).signatures) == 3


def other_client(world: World) -> Authorization:
    return world.authorize(digests(1), principal=PORTAL)


@pytest.mark.requirement("ASVS 5.0.0-6.5.1", "NIST 800-63B-4 3.1.3.2 once")
@pytest.mark.promise("P2")
def test_a_challenge_is_answered_once(world: World) -> None:
    world.add_ocra()
    first, second = world.authorize(digests(1)), world.authorize(digests(1))
    made = world.challenge(first)
    code = world.answer(made)
    world.approve(first, password=code, challenge=made.challenge.name)
    for list_ in ((second,), (first,), (first, second)):
        with pytest.raises((errors.ChallengeNotPending, errors.AuthorizationNotPending)):
            world.approve(*list_, password=code, challenge=made.challenge.name)
    assert rows(world, Challenge)[0].answered
    assert len(rows(world, Approval)) == 1


@pytest.mark.requirement("NIST 800-63B-4 3.1.3.2 once")
@pytest.mark.promise("P2")
def test_sixty_four_callers_with_one_code_make_one_approval(world: World) -> None:
    world.add_delivery()
    authorization = world.authorize(digests(1))
    made, delivered = world.send(authorization)

    def attempt(_: int) -> str:
        try:
            world.approve(authorization, password=delivered.code, challenge=made.challenge.name)
        except errors.Refusal as refusal:
            return refusal.reason
        return "approved"

    with ThreadPoolExecutor(64) as callers:
        outcomes = list(callers.map(attempt, range(64)))
    assert outcomes.count("approved") == 1
    assert set(outcomes) <= {"approved", "CHALLENGE_NOT_PENDING", "AUTHORIZATION_NOT_PENDING", "BUSY"}
    assert len(rows(world, Approval)) == 1


@pytest.mark.requirement("ASVS 5.0.0-6.6.2")
@pytest.mark.promise("P2", "P3")
def test_the_code_is_for_this_list_in_this_order(world: World) -> None:
    world.add_ocra()
    world.add_delivery()
    first, second, third = (world.authorize(digests(1, of=name)) for name in "abc")
    asked = world.challenge(first, second)
    sent, delivered = world.send(first, second)
    refused = 0
    for made, code in ((asked, world.answer(asked)), (sent, delivered.code)):
        for wrong in ((second, first), (first,), (first, third), (first, second, third)):
            with pytest.raises(errors.ChallengeNotPending):
                world.approve(*wrong, password=code, challenge=made.challenge.name)
            refused += 1
    assert refused == 8
    assert world.approve(first, second, password=delivered.code, challenge=sent.challenge.name)


@pytest.mark.promise("P2")
def test_two_challenges_for_one_list_have_two_questions_and_two_codes(world: World) -> None:
    world.add_ocra()
    world.add_delivery()
    authorization = world.authorize(digests(1))
    questions = {world.challenge(authorization).question for _ in range(20)}
    assert len(questions) == 20
    first, one = world.send(authorization)
    world.next_step()
    second, other = world.send(authorization)
    codes = {one.code, other.code}
    if len(codes) == 2:
        with pytest.raises(errors.OneTimePasswordRejected):
            world.approve(authorization, password=one.code, challenge=second.challenge.name)
    assert first.question != second.question
    assert first.challenge.code_mac != second.challenge.code_mac


@pytest.mark.requirement("ASVS 5.0.0-6.5.5", "NIST 800-63B-4 3.1.3.2 lifetime")
@pytest.mark.promise("P2")
def test_an_expired_challenge_is_not_answered_even_if_the_clock_goes_back(world: World) -> None:
    world.add_ocra()
    authorization = world.authorize(digests(1))
    made = world.challenge(authorization)
    world.clock.advance(timedelta(minutes=5))
    with pytest.raises(errors.ChallengeNotPending):
        world.approve(authorization, password=world.answer(made), challenge=made.challenge.name)
    world.clock.advance(timedelta(minutes=-2))
    with pytest.raises(errors.ClockNotTrusted):
        world.new_process().approve_authorizations(
            OFFICE,
            ApproveAuthorizationsCommand(
                names=(authorization.name,),
                signer=CHAIR,
                password=Secret(world.answer(made).encode()),
                challenge=made.challenge.name,
                request_id=None,
            ),
            world.deadline(),
        )
    assert not rows(world, Approval)


def test_a_challenge_ends_with_the_first_of_its_authorizations(world: World) -> None:
    world.add_ocra()
    short = world.authorize(digests(1), lifetime=timedelta(minutes=1))
    made = world.challenge(world.authorize(digests(1)), short)
    assert made.challenge.expire_time == short.expire_time
    assert world.challenge(world.authorize(digests(1))).challenge.expire_time == world.clock.now() + LIFETIME


@pytest.mark.promise("P2")
def test_codes_of_now_and_answers_do_not_pass_for_each_other(world: World) -> None:
    world.add_ocra(digits=6)
    world.add_delivery(digits=6)
    authorization = world.authorize(digests(1))
    asked = world.challenge(authorization)
    sent, delivered = world.send(authorization)
    totp, answer = world.code(), world.answer(asked)
    if len({totp, answer, delivered.code}) < 3:
        pytest.skip("two codes are equal by chance, once in some hundred thousand times")
    for challenge, code in (
        (asked.challenge.name, totp),
        (sent.challenge.name, totp),
        (asked.challenge.name, delivered.code),
        (sent.challenge.name, answer),
        (None, answer),
        (None, delivered.code),
    ):
        with pytest.raises(errors.OneTimePasswordRejected):
            world.approve(authorization, password=code, challenge=challenge)
        world.use.unlock_signer(OPERATOR, CHAIR, deadline=world.deadline())
        world.clock.advance(timedelta(microseconds=1))
    assert authorization.state is AuthorizationState.PENDING
    assert world.approve(authorization, password=answer, challenge=asked.challenge.name)


@pytest.mark.requirement("ASVS 5.0.0-6.6.3", "NIST 800-63B-4 3.1.3.2 rate limit")
@pytest.mark.promise("P2")
def test_failures_of_all_kinds_count_together_and_a_new_code_does_not_reset_them(world: World) -> None:
    world.add_ocra()
    world.add_delivery()
    authorization = world.authorize(digests(1))
    asked = world.challenge(authorization)
    wrong = "00000000" if world.answer(asked) != "00000000" else "00000001"
    with pytest.raises(errors.OneTimePasswordRejected) as first:
        world.approve(authorization, password=wrong, challenge=asked.challenge.name)
    with pytest.raises(errors.OneTimePasswordRejected) as second:
        world.approve(authorization, password=world.wrong_code())
    sent, delivered = world.send(authorization)
    wrong = "000000" if delivered.code != "000000" else "000001"
    with pytest.raises(errors.OneTimePasswordRejected) as third:
        world.approve(authorization, password=wrong, challenge=sent.challenge.name)
    left = [error.value.metadata["remainingAttempts"] for error in (first, second, third)]
    assert left == ["2", "1", "0"]
    # Locked: nothing is evaluated, no challenge is made and no text is sent, also not what would be right.
    before = len(world.deliveries[AuthenticatorKind.SMS].taken)
    for act in (
        lambda: world.approve(authorization, password=delivered.code, challenge=sent.challenge.name),
        lambda: world.approve(authorization),
        lambda: world.challenge(authorization),
        lambda: world.send(authorization),
    ):
        with pytest.raises(errors.SignerLocked):
            act()
    assert len(world.deliveries[AuthenticatorKind.SMS].taken) == before
    assert not rows(world, Approval)


@pytest.mark.requirement("ASVS 5.0.0-8.2.2")
@pytest.mark.promise("P11")
def test_a_challenge_of_another_client_or_person_looks_like_an_unknown_one(world: World) -> None:
    world.add_ocra()
    world.add_ocra(CLERK)
    authorization = world.authorize(digests(1))
    seal = world.authorize(digests(1), credential=SEAL)
    of_portal = world.challenge(other_client(world), principal=PORTAL)
    of_clerk = world.challenge(seal, signer=CLERK)
    said = set()
    for name in (of_portal.challenge.name, of_clerk.challenge.name, f"{CHAIR}/challenges/unknown"):
        with pytest.raises(errors.PermissionDenied) as refused:
            world.approve(authorization, password="12345678", challenge=name)
        said.add(refused.value.message)
    assert len(said) == 1
    counts = rows(world, SignerAttempts)
    assert [count.failures for count in counts] == [0] * len(counts), "nothing was evaluated"


@pytest.mark.requirement("ASVS 5.0.0-6.3.8")
@pytest.mark.promise("P11")
def test_authenticators_of_others_cannot_be_told_from_unknown_ones(world: World) -> None:
    world.add_ocra()
    world.add_ocra(CLERK)
    authorization = world.authorize(digests(1))
    for name in (f"{CLERK}/authenticators/ocra", f"{CHAIR}/authenticators/unknown"):
        with pytest.raises(errors.PermissionDenied):
            world.challenge(authorization, authenticator=name)
    with pytest.raises(errors.InvalidArgument, match="OCRA"):
        world.challenge(authorization, authenticator=f"{CHAIR}/authenticators/phone")
    with pytest.raises(errors.InvalidArgument, match="EMAIL or SMS"):
        world.send(authorization)


def test_the_authenticator_has_to_be_named_where_there_are_several(world: World) -> None:
    world.add_ocra()
    world.add_ocra(name="second")
    world.add_delivery()
    world.add_delivery(kind=AuthenticatorKind.EMAIL)
    authorization = world.authorize(digests(1))
    with pytest.raises(errors.InvalidArgument):
        world.challenge(authorization)
    with pytest.raises(errors.InvalidArgument):
        world.send(authorization)
    assert world.challenge(authorization, authenticator=f"{CHAIR}/authenticators/second")
    made, delivered = world.send(authorization, authenticator=f"{CHAIR}/authenticators/email")
    assert delivered.address == made.authenticator.address == "hoang.trinh.don@phulam.example"


def test_the_list_is_checked_before_a_challenge_is_made_or_a_code_sent(world: World) -> None:
    world.add_ocra()
    world.add_delivery()
    good, decided = world.authorize(digests(1)), world.authorize(digests(1))
    world.approve(decided)
    expired = world.authorize(digests(1), lifetime=timedelta(minutes=1))
    world.clock.advance(timedelta(minutes=1))
    world.add_credential("credentials/strict", KeyType.EC_P256, CHAIR, CHAIR, client_collected_otp=False)
    strict = world.authorize(digests(1), credential="credentials/strict")
    cases: list[tuple[tuple[Authorization, ...], str, type[errors.Refusal]]] = [
        ((), CHAIR, errors.InvalidArgument),
        ((good, good), CHAIR, errors.InvalidArgument),
        ((good, decided), CHAIR, errors.AuthorizationNotPending),
        ((good, expired), CHAIR, errors.AuthorizationExpired),
        ((good, other_client(world)), CHAIR, errors.PermissionDenied),
        ((good,), CLERK, errors.PermissionDenied),
        ((good, strict), CHAIR, errors.NotAllowedByPolicy),
    ]
    for list_, signer, refusal in cases:
        for make in (world.challenge, world.send):
            with pytest.raises(refusal):
                make(*list_, signer=signer)
    assert len(cases) == 7
    assert not rows(world, Challenge)
    assert not rows(world, DeliveryCount)
    assert not world.deliveries[AuthenticatorKind.SMS].taken


@pytest.mark.promise("P8")
def test_a_failed_delivery_is_written_down_and_its_code_opens_nothing_that_the_client_knows(world: World) -> None:
    world.add_delivery()
    carrier = world.deliveries[AuthenticatorKind.SMS]
    carrier.fails = True
    authorization = world.authorize(digests(1))
    with pytest.raises(errors.DeliveryFailed):
        world.send(authorization)
    assert not carrier.taken
    assert [entry["reason"] for entry in entries(world, "refused")] == ["DELIVERY_FAILED"]
    assert [entry["authenticatorKind"] for entry in entries(world, "code_made")] == ["SMS"]
    assert len(rows(world, Challenge)) == 1
    carrier.fails = False
    with pytest.raises(errors.DeliveryLimitReached):
        world.send(authorization)


def test_a_delivery_has_no_more_time_than_the_call(world: World) -> None:
    world.add_delivery()
    authorization = world.authorize(digests(1))
    assert world.send(authorization)[1].timeout == 10.0
    world.next_step()
    world.seconds = 3.0
    assert world.send(authorization)[1].timeout == 2.5
    world.next_step()
    world.seconds = 1.9
    with pytest.raises(errors.DeadlineTooShort):
        world.send(authorization)


def test_an_installation_without_carriers_says_so(world: World) -> None:
    world.add_delivery()
    world.add_delivery(kind=AuthenticatorKind.EMAIL)
    authorization = world.authorize(digests(1))
    del world.deliveries[AuthenticatorKind.SMS]
    email = f"{CHAIR}/authenticators/email"
    assert world.send(authorization, authenticator=email, use=world.new_process())
    with pytest.raises(errors.NotAllowedByPolicy, match="by SMS"):
        world.send(authorization, authenticator=f"{CHAIR}/authenticators/sms", use=world.new_process())
    world.deliveries.clear()
    with pytest.raises(errors.NotAllowedByPolicy, match="no codes by SMS or e-mail"):
        world.send(authorization, use=world.new_process())


def test_sends_are_limited_per_person_client_and_day(world: World) -> None:
    world.add_delivery()
    office, portal = world.authorize(digests(1), lifetime=timedelta(hours=24)), other_client(world)
    world.send(office)
    with pytest.raises(errors.DeliveryLimitReached) as soon:
        world.send(portal, principal=PORTAL)
    assert soon.value.retry_after == timedelta(seconds=30)
    for _ in range(14):
        world.next_step()
        world.send(office)
    world.next_step()
    with pytest.raises(errors.DeliveryLimitReached) as of_client:
        world.send(office)
    assert of_client.value.retry_after is not None
    assert of_client.value.retry_after > timedelta(minutes=1)
    for _ in range(15):
        portal = other_client(world)
        world.send(portal, principal=PORTAL)
        world.next_step()
    assert len(world.deliveries[AuthenticatorKind.SMS].taken) == 30
    world.add_delivery(CLERK)
    seal = world.authorize(digests(1), credential=SEAL)
    assert world.send(seal, signer=CLERK), "others are not concerned"
    world.clock.advance(of_client.value.retry_after)
    office = world.authorize(digests(1))
    assert world.send(office), "a new day has new counts"
    assert max(count.sent for count in rows(world, DeliveryCount)) == 30


def test_around_midnight_a_code_is_not_sent_twice_in_half_a_minute(world: World) -> None:
    world.add_delivery()
    midnight = datetime.combine(world.clock.now().date() + timedelta(days=1), datetime.min.time(), UTC)
    world.clock.advance(midnight - timedelta(seconds=10) - world.clock.now())
    authorization = world.authorize(digests(1))
    made, delivered = world.send(authorization)
    world.clock.advance(timedelta(seconds=15))
    with pytest.raises(errors.DeliveryLimitReached) as refused:
        world.send(authorization)
    assert refused.value.retry_after == timedelta(seconds=15)
    assert world.approve(authorization, password=delivered.code, challenge=made.challenge.name)


@pytest.mark.promise("P12")
def test_no_code_is_in_an_entry_a_record_or_a_report(world: World) -> None:
    world.add_ocra()
    world.add_delivery()
    authorization = world.authorize(digests(1), title="Báo cáo mùa vụ 2026")
    sent, delivered = world.send(authorization)
    asked = world.challenge(authorization)
    answer = world.answer(asked)
    with pytest.raises(errors.OneTimePasswordRejected) as refused:
        world.approve(authorization, password=delivered.code, challenge=asked.challenge.name)
    world.approve(authorization, password=answer, challenge=asked.challenge.name)
    told = repr([world.events, entries(world), refused.value.message, sent, delivered, asked])
    stored = repr([rows(world, kind) for kind in (*HOT_RECORDS, Authenticator)])
    digits_of = re.compile(r"(?<![0-9a-f])(?:[0-9]{6}|[0-9]{8})(?![0-9a-f])")
    for text in (told, stored):
        assert len(text) > 1000
        assert not {delivered.code, answer} & set(digits_of.findall(text))
    (approved,) = entries(world, "authorizations_approved")
    assert approved["authenticatorKind"] == "OCRA"
    assert approved["challenge"] == asked.challenge.name
    assert rows(world, Approval)[0].accepted_value == 0
    made = [*entries(world, "code_made"), *entries(world, "challenge_created"), *entries(world, "refused")]
    assert len(made) == 3
    assert "+84912345678" not in repr(made)


@pytest.mark.promise("P7")
def test_a_repeated_request_is_answered_with_the_approval_that_it_made(world: World) -> None:
    world.add_ocra()
    authorization = world.authorize(digests(1))
    made = world.challenge(authorization)
    request_id = new_request_id()
    first, second = (
        world.approve(authorization, password=world.answer(made), challenge=made.challenge.name, request_id=request_id)
        for _ in range(2)
    )
    assert first == second
    assert len(rows(world, Approval)) == 1


def test_an_answer_costs_the_token_one_call(world: World) -> None:
    world.add_ocra()
    world.add_delivery()
    asked_for, sent_for = world.authorize(digests(1)), world.authorize(digests(1))
    asked = world.challenge(asked_for)
    sent, delivered = world.send(sent_for)
    for authorization, code, made in (
        (asked_for, world.answer(asked), asked),
        (sent_for, delivered.code, sent),
    ):
        world.hsm.calls.clear()
        world.approve(authorization, password=code, challenge=made.challenge.name)
        assert sum(world.hsm.calls.values()) == 1, world.hsm.calls


def test_what_was_asked_is_what_an_authorization_is_called(world: World) -> None:
    request_id = new_request_id()
    made = world.authorize(digests(1), title="  Báo cáo mùa vụ ", request_id=request_id)
    assert made.title == "Báo cáo mùa vụ"
    assert [entry["title"] for entry in entries(world, "authorization_created")] == ["Báo cáo mùa vụ"]
    assert world.authorize(digests(1), title="Báo cáo mùa vụ", request_id=request_id) == made
    with pytest.raises(errors.RequestIdReused):
        world.authorize(digests(1), title="Another", request_id=request_id)
    for bad in ("two\nlines", "turned \u202e round", "isolated \u2066 text", "a\ttab", "x" * 201, "\u0000"):
        with pytest.raises(errors.InvalidArgument, match="title"):
            world.authorize(digests(1), title=bad)
    assert world.authorize(digests(1), title="x" * 200).title == "x" * 200


def test_an_agency_has_no_authenticator_of_any_kind(world: World) -> None:
    tried = 0
    for kind in AuthenticatorKind:
        address = {"SMS": "+84912345678", "EMAIL": "a@b.example"}.get(kind.value, "")
        call = partial(world.add_delivery, AGENCY, address=address) if address else partial(world.enrol, AGENCY, "a")
        with pytest.raises(errors.InvalidArgument, match="agency"):
            call(kind=kind)
        tried += 1
    assert tried == 5


@pytest.mark.requirement("NIST 800-63B-4 3.1.4.1 strength")
def test_authenticators_have_the_replay_memory_and_the_secret_that_their_kind_needs(world: World) -> None:
    uri = world.add_ocra(hash_function="SHA512", digits=7)
    world.add_delivery()
    assert uri.startswith("otpauth://ocra/Test:Ho%C3%A0ng%20Tr%E1%BB%8Bnh%20%C4%90%C3%B4n?secret=")
    assert "&issuer=Test&ocrasuite=OCRA-1:HOTP-SHA512-7:QH64" in uri
    assert len(base64.b32decode(pad_base32(uri.partition("secret=")[2].partition("&")[0]))) == 64
    assert {state.name for state in rows(world, AuthenticatorState)} == {
        f"{signer}/authenticators/phone" for signer in (CHAIR, CLERK)
    }
    made = {one.kind: one for one in rows(world, Authenticator) if one.signer == CHAIR}
    assert made[AuthenticatorKind.SMS].encrypted_secret == b""
    assert made[AuthenticatorKind.OCRA].address == ""
    with pytest.raises(errors.InvalidArgument, match="digits"):
        world.add_ocra(CLERK, digits=9)


def rows(world: World, kind: type[R]) -> list[R]:
    return world.use.transactions.read(lambda view: view.find(kind))


def entries(world: World, *kinds: str) -> list[dict[str, Any]]:
    found = [entry for entry in rows(world, AuditEntry) if not kinds or entry.kind in kinds]
    return [{"kind": entry.kind, **json.loads(entry.details)} for entry in found]
