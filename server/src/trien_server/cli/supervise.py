"""Several serving processes."""

import sys
from collections.abc import Sequence

from trien_server.config import Config, LoadedConfig
from trien_server.host.log import Log
from trien_server.host.stop import ReloadSignal, StopSignal
from trien_server.host.supervisor import Supervisor, reserve


def supervise(loaded: LoadedConfig, *, stop: StopSignal) -> int:
    """Keeps `server.workers` processes serving until `stop` is set; returns the exit code.

    Raises `OSError` when a port is taken.
    """
    reload = ReloadSignal()
    settings = loaded.config.server
    log = Log(form=loaded.config.log.format)
    token_socket, token_address = reserve(settings.token_address)
    certificate_socket, certificate_address = reserve(settings.certificate_address)
    addresses = {"token_address": token_address, "certificate_address": certificate_address}
    config = loaded.config.model_copy(update={"server": settings.model_copy(update=addresses)})

    def ready() -> None:
        ports = [int(address.rpartition(":")[2]) for address in (token_address, certificate_address)]
        log.info("serving", token_port=ports[0], certificate_port=ports[1], workers=settings.workers)

    with token_socket, certificate_socket:
        supervisor = Supervisor(
            command=_command,
            configuration=_text(config),
            workers=settings.workers,
            report=log.report,
            started=lambda pid: log.info("worker_started", pid=str(pid)),
        )
        return supervisor.run(
            stop, grace=settings.drain_seconds + settings.grace_seconds + 5.0, ready=ready, reload=reload.take
        )


def _command(heartbeat: int) -> Sequence[str]:
    return [sys.executable, "-m", "trien_server", "worker", "--heartbeat", str(heartbeat)]


def _text(config: Config) -> bytes:
    return config.model_dump_json().encode()
