"""Builds everything, once, by keyword."""

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta, tzinfo
from functools import partial
from zoneinfo import ZoneInfo

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.internal import api_implementation
from trien.v1 import (
    access_service_pb2_grpc,
    authorization_service_pb2_grpc,
    credential_service_pb2_grpc,
    key_service_pb2_grpc,
    organization_service_pb2_grpc,
    proposal_service_pb2_grpc,
    signer_service_pb2_grpc,
    signing_service_pb2_grpc,
)

from trien_server.config import (
    BadConfiguration,
    CaSection,
    Config,
    EmailSection,
    RevocationSection,
    SmsSection,
    senders_of,
    waiters_of,
)
from trien_server.core.delivered_text import Language
from trien_server.core.errors import Refusal
from trien_server.core.notice_text import NoticeTexts
from trien_server.core.ports import Clock, Delivery, Hsm, Randomness, Report, RevocationSource, Store
from trien_server.core.records import AuthenticatorKind
from trien_server.core.tls import TlsIdentity, TlsNotUsable
from trien_server.delivery import SmtpDelivery, SmtpTls, WebhookDelivery, verifying_context
from trien_server.host.clock import SystemClock
from trien_server.host.descriptors import allow_descriptors
from trien_server.host.files import read_secret
from trien_server.host.log import Log
from trien_server.host.published_lists import ListFolder
from trien_server.host.randomness import SystemRandomness
from trien_server.host.tls_watch import TlsFiles, TlsWatch
from trien_server.hsm import Pkcs11Hsm
from trien_server.revocation import Network, NetworkRevocationSource
from trien_server.rpc.access import AccessServicer
from trien_server.rpc.admission import Admission
from trien_server.rpc.authorizations import AuthorizationServicer
from trien_server.rpc.calls import CallLog, Calls
from trien_server.rpc.credentials import CredentialServicer
from trien_server.rpc.enrolments import EnrolmentUseCases
from trien_server.rpc.identity import Identify
from trien_server.rpc.keys import KeyServicer
from trien_server.rpc.organizations import OrganizationServicer
from trien_server.rpc.proposals import ProposalServicer
from trien_server.rpc.server import MOST_CONNECTIONS, PORTS, GrpcServer, Limits
from trien_server.rpc.signer_decisions import DecisionUseCases
from trien_server.rpc.signers import SignerServicer
from trien_server.rpc.signing import SigningServicer
from trien_server.services.approve_authorizations import ApproveAuthorizations
from trien_server.services.authenticate import Authenticate
from trien_server.services.authenticators import CreateAuthenticator, DisableAuthenticator, ListAuthenticators
from trien_server.services.certificate_checks import CertificateChecks, RevocationSettings
from trien_server.services.challenge_answers import ChallengeAnswers
from trien_server.services.changes import Changes
from trien_server.services.client_changes import RestrictClient, UpdateClient
from trien_server.services.client_rates import ClientRates
from trien_server.services.clients import CreateClient, DisableClient, EnableClient, GetClient, ListClients
from trien_server.services.clock_guard import ClockGuard
from trien_server.services.create_authorization import CreateAuthorization
from trien_server.services.create_challenge import CreateChallenge
from trien_server.services.credential_changes import RenewCredential, RestrictCredential, UpdateCredential
from trien_server.services.credential_states import ResumeCredential, RevokeCredential, SuspendCredential
from trien_server.services.credentials import CreateCredential, GetCredential, ListCredentials
from trien_server.services.deny_authorization import DenyAuthorization
from trien_server.services.enrolling import BeginEnrolment, ConfirmEnrolment, OpenEnrolment
from trien_server.services.enrolment_codes import SendEnrolmentCode
from trien_server.services.enrolments import CancelEnrolment, CreateEnrolments, GetEnrolment, ListEnrolments
from trien_server.services.expiry_notices import Expiring, ExpiryNotices, first_to_expire
from trien_server.services.generate_signing_request import GenerateSigningRequest
from trien_server.services.import_signers import ImportSigners
from trien_server.services.installation import CheckStart, CreateInstallation
from trien_server.services.installation_keys import ListInstallationKeys, RotateInstallationKey
from trien_server.services.integrity import CheckIntegrity
from trien_server.services.integrity_rules import RULES
from trien_server.services.key_destruction import KeyDestruction
from trien_server.services.key_generation import CreateKey, KeyGeneration
from trien_server.services.key_lifecycle import CancelKeyDestruction, DestroyKey, DisableKey, EnableKey
from trien_server.services.key_rotation import KeyRotation
from trien_server.services.keys import GetKey, ListKeys
from trien_server.services.leases import Leases
from trien_server.services.notices import Notices
from trien_server.services.one_time_passwords import OneTimePasswords
from trien_server.services.operators import (
    CreateOperator,
    DisableOperator,
    EnableOperator,
    GetOperator,
    ListOperators,
    UpdateOperator,
)
from trien_server.services.organizations import (
    CreateOrganization,
    GetOrganization,
    ListOrganizations,
    UpdateOrganization,
)
from trien_server.services.own_ca import OwnCa, OwnCaSettings
from trien_server.services.proposals import Proposals
from trien_server.services.read_authorizations import (
    FetchActivationData,
    GetAuthorization,
    ListAuthorizations,
    WaitAuthorization,
)
from trien_server.services.read_proposals import GetProposal, ListProposals
from trien_server.services.seals import Seals
from trien_server.services.send_one_time_password import SendOneTimePassword
from trien_server.services.show_access import ShowAccess
from trien_server.services.sign_digests import SignDigests
from trien_server.services.signature_uses import ListSignatureUses
from trien_server.services.signatures import Signatures
from trien_server.services.signer_decisions import FreezeSigner, SetSignatureNotices, SignerDecisions
from trien_server.services.signers import (
    CreateSigner,
    DisableSigner,
    EnableSigner,
    GetSigner,
    ListSigners,
    UnlockSigner,
    UpdateSigner,
)
from trien_server.services.signing_grants import SigningGrants
from trien_server.services.signing_queue import SigningQueue
from trien_server.services.transactions import Transactions
from trien_server.store.urls import is_postgresql, open_store
from trien_server.web.app import WebApp
from trien_server.web.enrolment import EnrolmentPage
from trien_server.web.pages import Pages
from trien_server.web.rates import Rates
from trien_server.web.server import WebServer

_CHECK_SECONDS = 1.0
_REOPEN_SECONDS = 30.0
_OWN_DESCRIPTORS = 512
"""What the process keeps for itself: database, token, log, and gRPC's own."""
NO_LISTS = OwnCaSettings()
ASK_NOBODY = RevocationSettings()
_REMEMBERED_IN_BACKGROUND = 4096
_BEARER_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")


class UseCases:
    """All use cases over the same ports."""

    def __init__(
        self,
        *,
        hsm: Hsm,
        store: Store,
        clock: Clock,
        randomness: Randomness,
        report: Report,
        issuer: str,
        places: int,
        admitted: int,
        waiters: int,
        senders: int,
        deliveries: Mapping[AuthenticatorKind, Delivery],
        language: Language,
        zone: tzinfo,
        public_url: str | None,
        replacement_wait: timedelta,
        own_ca: OwnCaSettings = NO_LISTS,
        revocation: RevocationSettings = ASK_NOBODY,
        of_the_host: Callable[[], Sequence[Expiring]] = tuple,
    ) -> None:
        seals = Seals(hsm=hsm, report=report)
        clock_guard = ClockGuard(store=store, clock=clock, report=report)
        transactions = Transactions(
            store=store, seals=seals, clock=clock, clock_guard=clock_guard, randomness=randomness, report=report
        )
        changes = Changes(transactions=transactions, seals=seals)
        texts = NoticeTexts(service=issuer, language=language, public_url=public_url, zone=zone)
        self.notices = Notices(
            deliveries=deliveries, texts=texts, transactions=transactions, randomness=randomness, report=report
        )
        passwords = OneTimePasswords(hsm=hsm, seals=seals)
        queue = SigningQueue(places=places, admitted=admitted)
        grants = SigningGrants(seals=seals, one_time_passwords=passwords, randomness=randomness, zone=zone)
        signatures = Signatures(
            hsm=hsm, queue=queue, transactions=transactions, clock=clock, randomness=randomness, report=report
        )
        proposals = Proposals(transactions=transactions, changes=changes, clock=clock, randomness=randomness)
        self.proposals = proposals
        self.get_proposal = GetProposal(transactions=transactions)
        self.list_proposals = ListProposals(transactions=transactions)
        self.seals = seals
        self.transactions = transactions
        self.changes = changes
        self.authenticate = Authenticate(transactions=transactions, clock=clock)
        self.client_rates = ClientRates(clock=clock)
        self.clock_guard = clock_guard
        self.check_integrity = CheckIntegrity(store=store, seals=seals, hsm=hsm, rules=RULES)
        self.check_start = CheckStart(
            hsm=hsm, seals=seals, transactions=transactions, clock_guard=clock_guard, report=report
        )
        self.create_installation = CreateInstallation(changes=changes, clock=clock, randomness=randomness)
        self.sign_digests = SignDigests(
            hsm=hsm,
            transactions=transactions,
            grants=grants,
            signatures=signatures,
            queue=queue,
            rates=self.client_rates,
            notices=self.notices,
            clock=clock,
            report=report,
        )
        self.create_authorization = CreateAuthorization(transactions=transactions, clock=clock, randomness=randomness)
        self.get_authorization = GetAuthorization(transactions=transactions)
        self.list_authorizations = ListAuthorizations(transactions=transactions)
        self.wait_authorization = WaitAuthorization(transactions=transactions, clock=clock, waiters=waiters)
        self.approve_authorizations = ApproveAuthorizations(
            transactions=transactions,
            one_time_passwords=passwords,
            challenge_answers=ChallengeAnswers(hsm=hsm, seals=seals),
            clock=clock,
            randomness=randomness,
            zone=zone,
        )
        self.create_challenge = CreateChallenge(
            transactions=transactions, clock=clock, randomness=randomness, zone=zone
        )
        self.send_one_time_password = SendOneTimePassword(
            seals=seals,
            transactions=transactions,
            deliveries=deliveries,
            clock=clock,
            randomness=randomness,
            zone=zone,
            service=issuer,
            language=language,
            senders=senders,
        )
        self.deny_authorization = DenyAuthorization(transactions=transactions)
        self.fetch_activation_data = FetchActivationData(transactions=transactions, seals=seals, clock=clock)
        leases = Leases(transactions=transactions, randomness=randomness, report=report)
        self.key_generation = KeyGeneration(
            hsm=hsm,
            transactions=transactions,
            changes=changes,
            leases=leases,
            clock=clock,
            randomness=randomness,
            report=report,
        )
        self.key_destruction = KeyDestruction(
            hsm=hsm,
            transactions=transactions,
            changes=changes,
            # A holder of its own: it and the generation of keys wait for each other, too.
            leases=Leases(transactions=transactions, randomness=randomness, report=report),
            clock=clock,
            report=report,
        )
        self.key_rotation = KeyRotation(
            hsm=hsm,
            transactions=transactions,
            changes=changes,
            leases=Leases(transactions=transactions, randomness=randomness, report=report),
            clock=clock,
            report=report,
        )
        self.rotate_installation_key = RotateInstallationKey(proposals=proposals, rotation=self.key_rotation)
        self.list_installation_keys = ListInstallationKeys(transactions=transactions)
        self.create_key = CreateKey(
            changes=changes,
            transactions=transactions,
            generation=self.key_generation,
            hsm=hsm,
            clock=clock,
            randomness=randomness,
        )
        self.disable_key = DisableKey(changes=changes)
        self.enable_key = EnableKey(transactions=transactions, proposals=proposals)
        self.destroy_key = DestroyKey(transactions=transactions, proposals=proposals)
        self.cancel_key_destruction = CancelKeyDestruction(changes=changes)
        self.get_key = GetKey(transactions=transactions)
        self.list_keys = ListKeys(transactions=transactions)
        self.create_credential = CreateCredential(proposals=proposals)
        self.renew_credential = RenewCredential(proposals=proposals)
        self.update_credential = UpdateCredential(proposals=proposals)
        self.restrict_credential = RestrictCredential(changes=changes, transactions=transactions)
        self.suspend_credential = SuspendCredential(changes=changes, transactions=transactions)
        self.resume_credential = ResumeCredential(proposals=proposals)
        self.own_ca = OwnCa(
            transactions=transactions,
            changes=changes,
            proposals=proposals,
            generation=self.key_generation,
            leases=leases,
            hsm=hsm,
            clock=clock,
            randomness=randomness,
            report=report,
            settings=own_ca,
        )
        self.revoke_credential = RevokeCredential(
            changes=changes, transactions=transactions, clock=clock, revoked=self.own_ca.revoked
        )
        self.get_credential = GetCredential(transactions=transactions)
        self.list_credentials = ListCredentials(transactions=transactions)
        self.generate_signing_request = GenerateSigningRequest(transactions=transactions, hsm=hsm)
        # What looks at every record has a small memory of its own: it must not push out what requests use.
        background = Transactions(
            store=store,
            seals=Seals(hsm=hsm, report=report, remembered=_REMEMBERED_IN_BACKGROUND),
            clock=clock,
            clock_guard=clock_guard,
            randomness=randomness,
            report=report,
        )
        self.expiry_notices = ExpiryNotices(
            transactions=background, leases=leases, clock=clock, report=report, of_the_host=of_the_host
        )
        self.certificate_checks = None
        if revocation.source is not None:
            self.certificate_checks = CertificateChecks(
                source=revocation.source,
                transactions=background,
                leases=leases,
                clock=clock,
                report=report,
                every=revocation.every,
                most_age=revocation.most_age,
            )
        self.create_organization = CreateOrganization(changes=changes, clock=clock)
        self.get_organization = GetOrganization(transactions=transactions)
        self.list_organizations = ListOrganizations(transactions=transactions)
        self.update_organization = UpdateOrganization(proposals=proposals)
        self.create_signer = CreateSigner(changes=changes, clock=clock)
        self.get_signer = GetSigner(transactions=transactions)
        self.list_signers = ListSigners(transactions=transactions)
        self.update_signer = UpdateSigner(proposals=proposals, notices=self.notices, clock=clock)
        self.import_signers = ImportSigners(transactions=transactions, changes=changes, clock=clock)
        self.disable_signer = DisableSigner(changes=changes)
        self.enable_signer = EnableSigner(proposals=proposals)
        self.unlock_signer = UnlockSigner(transactions=transactions)
        self.create_authenticator = CreateAuthenticator(proposals=proposals, notices=self.notices)
        self.list_authenticators = ListAuthenticators(transactions=transactions)
        self.disable_authenticator = DisableAuthenticator(changes=changes, notices=self.notices)
        self.create_enrolments = CreateEnrolments(
            proposals=proposals, notices=self.notices, carriers=deliveries, wait=replacement_wait
        )
        self.get_enrolment = GetEnrolment(transactions=transactions)
        self.list_enrolments = ListEnrolments(transactions=transactions)
        self.cancel_enrolment = CancelEnrolment(changes=changes, clock=clock)
        self.send_enrolment_code = SendEnrolmentCode(
            transactions=transactions,
            changes=changes,
            deliveries=deliveries,
            notices=self.notices,
            texts=texts,
            clock=clock,
            randomness=randomness,
        )
        self.open_enrolment = OpenEnrolment(transactions=transactions, clock=clock)
        self.begin_enrolment = BeginEnrolment(
            changes=changes,
            one_time_passwords=passwords,
            hsm=hsm,
            clock=clock,
            randomness=randomness,
            issuer=issuer,
        )
        self.confirm_enrolment = ConfirmEnrolment(
            changes=changes, notices=self.notices, hsm=hsm, seals=seals, clock=clock
        )
        decisions = SignerDecisions(
            transactions=transactions, changes=changes, one_time_passwords=passwords, clock=clock
        )
        self.freeze_signer = FreezeSigner(decisions=decisions, notices=self.notices)
        self.set_signature_notices = SetSignatureNotices(decisions=decisions, notices=self.notices)
        self.list_signature_uses = ListSignatureUses(
            transactions=transactions, one_time_passwords=passwords, hsm=hsm, clock=clock
        )
        self.create_client = CreateClient(proposals=proposals)
        self.get_client = GetClient(transactions=transactions)
        self.list_clients = ListClients(transactions=transactions)
        self.update_client = UpdateClient(proposals=proposals)
        self.restrict_client = RestrictClient(changes=changes)
        self.disable_client = DisableClient(changes=changes)
        self.enable_client = EnableClient(proposals=proposals)
        self.create_operator = CreateOperator(proposals=proposals)
        self.update_operator = UpdateOperator(proposals=proposals)
        self.get_operator = GetOperator(transactions=transactions)
        self.list_operators = ListOperators(transactions=transactions)
        self.disable_operator = DisableOperator(changes=changes)
        self.enable_operator = EnableOperator(proposals=proposals)
        self.show_access = ShowAccess(transactions=transactions, clock=clock)


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
        ],
        admission=Admission(identify=identify, rates=use.client_rates, clock=clock, threads=limits.threads),
        tls=tls,
        limits=limits,
        token_address=token_address,
        certificate_address=certificate_address,
        reflect=reflect,
        shared_ports=shared_ports,
    )


def build_deliveries(config: Config, *, clock: Clock, report: Report) -> dict[AuthenticatorKind, Delivery]:
    """Returns what can deliver one-time passwords, by kind: nothing where nothing is configured.

    Raises `BadConfiguration`, or `OSError` for a file that cannot be read.
    """
    deliveries: dict[AuthenticatorKind, Delivery] = {}
    if config.email is not None:
        deliveries[AuthenticatorKind.EMAIL] = _build_email(config.email, config.service.name, clock, report)
    if config.sms is not None:
        deliveries[AuthenticatorKind.SMS] = _build_sms(config.sms, clock, report)
    return deliveries


def _build_email(email: EmailSection, service: str, clock: Clock, report: Report) -> Delivery:
    login = None
    if email.user is not None and email.password_file is not None:
        password = read_secret(email.password_file)
        if not password.reveal().isascii():
            raise BadConfiguration(f"email.password_file: {email.password_file} has other than ASCII characters")
        login = (email.user, password)
    tls = SmtpTls(email.tls)
    return SmtpDelivery(
        host=email.host,
        port=email.port or (465 if tls is SmtpTls.IMPLICIT else 587),
        tls=tls,
        context=verifying_context(email.ca_file),
        login=login,
        from_address=email.from_address,
        from_name=service,
        clock=clock,
        report=report,
    )


def _build_sms(sms: SmsSection, clock: Clock, report: Report) -> Delivery:
    token = None if sms.bearer_token_file is None else read_secret(sms.bearer_token_file)
    if token is not None and _BEARER_TOKEN.fullmatch(token.reveal()) is None:
        raise BadConfiguration(f"sms.bearer_token_file: {sms.bearer_token_file} holds no bearer token (RFC 6750)")
    try:
        return WebhookDelivery(
            url=sms.url,
            secret=read_secret(sms.secret_file),
            bearer_token=token,
            context=verifying_context(sms.ca_file),
            clock=clock,
            report=report,
        )
    except ValueError as fault:
        raise BadConfiguration(f"sms.secret_file: {sms.secret_file}: {fault}") from None


def certificates_of_the_host(config: Config) -> list[Expiring]:
    """Returns which certificate expires first in each file of the configuration. Raises `OSError`, `ValueError`."""
    found = []
    for name, path in (
        ("server/tls-certificate", config.server.tls_certificate_file),
        ("server/client-ca", config.server.client_ca_file),
    ):
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
        found.append(first_to_expire(name, [certificate.public_bytes(Encoding.DER) for certificate in certificates]))
    return found


def build_revocation_source(settings: RevocationSection) -> RevocationSource | None:
    """Returns what asks other CAs, or None when nothing is configured."""
    if not settings.network and settings.crl_folder is None:
        return None
    network = None
    if settings.network:
        network = Network(allowed_hosts=settings.allowed_hosts.split(), timeout=settings.timeout_seconds)
    return NetworkRevocationSource(network=network, list_folder=settings.crl_folder)


def own_ca_settings(ca: CaSection) -> OwnCaSettings:
    """Returns what is configured of the installation's own CA."""
    return OwnCaSettings(
        publication=None if ca.crl_folder is None else ListFolder(ca.crl_folder),
        crl_url=ca.crl_url,
        list_valid_for=timedelta(days=ca.crl_days),
        list_every=timedelta(hours=ca.crl_hours),
    )


class Instance:
    """Token, database and use cases of one configuration, without a server."""

    def __init__(self, config: Config, *, log: Log, report: Report | None = None) -> None:
        """Opens both; `report` hears of what needs attention instead of the log.

        Raises `BadConfiguration`, `OSError`, `PinRejected`, `NotProvisioned`, `HsmUnavailable`, `SchemaMismatch`,
        `StoreUnavailable`.
        """
        self.config = config
        self.log = log
        self.clock = SystemClock()
        self.randomness = SystemRandomness()
        self.fatal = threading.Event()
        self.report = report or log.report
        if config.token.softhsm_configuration_file is not None:
            os.environ["SOFTHSM2_CONF"] = str(config.token.softhsm_configuration_file)
        deliveries = build_deliveries(config, clock=self.clock, report=self.report)
        self.store = open_store(config.store.url, on_fatal=self._end)
        try:
            self.hsm = Pkcs11Hsm(
                module_path=str(config.token.module),
                pin=read_secret(config.token.pin_file),
                token_label=config.token.label,
                token_serial=config.token.serial,
                sessions=config.token.sessions,
                unwrapped_keys=config.token.unwrapped_keys,
                reopen_interval=_REOPEN_SECONDS if self._others_may_write() else None,
                report=self.report,
            )
        except BaseException:
            self.store.close()
            raise
        self.use = UseCases(
            hsm=self.hsm,
            store=self.store,
            clock=self.clock,
            randomness=self.randomness,
            report=self.report,
            issuer=config.service.name,
            places=config.token.sessions or min(os.cpu_count() or 1, 8),
            admitted=config.server.signing_requests,
            waiters=waiters_of(config.server),
            senders=senders_of(config.server),
            deliveries=deliveries,
            language=Language(config.delivery.language),
            own_ca=own_ca_settings(config.ca),
            of_the_host=partial(certificates_of_the_host, config),
            revocation=RevocationSettings(
                source=build_revocation_source(config.revocation),
                every=timedelta(seconds=config.revocation.check_seconds),
                most_age=timedelta(hours=config.revocation.valid_hours),
            ),
            zone=ZoneInfo(config.service.time_zone),
            public_url=config.web.public_url,
            replacement_wait=timedelta(hours=config.enrolment.replacement_wait_hours),
        )

    def _others_may_write(self) -> bool:
        """Tells whether other processes may make keys on the token: workers of this node, or other nodes."""
        return self.config.server.workers > 1 or is_postgresql(self.config.store.url)

    def _end(self, reason: str) -> None:
        self.report("fatal", {"reason": reason})
        self.fatal.set()

    def close(self) -> None:
        """Closes the token and the database."""
        self.hsm.close()
        self.store.close()


class Server:
    """An instance that serves gRPC and tells by its health whether it can."""

    def __init__(
        self, instance: Instance, *, shared_ports: bool = False, tell: Callable[[], None] = lambda: None
    ) -> None:
        """Checks that the instance may start, and binds the ports.

        Raises `NotThisInstallation`, `ClockNotTrusted`, `HsmUnavailable`, `BadConfiguration`, `OSError`.
        """
        self._instance = instance
        if api_implementation.Type() != "upb":
            raise OSError("protobuf runs on its pure-Python backend, which deeply nested messages can exhaust: refused")
        instance.use.check_start()
        settings = instance.config.server
        files = TlsFiles(
            certificate=settings.tls_certificate_file, key=settings.tls_key_file, client_ca=settings.client_ca_file
        )
        try:
            tls = files.read()
        except TlsNotUsable as fault:
            raise BadConfiguration(f"server: {fault}: see tls_certificate_file, tls_key_file, client_ca_file") from None
        self.grpc = build_grpc_server(
            instance.use,
            clock=instance.clock,
            randomness=instance.randomness,
            log=instance.log.call,
            tls=tls,
            limits=Limits(
                threads=settings.threads,
                concurrent_calls=settings.concurrent_calls,
                message_size=settings.message_size,
                connections=_connections(),
            ),
            token_address=settings.token_address,
            certificate_address=settings.certificate_address,
            reflect=settings.reflection,
            shared_ports=shared_ports,
        )
        self.web = build_web_server(instance, shared_port=shared_ports)
        self._tls_watch = TlsWatch(
            files=files, present=tls, apply=self._replace_tls, clock=instance.clock, report=instance.report
        )
        self._tell = tell
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._keep_health, name="health", daemon=True)
        self._beat = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begins to serve."""
        self._instance.use.key_generation.start()
        self._instance.use.notices.start()
        self._instance.use.key_destruction.start()
        self._instance.use.key_rotation.start()
        self._instance.use.own_ca.start()
        self._instance.use.expiry_notices.start()
        if self._instance.use.certificate_checks is not None:
            self._instance.use.certificate_checks.start()
        self.grpc.start()
        if self.web is not None:
            self.web.start()
        self.grpc.set_serving(True)
        self._tls_watch.start()
        self._watch.start()
        self._beat.start()

    def _replace_tls(self, tls: TlsIdentity) -> None:
        self.grpc.replace_tls(tls)
        if self.web is not None:
            self.web.reload()

    def reload(self) -> None:
        """Looks at the TLS files at once, not only within some seconds."""
        self._tls_watch.reload()

    def stop(self) -> None:
        """Not serving, drain, finish what is at work, close."""
        self._stopped.set()
        self._tls_watch.stop()
        settings = self._instance.config.server
        self._instance.use.wait_authorization.stop()
        self.grpc.stop(drain=settings.drain_seconds, grace=settings.grace_seconds)
        if self.web is not None:
            self.web.stop()
        self._ended.set()
        for thread in (self._watch, self._beat):
            if thread.ident is not None:
                thread.join()
        self._instance.use.key_generation.stop()
        self._instance.use.notices.stop()
        self._instance.use.key_destruction.stop()
        self._instance.use.key_rotation.stop()
        self._instance.use.own_ca.stop()
        self._instance.use.expiry_notices.stop()
        if self._instance.use.certificate_checks is not None:
            self._instance.use.certificate_checks.stop()
        self._instance.close()

    def _keep_beating(self) -> None:
        """Tells the supervisor that the process lives. Waits for neither store nor token: a busy worker is not hung."""
        self._tell()
        while not self._ended.wait(_CHECK_SECONDS):
            self._tell()

    def _keep_health(self) -> None:
        told: str | None = None
        while not self._stopped.wait(_CHECK_SECONDS):
            reason = self._why_not()
            self.grpc.set_serving(reason is None)
            if reason != told:
                told = reason
                event, fields = ("serving_again", {}) if reason is None else ("not_serving", {"because": reason})
                self._instance.report(event, fields)

    def _why_not(self) -> str | None:
        """Returns why calls cannot be answered now, or None when they can."""
        if self._instance.fatal.is_set():
            return "the process ends"
        try:
            self._instance.use.clock_guard.check()
        except Refusal as refusal:
            return f"{refusal.reason}: {refusal.message}"
        return None if self._instance.hsm.ready() else "HSM_UNAVAILABLE"


def build_web_server(instance: Instance, *, shared_port: bool) -> WebServer | None:
    """Puts the enrolment page on its port, if it has one. Raises `OSError` when it is taken."""
    config, use = instance.config, instance.use
    if config.web.address is None:
        return None
    page = EnrolmentPage(
        authenticate=use.authenticate,
        open_=use.open_enrolment,
        begin=use.begin_enrolment,
        confirm=use.confirm_enrolment,
        pages=Pages(service=config.service.name, zone=ZoneInfo(config.service.time_zone)),
        clock=instance.clock,
    )
    app = WebApp(
        page=page,
        rates=Rates(clock=instance.clock),
        clock=instance.clock,
        language=Language(config.delivery.language),
        log=instance.log.call,
    )
    return WebServer(
        app.build(),
        address=config.web.address,
        certificate_file=config.server.tls_certificate_file,
        key_file=config.server.tls_key_file,
        shared_port=shared_port,
        grace=config.server.grace_seconds,
    )


def _connections() -> int:
    """Returns how many connections each port may have, so that callers leave descriptors for the server itself."""
    allowed = allow_descriptors(PORTS * MOST_CONNECTIONS + _OWN_DESCRIPTORS)
    return max(1, min(MOST_CONNECTIONS, (allowed - _OWN_DESCRIPTORS) // PORTS))
