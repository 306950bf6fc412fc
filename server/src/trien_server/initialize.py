"""Makes an installation with defaults: `trien-server init` and the sandbox."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from trien_server import config as configuration
from trien_server.config import LoadedConfig
from trien_server.founding import (
    CONFIG_NAME,
    SO_PIN_NAME,
    Settings,
    TokenChoice,
    config_text,
    find_identity,
    find_private_ca,
    make_softhsm_token,
    provision_token,
    require_new,
    write_connection,
)
from trien_server.host.files import write_private
from trien_server.host.log import Log
from trien_server.hsm import find_softhsm_module
from trien_server.services.log_keys import read_first_log_key
from trien_server.store.schema import migrate
from trien_server.wiring import Instance

OPERATORS = ("first", "second")


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
    require_new(directory)
    if token is None:
        find_softhsm_module()  # before anything is made
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    chosen = token or make_softhsm_token(directory)
    ca = find_private_ca(directory / "tls", f"{service_name} private CA")
    find_identity(directory / "tls" / "server", lambda: ca.issue_server(hosts))
    operators = {
        name: find_identity(directory / "operators" / name, partial(ca.issue_client, f"operator {name}"))
        for name in OPERATORS
    }
    settings = Settings(
        service_name=service_name,
        token_address=token_address,
        certificate_address=certificate_address,
        log_format=log_format,
    )
    connect = partial(write_connection, directory, host=hosts[0], ca=ca.identity.certificate, settings=settings)
    for name in OPERATORS:
        # Already here: once the installation is in the database, running it again changes nothing.
        connect(name, log_key=None)
    path = directory / CONFIG_NAME
    if not path.exists():
        write_private(path, config_text(chosen, settings).encode())
    loaded = configuration.load(path, environment={})
    migrate(loaded.config.store.url)
    provision_token(loaded, so_pin_file=directory / SO_PIN_NAME)
    instance = Instance(loaded.config, log=Log(form=loaded.config.log.format))
    try:
        instance.use.create_installation(
            {name: identity.certificate_der for name, identity in operators.items()}, log_host=hosts[0]
        )
        instance.use.log_keys.look()
        log_key = instance.use.transactions.read(read_first_log_key)
    finally:
        instance.close()
    for name in OPERATORS:
        connect(name, log_key=log_key)
    return loaded
