"""Builds an instance of a configuration, and the server that serves it."""

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from zoneinfo import ZoneInfo

from google.protobuf.internal import api_implementation

from trien_server.audit.tile_folder import TileFolder
from trien_server.config import (
    BadConfiguration,
    Config,
    senders_of,
    waiters_of,
)
from trien_server.core.delivered_text import Language
from trien_server.core.errors import Refusal
from trien_server.core.ports import Report
from trien_server.core.tls import TlsIdentity, TlsNotUsable
from trien_server.host.clock import SystemClock
from trien_server.host.descriptors import allow_descriptors
from trien_server.host.exported_keys import exported_keys
from trien_server.host.files import read_secret
from trien_server.host.log import Log
from trien_server.host.randomness import SystemRandomness
from trien_server.host.tls_watch import TlsFiles, TlsWatch
from trien_server.hsm import Pkcs11Hsm
from trien_server.rpc.server import MOST_CONNECTIONS, PORTS, Limits
from trien_server.services.certificate_checks import RevocationSettings
from trien_server.store.urls import is_postgresql, open_store
from trien_server.web.app import WebApp
from trien_server.web.enrolment import EnrolmentPage
from trien_server.web.pages import Pages
from trien_server.web.rates import Rates
from trien_server.web.server import WebServer
from trien_server.wiring.adapters import (
    build_deliveries,
    build_revocation_source,
    build_sinks,
    certificates_of_the_host,
    own_ca_settings,
)
from trien_server.wiring.edges import build_grpc_server
from trien_server.wiring.use_cases import UseCases

_CHECK_SECONDS = 1.0
_REOPEN_SECONDS = 30.0
_CATCH_UP_SECONDS = 10.0
_OWN_DESCRIPTORS = 512
"""What the process keeps for itself: database, token, log, and gRPC's own."""
WANTED_DESCRIPTORS = PORTS * MOST_CONNECTIONS + _OWN_DESCRIPTORS
"""How many descriptors a process would open, if it may."""


class Instance:
    """Token, database and use cases of one configuration, without a server."""

    def __init__(self, config: Config, *, log: Log, report: Report | None = None, self_test: bool = True) -> None:
        """Opens both; `report` hears of what needs attention instead of the log. `self_test` is that of `Pkcs11Hsm`.

        Raises `BadConfiguration`, `OSError`, `PinRejected`, `NotProvisioned`, `HsmUnavailable`, `SchemaMismatch`,
        `StoreUnavailable`.
        """
        self.config = config
        self.log = log
        self.clock = SystemClock()
        self.randomness = SystemRandomness()
        self.fatal = threading.Event()
        self.report = report or log.report
        if config.token.softhsm_configuration_file is not None:
            os.environ["SOFTHSM2_CONF"] = str(config.token.softhsm_configuration_file)
        deliveries = build_deliveries(config, clock=self.clock, report=self.report)
        sinks = build_sinks(config)
        self.store = open_store(config.store.url, on_fatal=self._end)
        try:
            self.hsm = Pkcs11Hsm(
                module_path=str(config.token.module),
                pin=read_secret(config.token.pin_file),
                token_label=config.token.label,
                token_serial=config.token.serial,
                sessions=config.token.sessions,
                unwrapped_keys=config.token.unwrapped_keys,
                exported=exported_keys(config.token.exported_keys_file),
                reopen_interval=_REOPEN_SECONDS if self._others_may_write() else None,
                report=self.report,
                self_test=self_test,
            )
        except BaseException:
            self.store.close()
            raise
        self.use = UseCases(
            hsm=self.hsm,
            store=self.store,
            clock=self.clock,
            randomness=self.randomness,
            report=self.report,
            issuer=config.service.name,
            places=config.token.sessions or min(os.cpu_count() or 1, 8),
            admitted=config.server.signing_requests,
            waiters=waiters_of(config.server),
            senders=senders_of(config.server),
            deliveries=deliveries,
            language=Language(config.delivery.language),
            own_ca=own_ca_settings(config.ca),
            of_the_host=partial(certificates_of_the_host, config),
            sinks=sinks,
            revocation=RevocationSettings(
                source=build_revocation_source(config.revocation),
                every=timedelta(seconds=config.revocation.check_seconds),
                most_age=timedelta(hours=config.revocation.valid_hours),
            ),
            zone=ZoneInfo(config.service.time_zone),
            public_url=config.web.public_url,
            replacement_wait=timedelta(hours=config.enrolment.replacement_wait_hours),
            keep_requests=timedelta(days=config.retention.request_days),
            token_checkpoint_every=timedelta(seconds=config.audit.token_checkpoint_seconds),
            log_publication=None if config.audit.tile_folder is None else TileFolder(config.audit.tile_folder),
        )

    def _others_may_write(self) -> bool:
        """Tells whether other processes may make keys on the token: workers of this node, or other nodes."""
        return self.config.server.workers > 1 or is_postgresql(self.config.store.url)

    def _end(self, reason: str) -> None:
        self.report("fatal", {"reason": reason})
        self.fatal.set()

    def close(self) -> None:
        """Closes the token and the database."""
        self.hsm.close()
        self.store.close()


class Server:
    """An instance that serves gRPC and tells by its health whether it can."""

    def __init__(
        self, instance: Instance, *, shared_ports: bool = False, tell: Callable[[], None] = lambda: None
    ) -> None:
        """Checks that the instance may start, and binds the ports.

        Raises `NotThisInstallation`, `ClockNotTrusted`, `HsmUnavailable`, `BadConfiguration`, `OSError`.
        """
        self._instance = instance
        if api_implementation.Type() != "upb":
            raise OSError("protobuf runs on its pure-Python backend, which deeply nested messages can exhaust: refused")
        instance.use.check_start()
        settings = instance.config.server
        files = TlsFiles(
            certificate=settings.tls_certificate_file, key=settings.tls_key_file, client_ca=settings.client_ca_file
        )
        try:
            tls = files.read()
        except TlsNotUsable as fault:
            raise BadConfiguration(f"server: {fault}: see tls_certificate_file, tls_key_file, client_ca_file") from None
        self.grpc = build_grpc_server(
            instance.use,
            clock=instance.clock,
            randomness=instance.randomness,
            log=instance.log.call,
            tls=tls,
            limits=Limits(
                threads=settings.threads,
                concurrent_calls=settings.concurrent_calls,
                message_size=settings.message_size,
                connections=_connections(),
            ),
            token_address=settings.token_address,
            certificate_address=settings.certificate_address,
            reflect=settings.reflection,
            shared_ports=shared_ports,
        )
        self.web = build_web_server(instance, shared_port=shared_ports)
        self._tls_watch = TlsWatch(
            files=files, present=tls, apply=self._replace_tls, clock=instance.clock, report=instance.report
        )
        self._tell = tell
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._keep_health, name="health", daemon=True)
        self._beat = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begins to serve, when the log has what an earlier run left unsealed, or soon."""
        self._instance.use.log_sealing.catch_up(timeout=_CATCH_UP_SECONDS)
        self._instance.use.log_sealing.start()
        self._instance.use.log_guard.start()
        self._instance.use.key_generation.start()
        self._instance.use.notices.start()
        self._instance.use.key_destruction.start()
        self._instance.use.key_rotation.start()
        self._instance.use.own_ca.start()
        self._instance.use.expiry_notices.start()
        for exporter in self._instance.use.audit_exporters:
            exporter.start()
        self._instance.use.request_purging.start()
        self._instance.use.audit_erasing.start()
        if self._instance.use.certificate_checks is not None:
            self._instance.use.certificate_checks.start()
        if self._instance.use.log_publisher is not None:
            self._instance.use.log_publisher.start()
        self.grpc.start()
        if self.web is not None:
            self.web.start()
        self._told = self._tell_health(None)
        self._tls_watch.start()
        self._watch.start()
        self._beat.start()

    def _replace_tls(self, tls: TlsIdentity) -> None:
        self.grpc.replace_tls(tls)
        if self.web is not None:
            self.web.reload()

    def reload(self) -> None:
        """Looks at the TLS files at once, not only within some seconds."""
        self._tls_watch.reload()

    def stop(self) -> None:
        """Not serving, drain, finish what is at work, close."""
        self._stopped.set()
        self._tls_watch.stop()
        settings = self._instance.config.server
        self._instance.use.wait_authorization.stop()
        self._instance.use.get_receipt.stop()
        self.grpc.stop(drain=settings.drain_seconds, grace=settings.grace_seconds)
        if self.web is not None:
            self.web.stop()
        self._ended.set()
        for thread in (self._watch, self._beat):
            if thread.ident is not None:
                thread.join()
        self._instance.use.key_generation.stop()
        self._instance.use.notices.stop()
        self._instance.use.key_destruction.stop()
        self._instance.use.key_rotation.stop()
        self._instance.use.log_sealing.stop()
        self._instance.use.log_witnesses.keep_newest()
        self._instance.use.own_ca.stop()
        self._instance.use.expiry_notices.stop()
        for exporter in self._instance.use.audit_exporters:
            exporter.stop()
        self._instance.use.request_purging.stop()
        self._instance.use.audit_erasing.stop()
        if self._instance.use.certificate_checks is not None:
            self._instance.use.certificate_checks.stop()
        if self._instance.use.log_publisher is not None:
            self._instance.use.log_publisher.stop()
        self._instance.close()

    def _keep_beating(self) -> None:
        """Tells the supervisor that the process lives. Waits for neither store nor token: a busy worker is not hung."""
        self._tell()
        while not self._ended.wait(_CHECK_SECONDS):
            self._tell()

    def _keep_health(self) -> None:
        while not self._stopped.wait(_CHECK_SECONDS):
            self._told = self._tell_health(self._told)

    def _tell_health(self, told: str | None) -> str | None:
        """Says by the health service whether calls can be answered now; returns why not, reported when it is new."""
        reason = self._why_not()
        self.grpc.set_serving(reason is None)
        if reason != told:
            event, fields = ("serving_again", {}) if reason is None else ("not_serving", {"because": reason})
            self._instance.report(event, fields)
        return reason

    def _why_not(self) -> str | None:
        """Returns why calls cannot be answered now, or None when they can."""
        if self._instance.fatal.is_set():
            return "the process ends"
        try:
            self._instance.use.clock_guard.check()
            self._instance.use.log_guard.check()
        except Refusal as refusal:
            return f"{refusal.reason}: {refusal.message}"
        return None if self._instance.hsm.ready() else "HSM_UNAVAILABLE"


def build_web_server(instance: Instance, *, shared_port: bool) -> WebServer | None:
    """Puts the enrolment page on its port, if it has one. Raises `OSError` when it is taken."""
    config, use = instance.config, instance.use
    if config.web.address is None:
        return None
    page = EnrolmentPage(
        authenticate=use.authenticate,
        open_=use.open_enrolment,
        begin=use.begin_enrolment,
        confirm=use.confirm_enrolment,
        pages=Pages(service=config.service.name, zone=ZoneInfo(config.service.time_zone)),
        clock=instance.clock,
    )
    app = WebApp(
        page=page,
        rates=Rates(clock=instance.clock),
        clock=instance.clock,
        language=Language(config.delivery.language),
        log=instance.log.call,
    )
    return WebServer(
        app.build(),
        address=config.web.address,
        certificate_file=config.server.tls_certificate_file,
        key_file=config.server.tls_key_file,
        shared_port=shared_port,
        grace=config.server.grace_seconds,
    )


def _connections() -> int:
    """Returns how many connections each port may have, so that callers leave descriptors for the server itself."""
    allowed = allow_descriptors(WANTED_DESCRIPTORS)
    return max(1, min(MOST_CONNECTIONS, (allowed - _OWN_DESCRIPTORS) // PORTS))
