"""What is wrong, and what to do about it."""

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from trien_server.config import BadConfiguration, Config
from trien_server.core.errors import Refusal
from trien_server.host.files import read_secret
from trien_server.hsm import NotProvisioned, PinRejected
from trien_server.sandbox import NotASandbox
from trien_server.services.installation import NotThisInstallation
from trien_server.store.schema import SchemaMismatch, SchemaVerdict, schema_state


def explain(fault: BaseException) -> str | None:
    """Returns one clear line for what a start can fail on, or None for a defect."""
    match fault:
        case NotASandbox() | NotThisInstallation() | SchemaMismatch() | BadConfiguration() | OSError():
            return str(fault)
        case PinRejected():
            return f"The token refused the PIN: {fault}. Check the PIN file before the next start: tokens lock."
        case NotProvisioned():
            return f"{fault} `trien-server init` makes the installation's keys."
        case Refusal():
            return f"{fault.reason}: {fault.message}"
    return None


def is_pin_refused(fault: BaseException) -> bool:
    """Tells whether a start failed because of the PIN, so that nothing starts it again by itself."""
    return isinstance(fault, PinRejected)


def findings(config: Config) -> list[str]:
    """Returns what would keep a server from starting with this configuration, a line each."""
    found: list[str] = []
    if not config.token.module.is_file():
        found.append(f"token.module: {config.token.module} does not exist (SoftHSM: apt install softhsm2)")
    for key, path in (("token.pin_file", config.token.pin_file), ("server.tls_key_file", config.server.tls_key_file)):
        found += _secret_findings(key, path)
    for key, path in (
        ("server.tls_certificate_file", config.server.tls_certificate_file),
        ("server.client_ca_file", config.server.client_ca_file),
    ):
        found += _certificate_findings(key, path)
    softhsm = config.token.softhsm_configuration_file
    if softhsm is not None and not softhsm.is_file():
        found.append(f"token.softhsm_configuration_file: {softhsm} does not exist")
    found += _store_findings(config.store.url)
    return found


def _secret_findings(key: str, path: Path) -> list[str]:
    try:
        read_secret(path)
    except OSError as fault:
        return [f"{key}: {fault}"]
    return []


def _certificate_findings(key: str, path: Path) -> list[str]:
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as fault:
        return [f"{key}: {fault}"]
    now = datetime.now(UTC)
    return [
        f"{key}: the certificate {certificate.subject.rfc4514_string()} is not valid now"
        for certificate in certificates
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
    ]


def _store_findings(url: str) -> list[str]:
    try:
        state = schema_state(url)
    except (ValueError, Refusal) as fault:
        return [f"store.url: {fault}"]
    return [] if state.verdict is SchemaVerdict.CURRENT else [f"store.url: {SchemaMismatch(state)}"]
