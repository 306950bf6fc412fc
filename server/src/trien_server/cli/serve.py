"""One serving process."""

import signal
import sys
from collections.abc import Mapping

from trien_server.config import Config, LoadedConfig
from trien_server.host.log import Log
from trien_server.host.stop import ReloadSignal, StopSignal, end_within
from trien_server.host.supervisor import Heartbeat, HeartbeatPipe
from trien_server.wiring import Instance, Server

_LAST_SECONDS = 5.0
"""How long the process may take to end once everything is closed."""


def serve(loaded: LoadedConfig, *, stop: StopSignal) -> int:
    """Serves alone until `stop` is set; returns the exit code. Raises what a start can fail on."""
    reload = ReloadSignal()
    log = Log(form=loaded.config.log.format)
    return _serve(Instance(loaded.config, log=log), stop=stop, reload=reload, pipe=None)


def serve_as_worker(heartbeat: int, *, stop: StopSignal) -> int:
    """Serves on shared ports and tells the supervisor how it is; returns the exit code.

    The configuration comes as JSON on standard input, so that it stands in no process list.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the whole group; the supervisor decides
    reload = ReloadSignal()
    config = Config.model_validate_json(sys.stdin.buffer.read())
    pipe = HeartbeatPipe(heartbeat)
    log = Log(form=config.log.format)

    def report_and_watch(event: str, fields: Mapping[str, str]) -> None:
        log.report(event, fields)
        if event == "hsm.hung":
            pipe.tell(Heartbeat.HUNG)

    return _serve(Instance(config, log=log, report=report_and_watch), stop=stop, reload=reload, pipe=pipe)


def _serve(instance: Instance, *, stop: StopSignal, reload: ReloadSignal, pipe: HeartbeatPipe | None) -> int:
    def tell() -> None:
        if pipe is not None:
            pipe.tell(Heartbeat.ALIVE)

    try:
        server = Server(instance, shared_ports=pipe is not None, tell=tell)
    except BaseException:
        instance.close()
        raise
    try:
        server.start()
    except BaseException:
        server.stop()
        raise
    ports = {"token_port": server.grpc.token_port, "certificate_port": server.grpc.certificate_port}
    instance.log.info("serving", **ports, **({} if server.web is None else {"web_port": server.web.port}))
    while not stop.wait(0.2) and not instance.fatal.is_set():
        if reload.take():
            server.reload()
    instance.log.info("stopping")
    server.stop()
    code = 1 if instance.fatal.is_set() else 0
    end_within(_LAST_SECONDS, code)
    return code
