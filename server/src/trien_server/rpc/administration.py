"""KeyService, CredentialService, SignerService, OrganizationService and AccessService at the gRPC edge."""

from dataclasses import dataclass

import grpc
from trien.v1 import (
    access_service_pb2,
    access_service_pb2_grpc,
    credential_service_pb2,
    credential_service_pb2_grpc,
    key_service_pb2,
    key_service_pb2_grpc,
    organization_service_pb2,
    organization_service_pb2_grpc,
    signer_service_pb2,
    signer_service_pb2_grpc,
)

from trien_server.core.errors import InvalidArgument
from trien_server.core.names import parse_id, parse_name
from trien_server.core.principal import Principal
from trien_server.core.records import AuthenticatorKind, SignerKind
from trien_server.rpc import translate
from trien_server.rpc.calls import Calls
from trien_server.services.authenticators import CreateAuthenticator
from trien_server.services.clients import CreateClient, DisableClient, GetClient
from trien_server.services.credentials import (
    CreateCredential,
    Entitlement,
    GetCredential,
    ListCredentials,
    NewCredential,
)
from trien_server.services.deadline import Deadline
from trien_server.services.generate_signing_request import GenerateSigningRequest
from trien_server.services.keys import CreateKey, GetKey, ListKeys
from trien_server.services.organizations import CreateOrganization, GetOrganization
from trien_server.services.paging import Page
from trien_server.services.signers import CreateSigner, GetSigner, UnlockSigner


@dataclass(frozen=True, kw_only=True)
class KeyServicer(key_service_pb2_grpc.KeyServiceServicer):
    """Translates the methods of KeyService."""

    calls: Calls
    create: CreateKey
    get: GetKey
    list_: ListKeys

    def CreateKey(  # noqa: N802 - gRPC's name
        self, request: key_service_pb2.CreateKeyRequest, context: grpc.ServicerContext
    ) -> key_service_pb2.Key:
        def work(principal: Principal, deadline: Deadline) -> key_service_pb2.Key:
            name = f"keys/{parse_id(request.key_id, field='key_id')}"
            key_type = translate.key_type_in(request.key.key_type, field="key.key_type")
            return translate.key_out(self.create(principal, name=name, key_type=key_type, deadline=deadline))

        return self.calls.run("CreateKey", context, work)

    def GetKey(  # noqa: N802
        self, request: key_service_pb2.GetKeyRequest, context: grpc.ServicerContext
    ) -> key_service_pb2.Key:
        def work(principal: Principal, _: Deadline) -> key_service_pb2.Key:
            return translate.key_out(self.get(principal, parse_name("keys", request.name, field="name")))

        return self.calls.run("GetKey", context, work)

    def ListKeys(  # noqa: N802
        self, request: key_service_pb2.ListKeysRequest, context: grpc.ServicerContext
    ) -> key_service_pb2.ListKeysResponse:
        def work(principal: Principal, _: Deadline) -> key_service_pb2.ListKeysResponse:
            found, token = self.list_(principal, page=Page.parse(request.page_size, request.page_token))
            keys = [translate.key_out(key) for key in found]
            return key_service_pb2.ListKeysResponse(keys=keys, next_page_token=token)

        return self.calls.run("ListKeys", context, work)


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
            return translate.credential_out(self.get(principal, name))

        return self.calls.run("GetCredential", context, work)

    def ListCredentials(  # noqa: N802
        self, request: credential_service_pb2.ListCredentialsRequest, context: grpc.ServicerContext
    ) -> credential_service_pb2.ListCredentialsResponse:
        def work(principal: Principal, _: Deadline) -> credential_service_pb2.ListCredentialsResponse:
            found, token = self.list_(principal, page=Page.parse(request.page_size, request.page_token))
            credentials = [translate.credential_out(view) for view in found]
            return credential_service_pb2.ListCredentialsResponse(credentials=credentials, next_page_token=token)

        return self.calls.run("ListCredentials", context, work)

    def CreateCredential(  # noqa: N802
        self, request: credential_service_pb2.CreateCredentialRequest, context: grpc.ServicerContext
    ) -> credential_service_pb2.Credential:
        def work(principal: Principal, deadline: Deadline) -> credential_service_pb2.Credential:
            return translate.credential_out(self.create(principal, _new_credential(request), deadline))

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
        start = translate.time_in(activator.start_time, field=field) if activator.HasField("start_time") else None
        end = translate.time_in(activator.end_time, field=field) if activator.HasField("end_time") else None
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


@dataclass(frozen=True, kw_only=True)
class SignerServicer(signer_service_pb2_grpc.SignerServiceServicer):
    """Translates the methods of SignerService."""

    calls: Calls
    create: CreateSigner
    get: GetSigner
    unlock: UnlockSigner
    create_authenticator: CreateAuthenticator

    def CreateSigner(  # noqa: N802
        self, request: signer_service_pb2.CreateSignerRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.Signer:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.Signer:
            wanted = request.signer
            kinds = {
                signer_service_pb2.Signer.PERSON: SignerKind.PERSON,
                signer_service_pb2.Signer.AGENCY: SignerKind.AGENCY,
            }
            if wanted.kind not in kinds:
                raise InvalidArgument("signer.kind", "required, PERSON or AGENCY")
            created = self.create(
                principal,
                name=f"signers/{parse_id(request.signer_id, field='signer_id')}",
                display_name=wanted.display_name,
                kind=kinds[wanted.kind],
                organization=parse_name("organizations", wanted.organization, field="signer.organization"),
                position=wanted.position,
                deadline=deadline,
            )
            return translate.signer_out(created)

        return self.calls.run("CreateSigner", context, work)

    def GetSigner(  # noqa: N802
        self, request: signer_service_pb2.GetSignerRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.Signer:
        def work(principal: Principal, _: Deadline) -> signer_service_pb2.Signer:
            return translate.signer_out(self.get(principal, parse_name("signers", request.name, field="name")))

        return self.calls.run("GetSigner", context, work)

    def UnlockSigner(  # noqa: N802
        self, request: signer_service_pb2.UnlockSignerRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.Signer:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.Signer:
            name = parse_name("signers", request.name, field="name")
            return translate.signer_out(self.unlock(principal, name, deadline=deadline))

        return self.calls.run("UnlockSigner", context, work)

    def CreateAuthenticator(  # noqa: N802
        self, request: signer_service_pb2.CreateAuthenticatorRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.CreateAuthenticatorResponse:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.CreateAuthenticatorResponse:
            wanted = request.authenticator
            parent = parse_name("signers", request.parent, field="parent")
            identifier = parse_id(request.authenticator_id, field="authenticator_id")
            kinds = {signer_service_pb2.Authenticator.Kind.Value(kind.value): kind for kind in AuthenticatorKind}
            if wanted.kind not in kinds:
                raise InvalidArgument("authenticator.kind", "required, TOTP, HOTP, OCRA, SMS or EMAIL")
            hashes = {0: "", 1: "SHA1", 2: "SHA256", 3: "SHA512"}
            if wanted.hash not in hashes:
                raise InvalidArgument("authenticator.hash", "expected SHA1, SHA256 or SHA512")
            authenticator, uri = self.create_authenticator(
                principal,
                name=f"{parent}/authenticators/{identifier}",
                signer=parent,
                kind=kinds[wanted.kind],
                digits=wanted.digits,
                hash_function=hashes[wanted.hash],
                address=wanted.address,
                deadline=deadline,
            )
            return signer_service_pb2.CreateAuthenticatorResponse(
                authenticator=translate.authenticator_out(authenticator), otpauth_uri=uri.reveal().decode()
            )

        return self.calls.run("CreateAuthenticator", context, work)


@dataclass(frozen=True, kw_only=True)
class OrganizationServicer(organization_service_pb2_grpc.OrganizationServiceServicer):
    """Translates the methods of OrganizationService."""

    calls: Calls
    create: CreateOrganization
    get: GetOrganization

    def CreateOrganization(  # noqa: N802
        self, request: organization_service_pb2.CreateOrganizationRequest, context: grpc.ServicerContext
    ) -> organization_service_pb2.Organization:
        def work(principal: Principal, deadline: Deadline) -> organization_service_pb2.Organization:
            wanted = request.organization
            start, end = (
                translate.time_in(getattr(wanted, field), field=f"organization.{field}")
                if wanted.HasField(field)
                else None
                for field in ("start_time", "end_time")
            )
            created = self.create(
                principal,
                name=f"organizations/{parse_id(request.organization_id, field='organization_id')}",
                display_name=wanted.display_name,
                parent=parse_name("organizations", wanted.parent, field="organization.parent")
                if wanted.parent
                else None,
                start_time=start,
                end_time=end,
                deadline=deadline,
            )
            return translate.organization_out(created)

        return self.calls.run("CreateOrganization", context, work)

    def GetOrganization(  # noqa: N802
        self, request: organization_service_pb2.GetOrganizationRequest, context: grpc.ServicerContext
    ) -> organization_service_pb2.Organization:
        def work(principal: Principal, _: Deadline) -> organization_service_pb2.Organization:
            name = parse_name("organizations", request.name, field="name")
            return translate.organization_out(self.get(principal, name))

        return self.calls.run("GetOrganization", context, work)


@dataclass(frozen=True, kw_only=True)
class AccessServicer(access_service_pb2_grpc.AccessServiceServicer):
    """Translates the methods of AccessService."""

    calls: Calls
    create: CreateClient
    get: GetClient
    disable: DisableClient

    def CreateClient(  # noqa: N802
        self, request: access_service_pb2.CreateClientRequest, context: grpc.ServicerContext
    ) -> access_service_pb2.CreateClientResponse:
        def work(principal: Principal, deadline: Deadline) -> access_service_pb2.CreateClientResponse:
            client, token = self.create(
                principal,
                name=f"clients/{parse_id(request.client_id, field='client_id')}",
                display_name=request.client.display_name,
                certificate_fingerprint=request.client.certificate_fingerprint or None,
                deadline=deadline,
            )
            return access_service_pb2.CreateClientResponse(
                client=translate.client_out(client),
                bearer_token="" if token is None else token.reveal().decode(),
            )

        return self.calls.run("CreateClient", context, work)

    def GetClient(  # noqa: N802
        self, request: access_service_pb2.GetClientRequest, context: grpc.ServicerContext
    ) -> access_service_pb2.Client:
        def work(principal: Principal, _: Deadline) -> access_service_pb2.Client:
            return translate.client_out(self.get(principal, parse_name("clients", request.name, field="name")))

        return self.calls.run("GetClient", context, work)

    def DisableClient(  # noqa: N802
        self, request: access_service_pb2.DisableClientRequest, context: grpc.ServicerContext
    ) -> access_service_pb2.Client:
        def work(principal: Principal, deadline: Deadline) -> access_service_pb2.Client:
            name = parse_name("clients", request.name, field="name")
            return translate.client_out(self.disable(principal, name, deadline=deadline))

        return self.calls.run("DisableClient", context, work)
