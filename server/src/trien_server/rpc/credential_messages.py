"""Translates the messages of CredentialService."""

from collections.abc import Iterable
from datetime import datetime

from trien.v1 import credential_service_pb2, signer_service_pb2

from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.errors import InvalidArgument
from trien_server.core.names import parse_id, parse_name
from trien_server.core.records import AuthenticatorKind, RevocationPolicy, RevocationReason
from trien_server.rpc import translate
from trien_server.services.certificate_statuses import KnownStatus
from trien_server.services.credential_changes import CredentialTerms, Renewal
from trien_server.services.credential_holders import Entitlement
from trien_server.services.credentials import CredentialView, NewCredential

_Message = credential_service_pb2.Credential


def new_credential_in(request: credential_service_pb2.CreateCredentialRequest) -> NewCredential:
    """Returns the credential that is to be made. Raises `InvalidArgument`."""
    wanted = request.credential
    return NewCredential(
        name=f"credentials/{parse_id(request.credential_id, field='credential_id')}",
        key=parse_name("keys", wanted.key, field="credential.key"),
        signer=parse_name("signers", wanted.signer, field="credential.signer"),
        display_name=wanted.display_name,
        certificate_chain=tuple(wanted.certificate_chain),
        activators=_activators_in(wanted),
        clients=_clients_in(wanted),
        max_items=wanted.max_items,
        client_collected_otp=wanted.client_collected_otp_allowed,
        authenticator_kinds=_kinds_in(wanted.authenticator_kinds),
        hours=tuple(wanted.hours),
        revocation_policy=_revocation_policy_in(wanted.revocation_policy),
    )


def terms_in(wanted: _Message) -> CredentialTerms:
    """Returns what a credential is to have. Raises `InvalidArgument`, also for what only a renewal changes."""
    for name in ("key", "signer", "certificate_chain"):
        if getattr(wanted, name):
            raise InvalidArgument(f"credential.{name}", "leave it out: RenewCredential changes key and certificate")
    return CredentialTerms(
        name=parse_name("credentials", wanted.name, field="credential.name"),
        display_name=wanted.display_name,
        activators=_activators_in(wanted),
        clients=_clients_in(wanted),
        max_items=wanted.max_items,
        client_collected_otp=wanted.client_collected_otp_allowed,
        authenticator_kinds=_kinds_in(wanted.authenticator_kinds),
        hours=tuple(wanted.hours),
        revocation_policy=_revocation_policy_in(wanted.revocation_policy),
    )


def renewal_in(request: credential_service_pb2.RenewCredentialRequest) -> Renewal:
    """Returns the renewal. Raises `InvalidArgument`."""
    return Renewal(
        name=parse_name("credentials", request.name, field="name"),
        key=parse_name("keys", request.key, field="key") if request.key else "",
        certificate_chain=tuple(request.certificate_chain),
    )


def reason_in(value: "credential_service_pb2.RevocationReason.ValueType") -> RevocationReason:
    """Returns why something is revoked. Raises `InvalidArgument` for a reason that is not known."""
    if value == credential_service_pb2.REVOCATION_REASON_UNSPECIFIED:
        return RevocationReason.UNSPECIFIED
    try:
        return RevocationReason(credential_service_pb2.RevocationReason.Name(value))
    except ValueError as unknown:
        raise InvalidArgument("reason", "expected one of trien.v1.RevocationReason") from unknown


def credential_out(view: CredentialView, *, at: datetime) -> _Message:
    """Returns a credential's message."""
    credential = view.credential
    activators = []
    for activator in view.activators:
        message = credential_service_pb2.Activator(signer=activator.signer)
        translate.set_time(message.start_time, activator.start_time)
        translate.set_time(message.end_time, activator.end_time)
        activators.append(message)
    return _Message(
        name=credential.name,
        key=credential.key,
        signer=credential.signer,
        display_name=credential.display_name,
        certificate_chain=credential.certificate_chain,
        activators=activators,
        clients=view.clients,
        max_items=credential.max_items,
        client_collected_otp_allowed=credential.client_collected_otp,
        state=_Message.State.Value(credential.state.value),
        key_type=translate.key_type_out(view.key.key_type),
        algorithms=[translate.algorithm_out(found) for found in SignatureAlgorithm if found.fits(view.key.key_type)],
        create_time=translate.time_out(credential.create_time),
        authenticator_kinds=[
            signer_service_pb2.Authenticator.Kind.Value(kind) for kind in credential.authenticator_kinds
        ],
        hours=credential.hours,
        revocation_policy=_Message.RevocationPolicy.Value(credential.revocation_policy.value),
        certificate_status=_status_out(view.status.as_of(at)),
    )


def _status_out(known: KnownStatus) -> credential_service_pb2.CertificateStatus:
    status = credential_service_pb2.CertificateStatus(
        not_before=translate.time_out(known.not_before),
        not_after=translate.time_out(known.not_after),
        revocation=credential_service_pb2.CertificateStatus.Revocation.Value(known.revocation.value),
        source=known.source,
    )
    translate.set_time(status.check_time, known.check_time)
    translate.set_time(status.revoke_time, known.revoke_time)
    return status


def _activators_in(wanted: _Message) -> tuple[Entitlement, ...]:
    activators = []
    for position, activator in enumerate(wanted.activators):
        field = f"credential.activators[{position}]"
        start = translate.optional_time_in(activator, "start_time", field=field)
        end = translate.optional_time_in(activator, "end_time", field=field)
        signer = parse_name("signers", activator.signer, field=f"{field}.signer")
        activators.append(Entitlement(signer=signer, start_time=start, end_time=end))
    return tuple(activators)


def _clients_in(wanted: _Message) -> tuple[str, ...]:
    return tuple(
        parse_name("clients", client, field=f"credential.clients[{position}]")
        for position, client in enumerate(wanted.clients)
    )


def _kinds_in(kinds: "Iterable[signer_service_pb2.Authenticator.Kind.ValueType]") -> tuple[AuthenticatorKind, ...]:
    parsed = []
    for position, kind in enumerate(kinds):
        try:
            parsed.append(AuthenticatorKind(signer_service_pb2.Authenticator.Kind.Name(kind)))
        except ValueError as unknown:
            field = f"credential.authenticator_kinds[{position}]"
            raise InvalidArgument(field, "expected one of trien.v1.Authenticator.Kind") from unknown
    return tuple(parsed)


def _revocation_policy_in(value: "_Message.RevocationPolicy.ValueType") -> RevocationPolicy:
    if value == _Message.REVOCATION_POLICY_UNSPECIFIED:
        return RevocationPolicy.IGNORE
    try:
        return RevocationPolicy(_Message.RevocationPolicy.Name(value))
    except ValueError as unknown:
        field = "credential.revocation_policy"
        raise InvalidArgument(field, "expected one of trien.v1.Credential.RevocationPolicy") from unknown
