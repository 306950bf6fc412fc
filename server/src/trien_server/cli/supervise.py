"""Several serving processes."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack

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
    with ExitStack() as held:

        def reserved(address: str) -> str:
            taken, chosen = reserve(address)
            held.enter_context(taken)
            return chosen

        addresses = {name: reserved(getattr(settings, name)) for name in ("token_address", "certificate_address")}
        config = loaded.config.model_copy(update={"server": settings.model_copy(update=addresses)})
        if config.web.address is not None:
            addresses["web_address"] = reserved(config.web.address)
            web = config.web.model_copy(update={"address": addresses["web_address"]})
            config = config.model_copy(update={"web": web})
        ports = {name.replace("address", "port"): int(at.rpartition(":")[2]) for name, at in addresses.items()}

        def ready() -> None:
            log.info("serving", **ports, workers=settings.workers)

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
