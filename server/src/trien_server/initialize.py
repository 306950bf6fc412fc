"""Makes an installation: `trien-server init` and the sandbox."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trien_server import config as configuration
from trien_server.config import LoadedConfig
from trien_server.core.errors import AlreadyExists
from trien_server.core.records import Installation
from trien_server.core.secret import Secret
from trien_server.host.exported_keys import exported_keys
from trien_server.host.files import read_secret, require_own, write_private
from trien_server.host.log import Log
from trien_server.host.private_ca import Identity, PrivateCa
from trien_server.hsm import create_softhsm_token, find_softhsm_module, provision
from trien_server.hsm.softhsm import write_softhsm_configuration
from trien_server.services.installation import NAME as INSTALLATION
from trien_server.store.schema import migrate, schema_state
from trien_server.store.urls import open_store
from trien_server.wiring import Instance

CONFIG_NAME = "trien.toml"
OPERATORS = ("first", "second")
_TOKEN_LABEL = "trien"


@dataclass(frozen=True, kw_only=True)
class TokenChoice:
    """An existing token: its PKCS#11 module, its label, and a file with its PIN."""

    module: Path
    label: str
    pin_file: Path


def initialize(
    directory: Path,
    *,
    hosts: Sequence[str],
    token: TokenChoice | None,
    token_address: str,
    certificate_address: str,
    service_name: str,
    log_format: str,
) -> LoadedConfig:
    """Makes an installation in `directory` and returns its configuration.

    Makes what is missing of: a SoftHSM token (unless `token` names another), its PIN, the installation's keys
    on the token, a private CA with the server's and two operators' certificates, the configuration file, the
    database. What a crash left half done is completed by running it again.

    Raises `AlreadyExists` when the installation is there, `HsmUnavailable`, `NotProvisioned`, `OSError`.
    """
    _require_new(directory)
    if token is None:
        find_softhsm_module()  # before anything is made
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    chosen = token or _softhsm_token(directory)
    ca = _private_ca(directory / "tls", f"{service_name} private CA")
    _identity(directory / "tls" / "server", lambda: ca.issue_server(hosts))
    operators = {
        name: _identity(directory / "operators" / name, partial(ca.issue_client, f"operator {name}"))
        for name in OPERATORS
    }
    _write_connections(
        directory,
        hosts[0],
        ca.identity.certificate,
        token_address=token_address,
        certificate_address=certificate_address,
    )
    path = directory / CONFIG_NAME
    if not path.exists():
        write_private(
            path,
            _config_text(
                chosen,
                token is None,
                token_address=token_address,
                certificate_address=certificate_address,
                service_name=service_name,
                log_format=log_format,
            ).encode(),
        )
    loaded = configuration.load(path, environment={})
    migrate(loaded.config.store.url)
    _provision(loaded, so_pin_file=directory / "token-so-pin")
    instance = Instance(loaded.config, log=Log(form=loaded.config.log.format))
    try:
        instance.use.create_installation({name: identity.certificate_der for name, identity in operators.items()})
    finally:
        instance.close()
    return loaded


def _require_new(directory: Path) -> None:
    """Raises `AlreadyExists` before anything is touched when the installation is there."""
    for name in (".", CONFIG_NAME, "token-pin", "token-so-pin", "tls", "tls/ca.key", "tls/server.key", "operators"):
        require_own(directory / name)
    path = directory / CONFIG_NAME
    if not path.exists():
        return
    url = configuration.load(path, environment={}).config.store.url
    if schema_state(url).current is None:
        return
    store = open_store(url, on_fatal=lambda _: None)
    try:
        found = store.read(lambda snapshot: snapshot.get(Installation, INSTALLATION))
    finally:
        store.close()
    if found is not None:
        raise AlreadyExists(
            f"An installation exists in {directory}, and nothing was changed. "
            f"Start it with `trien-server run --config {path}`, or give another folder with --dir."
        )


def _write_connections(directory: Path, host: str, ca: bytes, *, token_address: str, certificate_address: str) -> None:
    """Writes what each operator's `trien` reads beside certificate and key, to be given away with them."""
    ports = [address.rpartition(":")[2] for address in (token_address, certificate_address)]
    if "0" in ports:
        return  # a port that is chosen at every start
    named = f"[{host}]" if ":" in host else host
    write_private(directory / "operators" / "ca.pem", ca)
    for name in OPERATORS:
        connection = {
            "address": f"{named}:{ports[0]}",
            "mutual_tls_address": f"{named}:{ports[1]}",
            "ca_file": "ca.pem",
            "operators": [{"name": f"operators/{name}", "certificate_file": f"{name}.pem", "key_file": f"{name}.key"}],
        }
        write_private(directory / "operators" / f"{name}.json", (json.dumps(connection, indent=2) + "\n").encode())


def _softhsm_token(directory: Path) -> TokenChoice:
    folder, pin_file = directory / "token", directory / "token-pin"
    module = find_softhsm_module()
    if not pin_file.exists():
        pin, so_pin = (Secret(secrets.token_urlsafe(24).encode()) for _ in range(2))
        if any(folder.glob("tokens/*")):
            raise AlreadyExists(f"{folder} holds a token whose PIN is not in {pin_file}: move it away.")
        # The PINs are written first: a token whose PIN nobody knows could only be thrown away.
        write_private(directory / "token-so-pin", so_pin.reveal() + b"\n")
        write_private(pin_file, pin.reveal() + b"\n")
    if not any(folder.glob("tokens/*")):
        # It is made beside its place: a crash while SoftHSM writes it leaves a token without a label or a PIN.
        unfinished = directory / "token.unfinished"
        for path in (folder, unfinished):
            shutil.rmtree(path, ignore_errors=True)
        create_softhsm_token(
            unfinished,
            label=_TOKEN_LABEL,
            pin=read_secret(pin_file),
            so_pin=read_secret(directory / "token-so-pin"),
            module_path=module,
        )
        unfinished.rename(folder)
    write_softhsm_configuration(folder)
    return TokenChoice(module=Path(module), label=_TOKEN_LABEL, pin_file=pin_file)


def _private_ca(folder: Path, name: str) -> PrivateCa:
    return PrivateCa(_identity(folder / "ca", lambda: PrivateCa.create(name).identity))


def _identity(path: Path, make: Callable[[], Identity]) -> Identity:
    """Returns the identity in `path`.pem and `path`.key, made when it is not there whole."""
    certificate, key = path.with_suffix(".pem"), path.with_suffix(".key")
    if certificate.exists() and not key.exists():
        raise AlreadyExists(f"{certificate} is there, but not its key {key}: bring it back, or remove the certificate.")
    if not certificate.exists():
        # The key is written first, so a key alone is what an interrupted run left.
        made = make()
        write_private(key, made.private_key)
        write_private(certificate, made.certificate)
    return Identity(certificate=certificate.read_bytes(), private_key=key.read_bytes())


def _provision(loaded: LoadedConfig, *, so_pin_file: Path) -> None:
    """Makes the installation's keys; with the security officer's PIN at hand, the wrapping key is marked as trusted."""
    token = loaded.config.token
    if token.softhsm_configuration_file is not None:
        os.environ["SOFTHSM2_CONF"] = str(token.softhsm_configuration_file)
    provision(
        module_path=str(token.module),
        pin=read_secret(token.pin_file),
        token_label=token.label,
        token_serial=token.serial,
        so_pin=read_secret(so_pin_file) if so_pin_file.exists() else None,
        exported=exported_keys(token.exported_keys_file),
    )


def _config_text(
    token: TokenChoice,
    softhsm: bool,
    *,
    token_address: str,
    certificate_address: str,
    service_name: str,
    log_format: str,
) -> str:
    pin_file = token.pin_file.name if softhsm else token.pin_file.absolute()
    lines = [
        "# Trien's configuration. `trien-server config show` prints what is in force and where it comes from.",
        "# Relative paths start from this file's folder.",
        "",
        "[service]",
        f"name = {toml_value(service_name)}",
        "",
        "[server]",
        f"token_address = {toml_value(token_address)}",
        f"certificate_address = {toml_value(certificate_address)}",
        'tls_certificate_file = "tls/server.pem"',
        'tls_key_file = "tls/server.key"',
        'client_ca_file = "tls/ca.pem"',
        "",
        "[token]",
        f"module = {toml_value(str(token.module))}",
        f"label = {toml_value(token.label)}",
        f"pin_file = {toml_value(str(pin_file))}",
    ]
    if softhsm:
        lines.append('softhsm_configuration_file = "token/softhsm2.conf"')
    lines += ["", "[store]", 'url = "sqlite:///trien.db"', "", "[log]", f"format = {toml_value(log_format)}", ""]
    return "\n".join(lines)


def toml_value(value: str | bool | int | float) -> str:
    """Returns a value as TOML writes it (TOML 1.0; a JSON string is a basic string but for U+007F)."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
