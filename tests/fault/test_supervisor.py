"""Workers that die, fall silent or hang are replaced while the others serve (P8), and no request is lost (P7)."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.promises.history import History
from tests.support.administration import Connection, Person, request_of
from tests.support.load import Caller, answered_between, load
from tests.support.sandbox import Installation
from tests.support.shim import Order, Shim
from tests.support.workers import alive, copy_people, judge, running, serving_of, wait_until, workers_of

REPLACED_WITHIN = 10.0
CALLERS = 4


@dataclass
class Several:
    """A server of two workers over the shim, people, and what they did."""

    installation: Installation
    people: tuple[Person, ...]
    shim: Shim
    history: History

    def events(self) -> Counter[str]:
        return Counter(str(line.get("event")) for line in self.installation.lines())


def several(tmp_path: Path, *settings: str) -> Several:
    peopled = copy_people(tmp_path / "installation")
    shim = Shim(tmp_path / "shim")
    installation = Installation(peopled.directory, "server.workers=2", shim.setting, *settings, **shim.environment)
    return Several(installation, peopled.people, shim, History())


@dataclass(frozen=True)
class Fault:
    """What one fault cost: when another process was started, when it served, and what the others signed meanwhile."""

    name: str
    started_after: float
    serving_after: float
    signed_meanwhile: int


def strike(server: Several, callers: list[Caller], name: str) -> Fault:
    """Strikes one worker and waits until another one serves in its place."""
    victim, other = workers_of(server.installation)
    serving = serving_of(server.installation)
    begun = time.monotonic()
    FAULTS[name](server, victim)
    started = wait_until(lambda: set(workers_of(server.installation)) - {victim, other} != set(), "a new worker")
    replaced = started + wait_until(lambda: serving_of(server.installation) > serving, "it serves")
    wait_until(lambda: not alive(victim), "the old worker's end")
    server.shim.behave()
    return Fault(name, started, replaced, len(answered_between(callers, begun, begun + replaced)))


def kill(server: Several, victim: int) -> None:
    os.kill(victim, signal.SIGKILL)


def pause(server: Several, victim: int) -> None:
    os.kill(victim, signal.SIGSTOP)


def hang_one_call(server: Several, victim: int) -> None:
    """One signature never comes back; the worker's other session goes on."""
    server.shim.order(Order("C_Sign/signer", "hang", pid=victim, once=True))
    server.shim.wait_for("C_Sign", "hang")


def hang_every_call(server: Several, victim: int) -> None:
    """The whole token hangs for one worker."""
    server.shim.order(Order("C_Sign", "hang", pid=victim))
    server.shim.wait_for("C_Sign", "hang")


FAULTS: dict[str, Callable[[Several, int], None]] = {
    "killed": kill,
    "paused": pause,
    "one call hangs": hang_one_call,
    "every call hangs": hang_every_call,
}


@pytest.mark.requirement("ASVS 5.0.0-16.5.4")
@pytest.mark.promise("P1", "P2", "P7", "P8")
@pytest.mark.parametrize(
    "faults",
    [["killed"], pytest.param(["killed", "paused", "one call hangs", "every call hangs"], marks=pytest.mark.slow)],
    ids=["killed", "all"],
)
def test_a_worker_that_dies_pauses_or_hangs_is_replaced_while_the_other_serves(
    tmp_path: Path, faults: list[str], record_property: Callable[[str, object], None]
) -> None:
    server = several(tmp_path)
    with running(server.installation):
        wait_until(lambda: serving_of(server.installation) == 2, "both workers serve")
        with load([server.installation], server.people[:CALLERS], server.history) as callers:
            wait_until(lambda: all(len(caller.signed) >= 3 for caller in callers), "everybody signs")
            struck = [strike(server, callers, name) for name in faults]
        assert [text for caller in callers for text in caller.unexpected] == []
        events = server.events()
        assert server.installation.stop() == 0
    with judge(server.installation) as check:
        check(server.history)
    retried = [signed for caller in callers for signed in caller.signed if signed.tries > 1]
    for fault in struck:
        record_property(
            "count",
            f"{fault.name}: another worker started after {fault.started_after:.1f} s, served after"
            f" {fault.serving_after:.1f} s, signed meanwhile {fault.signed_meanwhile}",
        )
    slowest = max((signed.ended - signed.begun for signed in retried), default=0.0)
    record_property(
        "count",
        f"signed {sum(len(caller.signed) for caller in callers)}, of them {len(retried)} by a retry,"
        f" the slowest after {slowest:.1f} s",
    )
    assert [fault.name for fault in struck] == faults
    for fault in struck:
        assert fault.started_after < REPLACED_WITHIN, fault
        assert fault.signed_meanwhile >= 3, fault
    assert events["worker_started"] == 2 + len(faults)
    assert events["worker_silent"] == ("paused" in faults)
    assert events["worker_hung"] == sum("hangs" in name for name in faults)
    # What the hung worker had in hand was completed by the same id once its lease was over.
    assert len(retried) >= sum("hangs" in name for name in faults)


@pytest.mark.promise("P8")
@pytest.mark.parametrize("killed", [1, 2], ids=["one worker ends", "all workers end"])
def test_a_refused_pin_is_never_tried_again(
    tmp_path: Path, killed: int, record_property: Callable[[str, object], None]
) -> None:
    server = several(tmp_path)
    installation = server.installation
    with running(installation):
        wait_until(lambda: serving_of(installation) == 2, "both workers serve")
        logins = server.shim.counted()["C_Login", "called"]
        # The PIN is changed behind the servers' back: the next one to log in is refused.
        (installation.directory / "token-pin").write_text("not the PIN any more\n")
        for worker in workers_of(installation)[:killed]:
            os.kill(worker, signal.SIGKILL)
        assert installation.wait() == 3
        assert server.shim.counted()["C_Login", "called"] == logins + 1
        events = server.events()
    assert not any(alive(pid) for pid in workers_of(installation))
    assert events["worker_started"] == 3
    started = [line["level"] for line in installation.lines() if line.get("event") == "worker_started"]
    assert started == ["info"] * 3, "a start needs nobody's attention"
    with pytest.raises(AssertionError, match="exit code 3"):
        installation.start()
    tried = server.shim.counted()["C_Login", "called"] - logins
    record_property("count", f"logins with a wrong PIN: {tried}, by a worker in a running server and by a start anew")
    assert tried == 2


@pytest.mark.slow
@pytest.mark.promise("P8")
def test_workers_end_when_their_supervisor_is_killed_also_one_that_hangs(tmp_path: Path) -> None:
    server = several(tmp_path, "server.grace_seconds=1")
    with running(server.installation):
        wait_until(lambda: serving_of(server.installation) == 2, "both workers serve")
        with Connection(server.installation, token=server.installation.population["client"]["token"]) as connection:
            server.shim.order(Order("C_Sign/signer", "hang", once=True))
            pending = connection.signing.SignDigests.future(
                request_of(server.people[0]), timeout=60, metadata=connection.metadata
            )
            server.shim.wait_for("C_Sign", "hang")
            workers = workers_of(server.installation)
            assert len(workers) == 2
            server.installation.kill()
            wait_until(lambda: not any(alive(pid) for pid in workers), "the workers' end", seconds=40)
            assert pending.exception() is not None
