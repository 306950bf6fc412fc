"""The promises of signing, over fakes."""

import hashlib
from collections import Counter
from datetime import timedelta

import pytest
from tests.support.attributes import bad_attributes
from tests.support.world import (
    CHAIR,
    CLERK,
    ED,
    FOREIGN,
    OFFICE,
    OPERATOR,
    P256,
    P384,
    PORTAL,
    RSA,
    SEAL,
    World,
    data_items,
    digests,
    new_request_id,
)

from trien_server.core import errors
from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.items import DigestItem, SignatureScheme, SignedAttributesItem
from trien_server.core.receipts import prove_item
from trien_server.core.records import (
    Approval,
    Assurance,
    AuditEntry,
    Authorization,
    AuthorizationState,
    GrantedRequest,
    ItemKind,
)
from trien_server.core.secret import Secret
from trien_server.core.verification import verify_signature


@pytest.fixture
def world() -> World:
    return World().populate()


def verify(world: World, credential: str, scheme: SignatureScheme, message: bytes, signature: bytes) -> None:
    verify_signature(world.public_key(credential), scheme, message=message, signature=signature)


@pytest.mark.requirement("ASVS 5.0.0-16.2.1", "ASVS 5.0.0-16.3.1")
@pytest.mark.promise("P1", "P6")
@pytest.mark.parametrize(
    ("credential", "algorithm"),
    [
        (RSA, SignatureAlgorithm.RSA_PSS_SHA256),
        (RSA, SignatureAlgorithm.RSA_PSS_SHA384),
        (RSA, SignatureAlgorithm.RSA_PSS_SHA512),
        (RSA, SignatureAlgorithm.RSA_PKCS1_SHA256),
        (RSA, SignatureAlgorithm.RSA_PKCS1_SHA384),
        (RSA, SignatureAlgorithm.RSA_PKCS1_SHA512),
        (P256, SignatureAlgorithm.ECDSA_P256_SHA256),
        (P384, SignatureAlgorithm.ECDSA_P384_SHA384),
        (ED, SignatureAlgorithm.ED25519),
    ],
)
def test_a_one_time_password_lets_a_key_sign_and_the_entry_names_it(
    world: World, credential: str, algorithm: SignatureAlgorithm
) -> None:
    function = algorithm.hash_function
    messages = (
        [b"one", b"two"]
        if function is None
        else [hashlib.new(function.hashlib_name, text).digest() for text in (b"one", b"two")]
    )
    items = data_items(*messages) if function is None else [DigestItem(digest=message) for message in messages]
    result = world.sign(items, credential=credential, algorithm=algorithm)
    assert len(result.signatures) == 2
    for message, signature in zip(messages, result.signatures, strict=True):
        verify(world, credential, result.scheme, message, signature)
    entry = next(row.record for row in world.store.rows(AuditEntry) if row.record.name == result.audit_entry)
    assert entry.kind == "signing_granted"
    assert hashlib.sha256(b"\x00" + entry.leaf).digest() == result.leaf_hash
    assert credential in entry.details
    authorized = [hashlib.sha512(message).digest() if function is None else message for message in messages]
    assert [prove_item(entry.salt, authorized, index).root() for index in (0, 1)] == [entry.items_root] * 2
    assert result.approved_by == CHAIR
    assert result.assurance is Assurance.CLIENT_COLLECTED_OTP


@pytest.mark.promise("P1")
def test_the_entry_is_durable_before_the_key_is_used(world: World) -> None:
    seen: list[int] = []

    def before(method: str) -> None:
        if method == "sign":
            kinds = Counter(row.record.kind for row in world.store.rows(AuditEntry))
            seen.append(kinds["signing_granted"])

    world.hsm.before = before
    world.sign(digests(1))
    assert seen == [1]


@pytest.mark.requirement("NIST 800-63B-4 3.2.7")
@pytest.mark.promise("P2")
def test_a_code_is_accepted_once_whatever_is_signed_and_whoever_asks(world: World) -> None:
    code = world.code()
    world.sign(digests(1), password=code)
    for principal, credential in ((OFFICE, P256), (PORTAL, P256), (PORTAL, P256)):
        with pytest.raises(errors.OneTimePasswordRejected):
            world.sign(digests(1), credential=credential, password=code, principal=principal)
    assert len(world.store.rows(Approval)) == 1


@pytest.mark.requirement("ASVS 5.0.0-6.5.1")
@pytest.mark.promise("P2")
def test_a_code_used_before_a_restart_is_not_accepted_after_it(world: World) -> None:
    code = world.code()
    world.sign(digests(1), password=code)
    with pytest.raises(errors.OneTimePasswordRejected):
        world.sign(digests(1), password=code, use=world.new_process())


@pytest.mark.requirement("NIST 800-63B-4 3.2.7")
@pytest.mark.promise("P2")
def test_an_older_step_is_not_accepted_after_a_newer_one(world: World) -> None:
    older = world.code()
    world.next_step()
    world.sign(digests(1))
    with pytest.raises(errors.OneTimePasswordRejected):
        world.sign(digests(1), password=older)


@pytest.mark.promise("P2", "P8")
@pytest.mark.parametrize("seconds", [-90, -6])
def test_a_clock_that_went_back_opens_no_used_step_and_stops_the_service(world: World, seconds: int) -> None:
    code = world.code()
    world.sign(digests(1), password=code)
    world.clock.step(timedelta(seconds=seconds))
    with pytest.raises(errors.ClockNotTrusted):
        world.sign(digests(1), password=code)
    assert [event.name for event in world.events] == ["clock_jumped", "clock_not_trusted"]
    with pytest.raises(errors.ClockNotTrusted):
        world.sign(digests(1), password=world.code())
    world.clock.advance(timedelta(seconds=120))
    world.use.clock_guard.check()
    world.sign(digests(1), password=world.code())


@pytest.mark.requirement("ASVS 5.0.0-6.5.8")
@pytest.mark.promise("P8")
def test_a_clock_that_differs_from_the_stores_stops_the_service_and_costs_no_code(world: World) -> None:
    code = world.code()
    world.store.now = lambda: world.clock.now() + timedelta(seconds=6)
    with pytest.raises(errors.ClockNotTrusted):
        world.use.clock_guard.check()
    with pytest.raises(errors.ClockNotTrusted):
        world.sign(digests(1), password=code)
    world.store.now = lambda: world.clock.now() + timedelta(seconds=4)
    world.use.clock_guard.check()
    world.sign(digests(1), password=code)


@pytest.mark.promise("P2")
def test_a_clock_that_jumped_ahead_opens_no_used_step(world: World) -> None:
    code = world.code()
    world.sign(digests(1), password=code)
    world.clock.step(timedelta(seconds=30))
    with pytest.raises(errors.OneTimePasswordRejected):
        world.sign(digests(1), password=code)


@pytest.mark.promise("P3")
def test_all_items_of_a_call_are_signed_in_order_or_none(world: World) -> None:
    wanted = digests(1000)
    result = world.sign(wanted)
    assert len(result.signatures) == 1000
    for digest, signature in zip(wanted, result.signatures, strict=True):
        verify(world, P256, result.scheme, digest, signature)
    world.next_step()
    made = world.hsm.signatures
    with pytest.raises(errors.InvalidDigest) as refused:
        world.sign([*digests(999), b"short"])
    assert refused.value.field == "items[999]"
    assert world.hsm.signatures == made


@pytest.mark.requirement("ASVS 5.0.0-16.5.3")
@pytest.mark.promise("P8")
def test_what_cannot_start_costs_no_one_time_password(world: World) -> None:
    """Each refusal comes with a fresh code, and the last call shows that the code still opens."""
    code = world.code()
    digest = digests(1)
    refusals: list[type[errors.Refusal]] = []

    def refused(kind: type[errors.Refusal], **arguments: object) -> None:
        with pytest.raises(kind) as caught:
            world.sign(arguments.pop("items", digest), password=code, **arguments)  # type: ignore[arg-type]
        assert type(caught.value) is kind
        refusals.append(kind)

    refused(errors.InvalidDigest, items=[b"x" * 20])
    refused(errors.AlgorithmMismatch, algorithm=SignatureAlgorithm.RSA_PSS_SHA256)
    refused(errors.AlgorithmMismatch, items=data_items(b"x"))
    refused(errors.AlgorithmMismatch, items=[DigestItem(digest=digest[0]), *data_items(b"x")])
    refused(errors.TooManyDigests, items=digests(1001))
    refused(errors.InvalidArgument, items=[])
    refused(errors.InvalidArgument, pss_salt_length=20)
    refused(errors.PermissionDenied, principal=FOREIGN)
    refused(errors.PermissionDenied, credential="credentials/unknown")
    refused(errors.PermissionDenied, signer=CLERK)
    world.hsm.unavailable = True
    refused(errors.HsmUnavailable)
    world.hsm.unavailable = False
    world.hsm.fail_next(method="decrypt")
    refused(errors.HsmUnavailable)
    world.store.fail_transact(persisted=False)
    refused(errors.StoreUnavailable)
    world.seconds = 0.0
    refused(errors.DeadlineTooShort)
    world.seconds = 60.0
    world.sign(digest, password=code)
    assert len(refusals) == 14
    assert len(world.store.rows(Approval)) == 1


@pytest.mark.promise("P8")
def test_a_salt_is_checked_and_signed_with(world: World) -> None:
    for salt in (0, 20, 32, 222):
        result = world.sign(
            digests(1), credential=RSA, algorithm=SignatureAlgorithm.RSA_PSS_SHA256, pss_salt_length=salt
        )
        verify(world, RSA, result.scheme, digests(1)[0], result.signatures[0])
        assert result.scheme.pss_salt_length == salt
        world.next_step()
    with pytest.raises(errors.InvalidArgument):
        world.sign(digests(1), credential=RSA, algorithm=SignatureAlgorithm.RSA_PSS_SHA256, pss_salt_length=223)


@pytest.mark.promise("P3")
def test_signed_attributes_are_hashed_by_the_server(world: World) -> None:
    document = hashlib.sha256(b"a decision").digest()
    item = world.attributes(document)
    result = world.sign([item])
    verify(world, P256, result.scheme, hashlib.sha256(item.encoded).digest(), result.signatures[0])
    authorization = next(row.record for row in world.store.rows(Authorization))
    assert authorization.digests == (document,)
    assert authorization.signed_digests == (hashlib.sha256(item.encoded).digest(),)


@pytest.mark.promise("P3")
def test_bad_signed_attributes_are_refused_each_with_a_reason_and_cost_nothing(world: World) -> None:
    document = hashlib.sha256(b"a decision").digest()
    bad = bad_attributes(document, world.certificate(P256), world.certificate(RSA))
    code = world.code()
    for encoded in bad.values():
        with pytest.raises(errors.InvalidSignedAttributes):
            world.sign([SignedAttributesItem(document_digest=document, encoded=encoded)], password=code)
    other = world.attributes(hashlib.sha256(b"another decision").digest())
    with pytest.raises(errors.DigestsNotAuthorized):
        world.sign([SignedAttributesItem(document_digest=document, encoded=other.encoded)], password=code)
    assert world.hsm.calls["sign"] == 0
    world.sign([world.attributes(document)], password=code)
    assert len(bad) == 18


@pytest.mark.promise("P7")
def test_a_retry_gives_the_recorded_outcome_without_a_second_code(world: World) -> None:
    request_id, code = new_request_id(), world.code()
    first = world.sign(digests(3), request_id=request_id, password=code)
    made = world.hsm.signatures
    world.clock.advance(timedelta(days=6))
    again = world.sign(digests(3), request_id=request_id, password=code, use=world.new_process())
    assert again.signatures == first.signatures
    assert again.audit_entry == first.audit_entry
    assert again.leaf_hash == first.leaf_hash
    assert world.hsm.signatures == made
    world.clock.advance(timedelta(days=2))
    with pytest.raises(errors.AuthorizationExpired):
        world.sign(digests(3), request_id=request_id, password=code)


@pytest.mark.promise("P7")
def test_a_request_id_with_other_content_is_refused(world: World) -> None:
    request_id = new_request_id()
    world.sign(digests(2), request_id=request_id)
    world.next_step()
    others: list[dict[str, object]] = [
        {"items": digests(3)},
        {"items": list(reversed(digests(2)))},
        {"items": digests(2), "signer": CHAIR},
        {
            "items": [hashlib.sha384(b"x").digest()],
            "credential": P384,
            "algorithm": SignatureAlgorithm.ECDSA_P384_SHA384,
        },
    ]
    for other in others:
        with pytest.raises(errors.RequestIdReused):
            world.sign(request_id=request_id, **other)  # type: ignore[arg-type]
    # The same id of another client is another request.
    assert world.sign(digests(2), request_id=request_id, principal=PORTAL).signatures


@pytest.mark.promise("P7")
def test_only_a_granted_request_binds_its_id(world: World) -> None:
    request_id = new_request_id()
    with pytest.raises(errors.OneTimePasswordRejected):
        world.sign(digests(1), request_id=request_id, password=world.wrong_code())
    assert world.sign(digests(1), request_id=request_id, password=world.code()).signatures


@pytest.mark.promise("P1", "P7")
@pytest.mark.parametrize("fault", ["token", "token lost after signing", "outcome not recorded", "outcome answer lost"])
def test_a_fault_behind_the_grant_is_completed_by_a_retry_under_the_same_approval(world: World, fault: str) -> None:
    request_id, code = new_request_id(), world.code()
    match fault:
        case "token":
            world.hsm.fail_next(method="sign")
        case "token lost after signing":
            original = world.hsm.sign

            def sign_and_fail(*arguments: object, **named: object) -> list[bytes]:
                original(*arguments, **named)
                world.hsm.sign = original
                raise errors.HsmUnavailable

            world.hsm.sign = sign_and_fail
        case "outcome not recorded":
            world.store.fail_transact(2, persisted=False)
        case "outcome answer lost":
            world.store.fail_transact(2, persisted=True)
    with pytest.raises((errors.HsmUnavailable, errors.StoreUnavailable)):
        world.sign(digests(2), request_id=request_id, password=code)
    assert len(world.store.rows(Approval)) == 1
    world.clock.advance(timedelta(minutes=2))
    result = world.sign(digests(2), request_id=request_id, password=code, use=world.new_process())
    for digest, signature in zip(digests(2), result.signatures, strict=True):
        verify(world, P256, result.scheme, digest, signature)
    assert len(world.store.rows(Approval)) == 1
    kinds = Counter(row.record.kind for row in world.store.rows(AuditEntry))
    assert kinds["signing_granted"] == 1
    assert kinds["signing_resumed"] == (0 if fault == "outcome answer lost" else 1)


@pytest.mark.requirement("ASVS 5.0.0-16.5.3")
@pytest.mark.promise("P1", "P8")
def test_a_commit_with_unknown_result_gives_no_signature_until_a_retry_finds_it(world: World) -> None:
    request_id, code = new_request_id(), world.code()
    world.store.fail_transact(persisted=True)
    with pytest.raises(errors.StoreUnavailable):
        world.sign(digests(1), request_id=request_id, password=code)
    assert world.hsm.calls["sign"] == 0
    world.clock.advance(timedelta(minutes=1))
    assert world.sign(digests(1), request_id=request_id, password=code).signatures
    assert len(world.store.rows(Approval)) == 1


@pytest.mark.promise("P7")
def test_the_work_cannot_be_completed_after_fifteen_minutes(world: World) -> None:
    request_id, code = new_request_id(), world.code()
    world.hsm.fail_next(method="sign")
    with pytest.raises(errors.HsmUnavailable):
        world.sign(digests(1), request_id=request_id, password=code)
    world.clock.advance(timedelta(minutes=15, seconds=1))
    with pytest.raises(errors.AuthorizationExpired):
        world.sign(digests(1), request_id=request_id, password=code)
    assert world.hsm.signatures == 0


@pytest.mark.promise("P7")
def test_a_retry_makes_every_check_but_the_one_time_password(world: World) -> None:
    request_id, code = new_request_id(), world.code()
    world.hsm.fail_next(method="sign")
    with pytest.raises(errors.HsmUnavailable):
        world.sign(digests(1), request_id=request_id, password=code)
    world.use.disable_client(OPERATOR, OFFICE.name, deadline=world.deadline())
    with pytest.raises(errors.PermissionDenied):
        world.sign(digests(1), request_id=request_id, password=code)


@pytest.mark.promise("P7")
def test_a_late_result_without_the_lease_is_thrown_away(world: World) -> None:
    """The first attempt sleeps in the token until its lease lapses; a retry completes; then it wakes."""
    request_id, code = new_request_id(), world.code()
    retried: list[tuple[bytes, ...]] = []

    def before(method: str) -> None:
        if method != "sign" or retried:
            return
        retried.append(())
        world.clock.advance(timedelta(minutes=2))
        retried[0] = world.sign(digests(1), request_id=request_id, password=code, use=world.new_process()).signatures

    world.hsm.before = before
    with pytest.raises(errors.Busy):
        world.sign(digests(1), request_id=request_id, password=code)
    assert len(retried) == 1
    assert world.hsm.signatures == 2
    (outcome,) = world.store.outcomes()
    assert outcome.signatures == retried[0]
    assert world.sign(digests(1), request_id=request_id, password=code).signatures == retried[0]


@pytest.mark.promise("P7")
def test_the_same_request_at_work_elsewhere_is_busy(world: World) -> None:
    request_id, code = new_request_id(), world.code()
    found: list[str] = []

    def before(method: str) -> None:
        if method == "sign" and not found:
            found.append("")
            with pytest.raises(errors.Busy) as busy:
                world.sign(digests(1), request_id=request_id, password=code, use=world.new_process())
            found[0] = busy.value.reason

    world.hsm.before = before
    # Each look at the clock takes a second, so the wait for the lease ends at the deadline.
    ticks = iter(float(number) for number in range(10_000))
    world.clock.monotonic = lambda: next(ticks)  # type: ignore[method-assign]
    world.sign(digests(1), request_id=request_id, password=code)
    assert found == ["BUSY"]


@pytest.mark.promise("P6")
def test_a_signature_that_does_not_verify_never_leaves(world: World) -> None:
    world.hsm.sign = lambda key, algorithm, messages, **_: [b"0" * 70 for _ in messages]
    with pytest.raises(errors.HsmUnavailable):
        world.sign(digests(1))
    assert [event.name for event in world.events] == ["signature_does_not_verify"]
    assert world.store.outcomes() == []


@pytest.mark.promise("P2", "P3")
def test_two_phases_sign_what_was_approved(world: World) -> None:
    authorization = world.authorize(digests(3))
    approval = world.approve(authorization)
    assert approval.approval.authorizations == (authorization.name,)
    data = world.activation_data(authorization)
    first = world.sign(digests(3)[:1], activated=(authorization.name, data))
    rest = world.sign(digests(3)[1:], activated=(authorization.name, data))
    assert len(first.signatures) + len(rest.signatures) == 3
    with pytest.raises(errors.ActivationDataUsed):
        world.sign(digests(3)[:1], activated=(authorization.name, data))
    with pytest.raises(errors.ActivationDataUsed):
        world.activation_data(authorization)


@pytest.mark.promise("P3")
def test_each_position_opens_once_and_only_in_order(world: World) -> None:
    a, b = digests(2)
    authorization = world.authorize([a, b, a])
    world.approve(authorization)
    data = world.activation_data(authorization)
    for wrong in ([b, b], [a, a, b], digests(1, of="another"), [a, b, a, a]):
        with pytest.raises(errors.DigestsNotAuthorized):
            world.sign(wrong, activated=(authorization.name, data))
    assert world.hsm.calls["sign"] == 0
    world.sign([a, b], activated=(authorization.name, data))
    with pytest.raises(errors.ActivationDataUsed):
        world.sign([b], activated=(authorization.name, data))
    world.sign([a], activated=(authorization.name, data))


@pytest.mark.promise("P7")
def test_a_repeat_needs_no_activation_data_and_a_new_request_does(world: World) -> None:
    items = digests(2)
    authorization = world.authorize(items)
    world.approve(authorization)
    request_id = new_request_id()
    first = world.sign(
        items, activated=(authorization.name, world.activation_data(authorization)), request_id=request_id
    )
    lost = (authorization.name, Secret(b""))
    assert world.sign(items, activated=lost, request_id=request_id).signatures == first.signatures
    assert world.hsm.signatures == len(items)
    with pytest.raises(errors.ActivationDataRejected):
        world.sign(items, activated=lost, request_id=new_request_id())
    with pytest.raises(errors.RequestIdReused):
        world.sign(digests(1), activated=lost, request_id=request_id)
    with pytest.raises(errors.PermissionDenied):
        world.sign(items, activated=lost, request_id=request_id, principal=PORTAL)


@pytest.mark.promise("P3")
def test_an_authorization_opens_only_what_it_names(world: World) -> None:
    authorization = world.authorize(digests(1))
    world.approve(authorization)
    data = world.activation_data(authorization)
    other = world.authorize(digests(1))
    with pytest.raises(errors.AuthorizationNotApproved):
        world.activation_data(other)
    with pytest.raises(errors.ActivationDataRejected):
        world.sign(digests(1), activated=(authorization.name, Secret(b"\x00" * 32)))
    with pytest.raises(errors.ActivationDataRejected):
        world.sign(digests(1), activated=(other.name, data))
    with pytest.raises(errors.PermissionDenied):
        world.sign(digests(1), activated=(authorization.name, data), principal=PORTAL)
    with pytest.raises(errors.PermissionDenied):
        world.activation_data(authorization, principal=PORTAL)
    with pytest.raises(errors.PermissionDenied):
        world.sign(digests(1), credential=SEAL, activated=(authorization.name, data))
    world.clock.advance(timedelta(minutes=10))
    with pytest.raises(errors.AuthorizationExpired):
        world.sign(digests(1), activated=(authorization.name, data))
    assert world.hsm.calls["sign"] == 0


@pytest.mark.promise("P3")
def test_attributes_are_signed_for_the_approved_document_alone(world: World) -> None:
    document, other = (hashlib.sha256(text).digest() for text in (b"approved", b"swapped in"))
    authorization = world.authorize([document], item_kind=ItemKind.SIGNED_ATTRIBUTES)
    world.approve(authorization)
    data = world.activation_data(authorization)
    with pytest.raises(errors.DigestsNotAuthorized):
        world.sign([world.attributes(other)], activated=(authorization.name, data))
    with pytest.raises(errors.DigestsNotAuthorized):
        world.sign([document], activated=(authorization.name, data))
    request_id = new_request_id()
    item = world.attributes(document)
    first = world.sign([item], activated=(authorization.name, data), request_id=request_id)
    again = world.sign([item], activated=(authorization.name, data), request_id=request_id)
    assert again.signatures == first.signatures


@pytest.mark.promise("P2")
def test_twenty_documents_need_one_code_and_it_opens_only_these_twenty(world: World) -> None:
    wanted = [world.authorize(digests(1, of=f"document {number}")) for number in range(20)]
    other = world.authorize(digests(1, of="another"))
    code = world.code()
    world.approve(*wanted, password=code)
    with pytest.raises(errors.OneTimePasswordRejected):
        world.approve(other, password=code)
    signed = 0
    for number, authorization in enumerate(wanted):
        data = world.activation_data(authorization)
        signed += len(world.sign(digests(1, of=f"document {number}"), activated=(authorization.name, data)).signatures)
    assert signed == 20
    with pytest.raises(errors.AuthorizationNotApproved):
        world.activation_data(other)


@pytest.mark.promise("P2", "P8")
def test_a_list_with_one_bad_authorization_approves_none_and_costs_no_code(world: World) -> None:
    good = world.authorize(digests(1))
    short = world.authorize(digests(1), lifetime=timedelta(minutes=1))
    world.clock.advance(timedelta(minutes=1))
    denied = world.authorize(digests(1))
    world.use.deny_authorization(OFFICE, denied.name, world.deadline())
    foreign = world.authorize(digests(1), principal=PORTAL)
    code = world.code()
    for bad, kind in (
        (short, errors.AuthorizationExpired),
        (denied, errors.AuthorizationNotPending),
        (foreign, errors.PermissionDenied),
        (good, errors.InvalidArgument),
    ):
        with pytest.raises(kind):
            world.approve(good, bad, password=code)
    states = {row.record.name: row.record.state for row in world.store.rows(Authorization)}
    assert states[good.name] is AuthorizationState.PENDING
    world.approve(good, password=code)


@pytest.mark.promise("P7")
def test_create_and_approve_may_be_repeated(world: World) -> None:
    create_id, approve_id = new_request_id(), new_request_id()
    first = world.authorize(digests(2), request_id=create_id)
    assert world.authorize(digests(2), request_id=create_id) == first
    with pytest.raises(errors.RequestIdReused):
        world.authorize(digests(3), request_id=create_id)
    approval = world.approve(first, request_id=approve_id)
    assert world.approve(first, request_id=approve_id) == approval
    other = world.authorize(digests(1))
    with pytest.raises(errors.RequestIdReused):
        world.approve(other, request_id=approve_id)
    with pytest.raises(errors.RequestIdReused):
        world.sign(digests(1), request_id=create_id)
    assert len(world.store.rows(GrantedRequest)) == 2


def test_a_seal_is_activated_by_the_entitled_person_with_their_own_code(world: World) -> None:
    result = world.sign(digests(1), credential=SEAL)
    assert result.approved_by == CLERK
    with pytest.raises(errors.PermissionDenied):
        world.sign(digests(1), credential=SEAL, signer=CHAIR, password=world.code(CHAIR))
    with pytest.raises(errors.OneTimePasswordRejected):
        world.sign(digests(1), credential=SEAL, signer=CLERK, password=world.code(CHAIR))


def test_a_policy_can_refuse_codes_that_the_application_collected(world: World) -> None:
    from trien_server.core.algorithms import KeyType

    world.add_credential("credentials/strict", KeyType.EC_P256, CHAIR, CHAIR, client_collected_otp=False, max_items=2)
    with pytest.raises(errors.NotAllowedByPolicy):
        world.sign(digests(1), credential="credentials/strict")
    authorization = world.authorize(digests(1), credential="credentials/strict")
    with pytest.raises(errors.NotAllowedByPolicy):
        world.approve(authorization)
    with pytest.raises(errors.TooManyDigests):
        world.authorize(digests(3), credential="credentials/strict")


def test_an_expired_certificate_stops_signing(world: World) -> None:
    world.clock.advance(timedelta(days=31))
    with pytest.raises(errors.CertificateNotValid):
        world.sign(digests(1))


@pytest.mark.requirement("ASVS 5.0.0-6.3.8")
@pytest.mark.promise("P11")
def test_unknown_and_forbidden_look_the_same(world: World) -> None:
    answers = set()
    for credential, principal in (("credentials/unknown", OFFICE), (P256, FOREIGN)):
        for call in (
            lambda c=credential, p=principal: world.sign(digests(1), credential=c, principal=p, password="000000"),
            lambda c=credential, p=principal: world.authorize(digests(1), credential=c, principal=p),
            lambda c=credential, p=principal: world.use.get_credential(p, c),
        ):
            with pytest.raises(errors.Refusal) as refused:
                call()
            answers.add((type(refused.value), refused.value.message, str(refused.value.metadata)))
    assert len(answers) == 1


@pytest.mark.promise("P8")
def test_a_warm_request_costs_the_token_one_decryption_and_one_signature_an_item(world: World) -> None:
    world.sign(digests(1))
    world.next_step()
    before = Counter(world.hsm.calls)
    signatures = world.hsm.signatures
    world.sign(digests(5))
    cost = Counter(world.hsm.calls) - before
    assert cost["decrypt"] == 1
    assert cost["authenticate"] == 0
    assert world.hsm.signatures - signatures == 5
    authorization = world.authorize(digests(2))
    world.next_step()
    world.approve(authorization)
    data = world.activation_data(authorization)
    before = Counter(world.hsm.calls)
    world.sign(digests(2), activated=(authorization.name, data))
    cost = Counter(world.hsm.calls) - before
    assert (cost["authenticate"], cost["decrypt"]) == (1, 0)


@pytest.mark.requirement("ASVS 5.0.0-16.3.1", "ASVS 5.0.0-16.3.2")
def test_a_refusal_is_written_down(world: World) -> None:
    with pytest.raises(errors.OneTimePasswordRejected):
        world.sign(digests(1), password=world.wrong_code())
    with pytest.raises(errors.PermissionDenied):
        world.sign(digests(1), principal=FOREIGN)
    entries = [row.record for row in world.store.rows(AuditEntry) if row.record.kind == "refused"]
    assert len(entries) == 2
    assert all(world.code() not in entry.details for entry in entries)
