"""Builds the use cases over the ports."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta, tzinfo

from trien_server.core.delivered_text import Language
from trien_server.core.notice_text import NoticeTexts
from trien_server.core.ports import Clock, Delivery, Hsm, LogPublication, Randomness, Report, Store
from trien_server.core.records import AuthenticatorKind
from trien_server.core.retention import DEFAULT_DAYS
from trien_server.services.approve_authorizations import ApproveAuthorizations
from trien_server.services.audit_entries import GetAuditEntry, ListAuditEntries
from trien_server.services.audit_erasing import AuditErasing
from trien_server.services.audit_erasures import EraseAuditDetails
from trien_server.services.audit_export import AuditExporter, NamedSink
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
from trien_server.services.evidence import GetEvidence
from trien_server.services.examine_log import ExamineLog
from trien_server.services.expiry_notices import Expiring, ExpiryNotices
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
from trien_server.services.log_guard import LogGuard
from trien_server.services.log_history import LogHistory
from trien_server.services.log_integrity import CheckLog
from trien_server.services.log_keys import LogKeyGeneration
from trien_server.services.log_proofs import GetCheckpoint, GetConsistencyProof, GetLogKeys
from trien_server.services.log_publishing import LogPublisher
from trien_server.services.log_sealing import LogSealing
from trien_server.services.log_witnesses import EVERY, LogWitnesses
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
from trien_server.services.receipts import GetReceipt
from trien_server.services.request_purge import RequestPurging
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

NO_LISTS = OwnCaSettings()
ASK_NOBODY = RevocationSettings()
KEEP_REQUESTS = timedelta(days=DEFAULT_DAYS)
_REMEMBERED_IN_BACKGROUND = 4096


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
        keep_requests: timedelta = KEEP_REQUESTS,
        of_the_host: Callable[[], Sequence[Expiring]] = tuple,
        sinks: Sequence[NamedSink] = (),
        log_publication: LogPublication | None = None,
        token_checkpoint_every: timedelta = EVERY,
    ) -> None:
        seals = Seals(hsm=hsm, report=report)
        clock_guard = ClockGuard(store=store, clock=clock, report=report)
        history = LogHistory(store=store, seals=seals)
        self.log_guard = LogGuard(history=history, seals=seals, clock=clock, report=report)
        transactions = Transactions(
            store=store,
            seals=seals,
            clock=clock,
            clock_guard=clock_guard,
            log_guard=self.log_guard,
            randomness=randomness,
            report=report,
        )
        # What keeps the log in order goes on while it is not.
        of_the_log = Transactions(
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
        self.get_proposal = GetProposal(transactions=transactions, proposals=proposals)
        self.list_proposals = ListProposals(transactions=transactions, proposals=proposals)
        self.seals = seals
        self.transactions = transactions
        self.changes = changes
        self.authenticate = Authenticate(transactions=transactions, clock=clock)
        self.client_rates = ClientRates(clock=clock)
        self.clock_guard = clock_guard
        self.check_integrity = CheckIntegrity(
            store=store,
            seals=seals,
            hsm=hsm,
            rules=RULES,
            log=CheckLog(store=store, seals=seals, witnesses=lambda: self.log_witnesses.read()),
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
        self.log_keys = LogKeyGeneration(
            hsm=hsm,
            transactions=of_the_log,
            changes=Changes(transactions=of_the_log, seals=seals),
            leases=Leases(transactions=of_the_log, randomness=randomness, report=report),
            clock=clock,
            randomness=randomness,
            report=report,
        )
        self.log_witnesses = LogWitnesses(
            hsm=hsm,
            store=store,
            seals=seals,
            transactions=of_the_log,
            leases=Leases(transactions=of_the_log, randomness=randomness, report=report),
            guard=self.log_guard,
            publication=log_publication,
            every=token_checkpoint_every,
            clock=clock,
            report=report,
        )
        self.log_sealing = LogSealing(
            hsm=hsm,
            store=store,
            seals=seals,
            transactions=of_the_log,
            history=history,
            afterwards=self.log_witnesses.keep,
            clock=clock,
            randomness=randomness,
            report=report,
        )
        self.check_start = CheckStart(
            hsm=hsm,
            seals=seals,
            transactions=transactions,
            clock_guard=clock_guard,
            witnesses=self.log_witnesses,
            report=report,
        )
        self.key_rotation = KeyRotation(
            hsm=hsm,
            transactions=transactions,
            changes=changes,
            leases=Leases(transactions=transactions, randomness=randomness, report=report),
            log_keys=self.log_keys,
            clock=clock,
            report=report,
        )
        self.rotate_installation_key = RotateInstallationKey(proposals=proposals, rotation=self.key_rotation, hsm=hsm)
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
            log_guard=self.log_guard,
            randomness=randomness,
            report=report,
        )
        self.expiry_notices = ExpiryNotices(
            transactions=background, leases=leases, clock=clock, report=report, of_the_host=of_the_host
        )
        self.request_purging = RequestPurging(
            transactions=background,
            changes=changes,
            leases=leases,
            clock=clock,
            report=report,
            keep=keep_requests,
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
        self.audit_erasing = AuditErasing(
            transactions=background,
            changes=changes,
            leases=Leases(transactions=transactions, randomness=randomness, report=report),
            clock=clock,
            report=report,
        )
        self.erase_audit_details = EraseAuditDetails(
            transactions=background,
            proposals=proposals,
            erasing=self.audit_erasing,
            clock=clock,
            randomness=randomness,
        )
        self.get_audit_entry = GetAuditEntry(transactions=transactions)
        self.audit_exporters = [
            AuditExporter(
                sink,
                transactions=background,
                leases=Leases(transactions=transactions, randomness=randomness, report=report),
                clock=clock,
                report=report,
            )
            for sink in sinks
        ]
        self.list_audit_entries = ListAuditEntries(transactions=transactions)
        self.get_evidence = GetEvidence(transactions=transactions, report=report)
        self.get_receipt = GetReceipt(transactions=transactions, clock=clock, report=report, waiters=waiters)
        self.get_checkpoint = GetCheckpoint(transactions=transactions, report=report)
        self.get_consistency_proof = GetConsistencyProof(transactions=transactions, report=report)
        self.get_log_keys = GetLogKeys(transactions=transactions, report=report)
        self.examine_log = ExamineLog(transactions=background)
        self.log_publisher = None
        if log_publication is not None:
            self.log_publisher = LogPublisher(
                publication=log_publication, transactions=background, clock=clock, report=report
            )
