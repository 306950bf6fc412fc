"""What makes an installation, step by step: `trien-server init`, the sandbox and the ceremony share it.

Each step makes what is missing and leaves what is there, so that what a crash left half done is completed by running it
again.
"""

import json
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trien_server import config as configuration
from trien_server.config import LoadedConfig
from trien_server.core.errors import AlreadyExists
from trien_server.core.records import Installation, InstallationKey
from trien_server.core.secret import Secret
from trien_server.core.toml_values import toml_value
from trien_server.host.exported_keys import exported_keys
from trien_server.host.files import read_secret, require_own, write_private
from trien_server.host.private_ca import Identity, PrivateCa
from trien_server.hsm import create_softhsm_token, find_softhsm_module, provision
from trien_server.hsm.softhsm import write_softhsm_configuration
from trien_server.services.installation import NAME as INSTALLATION
from trien_server.store.schema import schema_state
from trien_server.store.urls import open_store

CONFIG_NAME = "trien.toml"
SO_PIN_NAME = "token-so-pin"
_TOKEN_LABEL = "trien"


@dataclass(frozen=True, kw_only=True)
class TokenChoice:
    """A token: its PKCS#11 module, its label or serial number, and a file with its PIN."""

    module: Path
    label: str | None = None
    serial: str | None = None
    pin_file: Path
    softhsm: bool = False
    """Whether it was made in the installation's folder."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What goes into the configuration file besides the token."""

    service_name: str
    token_address: str
    certificate_address: str
    log_format: str = "json"
    store_url: str = "sqlite:///trien.db"
    client_ca_file: str = "tls/ca.pem"
    exported_keys_file: str | None = None


def require_new(directory: Path) -> None:
    """Raises `AlreadyExists` before anything is touched when the installation is there."""
    require_own_files(directory)
    path = directory / CONFIG_NAME
    if path.exists() and find_installation(configuration.load(path, environment={}).config.store.url) is not None:
        raise AlreadyExists(
            f"An installation exists in {directory}, and nothing was changed. "
            f"Start it with `trien-server run --config {path}`, or give another folder with --dir."
        )


def require_own_files(directory: Path) -> None:
    """Raises `PermissionError` when somebody else could have put there what would be used."""
    for name in (".", CONFIG_NAME, "token-pin", SO_PIN_NAME, "tls", "tls/ca.key", "tls/server.key", "operators"):
        require_own(directory / name)


def find_installation(url: str) -> Installation | None:
    """Returns the record of the installation in a database, unverified, or None.

    Raises `AlreadyExists` for a database that is half restored, and `StoreUnavailable`.
    """
    if schema_state(url).current is None:
        return None
    store = open_store(url, on_fatal=lambda _: None)
    try:
        found = store.read(lambda snapshot: snapshot.get(Installation, INSTALLATION))
        keys = store.read(lambda snapshot: snapshot.find(InstallationKey, limit=1))
    finally:
        store.close()
    if found is None and keys:
        raise AlreadyExists(
            "The database is half restored, and nothing was changed: run the same `trien-server restore` again."
        )
    return None if found is None else found.record


def write_connection(
    directory: Path, name: str, *, host: str, ca: bytes, settings: Settings, log_key: str | None
) -> None:
    """Writes what an operator's `trien` reads beside certificate and key, to be given away with them.

    `log_key` is the first key of the audit log, which everything is verified with that the server proves; None before
    it is made.
    """
    ports = [address.rpartition(":")[2] for address in (settings.token_address, settings.certificate_address)]
    if "0" in ports:
        return  # a port that is chosen at every start
    named = f"[{host}]" if ":" in host else host
    write_private(directory / "operators" / "ca.pem", ca)
    connection = {
        "address": f"{named}:{ports[0]}",
        "mutual_tls_address": f"{named}:{ports[1]}",
        "ca_file": "ca.pem",
        **({} if log_key is None else {"log_key": log_key}),
        "operators": [{"name": f"operators/{name}", "certificate_file": f"{name}.pem", "key_file": f"{name}.key"}],
    }
    write_private(directory / "operators" / f"{name}.json", (json.dumps(connection, indent=2) + "\n").encode())


def make_softhsm_token(directory: Path) -> TokenChoice:
    """Returns the SoftHSM token in the installation's folder, made when it is not there whole.

    Raises `AlreadyExists` when there is one whose PIN is not, `HsmUnavailable`.
    """
    folder, pin_file = directory / "token", directory / "token-pin"
    module = find_softhsm_module()
    if not pin_file.exists():
        pin, so_pin = (Secret(secrets.token_urlsafe(24).encode()) for _ in range(2))
        if any(folder.glob("tokens/*")):
            raise AlreadyExists(f"{folder} holds a token whose PIN is not in {pin_file}: move it away.")
        # The PINs are written first: a token whose PIN nobody knows could only be thrown away.
        write_private(directory / SO_PIN_NAME, so_pin.reveal() + b"\n")
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
            so_pin=read_secret(directory / SO_PIN_NAME),
            module_path=module,
        )
        unfinished.rename(folder)
    write_softhsm_configuration(folder)
    return TokenChoice(module=Path(module), label=_TOKEN_LABEL, pin_file=pin_file, softhsm=True)


def find_private_ca(folder: Path, name: str) -> PrivateCa:
    """Returns the private CA in the folder, made when it is not there. Raises as `find_identity`."""
    return PrivateCa(find_identity(folder / "ca", lambda: PrivateCa.create(name).identity))


def find_identity(path: Path, make: Callable[[], Identity]) -> Identity:
    """Returns the identity in `path`.pem and `path`.key, made when it is not there whole.

    Raises `AlreadyExists` when there is a certificate without its key.
    """
    certificate, key = path.with_suffix(".pem"), path.with_suffix(".key")
    if certificate.exists() and not key.exists():
        raise AlreadyExists(f"{certificate} is there, but not its key {key}: bring it back, or remove the certificate.")
    if not certificate.exists():
        # The key is written first, so a key alone is what an interrupted run left.
        made = make()
        write_private(key, made.private_key)
        write_private(certificate, made.certificate)
    return Identity(certificate=certificate.read_bytes(), private_key=key.read_bytes())


def provision_token(loaded: LoadedConfig, *, so_pin_file: Path) -> None:
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


def config_text(token: TokenChoice, settings: Settings) -> str:
    """Returns the configuration file's text."""
    pin_file = token.pin_file.name if token.softhsm else token.pin_file.absolute()
    name, value = ("label", token.label) if token.label is not None else ("serial", token.serial or "")
    lines = [
        "# Trien's configuration. `trien-server config show` prints what is in force and where it comes from.",
        "# Relative paths start from this file's folder.",
        "",
        "[service]",
        f"name = {toml_value(settings.service_name)}",
        "",
        "[server]",
        f"token_address = {toml_value(settings.token_address)}",
        f"certificate_address = {toml_value(settings.certificate_address)}",
        'tls_certificate_file = "tls/server.pem"',
        'tls_key_file = "tls/server.key"',
        f"client_ca_file = {toml_value(settings.client_ca_file)}",
        "",
        "[token]",
        f"module = {toml_value(str(token.module))}",
        f"{name} = {toml_value(value)}",
        f"pin_file = {toml_value(str(pin_file))}",
    ]
    if token.softhsm:
        lines.append('softhsm_configuration_file = "token/softhsm2.conf"')
    if settings.exported_keys_file is not None:
        lines.append(f"exported_keys_file = {toml_value(settings.exported_keys_file)}")
    lines += ["", "[store]", f"url = {toml_value(settings.store_url)}", ""]
    lines += ["[log]", f"format = {toml_value(settings.log_format)}", ""]
    return "\n".join(lines)
