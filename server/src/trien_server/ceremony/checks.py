"""Everything that a ceremony can fail on, found before anything is made."""

import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from trien_server.ceremony.plan import LoadedPlan, OfficerTable, Plan
from trien_server.core.approval import public_key_hash
from trien_server.core.errors import Refusal
from trien_server.core.tls import TLS_KEYS, has_tls_key
from trien_server.founding import find_installation, require_own_files
from trien_server.host.files import read_secret
from trien_server.host.private_ca import PrivateCa
from trien_server.hsm import find_softhsm_module, try_token
from trien_server.store.schema import SchemaMismatch, SchemaVerdict, schema_state
from trien_server.store.urls import is_postgresql

_TRIAL_SIZE = 8192

MARK_NAME = "ceremony.sha256"
"""The file of the installation's folder that says which ceremony began it."""


def is_begun(loaded: LoadedPlan) -> bool:
    """Tells whether this ceremony was begun and is to be completed."""
    mark = loaded.plan.installation.directory / MARK_NAME
    return mark.exists() and mark.read_text().strip() == loaded.sha256


def find_faults(loaded: LoadedPlan) -> list[str]:
    """Returns all that keeps the ceremony from being held, a line each.

    Each PIN is tried once, and that only when nothing else is wrong: tokens lock. Raises `PinRejected`,
    `NotProvisioned`, `HsmUnavailable` of the token.
    """
    plan = loaded.plan
    faults = [*_folder_faults(loaded), *_token_file_faults(plan), *officer_faults(plan), *_store_faults(loaded)]
    if not faults and not plan.token.softhsm:
        faults += _token_faults(loaded)
    return faults


def find_warnings(plan: Plan) -> list[str]:
    """Returns what a ceremony can be held with, and those present should know."""
    found = []
    if plan.token.softhsm:
        found.append("SoftHSM keeps keys in files: for development and tests, never for real documents.")
    elif plan.token.so_pin_file is None:
        found.append("Without token.so_pin_file the wrapping key is not trusted, and wrapped keys cannot be rewrapped.")
    if plan.custody is None:
        found.append("Without [custody] keys never leave the token: only its vendor's clone brings them to another.")
    else:
        places = [*(one.share_file for one in plan.custody.custodian), plan.custody.export_file]
        if len({path.parent.stat().st_dev for path in places if path.parent.is_dir()}) < len(places):
            found.append("Shares and export are not on three media of their own (they are on the same file system).")
    return found


def _folder_faults(loaded: LoadedPlan) -> Iterator[str]:
    plan = loaded.plan
    directory, begun = plan.installation.directory, is_begun(loaded)
    try:
        require_own_files(directory)
    except PermissionError as fault:
        yield f"installation.directory: {fault}"
        return
    mark = directory / MARK_NAME
    if mark.exists() and not begun:
        yield (
            f"installation.directory: {directory} was begun with another file, of SHA-256 {mark.read_text().strip()}: "
            "run that one again, or remove the folder, the shares, the export, and the token's keys"
        )
    elif directory.exists() and not begun and not _is_empty(directory):
        yield f"installation.directory: {directory} is not empty"
    yield from _parent_faults("installation.directory", directory)
    if begun and plan.ceremony.record_file.exists():
        yield f"ceremony.record_file: {plan.ceremony.record_file} is there: this ceremony was held"
        return
    yield from _new_file_faults("ceremony.record_file", plan.ceremony.record_file, may_exist=False)
    if plan.custody is not None:
        yield from _new_file_faults("custody.export_file", plan.custody.export_file, may_exist=begun)
        for custodian in plan.custody.custodian:
            yield from _new_file_faults("custody.custodian.share_file", custodian.share_file, may_exist=begun)


def _is_empty(directory: Path) -> bool:
    """Tells whether a folder has nothing in it but what a crash left of the mark, before anything was made."""
    return all(path.name.startswith(f".{MARK_NAME}.") for path in directory.iterdir())


def _new_file_faults(key: str, path: Path, *, may_exist: bool) -> Iterator[str]:
    if path.exists() and not may_exist:
        yield f"{key}: {path} is there already: nothing is written over"
    if not path.parent.is_dir():
        yield f"{key}: there is no folder {path.parent}; is the medium in its place?"
    else:
        yield from (f"{key}: {fault}" for fault in _write_faults(path.parent))


def _write_faults(folder: Path) -> Iterator[str]:
    """Writes a file of mode 0600 and removes it: a medium may be full, or keep no modes (FAT)."""
    try:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=".trial.")
        try:
            os.write(descriptor, bytes(_TRIAL_SIZE))
            os.fchmod(descriptor, 0o600)
            os.fsync(descriptor)
            mode = os.fstat(descriptor).st_mode & 0o777
        finally:
            os.close(descriptor)
            Path(name).unlink()
    except OSError as fault:
        yield f"nothing can be written to {folder}: {fault.strerror}"
        return
    if mode != 0o600:
        yield f"{folder} keeps no modes ({mode:o}): take a medium with another file system, such as ext4"


def _parent_faults(key: str, path: Path) -> Iterator[str]:
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        yield f"{key}: nothing can be made in {there}"


def _token_file_faults(plan: Plan) -> Iterator[str]:
    token = plan.token
    if token.softhsm:
        try:
            find_softhsm_module()
        except Refusal as fault:
            yield f"token.softhsm: {fault.message}"
        return
    if token.module is not None and not token.module.is_file():
        yield f"token.module: {token.module} does not exist"
    for key, path in (("pin_file", token.pin_file), ("so_pin_file", token.so_pin_file)):
        if path is None:
            continue
        try:
            if not read_secret(path).reveal():
                yield f"token.{key}: {path} is empty"
        except OSError as fault:
            yield f"token.{key}: {path}: {fault.strerror or fault}"


def officer_faults(plan: Plan) -> list[str]:
    """Returns what is wrong with requests and certificates: unreadable, not valid, one key for two people."""
    faults: list[str] = []
    owners: dict[bytes, str] = {}
    for officer in plan.officer:
        try:
            certificate = _trial_certificate(plan, officer)
        except (OSError, ValueError) as fault:
            faults.append(f"officer {officer.id}: {officer.certificate_request or officer.certificate}: {fault}")
            continue
        if not has_tls_key(certificate):
            faults.append(f"officer {officer.id}: the key is none of {TLS_KEYS}")
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if key in owners:
            faults.append(f"officer {officer.id}: the key is {owners[key]}'s too: each person makes a key of their own")
        owners[key] = officer.id
    return faults


def officer_keys(plan: Plan) -> dict[str, str]:
    """Returns the SHA-256 of each officer's public key (SPKI, DER), by id: the reviewed file names only where it is.

    For a plan without `officer_faults`. Raises `OSError`, `ValueError` when a file was changed meanwhile.
    """
    return {officer.id: key_sha256(_trial_certificate(plan, officer)) for officer in plan.officer}


def key_sha256(certificate: x509.Certificate) -> str:
    """Returns the SHA-256 of a certificate's public key, 64 hexadecimal digits."""
    return public_key_hash(certificate.public_bytes(Encoding.DER), field="certificate").hex()


def _trial_certificate(plan: Plan, officer: OfficerTable) -> x509.Certificate:
    """Returns the officer's certificate, or for a request one that nobody keeps. Raises `ValueError`, `OSError`."""
    if officer.certificate_request is not None:
        pem = officer.certificate_request.read_bytes()
        return x509.load_pem_x509_certificate(PrivateCa.create("a trial").certify_client(pem))
    if officer.certificate is None or plan.installation.client_ca_file is None:
        raise ValueError("no certificate, or no CA that issued it")
    certificate = x509.load_pem_x509_certificate(officer.certificate.read_bytes())
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise ValueError("the certificate is not valid now")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    if usage is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise ValueError("the certificate is not for clients")
    for issuer in x509.load_pem_x509_certificates(plan.installation.client_ca_file.read_bytes()):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return certificate
    raise ValueError(f"none of {plan.installation.client_ca_file} issued it")


def _store_faults(loaded: LoadedPlan) -> Iterator[str]:
    url = store_url(loaded.plan)
    try:
        state = schema_state(url)
        if is_postgresql(url) and state.verdict is not SchemaVerdict.CURRENT:
            yield f"installation.store_url: {SchemaMismatch(state)}"
        elif state.verdict is SchemaVerdict.CURRENT and not is_begun(loaded) and find_installation(url) is not None:
            yield "installation.store_url: the database has an installation already"
        elif not is_postgresql(url) and state.current is not None and not is_begun(loaded):
            yield "installation.store_url: the database is there already"
    except (ValueError, Refusal) as fault:
        yield f"installation.store_url: {fault}"


def store_url(plan: Plan) -> str:
    """Returns the database's URL; a SQLite one is made absolute from the installation's folder."""
    url = plan.installation.store_url
    if not url.startswith("sqlite:///"):
        return url
    return f"sqlite:///{plan.installation.directory / url.removeprefix('sqlite:///')}"


def _token_faults(loaded: LoadedPlan) -> Iterator[str]:
    token = loaded.plan.token
    if token.module is None or token.pin_file is None:
        return
    found = try_token(
        module_path=str(token.module),
        pin=read_secret(token.pin_file),
        so_pin=None if token.so_pin_file is None else read_secret(token.so_pin_file),
        custody=loaded.plan.custody is not None,
        token_label=token.label,
        token_serial=token.serial,
    )
    if found and not is_begun(loaded):
        yield f"token: it has keys of an installation: {', '.join(found)}"
