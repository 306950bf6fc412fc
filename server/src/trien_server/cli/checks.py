"""What is wrong, and what to do about it."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from trien_server.config import BadConfiguration, Config
from trien_server.core.custody import CustodyRefused
from trien_server.core.errors import AlreadyExists, Refusal
from trien_server.core.ports import KeyMismatch
from trien_server.host.clock import SystemClock
from trien_server.host.files import read_secret
from trien_server.hsm import NotProvisioned, PinRejected
from trien_server.sandbox import NotASandbox
from trien_server.services.installation import NotThisInstallation
from trien_server.store.schema import SchemaMismatch, SchemaVerdict, schema_state
from trien_server.wiring import build_deliveries


def explain(fault: BaseException) -> str | None:
    """Returns one clear line for what a start can fail on, or None for a defect."""
    match fault:
        case NotASandbox() | NotThisInstallation() | SchemaMismatch() | BadConfiguration() | AlreadyExists():
            return str(fault)
        case OSError():
            return _words(fault)
        case KeyMismatch() | CustodyRefused():
            return str(fault)
        case PinRejected():
            return f"{fault} Check the PIN file before the next start: tokens lock."
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
    found = file_findings(config)
    for key, path in _certificate_files(config):
        found += _validity_findings(key, path)
    return found + _store_findings(config.store.url)


def file_findings(config: Config) -> list[str]:
    """Returns which of the files that the configuration names are missing or cannot be used, a line each."""
    found = [f"token.module: {fault}" for fault in module_faults(config.token.module)]
    found += [f"token.pin_file: {fault}" for fault in secret_faults(config.token.pin_file)]
    softhsm = config.token.softhsm_configuration_file
    if softhsm is not None and not softhsm.is_file():
        found.append(f"token.softhsm_configuration_file: {softhsm} does not exist")
    exported = config.token.exported_keys_file
    if exported is not None and not exported.is_file():
        found.append(
            f"token.exported_keys_file: {exported} does not exist; `trien-server token import-keys` writes it anew"
        )
    for key, path in _certificate_files(config):
        found += [f"{key}: {fault}" for fault in _certificate_faults(path)]
    return found + _tls_key_findings(config) + delivery_findings(config) + _folder_findings(config)


def _folder_findings(config: Config) -> list[str]:
    found = []
    folder, lists = config.ca.crl_folder, config.revocation.crl_folder
    if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        found.append(f"ca.crl_folder: {folder} is no folder that this user may write to")
    if lists is not None and not (lists.is_dir() and os.access(lists, os.R_OK | os.X_OK)):
        found.append(f"revocation.crl_folder: {lists} is no folder that this user may read")
    return found


def delivery_findings(config: Config) -> list[str]:
    """Returns which files for delivering one-time passwords are missing or cannot be used, a line each."""
    email, sms = config.email, config.sms
    secrets: dict[str, Path | None] = {}
    authorities: dict[str, Path | None] = {}
    if email is not None:
        secrets["email.password_file"] = email.password_file
        authorities["email.ca_file"] = email.ca_file
    if sms is not None:
        secrets |= {"sms.secret_file": sms.secret_file, "sms.bearer_token_file": sms.bearer_token_file}
        authorities["sms.ca_file"] = sms.ca_file
    found = [f"{key}: {fault}" for key, path in secrets.items() if path is not None for fault in secret_faults(path)]
    found += [
        f"{key}: {fault}"
        for key, path in authorities.items()
        if path is not None
        for fault in _certificate_faults(path)
    ]
    if found:
        return found
    try:
        build_deliveries(config, clock=SystemClock(), report=_unheard)
    except BadConfiguration as fault:
        return [str(fault)]
    return []


def _unheard(event: str, fields: Mapping[str, str]) -> None:
    """Nothing is delivered here, so there is nothing to report."""


def module_faults(path: Path) -> list[str]:
    """Returns why this cannot be a PKCS#11 module's path."""
    try:
        if path.is_file():
            return []
    except OSError as fault:
        return [_words(fault)]
    advice = " (SoftHSM: apt install softhsm2)" if "softhsm" in path.name else ""
    return [f"{path} does not exist{advice}"]


def secret_faults(path: Path) -> list[str]:
    """Returns why there is no secret to be read in a file."""
    try:
        return [] if read_secret(path).reveal() else [f"{path} is empty"]
    except OSError as fault:
        return [_words(fault)]


def _words(fault: OSError) -> str:
    """Returns what the operating system means, without its numbers."""
    if isinstance(fault, FileNotFoundError) and fault.filename is not None:
        return f"{fault.filename} does not exist"
    if fault.filename is not None and fault.strerror is not None:
        return f"{fault.filename}: {fault.strerror}"
    return str(fault)


def _certificate_files(config: Config) -> tuple[tuple[str, Path], ...]:
    return (
        ("server.tls_certificate_file", config.server.tls_certificate_file),
        ("server.client_ca_file", config.server.client_ca_file),
    )


def _certificate_faults(path: Path) -> list[str]:
    try:
        x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as fault:
        return [_words(fault)]
    except ValueError:
        return [f"{path} holds no certificate in PEM"]
    return []


def _tls_key_findings(config: Config) -> list[str]:
    """Returns why the TLS key cannot be used; of a key that does not fit, gRPC says only that the port is not there."""
    path = config.server.tls_key_file
    try:
        private_key = load_pem_private_key(read_secret(path).reveal(), None)
    except OSError as fault:
        return [f"server.tls_key_file: {_words(fault)}"]
    except (ValueError, TypeError):
        return [f"server.tls_key_file: {path} holds no private key in PEM without a password"]
    try:
        certificates = x509.load_pem_x509_certificates(config.server.tls_certificate_file.read_bytes())
    except (OSError, ValueError):
        return []  # told already
    kept, named = (
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for key in (private_key.public_key(), certificates[0].public_key())
    )
    if kept != named:
        return [
            f"server.tls_key_file: {path} is not the key of the certificate in {config.server.tls_certificate_file}"
        ]
    return []


def _validity_findings(key: str, path: Path) -> list[str]:
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return []  # told already
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
