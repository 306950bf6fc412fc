"""The policy of a credential holds when a decision is made and when it is used; a refusal by it consumes nothing."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.support.world import CHAIR, CLERK, OPERATOR, P256, SEAL, World, digests, new_request_id
from tests.unit.services.test_credentials import restrict, revoke, suspend, update

from trien_server.core import errors
from trien_server.core.records import (
    AuditEntry,
    Authenticator,
    AuthenticatorKind,
    AuthenticatorState,
    Authorization,
    Challenge,
    ClientAttempts,
    SignerAttempts,
)
from trien_server.services.changes import Change
from trien_server.services.transactions import next_version
from trien_server.services.trusted import TrustedView

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
HOURS = ("mon-fri 07:00-17:30",)
TOTP, HOTP, OCRA, SMS, EMAIL = (AuthenticatorKind(kind) for kind in ("TOTP", "HOTP", "OCRA", "SMS", "EMAIL"))


@pytest.fixture
def world() -> World:
    return World().populate()


def go_to(world: World, hour: int, minute: int, *, weekday: int = 0) -> None:
    """Lets the time pass until the next such moment by Hà Nội's clock."""
    now = world.clock.now().astimezone(HANOI)
    wanted = datetime(now.year, now.month, now.day, hour, minute, tzinfo=HANOI)
    wanted += timedelta(days=(weekday - wanted.weekday()) % 7)
    world.clock.advance((wanted if wanted > now else wanted + timedelta(days=7)) - now)
    world.use.seals.prepare(world.clock.now())  # A new day has a key of its own, which the token derives once.


def consumed(world: World) -> tuple[object, ...]:
    """What an evaluated code changes, and what the token did for codes."""
    kinds: tuple[type[Any], ...] = (AuthenticatorState, SignerAttempts, ClientAttempts, Authorization, Challenge)
    rows = [sorted((row.record.name, row.record.version) for row in world.store.rows(kind)) for kind in kinds]
    return (*rows, world.hsm.calls["decrypt"], world.hsm.calls["authenticate"], world.hsm.signatures)


def forbidden(world: World, call: Callable[[], object], *, said: str) -> errors.Refusal:
    """Asserts that the policy forbids a call, that nothing was consumed by it, and that it is in the log."""
    call_before = consumed(world)
    count = len(world.store.rows(AuditEntry))
    sent = sum(len(delivery.taken) for delivery in world.deliveries.values())
    with pytest.raises(errors.NotAllowedByPolicy, match=said) as caught:
        call()
    assert consumed(world) == call_before
    assert len(world.store.rows(AuditEntry)) == count + 1
    assert sum(len(delivery.taken) for delivery in world.deliveries.values()) == sent
    return caught.value


# Hours


@pytest.mark.requirement("ASVS 5.0.0-8.2.4")
@pytest.mark.promise("P8")
@pytest.mark.parametrize(
    ("hour", "minute", "weekday", "within"),
    [(7, 0, 0, True), (17, 29, 4, True), (6, 59, 0, False), (17, 30, 4, False), (12, 0, 5, False), (0, 0, 0, False)],
)
def test_hours_are_those_of_the_configured_zone(
    world: World, hour: int, minute: int, weekday: int, within: bool
) -> None:
    restrict(world, P256, hours=HOURS)
    go_to(world, hour, minute, weekday=weekday)
    if within:
        assert world.sign(digests(1)).signatures
    else:
        refusal = forbidden(world, lambda: world.sign(digests(1)), said="mon-fri 07:00-17:30")
        assert "Asia/Ho_Chi_Minh" in refusal.message


def test_what_was_asked_for_by_night_is_decided_on_by_day(world: World) -> None:
    """An application may ask at any time; a person decides, and a key signs, only within the hours."""
    restrict(world, P256, hours=HOURS)
    go_to(world, 6, 50)
    early = world.authorize(digests(1), lifetime=timedelta(hours=23))
    refusal = forbidden(world, lambda: world.approve(early), said="mon-fri 07:00-17:30")
    assert refusal.metadata["authorization"] == early.name
    go_to(world, 17, 29, weekday=world.clock.now().astimezone(HANOI).weekday())
    world.approve(early)
    activated = (early.name, world.activation_data(early))
    world.clock.advance(timedelta(minutes=1))
    # Approved in time, and used too late.
    forbidden(world, lambda: world.sign(digests(1), activated=activated), said="may be used")


def test_no_code_is_made_or_sent_out_of_hours(world: World) -> None:
    world.add_ocra()
    world.add_delivery()
    restrict(world, P256, hours=HOURS)
    go_to(world, 20, 0)
    authorization = world.authorize(digests(1))
    forbidden(world, lambda: world.challenge(authorization), said="may be used")
    forbidden(world, lambda: world.send(authorization), said="may be used")
    go_to(world, 8, 0)
    authorization = world.authorize(digests(1))
    made = world.challenge(authorization)
    world.approve(authorization, password=world.answer(made), challenge=made.challenge.name)


def test_one_of_a_list_that_is_out_of_hours_is_named(world: World) -> None:
    update(world, SEAL, activators=(), clients=("clients/office",))
    world.add_credential("credentials/day", world.key(P256).key_type, CHAIR, CHAIR, hours=HOURS)
    go_to(world, 20, 0)
    always, day = world.authorize(digests(1)), world.authorize(digests(1), credential="credentials/day")
    refusal = forbidden(world, lambda: world.approve(always, day), said="may be used")
    assert refusal.metadata["authorization"] == day.name
    world.approve(always)


@pytest.mark.promise("P7")
def test_a_retry_out_of_hours_is_refused_and_goes_on_by_day(world: World) -> None:
    restrict(world, P256, hours=("mon-sun 00:00-24:00",))
    request = new_request_id()
    world.sign(digests(1), request_id=request)
    restrict(world, P256, hours=HOURS)
    go_to(world, 20, 0)
    with pytest.raises(errors.NotAllowedByPolicy):
        world.sign(digests(1), request_id=request)
    go_to(world, 8, 0, weekday=1)
    assert len(world.sign(digests(1), request_id=request).signatures) == 1


# Kinds of authenticator


@pytest.mark.requirement("ASVS 5.0.0-6.3.6", "ASVS 5.0.0-6.6.1", "NIST 800-63B-4 3.2.9")
@pytest.mark.promise("P2")
@pytest.mark.parametrize("kinds", [(OCRA,), (SMS, EMAIL), (HOTP,)])
def test_a_code_of_a_kind_that_the_policy_leaves_out_is_not_even_looked_at(
    world: World, kinds: tuple[AuthenticatorKind, ...]
) -> None:
    before = world.authorize(digests(1))
    restrict(world, P256, authenticator_kinds=kinds)
    code = world.code()
    named = " or ".join(sorted(kinds))
    forbidden(world, lambda: world.sign(digests(1), password=code), said=f"approved by {named} alone")
    refusal = forbidden(world, lambda: world.approve(before, password=code), said=f"approved by {named} alone")
    assert kinds == (HOTP,) or refusal.metadata["authorization"] == before.name
    # Not even a wrong one counts.
    for _ in range(7):
        forbidden(world, lambda: world.sign(digests(1), password=world.wrong_code()), said="alone")
    # The same code is as good as new where it is allowed.
    world.add_credential("credentials/other", world.key(P256).key_type, CHAIR, CHAIR)
    assert world.sign(digests(1), credential="credentials/other", password=code).signatures


def test_of_two_apps_only_the_codes_of_the_allowed_one_count(world: World) -> None:
    world.add_authenticator(CHAIR, name="token", kind=HOTP)
    restrict(world, P256, authenticator_kinds=(HOTP,))
    with pytest.raises(errors.OneTimePasswordRejected):
        world.sign(digests(1), password=world.code())
    counter = world.otp[f"{CHAIR}/token"]
    assert world.sign(digests(1), password=counter.at(1)).signatures  # type: ignore[attr-defined]


def test_no_challenge_is_made_for_a_kind_that_is_left_out(world: World) -> None:
    world.add_ocra()
    sms, email = world.add_delivery(), world.add_delivery(kind=EMAIL)
    restrict(world, P256, authenticator_kinds=(TOTP, SMS))
    authorization = world.authorize(digests(1))
    refusal = forbidden(world, lambda: world.challenge(authorization), said="approved by SMS or TOTP alone")
    assert refusal.metadata["authorization"] == authorization.name
    forbidden(world, lambda: world.send(authorization, authenticator=email), said="approved by SMS alone")
    # Of the two only one is left, so that it need not be named.
    made, delivered = world.send(authorization)
    assert made.authenticator.name == sms
    assert delivered.address == "+84912345678"


def test_a_challenge_that_was_made_before_a_restriction_is_not_answered(world: World) -> None:
    world.add_ocra()
    authorization = world.authorize(digests(1))
    made = world.challenge(authorization)
    restrict(world, P256, authenticator_kinds=(TOTP,))
    answer = world.answer(made)
    forbidden(
        world,
        lambda: world.approve(authorization, password=answer, challenge=made.challenge.name),
        said="approved by TOTP alone",
    )
    world.approve(authorization)


def test_a_list_is_approved_by_what_all_of_its_credentials_allow(world: World) -> None:
    world.add_ocra()
    world.add_delivery()
    key_type = world.key(P256).key_type
    world.add_credential("credentials/ocra", key_type, CHAIR, CHAIR, authenticator_kinds=(OCRA, SMS))
    world.add_credential("credentials/sms", key_type, CHAIR, CHAIR, authenticator_kinds=(SMS, TOTP))
    first, second, third = (
        world.authorize(digests(1), credential=credential)
        for credential in (P256, "credentials/ocra", "credentials/sms")
    )
    refusal = forbidden(world, lambda: world.challenge(first, second, third), said="approved by SMS or TOTP alone")
    assert refusal.metadata["authorization"] == third.name
    refusal = forbidden(world, lambda: world.approve(first, third, second), said="approved by OCRA or SMS alone")
    assert refusal.metadata["authorization"] == second.name
    made = world.challenge(first, second)
    world.approve(first, second, password=world.answer(made), challenge=made.challenge.name)


# What came before a restriction


@pytest.mark.promise("P3", "P9")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"authenticator_kinds": (OCRA,)}, "approved by OCRA alone"),
        ({"client_collected_otp": False}, "signer's own channel"),
        ({"max_items": 2}, "3 items, and the credential's policy allows 2 now"),
    ],
)
def test_what_was_approved_under_a_looser_policy_is_not_used_under_a_stricter_one(
    world: World, changes: dict[str, Any], said: str
) -> None:
    authorization = world.authorize(digests(3))
    world.approve(authorization)
    activated = (authorization.name, world.activation_data(authorization))
    waiting = world.authorize(digests(3, of="waiting"))
    world.next_step()
    request = new_request_id()
    world.sign(digests(3, of="granted"), request_id=request)
    world.next_step()
    restrict(world, P256, **changes)
    signatures = world.hsm.signatures
    with pytest.raises(errors.NotAllowedByPolicy, match=said):
        world.sign(digests(1), activated=activated)  # also only a part of it
    with pytest.raises(errors.NotAllowedByPolicy, match=said):
        world.approve(waiting)
    with pytest.raises((errors.NotAllowedByPolicy, errors.TooManyDigests)):
        world.sign(digests(3, of="granted"), request_id=request)
    assert world.hsm.signatures == signatures
    loose: dict[str, Any] = {"authenticator_kinds": (), "client_collected_otp": True, "max_items": 0}
    update(world, P256, **{name: loose[name] for name in changes})
    assert len(world.sign(digests(3), activated=activated).signatures) == 3


@pytest.mark.requirement("ASVS 5.0.0-6.5.6", "NIST 800-63B-4 4.3")
@pytest.mark.promise("P2", "P5")
def test_what_a_lost_authenticator_approved_opens_no_more_once_it_is_disabled(world: World) -> None:
    authorization = world.authorize(digests(3))
    authenticator = world.approve(authorization).approval.authenticator
    activated = (authorization.name, world.activation_data(authorization))
    assert len(world.sign(digests(3)[:1], activated=activated).signatures) == 1
    other = world.new_process()
    world.use.disable_authenticator(OPERATOR, authenticator, deadline=world.deadline())
    signatures = world.hsm.signatures
    for use in (world.use, other):
        with pytest.raises(errors.AuthorizationExpired, match="disabled or replaced"):
            world.sign(digests(3)[1:], activated=activated, use=use)
    assert world.hsm.signatures == signatures


@pytest.mark.promise("P2", "P5")
def test_what_a_lost_authenticator_approved_opens_no_more_once_another_has_its_name(world: World) -> None:
    authorization = world.authorize(digests(1))
    authenticator = world.approve(authorization).approval.authenticator
    activated = (authorization.name, world.activation_data(authorization))
    world.clock.advance(timedelta(minutes=5))

    def replace(view: TrustedView) -> Change:
        before = view.require(Authenticator, authenticator)
        return Change(kind="replaced", slow=[next_version(before, create_time=world.clock.now())])

    world.use.changes.make("enrolment", replace, deadline=world.deadline())
    with pytest.raises(errors.AuthorizationExpired, match="disabled or replaced"):
        world.sign(digests(1), activated=activated)


def test_more_items_than_the_policy_allows_are_refused_before_any_code(world: World) -> None:
    restrict(world, P256, max_items=2)
    before = consumed(world)
    for call in (lambda: world.sign(digests(3)), lambda: world.authorize(digests(3))):
        with pytest.raises(errors.TooManyDigests):
            call()
    assert consumed(world) == before
    assert len(world.sign(digests(2)).signatures) == 2


# What it costs


def test_a_policy_costs_the_token_nothing(world: World) -> None:
    """A warm request: one decryption and one signature an item, with every part of a policy set."""
    restrict(world, P256, hours=("mon-sun 00:00-24:00",), authenticator_kinds=(TOTP, OCRA), max_items=50)
    world.sign(digests(1))
    for count in (1, 5):
        world.next_step()
        before = world.hsm.calls.copy()
        signatures = world.hsm.signatures
        world.sign(digests(count))
        used = {name: number for name, number in (world.hsm.calls - before).items() if number}
        assert {name: used.get(name, 0) for name in ("decrypt", "authenticate")} == {"decrypt": 1, "authenticate": 0}
        assert world.hsm.signatures - signatures == count


def test_a_credential_is_made_with_its_policy(world: World) -> None:
    policy: dict[str, Any] = {
        "hours": HOURS,
        "authenticator_kinds": (SMS, HOTP),
        "max_items": 9,
        "client_collected_otp": False,
    }
    world.add_credential("credentials/strict", world.key(P256).key_type, CHAIR, CHAIR, **policy)
    made = world.use.get_credential(OPERATOR, "credentials/strict").credential
    assert (made.hours, made.authenticator_kinds, made.max_items, made.client_collected_otp) == (
        HOURS, ("HOTP", "SMS"), 9, False,
    )  # fmt: skip
    for field, wrong in (("hours[0]", {"hours": ("daily",)}), ("max_items", {"max_items": -1})):
        with pytest.raises(errors.InvalidArgument) as refused:
            world.add_credential("credentials/wrong", world.key(P256).key_type, CHAIR, CLERK, **wrong)
        assert refused.value.field == f"credential.{field}"
        world = World().populate()


# Between the check and the commit


@pytest.mark.promise("P2", "P9")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda world: suspend(world, P256), "CREDENTIAL_DISABLED"),
        (lambda world: revoke(world, P256), "CREDENTIAL_DISABLED"),
        (lambda world: restrict(world, P256, authenticator_kinds=(OCRA,)), "NOT_ALLOWED_BY_POLICY"),
        (lambda world: restrict(world, P256, max_items=1), "TOO_MANY_DIGESTS"),
        (lambda world: restrict(world, P256, clients=()), "PERMISSION_DENIED"),
        (lambda world: restrict(world, P256, client_collected_otp=False), "NOT_ALLOWED_BY_POLICY"),
    ],
    ids=["suspended", "revoked", "kinds", "items", "clients", "way"],
)
def test_what_is_committed_stops_every_request_whose_transaction_begins_later(
    world: World, change: Callable[[World], object], reason: str
) -> None:
    """The request was checked, and its code's secret is being decrypted; then an officer's change is committed."""
    code = world.code()
    changed = []

    def meanwhile(method: str) -> None:
        if method == "decrypt" and not changed:
            changed.append(True)
            world.hsm.before = lambda _: None
            change(world)

    world.hsm.before = meanwhile
    with pytest.raises(errors.Refusal) as refused:
        world.sign(digests(2), password=code)
    assert (refused.value.reason, changed, world.hsm.signatures) == (reason, [True], 0)
    # The code was not consumed.
    world.add_credential("credentials/other", world.key(P256).key_type, CHAIR, CHAIR)
    assert world.sign(digests(1), credential="credentials/other", password=code).signatures


@pytest.mark.requirement("ASVS 5.0.0-8.2.4")
@pytest.mark.parametrize("way", ["at once", "a list"])
def test_the_end_of_the_hours_is_that_of_the_transaction(world: World, way: str) -> None:
    """Checked in the last second and committed behind it: refused, and nothing consumed."""
    restrict(world, P256, hours=HOURS)
    go_to(world, 17, 29)
    authorization = world.authorize(digests(1))
    world.clock.advance(timedelta(seconds=59.5))
    code = world.code()

    def meanwhile(method: str) -> None:
        if method == "decrypt":
            world.hsm.before = lambda _: None
            world.clock.advance(timedelta(seconds=1))

    before = [(row.record.name, row.record.version) for row in world.store.rows(AuthenticatorState)]
    world.hsm.before = meanwhile
    with pytest.raises(errors.NotAllowedByPolicy):
        world.sign(digests(1), password=code) if way == "at once" else world.approve(authorization, password=code)
    assert world.hsm.calls["decrypt"] > 0
    assert world.hsm.signatures == 0
    assert [(row.record.name, row.record.version) for row in world.store.rows(AuthenticatorState)] == before
