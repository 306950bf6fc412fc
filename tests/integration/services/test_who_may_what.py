"""Every method, called as every kind of caller, against a reviewed table of who may what (P9, P11).

The servicers are the real ones behind the real admission, over fakes of token and store; nothing of the table comes
from the code's own rules.
"""

import base64
import hashlib
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import ParseDict
from tests.fuzz.edge import Aborted, Answered, Context, Edge
from tests.fuzz.messages import methods
from tests.support.world import CHAIR, CLERK, OFFICE, OPERATOR, P256, SECOND, World, digests, new_request_id

from trien_server.core.approval import public_key_hash
from trien_server.core.records import (
    AuditEntry,
    AuthenticatorKind,
    CertificateAuthority,
    IssuedCertificate,
    IssuedCertificateState,
    Operator,
    Proposal,
    State,
)
from trien_server.host.private_ca import PrivateCa
from trien_server.host.randomness import SystemRandomness
from trien_server.rpc.server import Limits, TlsIdentity
from trien_server.services.authenticators import NewAuthenticator
from trien_server.services.changes import Change
from trien_server.services.clients import NewClient
from trien_server.services.enrolments import NewEnrolment, NewEnrolments
from trien_server.store.mapping import UNSEALED_ENTRIES
from trien_server.wiring import edges

pytestmark = [pytest.mark.promise("P9"), pytest.mark.promise("P11")]

TABLE = Path(__file__).parents[2] / "conformance" / "who_may_what.toml"
ROLES = ("SECURITY_OFFICER", "REGISTRATION_OFFICER", "AUDITOR", "ADMINISTRATOR", "MONITOR")
KINDS = (*ROLES, "CLIENT", "ENROLMENT")
STRANGERS = ("nobody", "unknown token", "unknown certificate", "disabled operator", "disabled client")

_AUTHORITY = "certificateAuthorities/own"
_COMMUNE = "organizations/commune"
_ENROLMENT = f"{CLERK}/enrolments/tablet"


def table() -> dict[str, dict[str, list[str]]]:
    """Returns the reviewed table."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def name_of(method: MethodDescriptor) -> str:
    return f"{method.containing_service.name}.{method.name}"


METHODS = {name_of(method): method for method in methods()}


class Call(Context):
    """A call's context, also for a method that nobody built, which generated code ends by `set_code` and an error."""

    def set_code(self, _: grpc.StatusCode) -> None: ...

    def set_details(self, _: str) -> None: ...


@dataclass
class Callers:
    """One caller of each kind, by what it shows; and the resources that the requests name."""

    world: World
    edge: Edge
    shown: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def call(self, method: MethodDescriptor, request: Any, kind: str) -> Answered:
        """Calls as `kind`, and puts the store back as it was; asserts that a refusal changed nothing."""
        path = f"/{method.containing_service.full_name}/{method.name}"
        context = Call(**self.shown[kind])
        before = self.world.store._tables
        served = self.edge.admission.intercept_service(
            lambda _: self.edge.handlers[path], _Details(method=path, invocation_metadata=())
        )
        self.edge.log.clear()
        try:
            served.stream_unary(iter([request.SerializeToString()]), context)
        except Aborted:
            answered = self.edge._refused(context.status)
        except NotImplementedError:
            answered = Answered("UNIMPLEMENTED", grpc.StatusCode.UNIMPLEMENTED)
        else:
            answered = Answered("OK", grpc.StatusCode.OK, faults=self.edge._faults())
        after = self.world.store._tables
        if answered.reason in {"PERMISSION_DENIED", "UNAUTHENTICATED"}:
            assert _but_entries(after) == _but_entries(before), (kind, path)
        self.world.store._tables = before
        return answered


@dataclass(frozen=True, kw_only=True)
class _Details:
    method: str
    invocation_metadata: tuple[()]


def _but_entries(tables: Mapping[str, Any]) -> dict[str, Any]:
    return {name: rows for name, rows in tables.items() if name not in {AuditEntry.table, UNSEALED_ENTRIES}}


@cache
def _ca() -> PrivateCa:
    return PrivateCa.create("Callers' CA")


@pytest.fixture(scope="module")
def callers() -> Iterator[Callers]:
    """Builds the servicers as `wiring` does."""
    world = World().populate()
    edge = Edge(world, world.tokens[OFFICE.name], b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edges, "GrpcServer", edge.take)
        edges.build_grpc_server(
            world.use,
            clock=world.clock,
            randomness=SystemRandomness(),
            log=lambda **line: edge.log.append(line),
            tls=TlsIdentity(certificate_chain=b"", private_key=b"", client_ca=b""),
            limits=Limits(threads=8, concurrent_calls=8, message_size=1 << 21),
            token_address="",
            certificate_address="",
            reflect=False,
        )
    world.use.wait_authorization.stop()  # a clock that stands still would let it wait for ever
    world.use.get_receipt.stop()
    callers = Callers(world, edge)
    _populate(callers)
    yield callers
    edge.admission.stop()


def _populate(callers: Callers) -> None:
    world = callers.world
    for role in ROLES:
        _add_operator(callers, role, role)
    _add_operator(callers, "disabled operator", *ROLES[:2], state=State.DISABLED)
    world.add_client("clients/disabled")
    world.use.disable_client(OPERATOR, "clients/disabled", deadline=world.deadline())
    callers.shown |= {
        "CLIENT": {"token": world.tokens[OFFICE.name]},
        "nobody": {},
        "unknown token": {"token": "trien_" + "x" * 43},
        "unknown certificate": {"certificate": _ca().issue_client("unknown").certificate},
        "disabled client": {"token": world.tokens["clients/disabled"]},
    }
    # An enrolment that the registration officer of the table and the second officer agreed on.
    officer = _principal("REGISTRATION_OFFICER")
    enrolments = NewEnrolments(enrolments=(NewEnrolment(name=_ENROLMENT, kind=AuthenticatorKind.TOTP),))
    world.agree(world.use.create_enrolments(officer, enrolments, deadline=world.deadline()))
    halves = [
        world.use.send_enrolment_code(who, _ENROLMENT, deadline=world.deadline()).half.reveal().decode()
        for who in (officer, SECOND)
    ]
    callers.shown["ENROLMENT"] = {"token": "-".join(("trien-enrol", *halves))}
    authenticator = NewAuthenticator(
        name=f"{CHAIR}/authenticators/sms",
        signer=CHAIR,
        kind=AuthenticatorKind.SMS,
        digits=0,
        address="+84912345678",
    )
    pending: list[Proposal] = [
        world.use.create_client(OPERATOR, _new_client("clients/first"), deadline=world.deadline()),
        world.use.create_authenticator(OPERATOR, authenticator, deadline=world.deadline()),
        world.use.create_client(_principal("SECURITY_OFFICER"), _new_client("clients/own"), deadline=world.deadline()),
        world.use.create_authenticator(officer, authenticator, deadline=world.deadline()),
    ]
    authorization = world.authorize(digests(1))
    approved = world.authorize(digests(1, of="approved"))
    world.approve(approved)
    world.next_step()
    entry = world.sign(digests(1)).audit_entry
    _add_own_ca(world)
    world.add_client("clients/other")
    callers.names |= {
        "proposal of security": pending[0].name,
        "proposal of registration": pending[1].name,
        "own of security": pending[2].name,
        "own of registration": pending[3].name,
        "authorization": authorization.name,
        "approved": approved.name,
        "entry": entry,
    }


def _new_client(name: str) -> NewClient:
    token_hash = hashlib.sha256(name.encode()).digest()
    return NewClient(name=name, display_name=name, token_hash=token_hash, certificate_fingerprint=None)


def _principal(role: str) -> Any:
    return type(OPERATOR)(kind=OPERATOR.kind, name=_operator_name(role), authenticated_by=OPERATOR.authenticated_by)


def _operator_name(kind: str) -> str:
    return f"operators/{kind.lower().replace('_', '-').replace(' ', '-')}"


def _add_operator(callers: Callers, kind: str, *roles: str, state: State = State.ENABLED) -> None:
    identity = _ca().issue_client(kind)
    certificate = x509.load_pem_x509_certificate(identity.certificate)
    encoded = identity.certificate_der
    record = Operator(
        name=_operator_name(kind),
        display_name=kind,
        certificate=encoded,
        certificate_fingerprint=hashlib.sha256(encoded).digest(),
        public_key_hash=public_key_hash(encoded, field=""),
        roles=roles,
        state=state,
        create_time=callers.world.clock.now(),
    )
    assert certificate.version is x509.Version.v3
    callers.world.use.changes.make(
        "tests", lambda _: Change(kind="operator_created", slow=[record]), deadline=callers.world.deadline()
    )
    callers.shown[kind] = {"certificate": identity.certificate}


def _add_own_ca(world: World) -> None:
    """Enters an authority and a certificate of it, as the use cases of the own CA leave them."""
    certificate = world.certificate(P256)
    key = world.key(P256).name
    records = [
        CertificateAuthority(name=_AUTHORITY, key=key, certificate_chain=(certificate,), create_time=world.clock.now()),
        IssuedCertificate(
            name=f"{_AUTHORITY}/certificates/one",
            authority=_AUTHORITY,
            key=key,
            signer=CHAIR,
            to_be_signed=certificate,
            certificate=certificate,
            state=IssuedCertificateState.ISSUED,
            expire_time=world.clock.now() + timedelta(days=30),
            create_time=world.clock.now(),
        ),
    ]
    world.use.changes.make("tests", lambda _: Change(kind="test", slow=records), deadline=world.deadline())


def requests(callers: Callers) -> dict[str, dict[str, Any]]:
    """Returns for each method a request whose resources exist: only who calls can be the reason of a refusal."""
    world, names = callers.world, callers.names
    certificate = base64.b64encode(world.certificate(P256)).decode()
    other = base64.b64encode(_ca().issue_client("new").certificate_der).decode()
    hashed = base64.b64encode(hashlib.sha256(b"new").digest()).decode()
    digest = base64.b64encode(digests(1)[0]).decode()
    key = world.key(P256).name
    operator = {"display_name": "New", "certificate": other, "roles": ["AUDITOR"]}
    policy = {"display_name": "New", "clients": [OFFICE.name], "client_collected_otp_allowed": True}
    credential = {**policy, "key": key, "signer": CHAIR, "certificate_chain": [certificate]}
    password = {"code": "000000", "signer": CHAIR}
    signing = {"credential": P256, "algorithm": "ECDSA_P256_SHA256"}
    client = {"display_name": "New", "token_hash": hashed}
    organization = {"display_name": "New"}
    signer = {"display_name": "New", "kind": "PERSON", "organization": _COMMUNE}
    return {
        "AccessService.CreateClient": {"client_id": "new", "client": client},
        "AccessService.UpdateClient": {"client": {"name": OFFICE.name, "display_name": "New"}},
        "AccessService.RestrictClient": {"name": OFFICE.name, "calls_per_minute": 60},
        "AccessService.GetClient": {"name": OFFICE.name},
        "AccessService.ListClients": {},
        "AccessService.DisableClient": {"name": OFFICE.name},
        "AccessService.EnableClient": {"name": "clients/disabled"},
        "AccessService.CreateOperator": {"operator_id": "new", "operator": operator},
        "AccessService.UpdateOperator": {
            "operator": {"name": _operator_name("AUDITOR"), "display_name": "New", "roles": ["AUDITOR"]}
        },
        "AccessService.GetOperator": {"name": OPERATOR.name},
        "AccessService.ListOperators": {},
        "AccessService.DisableOperator": {"name": _operator_name("MONITOR")},
        "AccessService.EnableOperator": {"name": _operator_name("disabled operator")},
        "AccessService.ShowAccess": {"name": CHAIR},
        "AuditService.GetAuditEntry": {"name": names["entry"]},
        "AuditService.ListAuditEntries": {},
        "AuditService.GetReceipt": {"audit_entry": names["entry"], "item": 0},
        "AuditService.GetEvidence": {"audit_entry": names["entry"]},
        "AuditService.GetCheckpoint": {},
        "AuditService.GetConsistencyProof": {"first_size": 1},
        "AuditService.GetLogKeys": {},
        "AuditService.EraseAuditDetails": {"audit_entries": [names["entry"]], "justification": "asked for"},
        "AuthorizationService.CreateAuthorization": {
            "parent": P256,
            "authorization": {"algorithm": "ECDSA_P256_SHA256", "items": [{"digest": digest}]},
        },
        "AuthorizationService.GetAuthorization": {"name": names["authorization"]},
        "AuthorizationService.ListAuthorizations": {"parent": P256},
        "AuthorizationService.WaitAuthorization": {"name": names["approved"], "timeout": "0s"},
        "AuthorizationService.CreateChallenge": {"parent": CHAIR, "authorizations": [names["authorization"]]},
        "AuthorizationService.SendOneTimePassword": {"parent": CHAIR, "authorizations": [names["authorization"]]},
        "AuthorizationService.ApproveAuthorizations": {
            "names": [names["authorization"]],
            "one_time_password": password,
        },
        "AuthorizationService.DenyAuthorization": {"name": names["authorization"]},
        "AuthorizationService.FetchSignatureActivationData": {"name": names["approved"]},
        "SigningService.SignDigests": {
            **signing,
            "items": [{"digest": digest}],
            "request_id": new_request_id(),
            "one_time_password": password,
        },
        "CredentialService.GetCredential": {"name": P256},
        "CredentialService.ListCredentials": {},
        "CredentialService.CreateCredential": {"credential_id": "new", "credential": credential},
        "CredentialService.RenewCredential": {"name": P256, "certificate_chain": [certificate]},
        "CredentialService.UpdateCredential": {"credential": {**policy, "name": P256}},
        "CredentialService.RestrictCredential": {"credential": {**policy, "name": P256, "max_items": 1}},
        "CredentialService.SuspendCredential": {"name": P256},
        "CredentialService.ResumeCredential": {"name": P256},
        "CredentialService.RevokeCredential": {"name": P256, "reason": "SUPERSEDED"},
        "CredentialService.IssueCertificate": {"key": key, "signer": CHAIR, "valid_days": 30},
        "CredentialService.GetIssuedCertificate": {"name": f"{_AUTHORITY}/certificates/one"},
        "CredentialService.ListIssuedCertificates": {},
        "CredentialService.RevokeIssuedCertificate": {
            "name": f"{_AUTHORITY}/certificates/one",
            "reason": "SUPERSEDED",
        },
        "CredentialService.GenerateCertificateSigningRequest": {"key": key, "signer": CHAIR},
        "KeyService.CreateKey": {"key_id": "new", "key": {"key_type": "EC_P256", "protection_level": "TOKEN"}},
        "KeyService.GetKey": {"name": key},
        "KeyService.ListKeys": {},
        "KeyService.DisableKey": {"name": key},
        "KeyService.EnableKey": {"name": key},
        "KeyService.DestroyKey": {"name": key},
        "KeyService.CancelKeyDestruction": {"name": key},
        "KeyService.RotateInstallationKey": {"purpose": "SEALING"},
        "KeyService.ListInstallationKeys": {},
        "OrganizationService.CreateOrganization": {"organization_id": "new", "organization": organization},
        "OrganizationService.UpdateOrganization": {"organization": {**organization, "name": _COMMUNE}},
        "OrganizationService.GetOrganization": {"name": _COMMUNE},
        "OrganizationService.ListOrganizations": {},
        "ProposalService.GetProposal": {"name": names["proposal of security"]},
        "ProposalService.ListProposals": {},
        "ProposalService.ApproveProposal": {
            "name": names["proposal of security"],
            "digest": digest,
            "signature": "AA==",
        },
        "ProposalService.RejectProposal": {"name": names["proposal of security"]},
        "ProposalService.CancelProposal": {"name": names["own of security"]},
        "SignerService.CreateSigner": {"signer_id": "new", "signer": signer},
        "SignerService.GetSigner": {"name": CHAIR},
        "SignerService.ListSigners": {},
        "SignerService.UpdateSigner": {"signer": {**signer, "name": CHAIR}},
        "SignerService.ImportSigners": {"csv": "", "validate_only": True},
        "SignerService.DisableSigner": {"name": CHAIR},
        "SignerService.EnableSigner": {"name": CHAIR},
        "SignerService.FreezeSigner": {"name": CHAIR, "one_time_password": "000000"},
        "SignerService.ListSignatureUses": {"name": CHAIR, "one_time_password": "000000"},
        "SignerService.SetSignatureNotices": {
            "name": CHAIR,
            "one_time_password": "000000",
            "signature_notices": True,
        },
        "SignerService.CreateAuthenticator": {
            "parent": CHAIR,
            "authenticator_id": "mail",
            "authenticator": {"kind": "EMAIL", "address": "chair@phulam.example"},
        },
        "SignerService.ListAuthenticators": {"parent": CHAIR},
        "SignerService.DisableAuthenticator": {"name": f"{CHAIR}/authenticators/phone"},
        "SignerService.CreateEnrolments": {"enrolments": [{"name": f"{CHAIR}/enrolments/tablet", "kind": "TOTP"}]},
        "SignerService.GetEnrolment": {"name": _ENROLMENT},
        "SignerService.ListEnrolments": {"parent": CLERK},
        "SignerService.SendEnrolmentCode": {"name": _ENROLMENT},
        "SignerService.CancelEnrolment": {"name": _ENROLMENT},
        "SignerService.BeginEnrolment": {},
        "SignerService.ConfirmEnrolment": {"confirmation_key": "x", "one_time_password": "000000"},
        "SignerService.UnlockSigner": {"name": CHAIR},
    }


def own_request(callers: Callers, method: str, kind: str) -> dict[str, Any]:
    """Returns what a kind of caller asks instead: what it might have proposed, and its own proposal."""
    if kind == "REGISTRATION_OFFICER":
        own = {
            "ProposalService.ApproveProposal": "proposal of registration",
            "ProposalService.RejectProposal": "proposal of registration",
            "ProposalService.CancelProposal": "own of registration",
        }
        if method in own:
            return {"name": callers.names[own[method]]}
    if kind in ROLES and method == "SignerService.ListSignatureUses":
        return {"one_time_password": ""}
    return {}


def asked(callers: Callers, method: str, kind: str) -> Any:
    made = {**requests(callers)[method], **own_request(callers, method, kind)}
    return ParseDict(made, message_factory.GetMessageClass(METHODS[method].input_type)())


@pytest.mark.requirement("ASVS 5.0.0-6.3.4")
def test_the_table_has_a_line_for_every_rpc_and_knows_every_kind_of_caller(callers: Callers) -> None:
    lines = table()
    assert set(lines) == set(METHODS), "a method without a line, or a line without a method"
    assert set(requests(callers)) == set(METHODS)
    for method, line in lines.items():
        assert set(line) <= {"may", "about_itself"}, method
        assert set(line["may"]) | set(line.get("about_itself", [])) <= set(KINDS), method
        assert line["may"], f"{method}: nobody may call it"
    assert len(lines) >= 70


@pytest.mark.requirement("ASVS 5.0.0-8.1.1", "ASVS 5.0.0-8.2.1")
def test_every_method_is_for_those_whom_the_table_names_and_for_nobody_else(
    callers: Callers, record_property: Any
) -> None:
    lines = table()
    wrong: list[str] = []
    counts: Counter[str] = Counter()
    for method in METHODS:
        for kind in KINDS:
            answered = callers.call(METHODS[method], asked(callers, method, kind), kind)
            denied = answered.reason in {"PERMISSION_DENIED", "UNAUTHENTICATED"}
            if answered.reason in {"INTERNAL", "UNIMPLEMENTED"} or answered.faults:
                wrong.append(f"{method} as {kind}: {answered}")
            if denied is (kind in lines[method]["may"]):
                wrong.append(f"{method} as {kind}: {answered.reason} {answered.text}")
            counts["refused" if denied else "let in"] += 1
    assert not wrong, "\n".join(wrong)
    record_property("count", f"methods {len(METHODS)}, kinds of caller {len(KINDS)}, {dict(counts)}")
    assert counts["let in"] >= 60
    assert counts["refused"] >= 200


@pytest.mark.requirement("ASVS 5.0.0-6.3.4")
def test_who_has_not_shown_who_it_is_may_nothing(callers: Callers, record_property: Any) -> None:
    refused = 0
    for method in METHODS:
        for kind in STRANGERS:
            answered = callers.call(METHODS[method], asked(callers, method, kind), kind)
            assert answered.reason == "UNAUTHENTICATED", f"{method} as {kind}: {answered}"
            refused += 1
    record_property("count", f"methods {len(METHODS)}, strangers {len(STRANGERS)}, refused {refused}")
    assert refused == len(STRANGERS) * len(METHODS)


def test_everybody_whom_the_table_names_may_ask_what_is_in_force_for_oneself(callers: Callers) -> None:
    method = METHODS["AccessService.ShowAccess"]
    allowed = table()[name_of(method)]["about_itself"]
    for kind in KINDS:
        name = OFFICE.name if kind == "CLIENT" else _operator_name(kind)
        request = message_factory.GetMessageClass(method.input_type)(name=name)
        assert (callers.call(method, request, kind).reason == "OK") is (kind in allowed), kind
    for kind in ("MONITOR", "REGISTRATION_OFFICER", "CLIENT"):
        for name in (OPERATOR.name, "clients/other", CHAIR):
            request = message_factory.GetMessageClass(method.input_type)(name=name)
            assert callers.call(method, request, kind).reason == "PERMISSION_DENIED", (kind, name)


def test_forbidden_and_unknown_look_the_same(callers: Callers) -> None:
    """What a caller may not see is refused with the same words whether it is there or not."""
    compared = 0
    for method, descriptor in METHODS.items():
        content = requests(callers)[method]
        if set(content) - {"name"} or "name" not in content:
            continue
        collection, _, identifier = content["name"].rpartition("/")
        there = message_factory.GetMessageClass(descriptor.input_type)(name=content["name"])
        missing = message_factory.GetMessageClass(descriptor.input_type)(name=f"{collection}/{'x' * len(identifier)}")
        for kind in KINDS:
            if kind in table()[method]["may"]:
                continue
            found, absent = (callers.call(descriptor, request, kind) for request in (there, missing))
            assert (found.reason, found.text) == (absent.reason, absent.text), f"{method} as {kind}"
            compared += 1
    assert compared >= 100
