"""Builds the adapters that the configuration asks for."""

import re
import socket
from datetime import timedelta
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from trien_server.audit.json_lines import JsonLinesFile
from trien_server.audit.syslog import SyslogDatagrams, SyslogStream
from trien_server.config import (
    BadConfiguration,
    CaSection,
    Config,
    EmailSection,
    RevocationSection,
    SmsSection,
    SyslogSection,
)
from trien_server.core.ports import AuditSink, Clock, Delivery, Report, RevocationSource
from trien_server.core.records import AuthenticatorKind
from trien_server.delivery import SmtpDelivery, SmtpTls, WebhookDelivery, verifying_context
from trien_server.host.files import read_secret
from trien_server.host.published_lists import ListFolder
from trien_server.revocation import Network, NetworkRevocationSource
from trien_server.services.audit_export import NamedSink
from trien_server.services.expiry_notices import Expiring, first_to_expire
from trien_server.services.own_ca import OwnCaSettings

_BEARER_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")


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


def build_sinks(config: Config) -> list[NamedSink]:
    """Returns where the audit log is handed over to. Raises `BadConfiguration`, `OSError`."""
    sinks = []
    if config.audit.export_file is not None:
        sinks.append(NamedSink(name="file", sink=JsonLinesFile(config.audit.export_file)))
    if config.syslog is not None:
        sinks.append(NamedSink(name="syslog", sink=_build_syslog(config.syslog)))
    return sinks


def _build_syslog(syslog: SyslogSection) -> AuditSink:
    url = urlsplit(syslog.url)
    hostname, timeout = syslog.hostname or socket.gethostname(), syslog.timeout_seconds
    if url.scheme == "unix":
        return SyslogDatagrams(address=url.path, hostname=hostname, timeout=timeout)
    host, port = url.hostname or "", url.port or 0
    if url.scheme == "udp":
        return SyslogDatagrams(address=(host, port), hostname=hostname, timeout=timeout)
    context = None
    if url.scheme == "tls":
        context = verifying_context(syslog.ca_file)
        if syslog.certificate_file is not None and syslog.key_file is not None:
            read_secret(syslog.key_file)  # refuses one that others may read
            context.load_cert_chain(syslog.certificate_file, syslog.key_file)
    return SyslogStream(host=host, port=port, context=context, hostname=hostname, timeout=timeout)
