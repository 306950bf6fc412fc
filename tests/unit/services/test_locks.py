"""Wrong one-time passwords: how many are evaluated, and who is locked out."""

import threading
from collections import Counter
from datetime import timedelta

import pytest
from tests.support.world import CHAIR, OFFICE, OPERATOR, PORTAL, World, digests

from trien_server.core import errors
from trien_server.core.attempts import OPERATOR_LIMIT
from trien_server.core.principal import AuthenticatedBy, Principal, PrincipalKind
from trien_server.core.records import AuditEntry, AuthenticatorKind, CredentialClient, SignerAttempts
from trien_server.services.access import credential_client_name
from trien_server.services.changes import Change


@pytest.fixture
def world() -> World:
    return World().populate()


def attempt(world: World, principal: Principal, password: str) -> str:
    try:
        world.sign(digests(1), principal=principal, password=password)
    except errors.Refusal as refusal:
        return refusal.reason
    return "OK"


def parallel(world: World, principals: list[Principal], password: str) -> Counter[str]:
    barrier = threading.Barrier(len(principals))
    outcomes: list[str] = []

    def run(principal: Principal) -> None:
        barrier.wait()
        outcome = attempt(world, principal, password)
        while outcome == "BUSY":
            outcome = attempt(world, principal, password)
        outcomes.append(outcome)

    threads = [threading.Thread(target=run, args=(principal,)) for principal in principals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == len(principals)
    return Counter(outcomes)


@pytest.mark.requirement("ASVS 5.0.0-6.3.1")
@pytest.mark.promise("P2")
def test_of_200_parallel_wrong_codes_from_one_client_three_are_evaluated(world: World) -> None:
    outcomes = parallel(world, [OFFICE] * 200, world.wrong_code())
    assert outcomes == {"ONE_TIME_PASSWORD_REJECTED": 3, "SIGNER_LOCKED": 197}
    (count,) = [row.record for row in world.store.rows(SignerAttempts) if row.record.name == CHAIR]
    assert count.failures == 3


@pytest.mark.requirement("ASVS 5.0.0-6.3.1")
@pytest.mark.promise("P2")
def test_of_200_parallel_wrong_codes_from_twenty_clients_five_are_evaluated(world: World) -> None:
    principals = []
    for number in range(20):
        name = f"clients/c{number}"
        world.add_client(name)
        grant = CredentialClient(
            name=credential_client_name("credentials/chair-p256", name),
            credential="credentials/chair-p256",
            client=name,
        )
        world.use.changes.make(
            "test", lambda _, grant=grant: Change(kind="granted", slow=[grant]), deadline=world.deadline()
        )
        principals.append(
            Principal(kind=PrincipalKind.CLIENT, name=name, authenticated_by=AuthenticatedBy.BEARER_TOKEN)
        )
    outcomes = parallel(world, principals * 10, world.wrong_code())
    assert outcomes == {"ONE_TIME_PASSWORD_REJECTED": 5, "SIGNER_LOCKED": 195}
    # The lock holds over a restart, also for the right code and another client.
    with pytest.raises(errors.SignerLocked) as locked:
        world.sign(digests(1), principal=PORTAL, use=world.new_process())
    assert locked.value.retry_after == timedelta(seconds=30)
    world.clock.advance(timedelta(seconds=30))
    assert attempt(world, PORTAL, world.code()) == "OK"


@pytest.mark.requirement("NIST 800-63B-4 3.2.2 waiting")
def test_one_failing_client_does_not_lock_the_signer_out_of_another(world: World) -> None:
    outcomes = [attempt(world, OFFICE, world.wrong_code()) for _ in range(4)]
    assert outcomes == ["ONE_TIME_PASSWORD_REJECTED"] * 3 + ["SIGNER_LOCKED"]
    assert attempt(world, PORTAL, world.code()) == "OK"
    world.next_step()
    assert attempt(world, OFFICE, world.code()) == "SIGNER_LOCKED"
    world.clock.advance(timedelta(minutes=15))
    assert attempt(world, OFFICE, world.code()) == "OK"


@pytest.mark.requirement("NIST 800-63B-4 3.1.4.2 secrets")
def test_a_locked_signers_secrets_are_not_even_decrypted(world: World) -> None:
    for _ in range(3):
        attempt(world, OFFICE, world.wrong_code())
    before = world.hsm.calls["decrypt"]
    assert attempt(world, OFFICE, world.code()) == "SIGNER_LOCKED"
    assert world.hsm.calls["decrypt"] == before


def test_the_answer_says_how_many_tries_are_left_and_nothing_else(world: World) -> None:
    messages = []
    for _ in range(3):
        with pytest.raises(errors.OneTimePasswordRejected) as rejected:
            world.sign(digests(1), password=world.wrong_code())
        messages.append(rejected.value.metadata)
    assert messages == [{"remainingAttempts": str(left)} for left in (2, 1, 0)]


def test_an_operator_unlocks_the_signer_for_every_client(world: World) -> None:
    for principal in (OFFICE, PORTAL):
        for _ in range(3):
            attempt(world, principal, world.wrong_code())
    assert attempt(world, OFFICE, world.code()) == "SIGNER_LOCKED"
    world.use.unlock_signer(OPERATOR, CHAIR, deadline=world.deadline())
    assert attempt(world, OFFICE, world.code()) == "OK"
    world.next_step()
    assert attempt(world, PORTAL, world.code()) == "OK"
    with pytest.raises(errors.PermissionDenied):
        world.use.unlock_signer(OFFICE, CHAIR, deadline=world.deadline())


@pytest.mark.requirement("NIST 800-63B-4 3.2.2")
@pytest.mark.promise("P9")
def test_an_officer_who_unlocks_without_end_gives_a_client_a_hundred_guesses(world: World) -> None:
    outcomes: Counter[str] = Counter()
    unlocked = 0
    for _ in range(200):
        outcome = attempt(world, OFFICE, world.wrong_code())
        outcomes[outcome] += 1
        if outcome == "SIGNER_LOCKED":
            try:
                world.use.unlock_signer(OPERATOR, CHAIR, deadline=world.deadline())
            except errors.StateConflict:
                break
            unlocked += 1
    assert outcomes["ONE_TIME_PASSWORD_REJECTED"] == OPERATOR_LIMIT
    assert unlocked == OPERATOR_LIMIT // 3
    assert attempt(world, PORTAL, world.code()) == "SIGNER_LOCKED"
    world.use.disable_signer(OPERATOR, CHAIR, deadline=world.deadline())
    proposal = world.use.enable_signer(OPERATOR, CHAIR, deadline=world.deadline())
    assert attempt(world, OFFICE, world.code()) != "OK"
    world.agree(proposal)
    assert attempt(world, OFFICE, world.code()) == "OK"


def test_what_ends_an_operators_lock_is_a_right_code_of_the_signer(world: World) -> None:
    rounds = 0
    for _ in range(OPERATOR_LIMIT):
        for _ in range(3):
            assert attempt(world, OFFICE, world.wrong_code()) == "ONE_TIME_PASSWORD_REJECTED"
        world.use.unlock_signer(OPERATOR, CHAIR, deadline=world.deadline())
        assert attempt(world, OFFICE, world.code()) == "OK"
        world.next_step()
        rounds += 1
    assert rounds == OPERATOR_LIMIT


def test_two_authenticators_of_one_person_share_the_count_but_not_the_memory(world: World) -> None:
    world.add_authenticator(CHAIR, name="token", kind=AuthenticatorKind.HOTP)
    hotp = world.otp[f"{CHAIR}/token"]
    assert attempt(world, OFFICE, hotp.at(1)) == "OK"
    assert attempt(world, OFFICE, world.code()) == "OK"
    assert attempt(world, OFFICE, hotp.at(1)) == "ONE_TIME_PASSWORD_REJECTED"
    assert attempt(world, OFFICE, world.code()) == "ONE_TIME_PASSWORD_REJECTED"
    assert attempt(world, OFFICE, hotp.at(5)) == "OK"
    used = [row.record for row in world.store.rows(AuditEntry) if row.record.kind == "signing_granted"]
    assert len(used) == 3


@pytest.mark.promise("P2")
def test_64_callers_with_one_code_have_one_winner_each_round(world: World) -> None:
    rounds = 0
    for _ in range(32):
        outcomes = parallel(world, [OFFICE] * 64, world.code())
        assert outcomes["OK"] == 1
        assert sum(outcomes.values()) == 64
        world.use.unlock_signer(OPERATOR, CHAIR, deadline=world.deadline())
        world.next_step()
        rounds += 1
    assert rounds == 32
