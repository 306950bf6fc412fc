"""Holds a ceremony: makes what its file says, step by step, each of which is completed when it is run again."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from trien_server import config as configuration
from trien_server import custody
from trien_server.ceremony.checks import MARK_NAME
from trien_server.ceremony.plan import CaTable, LoadedPlan, OfficerTable, Plan
from trien_server.ceremony.record import Made, write_record
from trien_server.config import LoadedConfig
from trien_server.core.algorithms import KeyType
from trien_server.core.custody import Export
from trien_server.core.errors import Busy, StateConflict
from trien_server.core.records import (
    CertificateAuthority,
    InstallationKey,
    InstallationKeyPurpose,
    Operator,
)
from trien_server.founding import (
    CONFIG_NAME,
    SO_PIN_NAME,
    Settings,
    TokenChoice,
    config_text,
    find_identity,
    find_installation,
    find_private_ca,
    make_softhsm_token,
    provision_token,
    write_connection,
)
from trien_server.host.exported_keys import exported_keys
from trien_server.host.files import read_secret, write_private, write_whole
from trien_server.host.log import Log
from trien_server.host.private_ca import PrivateCa
from trien_server.hsm import FIRST_KEYS, take_inventory
from trien_server.services.certificate_authorities import find_authority
from trien_server.services.installation import FirstOperator
from trien_server.services.log_keys import log_key_of
from trien_server.store.schema import migrate
from trien_server.store.urls import is_postgresql
from trien_server.wiring import Instance

EXPORTED_KEYS_NAME = "exported-keys.toml"
Tell = Callable[[str], None]
T = TypeVar("T")

_LONGEST_LEASE_SECONDS = 90.0


def conduct(loaded: LoadedPlan, *, tell: Tell) -> str:
    """Makes the installation, and returns the record, which is in its file too.

    What is to be made is checked before (`checks.find_faults`). Raises `AlreadyExists`, `StateConflict`,
    `CustodyRefused`, `KeyMismatch`, `NotProvisioned`, `PinRejected`, `HsmUnavailable`, `OSError`.
    """
    custody.keep_out_of_core_files()
    plan = loaded.plan
    directory = plan.installation.directory
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    # From here on only this file completes what is begun.
    write_private(directory / MARK_NAME, loaded.sha256.encode() + b"\n")
    ca, certificates = _make_certificates(plan, tell)
    made_config = _make_configuration(plan, tell)
    export = _make_keys(plan, made_config, tell)
    if not is_postgresql(made_config.config.store.url):
        migrate(made_config.config.store.url)
    tell("database        there")
    operators, authority, log_key = _found(loaded, made_config, certificates, tell)
    for officer in plan.officer:
        write_connection(
            directory,
            officer.id,
            host=plan.installation.hosts[0],
            ca=ca.identity.certificate,
            settings=_settings(plan),
            log_key=None if log_key is None else log_key_of(log_key).vkey,
        )
    token = made_config.config.token
    made = Made(
        time=datetime.now(UTC),
        sha256=loaded.sha256,
        version=version("trien-server"),
        inventory=take_inventory(
            module_path=str(token.module),
            pin=read_secret(token.pin_file),
            token_label=token.label,
            token_serial=token.serial,
            exported=exported_keys(token.exported_keys_file),
        ),
        export=export,
        operators=operators,
        authority=authority,
        log_key=log_key,
        tls_ca=ca.identity.certificate,
    )
    record = write_record(plan, made)
    write_whole(plan.ceremony.record_file, record.encode(), mode=0o644)
    return record


def _make_certificates(plan: Plan, tell: Tell) -> tuple[PrivateCa, dict[str, bytes]]:
    """Makes the private CA, the server's certificate, and the officers' where they brought requests; returns these."""
    directory = plan.installation.directory
    ca = find_private_ca(directory / "tls", f"{plan.installation.name} private CA")
    find_identity(directory / "tls" / "server", lambda: ca.issue_server(plan.installation.hosts))
    if plan.installation.client_ca_file is not None:
        both = ca.identity.certificate + plan.installation.client_ca_file.read_bytes()
        write_private(directory / "tls" / "client-ca.pem", both)
    certificates = {}
    for officer in plan.officer:
        certificates[officer.id] = _certificate_of(plan, officer, ca)
    tell(f"certificates    the server's, and {len(certificates)} officers'")
    return ca, certificates


def _certificate_of(plan: Plan, officer: OfficerTable, ca: PrivateCa) -> bytes:
    """Returns an officer's certificate (DER), which is left in a file to be given away."""
    path = plan.installation.directory / "operators" / f"{officer.id}.pem"
    if officer.certificate_request is not None:
        request = officer.certificate_request.read_bytes()
        if not path.exists():
            write_private(path, ca.certify_client(request))
        asked = x509.load_pem_x509_csr(request).public_key()
    else:
        given = b"" if officer.certificate is None else officer.certificate.read_bytes()
        write_private(path, given)
        asked = x509.load_pem_x509_certificate(given).public_key()
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    if certificate.public_key() != asked:
        raise StateConflict(f"{path} is for another key than {officer.id} brought: remove it, and begin again.")
    return certificate.public_bytes(Encoding.DER)


def _settings(plan: Plan) -> Settings:
    return Settings(
        service_name=plan.installation.name,
        token_address=plan.installation.token_address,
        certificate_address=plan.installation.certificate_address,
        store_url=plan.installation.store_url,
        client_ca_file="tls/ca.pem" if plan.installation.client_ca_file is None else "tls/client-ca.pem",
        exported_keys_file=None if plan.custody is None else EXPORTED_KEYS_NAME,
    )


def _make_configuration(plan: Plan, tell: Tell) -> LoadedConfig:
    directory = plan.installation.directory
    token = plan.token
    if token.softhsm or token.module is None or token.pin_file is None:
        chosen = make_softhsm_token(directory)
        tell(f"token           SoftHSM, in {directory / 'token'}")
    else:
        chosen = TokenChoice(module=token.module, label=token.label, serial=token.serial, pin_file=token.pin_file)
    path = directory / CONFIG_NAME
    text = config_text(chosen, _settings(plan)).encode()
    if not path.exists():
        write_private(path, text)
    elif path.read_bytes() != text:
        raise StateConflict(f"{path} was changed since the ceremony was begun: remove it, and run this again.")
    tell(f"configuration   {path}")
    return configuration.load(path, environment={})


def _make_keys(plan: Plan, made: LoadedConfig, tell: Tell) -> Export | None:
    """Makes the installation's keys on the token, those in custody first."""
    so_pin_file = plan.token.so_pin_file or plan.installation.directory / SO_PIN_NAME
    export = None
    if plan.custody is not None:
        first, second = plan.custody.custodian
        held = custody.Custody(
            custodians=(first.name, second.name),
            share_files=(first.share_file, second.share_file),
            export_file=plan.custody.export_file,
        )
        shares = custody.make_shares(held)
        for custodian in plan.custody.custodian:
            tell(f"share           {custodian.share_file}: {custodian.name}'s, mode 0600")
        export = custody.make_in_custody(
            made.config.token,
            FIRST_KEYS,
            shares=shares,
            export_file=held.export_file,
            so_pin=read_secret(so_pin_file) if so_pin_file.exists() else None,
        )
        tell(f"export          {held.export_file}: {len(export.keys)} keys, wrapped")
    provision_token(made, so_pin_file=so_pin_file)
    tell("keys            on the token")
    return export


def _found(
    loaded: LoadedPlan, made: LoadedConfig, certificates: dict[str, bytes], tell: Tell
) -> tuple[list[Operator], CertificateAuthority | None, InstallationKey | None]:
    """Puts the installation in force unless an interrupted run did, and returns who and what is in force."""
    instance = Instance(made.config, log=Log(form=made.config.log.format))
    try:
        if find_installation(made.config.store.url) is None:
            wanted = loaded.plan.ca
            authority = None if wanted is None else _when_free(lambda: _make_authority(instance, wanted), tell)
            instance.use.create_installation.agreed(
                [
                    FirstOperator(
                        identifier=officer.id,
                        display_name=officer.name,
                        certificate=certificates[officer.id],
                        roles=officer.roles,
                    )
                    for officer in loaded.plan.officer
                ],
                authority=authority,
                details={"ceremony": loaded.sha256},
                log_host=loaded.plan.installation.hosts[0],
                log_key_type=KeyType(loaded.plan.installation.log_key),
            )
        _when_free(instance.use.log_keys.look, tell)
        instance.use.log_keys.look()
        instance.use.check_start()
        tell("installation    in force")
        return instance.use.transactions.read(
            lambda view: (
                view.find(Operator),
                find_authority(view),
                next(iter(view.find(InstallationKey, purpose=InstallationKeyPurpose.LOG)), None),
            )
        )
    finally:
        instance.close()


def _when_free(make: Callable[[], T], tell: Tell) -> T:
    """Makes a key on the token. The lease of a run that was killed at it ends by itself: it is waited for.

    Raises `Busy` when it is held for longer than any lease.
    """
    end = time.monotonic() + _LONGEST_LEASE_SECONDS
    while True:
        try:
            return make()
        except Busy:
            if time.monotonic() > end:
                raise
            tell("waiting         for the token: an interrupted run holds it for a minute")


def _make_authority(instance: Instance, wanted: CaTable) -> CertificateAuthority:
    """Makes the CA's key and certificate. What a crash leaves of it is taken up by the next run."""
    authorities = instance.use.own_ca.authorities
    key = authorities.make_key(KeyType(wanted.key_type))
    certificate = authorities.certify_itself(
        key, common_name=wanted.common_name, organization=wanted.organization, days=wanted.days
    )
    return authorities.first(key, certificate)
