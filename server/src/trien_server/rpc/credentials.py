"""CredentialService at the gRPC edge."""

from dataclasses import dataclass

import grpc
from trien.v1 import credential_service_pb2, credential_service_pb2_grpc, proposal_service_pb2

from trien_server.core.names import parse_name
from trien_server.core.ports import Clock
from trien_server.core.principal import Principal
from trien_server.rpc import credential_messages, issued_certificates
from trien_server.rpc.calls import Calls
from trien_server.rpc.credential_messages import credential_out
from trien_server.rpc.proposals import proposal_out
from trien_server.services.credential_changes import RenewCredential, RestrictCredential, UpdateCredential
from trien_server.services.credential_states import ResumeCredential, RevokeCredential, SuspendCredential
from trien_server.services.credentials import CreateCredential, CredentialView, GetCredential, ListCredentials
from trien_server.services.deadline import Deadline
from trien_server.services.generate_signing_request import GenerateSigningRequest
from trien_server.services.issued_certificates import (
    GetIssuedCertificate,
    IssueCertificate,
    ListIssuedCertificates,
    RevokeIssuedCertificate,
)
from trien_server.services.paging import Page


@dataclass(frozen=True, kw_only=True)
class CredentialServicer(credential_service_pb2_grpc.CredentialServiceServicer):
    """Translates the methods of CredentialService."""

    calls: Calls
    clock: Clock
    create: CreateCredential
    get: GetCredential
    list_: ListCredentials
    renew: RenewCredential
    update: UpdateCredential
    restrict: RestrictCredential
    suspend: SuspendCredential
    resume: ResumeCredential
    revoke: RevokeCredential
    generate_signing_request: GenerateSigningRequest
    issue_certificate: IssueCertificate
    get_issued: GetIssuedCertificate
    list_issued: ListIssuedCertificates
    revoke_issued: RevokeIssuedCertificate

    def GetCredential(  # noqa: N802
        self, request: credential_service_pb2.GetCredentialRequest, context: grpc.ServicerContext
    ) -> credential_service_pb2.Credential:
        def work(principal: Principal, _: Deadline) -> credential_service_pb2.Credential:
            return self._out(self.get(principal, _name_of(request.name)))

        return self.calls.run("GetCredential", context, work)

    def ListCredentials(  # noqa: N802
        self, request: credential_service_pb2.ListCredentialsRequest, context: grpc.ServicerContext
    ) -> credential_service_pb2.ListCredentialsResponse:
        def work(principal: Principal, _: Deadline) -> credential_service_pb2.ListCredentialsResponse:
            found, token = self.list_(principal, page=Page.parse(request.page_size, request.page_token))
            credentials = [self._out(view) for view in found]
            return credential_service_pb2.ListCredentialsResponse(credentials=credentials, next_page_token=token)

        return self.calls.run("ListCredentials", context, work)

    def CreateCredential(  # noqa: N802
        self, request: credential_service_pb2.CreateCredentialRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            return proposal_out(self.create(principal, credential_messages.new_credential_in(request), deadline))

        return self.calls.run("CreateCredential", context, work)

    def RenewCredential(  # noqa: N802
        self, request: credential_service_pb2.RenewCredentialRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            return proposal_out(self.renew(principal, credential_messages.renewal_in(request), deadline=deadline))

        return self.calls.run("RenewCredential", context, work)

    def UpdateCredential(  # noqa: N802
        self, request: credential_service_pb2.UpdateCredentialRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            return proposal_out(
                self.update(principal, credential_messages.terms_in(request.credential), deadline=deadline)
            )

        return self.calls.run("UpdateCredential", context, work)

    def RestrictCredential(  # noqa: N802
        self, request: credential_service_pb2.RestrictCredentialRequest, context: grpc.ServicerContext
    ) -> credential_service_pb2.Credential:
        def work(principal: Principal, deadline: Deadline) -> credential_service_pb2.Credential:
            return self._out(
                self.restrict(principal, credential_messages.terms_in(request.credential), deadline=deadline)
            )

        return self.calls.run("RestrictCredential", context, work)

    def SuspendCredential(  # noqa: N802
        self, request: credential_service_pb2.SuspendCredentialRequest, context: grpc.ServicerContext
    ) -> credential_service_pb2.Credential:
        def work(principal: Principal, deadline: Deadline) -> credential_service_pb2.Credential:
            return self._out(self.suspend(principal, _name_of(request.name), deadline=deadline))

        return self.calls.run("SuspendCredential", context, work)

    def ResumeCredential(  # noqa: N802
        self, request: credential_service_pb2.ResumeCredentialRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            return proposal_out(self.resume(principal, _name_of(request.name), deadline=deadline))

        return self.calls.run("ResumeCredential", context, work)

    def RevokeCredential(  # noqa: N802
        self, request: credential_service_pb2.RevokeCredentialRequest, context: grpc.ServicerContext
    ) -> credential_service_pb2.Credential:
        def work(principal: Principal, deadline: Deadline) -> credential_service_pb2.Credential:
            reason = credential_messages.reason_in(request.reason)
            return self._out(self.revoke(principal, _name_of(request.name), reason=reason, deadline=deadline))

        return self.calls.run("RevokeCredential", context, work)

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

    def IssueCertificate(  # noqa: N802
        self, request: credential_service_pb2.IssueCertificateRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            proposed = self.issue_certificate(
                principal,
                key=parse_name("keys", request.key, field="key"),
                signer=parse_name("signers", request.signer, field="signer"),
                valid_days=request.valid_days,
                deadline=deadline,
            )
            return proposal_out(proposed)

        return self.calls.run("IssueCertificate", context, work)

    def GetIssuedCertificate(  # noqa: N802
        self, request: credential_service_pb2.GetIssuedCertificateRequest, context: grpc.ServicerContext
    ) -> credential_service_pb2.IssuedCertificate:
        def work(principal: Principal, _: Deadline) -> credential_service_pb2.IssuedCertificate:
            name = parse_name("issuedCertificates", request.name, field="name")
            return issued_certificates.issued_out(self.get_issued(principal, name))

        return self.calls.run("GetIssuedCertificate", context, work)

    def ListIssuedCertificates(  # noqa: N802
        self, request: credential_service_pb2.ListIssuedCertificatesRequest, context: grpc.ServicerContext
    ) -> credential_service_pb2.ListIssuedCertificatesResponse:
        def work(principal: Principal, _: Deadline) -> credential_service_pb2.ListIssuedCertificatesResponse:
            found, token = self.list_issued(principal, page=Page.parse(request.page_size, request.page_token))
            issued = [issued_certificates.issued_out(view) for view in found]
            return credential_service_pb2.ListIssuedCertificatesResponse(
                issued_certificates=issued, next_page_token=token
            )

        return self.calls.run("ListIssuedCertificates", context, work)

    def RevokeIssuedCertificate(  # noqa: N802
        self, request: credential_service_pb2.RevokeIssuedCertificateRequest, context: grpc.ServicerContext
    ) -> credential_service_pb2.IssuedCertificate:
        def work(principal: Principal, deadline: Deadline) -> credential_service_pb2.IssuedCertificate:
            name = parse_name("issuedCertificates", request.name, field="name")
            reason = issued_certificates.reason_in(request.reason)
            return issued_certificates.issued_out(self.revoke_issued(principal, name, reason=reason, deadline=deadline))

        return self.calls.run("RevokeIssuedCertificate", context, work)

    def _out(self, view: CredentialView) -> credential_service_pb2.Credential:
        return credential_out(view, at=self.clock.now())


def _name_of(value: str) -> str:
    return parse_name("credentials", value, field="name")
