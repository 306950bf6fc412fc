"""What an insider with a leaked day key, a slow queue or two processes at once may not get."""

import dataclasses
import hashlib
import hmac
from datetime import timedelta

import pytest
from tests.support.world import CHAIR, CLERK, OFFICE, OPERATOR, P256, PORTAL, World, digests, new_request_id

from trien_server.core import errors, sealing
from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.delivery_limits import delivery_count_name
from trien_server.core.ports import Sealed
from trien_server.core.records import (
    Approval,
    Assurance,
    AuthenticatorKind,
    Authorization,
    AuthorizationState,
    Credential,
    DeliveryCount,
    GrantedRequest,
    ItemKind,
    Key,
    KeyState,
    Record,
)
from trien_server.core.secret import Secret


@pytest.fixture
def world() -> World:
    return World().populate()


def forge(world: World, record: Record, key: bytes, seal_key: str) -> None:
    """Puts a row into the store behind the server's back, sealed with a leaked day key."""
    seal = hmac.digest(key, sealing.encode_row(record, seal_key), hashlib.sha256)
    world.store.overwrite(Sealed(record=record, seal_key=seal_key, seal=seal))


@pytest.mark.promise("P5")
@pytest.mark.parametrize("days", [2, 25])
def test_a_leaked_day_key_makes_no_approvals_of_later_days(world: World, days: int) -> None:
    seal_key = sealing.day_seal_key(world.clock.now())
    key = world.hsm.authenticate(sealing.day_key_message(seal_key))
    leaked_at = world.clock.now()
    world.clock.advance(timedelta(days=days))
    refused = 0
    for created, expires in (
        (world.clock.now(), world.clock.now() + timedelta(hours=1)),
        (leaked_at, world.clock.now() + timedelta(hours=1)),
    ):
        name = f"{P256}/authorizations/forged{refused}"
        approval = Approval(
            name=f"approvals/forged{refused}",
            signer=CHAIR,
            client=OFFICE.name,
            authenticator=f"{CHAIR}/authenticators/phone",
            accepted_value=1,
            assurance=Assurance.CLIENT_COLLECTED_OTP,
            authorizations=(name,),
            create_time=created,
        )
        authorization = Authorization(
            name=name,
            credential=P256,
            key="keys/chair-p256",
            client=OFFICE.name,
            approver=CHAIR,
            algorithm=SignatureAlgorithm.ECDSA_P256_SHA256,
            pss_salt_length=None,
            item_kind=ItemKind.DIGEST,
            digests=tuple(digests(1)),
            used=b"\x00",
            signed_digests=(b"",),
            state=AuthorizationState.APPROVED,
            approval=approval.name,
            create_time=created,
            expire_time=expires,
        )
        forge(world, approval, key, seal_key)
        forge(world, authorization, key, seal_key)
        with pytest.raises(errors.RecordNotTrusted):
            world.activation_data(authorization)
        data = world.use.seals.authenticate(sealing.activation_data_message(authorization))
        with pytest.raises(errors.RecordNotTrusted):
            world.sign(digests(1), activated=(name, Secret(data)))
        refused += 1
    assert refused == 2
    assert world.hsm.signatures == 0


@pytest.mark.promise("P5", "P7")
def test_a_leaked_day_key_makes_no_granted_requests_of_later_days(world: World) -> None:
    request_id = new_request_id()
    seal_key = sealing.day_seal_key(world.clock.now())
    key = world.hsm.authenticate(sealing.day_key_message(seal_key))
    world.sign(digests(1), request_id=request_id)
    (granted,) = [row.record for row in world.store.rows(GrantedRequest)]
    world.clock.advance(timedelta(days=9))
    forged_id = new_request_id()
    now = world.clock.now()
    forged = dataclasses.replace(
        granted,
        name=granted.name.replace(request_id, forged_id),
        version=1,
        completed=False,
        create_time=now,
        lease_expire_time=now,
    )
    forge(world, forged, key, seal_key)
    made = world.hsm.signatures
    with pytest.raises(errors.RecordNotTrusted):
        world.sign(digests(1), request_id=forged_id, password="000000")
    assert world.hsm.signatures == made


@pytest.mark.requirement("ASVS 5.0.0-6.5.8")
@pytest.mark.promise("P2")
def test_a_code_is_judged_by_the_time_of_the_transaction(world: World) -> None:
    """A request that waited long for its transaction gains no time."""
    code = world.code()
    transact = world.store.transact

    def late(*arguments: object, **named: object) -> object:
        world.store.transact = transact
        world.clock.advance(timedelta(seconds=90))
        return transact(*arguments, **named)

    world.store.transact = late
    with pytest.raises(errors.OneTimePasswordRejected):
        world.sign(digests(1), password=code)


@pytest.mark.promise("P2")
def test_a_resynchronization_needs_the_very_next_password(world: World) -> None:
    world.add_authenticator(CHAIR, name="token", kind=AuthenticatorKind.HOTP)
    hotp = world.otp[f"{CHAIR}/token"]
    for password in (hotp.at(40), world.wrong_code(), hotp.at(41)):
        with pytest.raises(errors.OneTimePasswordRejected):
            world.sign(digests(1), password=password)
    world.use.unlock_signer(OPERATOR, CHAIR, deadline=world.deadline())
    with pytest.raises(errors.OneTimePasswordRejected):
        world.sign(digests(1), password=hotp.at(50))
    assert world.sign(digests(1), password=hotp.at(51)).signatures


def test_a_client_that_was_shut_out_counts_no_more_towards_the_signers_lock(world: World) -> None:
    rounds = 0
    for _ in range(3):
        for _ in range(3):
            with pytest.raises(errors.OneTimePasswordRejected):
                world.sign(digests(1), password=world.wrong_code())
        with pytest.raises(errors.SignerLocked) as locked:
            world.sign(digests(1))
        assert locked.value.retry_after is not None
        world.clock.advance(locked.value.retry_after)
        rounds += 1
    assert rounds == 3
    assert world.sign(digests(1), principal=PORTAL).signatures


def test_a_process_paused_beyond_its_lease_leaves_the_record_and_the_token_agreeing(world: World) -> None:
    world.use.create_key(OPERATOR, name="keys/raced", key_type=KeyType.EC_P256, deadline=world.deadline())
    generate = world.hsm.generate_key_pair
    other = world.new_process()

    def raced(object_id: bytes, key_type: KeyType) -> bytes:
        world.hsm.generate_key_pair = generate
        world.clock.advance(sealing.LEASE_LIFETIME)
        other.key_generation.generate("keys/raced")
        return generate(object_id, key_type)

    world.hsm.generate_key_pair = raced
    before = set(world.hsm._keys)
    world.use.key_generation.generate("keys/raced")
    key: Key = world.use.get_key(OPERATOR, "keys/raced")
    assert key.state is KeyState.ENABLED
    assert world.hsm.public_key(key.object_id) == key.public_key
    assert set(world.hsm._keys) - before == {key.object_id}
    assert [event.name for event in world.events] == []


def test_one_key_is_never_requested_for_two_signers(world: World) -> None:
    """The request is prepared before the key becomes another signer's."""
    transact = world.store.transact
    world._add_key("keys/free", KeyType.EC_P256)

    def raced(*arguments: object, **named: object) -> object:
        world.store.transact = transact
        spare = next(row.record for row in world.store.rows(Credential) if row.record.name == P256)
        stolen = dataclasses.replace(spare, name="credentials/first", key="keys/free", signer=CLERK)
        world.use.changes.make("test", lambda _: _change(stolen), deadline=world.deadline())
        return transact(*arguments, **named)

    request = world.use.generate_signing_request
    world.store.transact = raced
    with pytest.raises(errors.InvalidArgument):
        request(OPERATOR, key="keys/free", signer=CHAIR, deadline=world.deadline())


def _change(record: Credential) -> "object":
    from trien_server.services.changes import Change

    return Change(kind="credential_created", slow=[record])


def test_a_client_learns_of_no_other_client(world: World) -> None:
    assert list(world.use.get_credential(OFFICE, P256).clients) == [OFFICE.name]
    assert sorted(world.use.get_credential(OPERATOR, P256).clients) == [OFFICE.name, PORTAL.name]


@pytest.mark.promise("P5")
@pytest.mark.parametrize("behind", [0, 4])
def test_rows_made_around_midnight_stay_good(world: World, behind: int) -> None:
    """One host's clock may be some seconds behind that of the one that made the authorization."""
    now = world.clock.now()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    world.clock.advance(midnight - now + timedelta(seconds=2))
    authorization = world.authorize(digests(1))
    world.clock.at -= timedelta(seconds=behind)
    world.approve(authorization)
    data = world.activation_data(authorization)
    request_id = new_request_id()
    first = world.sign(digests(1), activated=(authorization.name, data), request_id=request_id)
    again = world.sign(digests(1), activated=(authorization.name, data), request_id=request_id, use=world.new_process())
    assert first.signatures == again.signatures
    assert [event.name for event in world.events] == []


def test_a_key_whose_old_object_cannot_be_destroyed_does_not_end_the_generation_of_others(world: World) -> None:
    def refuse(object_id: bytes) -> None:
        raise ValueError("not allowed")

    world.hsm.destroy_key_pair = refuse
    for name in ("keys/a", "keys/b"):
        world.use.create_key(OPERATOR, name=name, key_type=KeyType.EC_P256, deadline=world.deadline())
        world.use.key_generation.generate(name)
        assert world.use.get_key(OPERATOR, name).state is KeyState.ENABLED
    assert [event.name for event in world.events] == ["key_object_left"] * 2


@pytest.mark.promise("P8")
def test_a_jump_of_the_clock_is_not_forgotten_while_the_database_is_away(world: World) -> None:
    world.clock.step(timedelta(hours=1))
    world.store.unavailable = True
    with pytest.raises(errors.StoreUnavailable):
        world.use.clock_guard.assert_trusted()
    with pytest.raises(errors.StoreUnavailable):
        world.use.clock_guard.assert_trusted()
    world.store.unavailable = False
    world.store.now = lambda: world.clock.now() - timedelta(hours=1)
    with pytest.raises(errors.ClockNotTrusted):
        world.use.clock_guard.assert_trusted()


@pytest.mark.promise("P2", "P5")
def test_a_leaked_day_key_makes_no_challenges_and_no_counts_of_later_days(world: World) -> None:
    world.add_ocra()
    world.add_delivery()
    seal_key = sealing.day_seal_key(world.clock.now())
    key = world.hsm.authenticate(sealing.day_key_message(seal_key))
    leaked_at = world.clock.now()
    world.clock.advance(timedelta(days=2))
    authorization = world.authorize(digests(1))
    real = world.challenge(authorization)
    answer = world.answer(real)
    for create_time, expire_time in (
        (real.challenge.create_time, real.challenge.expire_time),
        (leaked_at, real.challenge.expire_time),
    ):
        forged = dataclasses.replace(real.challenge, create_time=create_time, expire_time=expire_time)
        forge(world, forged, key, seal_key)
        with pytest.raises(errors.RecordNotTrusted):
            world.approve(authorization, password=answer, challenge=real.challenge.name)
    sent = DeliveryCount(
        name=delivery_count_name(world.clock.now(), signer=CHAIR),
        day=f"{world.clock.now():%Y-%m-%d}",
        sent=0,
        last_time=leaked_at,
    )
    forge(world, sent, key, seal_key)
    with pytest.raises(errors.RecordNotTrusted):
        world.send(authorization)
    assert not world.deliveries[AuthenticatorKind.SMS].taken
