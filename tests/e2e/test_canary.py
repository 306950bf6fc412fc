"""No secret is found in logs, errors, the database or files, in any encoding that a slip would give it (P12)."""

import base64
import binascii
import hashlib
import sqlite3
import time
import uuid
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.support.administration import (
    Administrator,
    Connection,
    CounterAuthenticator,
    Person,
    Refused,
    TimeAuthenticator,
    request_of,
)
from tests.support.carriers import LOOPBACK, SmsGateway, running
from tests.support.sandbox import Installation, running_sandbox
from trien.v1 import (
    access_service_pb2,
    algorithms_pb2,
    authorization_service_pb2,
    credential_service_pb2,
    signer_service_pb2,
    signing_service_pb2,
)

pytestmark = pytest.mark.promise("P12")

DOCUMENTED = {"connection.json", "population.json", "token-pin", "token-so-pin"}
"""The sandbox's files that hold secrets on purpose; a real installation has the PIN files alone."""
BASE64_ALIGNMENTS = 3
GATEWAY_SECRET = "whsec_" + base64.b64encode(b"canary of the SMS gateway, 32 by").decode()


def encodings(secret: bytes) -> dict[str, bytes]:
    """Returns what a haystack would hold of a secret, by encoding."""
    found = {
        "raw": secret,
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
        "percent": "".join(f"%{byte:02x}" for byte in secret).encode(),
        "PERCENT": "".join(f"%{byte:02X}" for byte in secret).encode(),
        "quoted": quote(secret, safe="").encode(),
        "repr": repr(secret)[2:-1].encode(),
        "octal": "".join(f"\\{byte:03o}" for byte in secret).encode(),
        "numbers": ", ".join(str(byte) for byte in secret).encode(),
    }
    for shift in range(BASE64_ALIGNMENTS):
        for name, alphabet in (("base64", None), ("base64url", b"-_")):
            found[f"{name}, {shift} bytes before"] = _inner_base64(secret, shift, alphabet)
    if secret.isascii():
        text = secret.decode()
        found["UTF-16-LE"] = text.encode("utf-16-le")
        found["UTF-16-BE"] = text.encode("utf-16-be")
        found["UTF-32-LE"] = text.encode("utf-32-le")
        found["JSON escapes"] = "".join(f"\\u{ord(character):04x}" for character in text).encode()
        found["reversed"] = secret[::-1]
    return found


def _inner_base64(secret: bytes, shift: int, alphabet: bytes | None) -> bytes:
    """Returns the characters that are the same whatever stands before and behind."""
    encoded = base64.b64encode(bytes(shift) + secret, altchars=alphabet)
    first = -(-shift * 8 // 6)
    last = (shift + len(secret)) * 8 // 6
    return encoded[first:last]


def find(haystack: Mapping[str, bytes], secrets: Mapping[str, bytes]) -> list[tuple[str, str, str]]:
    """Returns where a secret was found: place, secret, encoding."""
    return [
        (place, name, encoding)
        for name, secret in secrets.items()
        for encoding, needle in encodings(secret).items()
        for place, content in haystack.items()
        if needle in content
    ]


@dataclass
class Evidence:
    """What was gathered of a server that was treated badly."""

    secrets: dict[str, bytes] = field(default_factory=dict)
    haystack: dict[str, bytes] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)

    def add(self, place: str, content: bytes) -> None:
        self.haystack[f"{place} #{len(self.haystack)}"] = content


class Provoker:
    """Makes calls of all kinds, good and bad, and keeps everything that comes back."""

    def __init__(self, installation: Installation, evidence: Evidence, gateway: SmsGateway) -> None:
        self.evidence = evidence
        self.gateway = gateway
        self._installation = installation
        self.token: str = installation.population["client"]["token"]
        self.client = Connection(installation, token=self.token)

    def keep(self, connection: Connection, method: Any, request: Any, **options: Any) -> Any:
        outcome, answer = "OK", None
        try:
            answer = connection.call(method, request, **options)
            self.evidence.add("answer", bytes(answer.SerializeToString()) + repr(answer).encode())
        except Refused as refused:
            outcome = refused.reason or refused.code.name
            self.evidence.add("refusal", refused.everything() + str(refused).encode() + repr(refused.metadata).encode())
        self.evidence.outcomes[outcome] = self.evidence.outcomes.get(outcome, 0) + 1
        return answer

    def sign(self, request: Any, **options: Any) -> Any:
        return self.keep(self.client, self.client.signing.SignDigests, request, **options)


def _treat(provoker: Provoker, administrator: Administrator, installation: Installation) -> None:
    evidence = provoker.evidence
    person = administrator.create_person("canary")
    timer = administrator.create_timer(person.name)
    _register(evidence, person, timer)
    wrong = {"a wrong code": b"73519462", "another wrong code": b"60482915"}
    evidence.secrets.update(wrong)

    # Right and wrong passwords, again, and until the lock.
    request = request_of(person)
    evidence.secrets["the accepted code"] = request.one_time_password.code.encode()
    for _ in range(3):
        provoker.sign(request)
    spent = request_of(person, code=request.one_time_password.code)
    provoker.sign(spent)
    now = timer.at(int(time.time()) // 30)
    evidence.secrets["the accepted time-based code"] = now.encode()
    provoker.sign(request_of(person, code=now))
    for code in wrong.values():
        for _ in range(4):
            provoker.sign(request_of(person, code=code.decode()))
        administrator.unlock(person.name)

    # The password where it does not belong, and bytes that are no message around it.
    code = "73519462"
    misplaced = request_of(person, code=f"{code} ")
    provoker.sign(misplaced)
    for fields in (
        {"request_id": code},
        {"credential": code},
        {"credential": f"credentials/{code}/x"},
        {"algorithm": 999},
        {"pss_salt_length": 5},
    ):
        misplaced = request_of(person, code=code)
        for name, value in fields.items():
            setattr(misplaced, name, value)
        provoker.sign(misplaced)
    misplaced = request_of(person, code=code)
    misplaced.one_time_password.signer = code
    provoker.sign(misplaced)
    raw = provoker.client.channel.unary_unary("/trien.v1.SigningService/SignDigests")
    whole = request_of(person, code=code).SerializeToString()
    for content in (whole[:-1], whole + b"\xff", b"\x0a\x09\xff" + code.encode(), b"\xff" + code.encode()):
        provoker.keep(provoker.client, raw, content)
    provoker.keep(provoker.client, raw, whole, timeout=0.02)

    # Two phases, with the right and with altered activation data.
    sad = _two_phases(provoker, person)
    evidence.secrets["the activation data"] = sad

    names = _challenges(provoker, administrator, person)
    _delivered_codes(provoker, administrator, person, names)

    # Tokens that are wrong, cut off, or where they do not belong.
    evidence.secrets["the bearer token"] = provoker.token.encode()
    evidence.secrets["the bearer token's secret"] = provoker.token.removeprefix("trien_").encode()
    for token in (provoker.token[:-1], provoker.token + "x", provoker.token.upper()):
        with Connection(installation, token=token) as stranger:
            provoker.keep(stranger, stranger.signing.SignDigests, request_of(person, code=code))
    with Connection(installation) as stranger:
        for key, value in (
            ("authorization", f"Basic {provoker.token}"),
            ("authorization", provoker.token),
            ("x-token", provoker.token),
            (f"x-{provoker.token.lower().replace('_', '-')}", "1"),
        ):
            stranger.metadata = ((key, value),)
            provoker.keep(stranger, stranger.signing.SignDigests, request_of(person, code=code))
    name, token = administrator.create_client("canary")
    evidence.secrets["a new client's token"] = token.encode()
    admin = administrator.connection
    provoker.keep(admin, admin.access.GetClient, access_service_pb2.GetClientRequest(name=name))
    provoker.keep(
        admin, admin.credentials.GetCredential, credential_service_pb2.GetCredentialRequest(name=person.credential)
    )


def _register(evidence: Evidence, person: Person, timer: TimeAuthenticator) -> None:
    held: tuple[CounterAuthenticator | TimeAuthenticator, ...] = (person.authenticator, timer)
    for authenticator in held:
        kind = type(authenticator).__name__
        evidence.secrets[f"the secret of {kind}, base32"] = authenticator.secret.encode()
        evidence.secrets[f"the secret of {kind}"] = base64.b32decode(authenticator.secret)


def _challenges(provoker: Provoker, administrator: Administrator, person: Person) -> list[str]:
    """Answers to a question, right and wrong, for it and for another list. Returns authorizations that still wait."""
    stub, messages = provoker.client.authorizations, authorization_service_pb2
    name, device = administrator.create_ocra(person.name)
    provoker.evidence.secrets["the OCRA secret"] = bytes.fromhex(device._secret.reveal())
    names = []
    for text in (b"first", b"second", b"third", b"fourth"):
        item = messages.AuthorizedItem(digest=hashlib.sha256(text).digest())
        wanted = messages.Authorization(
            algorithm=algorithms_pb2.ECDSA_P256_SHA256, items=[item], title="Báo cáo mùa vụ"
        )
        made = messages.CreateAuthorizationRequest(parent=person.credential, authorization=wanted)
        names.append(provoker.keep(provoker.client, stub.CreateAuthorization, made).name)
    names, left = names[:2], names[2:]
    ask = messages.CreateChallengeRequest(parent=person.name, authorizations=names, authenticator=name)
    challenge = provoker.keep(provoker.client, stub.CreateChallenge, ask)
    code = device.answer(challenge.ocra_question.uri)
    provoker.evidence.secrets["the answer to a question"] = code.encode()
    for approved, given, answered in (
        (names, "73519462", challenge.name),
        (names[::-1], code, challenge.name),
        (names, code, f"{person.name}/challenges/{code}"),
        (names, code, ""),
        (names, code, challenge.name),
        (names, code, challenge.name),
    ):
        password = messages.OneTimePassword(code=given, signer=person.name, challenge=answered)
        approve = messages.ApproveAuthorizationsRequest(names=approved, one_time_password=password)
        provoker.keep(provoker.client, stub.ApproveAuthorizations, approve)
    return left


def _delivered_codes(provoker: Provoker, administrator: Administrator, person: Person, names: list[str]) -> None:
    """Codes by SMS: sent, sent again too soon, refused by the gateway, and typed where they do and do not belong."""
    stub, messages, gateway = provoker.client.authorizations, authorization_service_pb2, provoker.gateway
    kind = signer_service_pb2.Authenticator.SMS
    ask = messages.SendOneTimePasswordRequest(parent=person.name, authorizations=names)
    administrator.create_delivery(person.name, kind, "+84912345678", digits=8)
    challenge = provoker.keep(provoker.client, stub.SendOneTimePassword, ask)
    code = gateway.taken[-1].content["text"][:8]
    assert code.isdecimal()
    provoker.evidence.secrets["a delivered code"] = code.encode()
    provoker.keep(provoker.client, stub.SendOneTimePassword, ask)
    for approved, given in ((names, "73519462"), (names[::-1], code), (names, code), (names, code)):
        password = messages.OneTimePassword(code=given, signer=person.name, challenge=challenge.name)
        approve = messages.ApproveAuthorizationsRequest(names=approved, one_time_password=password)
        provoker.keep(provoker.client, stub.ApproveAuthorizations, approve)
    other = administrator.create_person("canary-unreachable")
    administrator.create_delivery(other.name, kind, "+84912345679", digits=8)
    item = messages.AuthorizedItem(digest=hashlib.sha256(b"fifth").digest())
    wanted = messages.Authorization(algorithm=algorithms_pb2.ECDSA_P256_SHA256, items=[item])
    made = messages.CreateAuthorizationRequest(parent=other.credential, authorization=wanted)
    authorization = provoker.keep(provoker.client, stub.CreateAuthorization, made)
    gateway.misbehaviour = "400"
    ask = messages.SendOneTimePasswordRequest(parent=other.name, authorizations=[authorization.name])
    provoker.keep(provoker.client, stub.SendOneTimePassword, ask)
    provoker.evidence.secrets["a code that the gateway refused"] = gateway.taken[-1].content["text"][:8].encode()


def _two_phases(provoker: Provoker, person: Person) -> bytes:
    stub, messages = provoker.client.authorizations, authorization_service_pb2
    digest = hashlib.sha256(b"a document").digest()
    made = provoker.keep(
        provoker.client,
        stub.CreateAuthorization,
        messages.CreateAuthorizationRequest(
            parent=person.credential,
            authorization=messages.Authorization(
                algorithm=algorithms_pb2.ECDSA_P256_SHA256, items=[messages.AuthorizedItem(digest=digest)]
            ),
        ),
    )
    approve = messages.ApproveAuthorizationsRequest(names=[made.name], one_time_password=person.one_time_password())
    provoker.evidence.secrets["the approving code"] = approve.one_time_password.code.encode()
    provoker.keep(provoker.client, stub.ApproveAuthorizations, approve)
    provoker.keep(provoker.client, stub.ApproveAuthorizations, approve)
    fetch = messages.FetchSignatureActivationDataRequest(name=made.name)
    sad = bytes(provoker.client.call(stub.FetchSignatureActivationData, fetch).signature_activation_data)
    request = signing_service_pb2.SignDigestsRequest(
        credential=person.credential,
        algorithm=algorithms_pb2.ECDSA_P256_SHA256,
        items=[signing_service_pb2.SignItem(digest=digest)],
        request_id=str(uuid.uuid4()),
        activated_authorization=signing_service_pb2.ActivatedAuthorization(authorization=made.name),
    )
    for data in (sad[:-1], sad + b"\0", sad, sad):
        request.activated_authorization.signature_activation_data = data
        provoker.sign(request)
    request.request_id = str(uuid.uuid4())
    provoker.sign(request)
    provoker.keep(provoker.client, stub.FetchSignatureActivationData, fetch)
    provoker.keep(provoker.client, stub.GetAuthorization, messages.GetAuthorizationRequest(name=made.name))
    provoker.keep(
        provoker.client, stub.ListAuthorizations, messages.ListAuthorizationsRequest(parent=person.credential)
    )
    return sad


def _break_and_provoke(provoker: Provoker, administrator: Administrator, installation: Installation) -> None:
    """Failures that nobody foresees: rows edited, and a table taken away, while requests carry secrets."""
    edits = {
        "edited": "UPDATE signers SET display_name = 'another' WHERE name = ?",
        "undecodable": "UPDATE signers SET display_name = CAST(x'ff' AS TEXT) WHERE name = ?",
        "emptied": "UPDATE keys SET public_key = x'' WHERE name = replace(?, 'signers/', 'keys/')",
    }
    people = {edit: administrator.create_person(f"canary-{edit}") for edit in [*edits, "last"]}
    for edit, statement in edits.items():
        _alter(installation, statement, people[edit].name)
        request = request_of(people[edit])
        provoker.evidence.secrets[f"a code that met a row that was {edit}"] = request.one_time_password.code.encode()
        provoker.sign(request)
    _alter(installation, "ALTER TABLE approvals RENAME TO away")
    request = request_of(people["last"])
    provoker.evidence.secrets["a code that met no table"] = request.one_time_password.code.encode()
    provoker.sign(request, timeout=10)


def _alter(installation: Installation, statement: str, *parameters: str) -> None:
    with closing(sqlite3.connect(installation.database, timeout=10)) as database:
        database.execute(statement, parameters)
        database.commit()


def _take_in_files(evidence: Evidence, directory: Path, when: str) -> int:
    count = 0
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name not in DOCUMENTED:
            evidence.add(f"{when}: {path.relative_to(directory)}", path.read_bytes())
            count += 1
    return count


def _gather(gathered: Evidence, installation: Installation, gateway: SmsGateway) -> None:
    for name in ("token-pin", "token-so-pin"):
        gathered.secrets[name] = (installation.directory / name).read_bytes().strip()
    with Administrator(installation) as administrator:
        provoker = Provoker(installation, gathered, gateway)
        with provoker.client:
            _treat(provoker, administrator, installation)
    assert installation.process is not None
    process = Path("/proc") / str(installation.process.pid)
    for name in ("cmdline", "environ"):
        gathered.add(f"the process's {name}", (process / name).read_bytes())
    assert _take_in_files(gathered, installation.directory, "running") >= 20
    assert installation.stop() == 0
    _take_in_files(gathered, installation.directory, "stopped")
    installation.start()
    with Administrator(installation) as administrator:
        provoker = Provoker(installation, gathered, gateway)
        with provoker.client:
            _break_and_provoke(provoker, administrator, installation)
    installation.kill()
    _take_in_files(gathered, installation.directory, "killed")
    gathered.add("the log", installation.log_path.read_bytes())


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    gathered = Evidence()
    directory = tmp_path_factory.mktemp("canary")
    gateway_secret = directory / "gateway-secret"
    gateway_secret.touch(mode=0o600)
    gateway_secret.write_text(GATEWAY_SECRET)
    gathered.secrets["the secret of the SMS gateway"] = GATEWAY_SECRET.removeprefix("whsec_").encode()
    with running(SmsGateway(None, GATEWAY_SECRET)) as gateway:
        settings = (f"sms.url=http://{LOOPBACK}:{gateway.port}/messages", f"sms.secret_file={gateway_secret}")
        with running_sandbox(directory / "installation", *settings) as installation:
            _gather(gathered, installation, gateway)
    return gathered


@pytest.mark.requirement("ASVS 5.0.0-16.2.5", "ASVS 5.0.0-16.5.1", "NIST 800-63B-4 3.1.4.2 secrets")
def test_no_secret_is_found_anywhere(evidence: Evidence, capsys: pytest.CaptureFixture[str]) -> None:
    assert find(evidence.haystack, evidence.secrets) == []
    size = sum(len(content) for content in evidence.haystack.values())
    needles = sum(len(encodings(secret)) for secret in evidence.secrets.values())
    with capsys.disabled():
        print(  # noqa: T201 - the figures are part of the result
            f"\ncanary: {len(evidence.secrets)} secrets in {needles} forms, {len(evidence.haystack)} places,"
            f" {size // 1024} KiB, outcomes {evidence.outcomes}"
        )
    assert len(evidence.secrets) >= 21
    assert len(evidence.haystack) >= 100
    assert any("trien.db-wal" in place and content for place, content in evidence.haystack.items())
    assert evidence.outcomes.keys() >= {
        "OK",
        "ONE_TIME_PASSWORD_REJECTED",
        "SIGNER_LOCKED",
        "INVALID_ARGUMENT",
        "UNAUTHENTICATED",
        "ACTIVATION_DATA_REJECTED",
        "ACTIVATION_DATA_USED",
        "RECORD_NOT_TRUSTED",
        "AUTHORIZATION_NOT_PENDING",
        "CHALLENGE_NOT_PENDING",
        "DELIVERY_LIMIT_REACHED",
        "DELIVERY_FAILED",
    }
    # Something failed that nobody foresaw: a message of the database must not carry what the caller sent.
    assert evidence.outcomes.keys() & {"INTERNAL", "STORE_UNAVAILABLE"}


def test_what_is_searched_holds_what_it_should(evidence: Evidence) -> None:
    """The haystack is the real one: names and outcomes that are no secrets are found in it."""
    found = {place.partition(" #")[0] for place, content in evidence.haystack.items() if b"canary" in content}
    assert {"the log", "running: trien.db-wal", "stopped: trien.db"} <= found
    log = next(content for place, content in evidence.haystack.items() if place.startswith("the log #"))
    assert log.count(b'"event": "call"') >= 50


def test_a_planted_leak_is_found_in_each_encoding(evidence: Evidence) -> None:
    place = next(place for place in evidence.haystack if place.startswith("the log #"))
    whole = evidence.haystack[place]
    planted = 0
    for name, secret in evidence.secrets.items():
        for encoding, needle in encodings(secret).items():
            leaking = {place: whole[:1000] + b'"code": "' + needle + b'"' + whole[1000:2000]}
            assert (place, name, encoding) in find(leaking, {name: secret})
            planted += 1
    assert planted >= 16 * 15


@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("behind", range(3))
def test_base64_is_found_at_every_alignment(evidence: Evidence, before: int, behind: int) -> None:
    for secret in evidence.secrets.values():
        text = base64.b64encode(b"\xfb" * before + secret + b"\xff" * behind)
        assert find({"planted": text}, {"it": secret})
        assert find({"planted": binascii.hexlify(b"\xfb" * before + secret)}, {"it": secret})
