"""CredentialService at the gRPC edge."""

from dataclasses import dataclass

import grpc
from trien.v1 import (
    credential_service_pb2,
    credential_service_pb2_grpc,
    proposal_service_pb2,
    signer_service_pb2,
)

from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.names import parse_id, parse_name
from trien_server.core.principal import Principal
from trien_server.rpc import translate
from trien_server.rpc.calls import Calls
from trien_server.rpc.proposals import proposal_out
from trien_server.services.credentials import (
    CreateCredential,
    CredentialView,
    Entitlement,
    GetCredential,
    ListCredentials,
    NewCredential,
)
from trien_server.services.deadline import Deadline
from trien_server.services.generate_signing_request import GenerateSigningRequest
from trien_server.services.paging import Page


@dataclass(frozen=True, kw_only=True)
class CredentialServicer(credential_service_pb2_grpc.CredentialServiceServicer):
    """Translates the methods of CredentialService."""

    calls: Calls
    create: CreateCredential
    get: GetCredential
    list_: ListCredentials
    generate_signing_request: GenerateSigningRequest

    def GetCredential(  # noqa: N802
        self, request: credential_service_pb2.GetCredentialRequest, context: grpc.ServicerContext
    ) -> credential_service_pb2.Credential:
        def work(principal: Principal, _: Deadline) -> credential_service_pb2.Credential:
            name = parse_name("credentials", request.name, field="name")
            return credential_out(self.get(principal, name))

        return self.calls.run("GetCredential", context, work)

    def ListCredentials(  # noqa: N802
        self, request: credential_service_pb2.ListCredentialsRequest, context: grpc.ServicerContext
    ) -> credential_service_pb2.ListCredentialsResponse:
        def work(principal: Principal, _: Deadline) -> credential_service_pb2.ListCredentialsResponse:
            found, token = self.list_(principal, page=Page.parse(request.page_size, request.page_token))
            credentials = [credential_out(view) for view in found]
            return credential_service_pb2.ListCredentialsResponse(credentials=credentials, next_page_token=token)

        return self.calls.run("ListCredentials", context, work)

    def CreateCredential(  # noqa: N802
        self, request: credential_service_pb2.CreateCredentialRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            return proposal_out(self.create(principal, _new_credential(request), deadline))

        return self.calls.run("CreateCredential", context, work)

    def GenerateCertificateSigningRequest(  # noqa: N802
        self, request: credential_service_pb2.GenerateCertificateSigningRequestRequest, context: grpc.ServicerContext
    ) -> credential_service_pb2.GenerateCertificateSigningRequestResponse:
        def work(
            principal: Principal, deadline: Deadline
        ) -> credential_service_pb2.GenerateCertificateSigningRequestResponse:
            encoded = self.generate_signing_request(
                principal,
                key=parse_name("keys", request.key, field="key"),
                signer=parse_name("signers", request.signer, field="signer"),
                deadline=deadline,
            )
            return credential_service_pb2.GenerateCertificateSigningRequestResponse(certificate_signing_request=encoded)

        return self.calls.run("GenerateCertificateSigningRequest", context, work)


def _new_credential(request: credential_service_pb2.CreateCredentialRequest) -> NewCredential:
    wanted = request.credential
    activators = []
    for position, activator in enumerate(wanted.activators):
        field = f"credential.activators[{position}]"
        start = translate.optional_time_in(activator, "start_time", field=field)
        end = translate.optional_time_in(activator, "end_time", field=field)
        signer = parse_name("signers", activator.signer, field=f"{field}.signer")
        activators.append(Entitlement(signer=signer, start_time=start, end_time=end))
    return NewCredential(
        name=f"credentials/{parse_id(request.credential_id, field='credential_id')}",
        key=parse_name("keys", wanted.key, field="credential.key"),
        signer=parse_name("signers", wanted.signer, field="credential.signer"),
        display_name=wanted.display_name,
        certificate_chain=tuple(wanted.certificate_chain),
        activators=tuple(activators),
        clients=tuple(parse_name("clients", client, field="credential.clients") for client in wanted.clients),
        max_items=wanted.max_items,
        client_collected_otp=wanted.client_collected_otp_allowed,
    )


def credential_out(view: CredentialView) -> credential_service_pb2.Credential:
    credential = view.credential
    activators = []
    for activator in view.activators:
        message = credential_service_pb2.Activator(signer=activator.signer)
        translate.set_time(message.start_time, activator.start_time)
        translate.set_time(message.end_time, activator.end_time)
        activators.append(message)
    return credential_service_pb2.Credential(
        name=credential.name,
        key=credential.key,
        signer=credential.signer,
        display_name=credential.display_name,
        certificate_chain=credential.certificate_chain,
        activators=activators,
        clients=view.clients,
        max_items=credential.max_items,
        client_collected_otp_allowed=credential.client_collected_otp,
        state=credential_service_pb2.Credential.State.Value(credential.state.value),
        key_type=translate.key_type_out(view.key.key_type),
        algorithms=[translate.algorithm_out(found) for found in SignatureAlgorithm if found.fits(view.key.key_type)],
        create_time=translate.time_out(credential.create_time),
        authenticator_kinds=[
            signer_service_pb2.Authenticator.Kind.Value(kind) for kind in credential.authenticator_kinds
        ],
        hours=credential.hours,
        revocation_policy=credential_service_pb2.Credential.RevocationPolicy.Value(credential.revocation_policy.value),
    )
