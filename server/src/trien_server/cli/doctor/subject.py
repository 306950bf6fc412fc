"""What the checks look at: the configuration, and what rests on it, opened when it is first needed."""

import os
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path

from trien_server.cli.token import token_of
from trien_server.config import Config
from trien_server.core.ports import Store
from trien_server.host.clock import SystemClock
from trien_server.host.exported_keys import exported_keys
from trien_server.host.files import read_secret
from trien_server.host.log import Log
from trien_server.hsm import Pkcs11Hsm
from trien_server.hsm.examination import TokenExamination, examine_token
from trien_server.store.urls import is_postgresql, open_store, sqlite_path
from trien_server.wiring import Instance

Event = tuple[str, Mapping[str, str]]


class Subject:
    """One configuration and what it names. Used by one thread; `close` ends what was opened.

    What a check raises when something cannot be opened is told of that check alone. A PIN that the token refused is
    not tried again: whatever logs in rests on the check of the PIN.
    """

    def __init__(self, config: Config, *, path: Path | None) -> None:
        """`path` is the configuration file, where there is one."""
        self.config = config
        self.path = path
        self.clock = SystemClock()
        self.events: list[Event] = []
        """What database, token and use cases reported while they were looked at."""
        self._store: Store | None = None
        self._instance: Instance | None = None

    @property
    def now(self) -> datetime:
        return self.clock.now()

    @property
    def folder(self) -> Path | None:
        """Where the configuration file is, and what `init` made beside it."""
        return None if self.path is None else self.path.absolute().parent

    @property
    def database(self) -> Path | None:
        """The file of a SQLite database; None for PostgreSQL. Raises `ValueError` for a URL of neither."""
        return None if is_postgresql(self.config.store.url) else sqlite_path(self.config.store.url)

    @property
    def token_folder(self) -> Path | None:
        """Where SoftHSM keeps its tokens, when its configuration says so."""
        configuration = self.config.token.softhsm_configuration_file
        if configuration is None:
            return None
        for line in configuration.read_text(encoding="utf-8").splitlines():
            name, separator, value = line.partition("=")
            if separator and name.strip() == "directories.tokendir":
                return Path(value.strip())
        return None

    @cached_property
    def token(self) -> TokenExamination:
        """What is found out about module and token without the database; the PIN is tried once at most."""
        settings = self.config.token
        self._choose_softhsm()
        return examine_token(
            module_path=str(settings.module),
            token_label=settings.label,
            token_serial=settings.serial,
            pin=read_secret(settings.pin_file),
            exported=exported_keys(settings.exported_keys_file),
        )

    def open_token(self) -> Pkcs11Hsm:
        """Opens the token; the caller closes it. Without the trial of threads, which is a check of its own."""
        return token_of(self.config, self_test=False, report=self.report)

    @property
    def store(self) -> Store:
        """The database alone, without the token. Raises `SchemaMismatch`, `StoreUnavailable`, `ValueError`."""
        if self._store is None:
            self._store = open_store(self.config.store.url, on_fatal=lambda _: None)
        return self._store

    @property
    def instance(self) -> Instance:
        """Database and token with their use cases, without the trial of threads. Raises what `Instance` raises."""
        if self._instance is None:
            log = Log(form=self.config.log.format)
            self._instance = Instance(self.config, log=log, report=self.report, self_test=False)
        return self._instance

    def report(self, event: str, fields: Mapping[str, str]) -> None:
        """Keeps what is reported."""
        self.events.append((event, fields))

    def close(self) -> None:
        """Closes database and token."""
        if self._store is not None:
            self._store.close()
        if self._instance is not None:
            self._instance.close()

    def _choose_softhsm(self) -> None:
        configuration = self.config.token.softhsm_configuration_file
        if configuration is not None:
            os.environ["SOFTHSM2_CONF"] = str(configuration)
