"""Builds the edges: gRPC, and the web page."""

from trien.v1 import (
    access_service_pb2_grpc,
    audit_service_pb2_grpc,
    authorization_service_pb2_grpc,
    credential_service_pb2_grpc,
    key_service_pb2_grpc,
    organization_service_pb2_grpc,
    proposal_service_pb2_grpc,
    signer_service_pb2_grpc,
    signing_service_pb2_grpc,
)

from trien_server.core.ports import Clock, Randomness
from trien_server.core.tls import TlsIdentity
from trien_server.rpc.access import AccessServicer
from trien_server.rpc.admission import Admission
from trien_server.rpc.audit import AuditServicer
from trien_server.rpc.authorizations import AuthorizationServicer
from trien_server.rpc.calls import CallLog, Calls
from trien_server.rpc.credentials import CredentialServicer
from trien_server.rpc.enrolments import EnrolmentUseCases
from trien_server.rpc.identity import Identify
from trien_server.rpc.keys import KeyServicer
from trien_server.rpc.organizations import OrganizationServicer
from trien_server.rpc.proposals import ProposalServicer
from trien_server.rpc.receipts import ProofUseCases
from trien_server.rpc.server import GrpcServer, Limits
from trien_server.rpc.signer_decisions import DecisionUseCases
from trien_server.rpc.signers import SignerServicer
from trien_server.rpc.signing import SigningServicer
from trien_server.wiring.use_cases import UseCases


def build_grpc_server(
    use: UseCases,
    *,
    clock: Clock,
    randomness: Randomness,
    log: CallLog,
    tls: TlsIdentity,
    limits: Limits,
    token_address: str,
    certificate_address: str,
    reflect: bool,
    shared_ports: bool = False,
) -> GrpcServer:
    """Puts the use cases behind gRPC. Raises `OSError` when a port is taken."""
    calls = Calls(clock=clock, randomness=randomness, log=log)
    identify = Identify(authenticate=use.authenticate)
    signing = SigningServicer(calls=calls, sign_digests=use.sign_digests)
    authorizations = AuthorizationServicer(
        calls=calls,
        create=use.create_authorization,
        get=use.get_authorization,
        list_=use.list_authorizations,
        wait=use.wait_authorization,
        approve=use.approve_authorizations,
        deny=use.deny_authorization,
        fetch_activation_data=use.fetch_activation_data,
        create_challenge=use.create_challenge,
        send_one_time_password=use.send_one_time_password,
    )
    credentials = CredentialServicer(
        calls=calls,
        clock=clock,
        create=use.create_credential,
        get=use.get_credential,
        list_=use.list_credentials,
        renew=use.renew_credential,
        update=use.update_credential,
        restrict=use.restrict_credential,
        suspend=use.suspend_credential,
        resume=use.resume_credential,
        revoke=use.revoke_credential,
        generate_signing_request=use.generate_signing_request,
        issue_certificate=use.own_ca.issue,
        get_issued=use.own_ca.get,
        list_issued=use.own_ca.list_,
        revoke_issued=use.own_ca.revoke,
    )
    keys = KeyServicer(
        calls=calls,
        create=use.create_key,
        get=use.get_key,
        list_=use.list_keys,
        disable=use.disable_key,
        enable=use.enable_key,
        destroy=use.destroy_key,
        cancel_destruction=use.cancel_key_destruction,
        rotate_installation_key=use.rotate_installation_key,
        list_installation_keys=use.list_installation_keys,
    )
    signers = SignerServicer(
        calls=calls,
        create=use.create_signer,
        get=use.get_signer,
        list_=use.list_signers,
        update=use.update_signer,
        import_=use.import_signers,
        disable=use.disable_signer,
        enable=use.enable_signer,
        unlock=use.unlock_signer,
        enrolments=EnrolmentUseCases(
            create_authenticator=use.create_authenticator,
            list_authenticators=use.list_authenticators,
            disable_authenticator=use.disable_authenticator,
            create=use.create_enrolments,
            get=use.get_enrolment,
            list_=use.list_enrolments,
            send_code=use.send_enrolment_code,
            cancel=use.cancel_enrolment,
            begin=use.begin_enrolment,
            confirm=use.confirm_enrolment,
        ),
        decisions=DecisionUseCases(
            freeze=use.freeze_signer, set_notices=use.set_signature_notices, list_uses=use.list_signature_uses
        ),
    )
    organizations = OrganizationServicer(
        calls=calls,
        create=use.create_organization,
        get=use.get_organization,
        list_=use.list_organizations,
        update=use.update_organization,
    )
    proposals = ProposalServicer(
        calls=calls, clock=clock, proposals=use.proposals, get=use.get_proposal, list_=use.list_proposals
    )
    access = AccessServicer(
        calls=calls,
        create_client=use.create_client,
        update_client=use.update_client,
        restrict_client=use.restrict_client,
        get_client=use.get_client,
        list_clients=use.list_clients,
        disable_client=use.disable_client,
        enable_client=use.enable_client,
        create_operator=use.create_operator,
        update_operator=use.update_operator,
        get_operator=use.get_operator,
        list_operators=use.list_operators,
        disable_operator=use.disable_operator,
        enable_operator=use.enable_operator,
        show_access=use.show_access,
    )
    audit = AuditServicer(
        calls=calls,
        get_entry=use.get_audit_entry,
        list_entries=use.list_audit_entries,
        get_evidence=use.get_evidence,
        erase=use.erase_audit_details,
        proofs=ProofUseCases(
            get_receipt=use.get_receipt,
            get_checkpoint=use.get_checkpoint,
            get_consistency_proof=use.get_consistency_proof,
            get_log_keys=use.get_log_keys,
        ),
    )
    return GrpcServer(
        register=[
            lambda server: signing_service_pb2_grpc.add_SigningServiceServicer_to_server(signing, server),
            lambda server: authorization_service_pb2_grpc.add_AuthorizationServiceServicer_to_server(
                authorizations, server
            ),
            lambda server: credential_service_pb2_grpc.add_CredentialServiceServicer_to_server(credentials, server),
            lambda server: key_service_pb2_grpc.add_KeyServiceServicer_to_server(keys, server),
            lambda server: signer_service_pb2_grpc.add_SignerServiceServicer_to_server(signers, server),
            lambda server: organization_service_pb2_grpc.add_OrganizationServiceServicer_to_server(
                organizations, server
            ),
            lambda server: proposal_service_pb2_grpc.add_ProposalServiceServicer_to_server(proposals, server),
            lambda server: access_service_pb2_grpc.add_AccessServiceServicer_to_server(access, server),
            lambda server: audit_service_pb2_grpc.add_AuditServiceServicer_to_server(audit, server),
        ],
        admission=Admission(identify=identify, rates=use.client_rates, clock=clock, threads=limits.threads),
        tls=tls,
        limits=limits,
        token_address=token_address,
        certificate_address=certificate_address,
        reflect=reflect,
        shared_ports=shared_ports,
    )
