"""Any message for any rpc: a documented answer, no defect, and nothing written but the refusal (P2, P8, P11)."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.x509 import ObjectIdentifier, UnrecognizedExtension
from google.protobuf.descriptor import MethodDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.edge import Answered, Edge, open_edge
from tests.fuzz.messages import Known, damaged, methods, requests
from tests.support.world import CHAIR, CLERK, OPERATOR, P256, RSA, World, digests, issue

from trien_server.core.algorithms import KeyType
from trien_server.core.records import AuditEntry, Client
from trien_server.store.mapping import UNSEALED_ENTRIES

pytestmark = pytest.mark.promise("P2", "P8", "P11", "P12")

METHODS = {f"{method.containing_service.name}.{method.name}": method for method in methods()}
LONG_SECONDS = 5.0
WRITTEN = {AuditEntry.table, UNSEALED_ENTRIES}
"""What every decision writes."""
COUNTED_FAILURE = {"signer_attempts", "client_attempts"}
"""What a wrong one-time password writes to, besides the log."""


def documented() -> dict[str, str]:
    """Returns the status code of each reason, by the documents' table."""
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \|", page, re.MULTILINE))


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with pytest.MonkeyPatch.context() as patch:
        yield from open_edge(patch)


@pytest.fixture(scope="module")
def known(edge: Edge) -> Known:
    """What the world holds: a request that names it gets behind the first checks."""
    world = edge.world
    pending = world.authorize(digests(2))
    approved = world.authorize(digests(2))
    world.approve(approved)
    world.next_step()
    world.add_ocra()
    sms = world.add_delivery()
    free = _free_key(world)
    request = world.use.generate_signing_request(OPERATOR, key=free, signer=CHAIR, deadline=world.deadline())
    chain = issue(request, world.clock)
    signers, credentials, clients = (
        [CHAIR, CHAIR, CLERK, "signers/none"],
        [P256, P256, RSA],
        ["clients/office", "clients/portal"],
    )
    authorizations = [pending.name, pending.name, approved.name, f"{P256}/authorizations/none"]
    digest = digests(1)[0]
    return Known(
        {
            "*_id": ["fresh", "other", "free"],
            "request_id": ["f5d6a0c2-6b56-4a53-9c7e-1d2f1a2b3c4d", "00000000-0000-4000-8000-000000000000"],
            "code": [world.code(), world.code(), world.wrong_code(), world.code(CLERK)],
            "credential": credentials,
            "clients": clients,
            "signer": signers,
            "approver": signers,
            "key": [free, free, "keys/chair-p256"],
            "organization": ["organizations/commune"],
            "CreateOrganization.parent": ["organizations/commune", ""],
            "CreateAuthorization.parent": credentials,
            "ListAuthorizations.parent": credentials,
            "CreateAuthenticator.parent": signers,
            "CreateChallenge.parent": signers,
            "SendOneTimePassword.parent": signers,
            "names": authorizations,
            "authorization": authorizations,
            "authorizations": authorizations,
            "GetAuthorization.name": authorizations,
            "WaitAuthorization.name": authorizations,
            "DenyAuthorization.name": authorizations,
            "FetchSignatureActivationData.name": authorizations,
            "GetKey.name": [free, "keys/none"],
            "GetCredential.name": credentials,
            "GetSigner.name": signers,
            "UnlockSigner.name": signers,
            "GetOrganization.name": ["organizations/commune"],
            "GetClient.name": clients,
            "DisableClient.name": clients,
            "display_name": ["Nguyễn Thị Hoa", "x"],
            "position": ["Chủ tịch", ""],
            "address": ["+84912345678", "a@phulam.example"],
            "authenticator": [f"{CHAIR}/authenticators/phone", f"{CHAIR}/authenticators/ocra", sms],
            "digest": [digest, digest, bytes(48)],
            "document_digest": [digest],
            "data_digest": [bytes(64)],
            "data": [b"data"],
            "der": [world.attributes(digest).encoded, b"0\x80", b"1\x84\xff\xff\xff\xff", b"1" * 200],
            "certificate_chain": [
                chain,
                chain,
                chain,
                chain[:-1],
                world.certificate(P256),
                *_odd_certificates(world, free),
            ],
            "certificate_fingerprint": [bytes(32), b""],
            "signature_activation_data": [world.activation_data(approved).reveal()],
        }
    )


def _free_key(world: World) -> str:
    """Makes a key that no credential uses yet."""
    world.use.create_key(OPERATOR, name="keys/free", key_type=KeyType.EC_P256, deadline=world.deadline())
    world.use.key_generation.generate("keys/free")
    return "keys/free"


def _odd_certificates(world: World, key: str) -> list[bytes]:
    """Returns certificates for a key that a CA should not have issued: extensions that cannot be read."""
    usages = [ObjectIdentifier("2.5.29.15"), ObjectIdentifier("2.5.29.37"), ObjectIdentifier("2.5.29.19")]
    request = world.use.generate_signing_request(OPERATOR, key=key, signer=CHAIR, deadline=world.deadline())
    contents = [b"", b"\x03", b"0\x00", b"\x04\x00", b"0\x84\xff\xff\xff\xff", b"\x03\x02\x07\xff"]
    return [
        issue(request, world.clock, UnrecognizedExtension(usage, content)) for usage in usages for content in contents
    ]


class Judge:
    """Sends bytes, judges the answer and what was written, and puts the store back to where it was."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.base: Mapping[str, Any] = edge.world.store._tables
        self.codes = documented()
        self.seen: Counter[str] = Counter()
        self.slowest = 0.0

    def send(self, method: MethodDescriptor, content: bytes, *, as_operator: bool) -> Answered:
        begun = time.thread_time()
        answered = self.edge.call(method, content, as_operator=as_operator)
        self.slowest = max(self.slowest, time.thread_time() - begun)
        self.seen[answered.reason] += 1
        try:
            self._judge(answered)
        finally:
            self.edge.world.store._tables = self.base
            self.edge.world.events.clear()
        return answered

    def _judge(self, answered: Answered) -> None:
        assert answered.faults == ()
        if answered.reason == "OK":
            return
        assert answered.reason in self.codes.keys() - {"INTERNAL", "RECORD_NOT_TRUSTED"}, answered
        assert answered.code.name == self.codes[answered.reason], answered
        assert answered.metadata is not None
        assert answered.metadata["requestId"]
        assert answered.code is not grpc.StatusCode.INTERNAL
        assert len(answered.text) < 1000
        assert "Traceback" not in answered.text
        now = self.edge.world.store._tables
        changed = {table for table in now if now[table] is not self.base.get(table)} - WRITTEN
        assert changed <= (COUNTED_FAILURE if answered.reason == "ONE_TIME_PASSWORD_REJECTED" else set()), answered
        added = now[AuditEntry.table].keys() - self.base[AuditEntry.table].keys()
        assert [now[AuditEntry.table][name].record.kind for name in added] == ["refused"] * len(added)
        assert len(added) <= 1


@pytest.fixture(scope="module")
def judge(edge: Edge, known: Known) -> Judge:
    assert known
    return Judge(edge)


def fuzz(judge: Judge, method: MethodDescriptor, known: Known, **given_settings: Any) -> int:
    """Sends well-formed and damaged messages of one rpc; returns how many."""
    sent = 0
    whole = requests(method, known)

    # Operators call all services but two, which are for applications; the other way round everything is refused.
    as_operator = method.containing_service.name not in {"AuthorizationService", "SigningService"}

    @settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), **given_settings)
    @given(
        content=st.one_of(*[whole] * 6, damaged(whole), st.binary(max_size=60)),
        as_operator=st.sampled_from([as_operator] * 9 + [not as_operator]),
    )
    def send(content: bytes, as_operator: bool) -> None:
        nonlocal sent
        judge.send(method, content, as_operator=as_operator)
        sent += 1

    send()
    return sent


def test_every_rpc_is_fuzzed(edge: Edge) -> None:
    paths = {f"/{method.containing_service.full_name}/{method.name}" for method in METHODS.values()}
    assert paths == edge.handlers.keys()
    assert len(paths) >= 24


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_any_message_is_answered_with_a_documented_reason(
    judge: Judge, known: Known, method: MethodDescriptor, record_property: Callable[[str, object], None]
) -> None:
    before = judge.seen.copy()
    sent = fuzz(judge, method, known, max_examples=60, derandomize=True)
    record_property("count", f"messages {sent}: {dict(judge.seen - before)}")
    assert sent >= 50
    assert judge.slowest < 5.0


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_any_message_is_answered_with_a_documented_reason_for_long(
    judge: Judge, known: Known, method: MethodDescriptor, record_property: Callable[[str, object], None]
) -> None:
    before = judge.seen.copy()
    end, sent = time.monotonic() + LONG_SECONDS, 0
    while time.monotonic() < end:
        sent += fuzz(judge, method, known, max_examples=300, print_blob=True)
    record_property("count", f"messages {sent}, slowest {judge.slowest:.2f} s: {dict(judge.seen - before)}")
    assert sent >= 300
    assert judge.slowest < 5.0


def test_the_judge_sees_what_an_invalid_request_wrote(judge: Judge) -> None:
    """The judge itself: a refusal behind which a row was written is found."""
    answered = Answered("PERMISSION_DENIED", grpc.StatusCode.PERMISSION_DENIED, metadata={"requestId": "x"})
    judge._judge(answered)
    use, world = judge.edge.world.use, judge.edge.world
    try:
        use.disable_client(OPERATOR, "clients/portal", deadline=world.deadline())
        assert any(row.record.state == "DISABLED" for row in world.store.rows(Client))
        with pytest.raises(AssertionError):
            judge._judge(answered)
    finally:
        world.store._tables = judge.base
