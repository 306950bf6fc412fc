"""The contract `trien.v1` says of every method who has to agree, and of every refusal why."""

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.rpc import code_pb2
from trien.v1 import (
    access_service_pb2,
    audit_service_pb2,
    authorization_service_pb2,
    credential_service_pb2,
    errors_pb2,
    key_service_pb2,
    options_pb2,
    organization_service_pb2,
    proposal_service_pb2,
    signer_service_pb2,
    signing_service_pb2,
)

from trien_client import _errors
from trien_server.core.errors import ALL_REFUSALS
from trien_server.rpc.server import SERVICES
from trien_server.rpc.status import CODES

ROOT = Path(__file__).parents[2]
ERRORS_PAGE = ROOT / "docs" / "errors.md"
MODULES = (
    access_service_pb2,
    audit_service_pb2,
    authorization_service_pb2,
    credential_service_pb2,
    key_service_pb2,
    organization_service_pb2,
    proposal_service_pb2,
    signer_service_pb2,
    signing_service_pb2,
)
READS = ("Get", "List", "Wait", "Fetch", "Show")


def services() -> list[ServiceDescriptor]:
    return [service for module in MODULES for service in module.DESCRIPTOR.services_by_name.values()]


def reasons() -> set[str]:
    return set(errors_pb2.ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}


def test_every_service_of_the_proto_folder_is_looked_at_and_served() -> None:
    sources = sorted(path.name for path in (ROOT / "proto" / "trien" / "v1").glob("*_service.proto"))
    assert sources == sorted(Path(module.DESCRIPTOR.name).name for module in MODULES)
    assert {service.full_name for service in services()} == set(SERVICES)


@pytest.mark.promise("P9")
def test_every_method_says_who_has_to_agree() -> None:
    seen = 0
    for service in services():
        for method in service.methods:
            control = method.GetOptions().Extensions[options_pb2.change_control]
            assert control != options_pb2.CHANGE_CONTROL_UNSPECIFIED, method.full_name
            # That one is a read which uses up a one-time password.
            reads = method.name.startswith(READS) and method.name != "ListSignatureUses"
            assert (control == options_pb2.CHANGE_CONTROL_NONE) == reads, method.full_name
            seen += 1
    assert seen >= 23


@pytest.mark.promise("P9")
def test_what_widens_access_or_gives_a_new_way_to_approve_needs_a_proposal() -> None:
    methods = {method.name: method for service in services() for method in service.methods}
    proposals = {
        name
        for name, method in methods.items()
        if method.GetOptions().Extensions[options_pb2.change_control] == options_pb2.CHANGE_CONTROL_PROPOSAL
    }
    assert proposals == {
        "CreateAuthenticator",
        "CreateClient",
        "CreateCredential",
        "CreateEnrolments",
        "CreateOperator",
        "DestroyKey",
        "EnableClient",
        "EnableKey",
        "EnableOperator",
        "EnableSigner",
        "EraseAuditDetails",
        "IssueCertificate",
        "RenewCredential",
        "ResumeCredential",
        "RotateInstallationKey",
        "UpdateClient",
        "UpdateCredential",
        "UpdateOperator",
        "UpdateOrganization",
        "UpdateSigner",
    }


def test_the_reasons_of_proto_core_edge_and_sdk_are_the_same() -> None:
    refusals = {refusal.reason for refusal in ALL_REFUSALS}
    assert len(ALL_REFUSALS) == len(refusals)
    assert reasons() == refusals | {"INTERNAL"}
    assert set(CODES) == refusals
    assert set(_errors.REFUSALS) == reasons()
    assert len(reasons()) >= 27


def test_the_comments_of_the_reasons_name_the_status_codes() -> None:
    source = (ROOT / "proto" / "trien" / "v1" / "errors.proto").read_text()
    found = re.findall(r"^  // ([A-Z_]+): (?:[^\n]*\n(?:  //[^\n]*\n)*)  ([A-Z_]+) = \d+;", source, re.M)
    documented = {reason: code for code, reason in found}
    expected = {reason: code_pb2.Code.Name(code) for reason, code in CODES.items()} | {"INTERNAL": "INTERNAL"}
    assert documented == expected


@pytest.mark.skipif(not ERRORS_PAGE.exists(), reason="docs/errors.md is not written yet")
def test_the_table_of_the_documentation_is_that_of_the_contract() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `?([A-Z_]+)`? \| ", ERRORS_PAGE.read_text(), re.M)
    documented = dict(rows)
    assert len(rows) == len(documented)
    assert documented == {reason: code_pb2.Code.Name(code) for reason, code in CODES.items()} | {"INTERNAL": "INTERNAL"}
