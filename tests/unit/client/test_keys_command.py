"""`trien keys create --wait`: what a person sees of a key that is made, fails, or takes long."""

from types import SimpleNamespace
from typing import Any

import pytest
from trien.v1 import algorithms_pb2, key_service_pb2

from trien_client.cli import keys
from trien_client.cli.operating import Officer, Target
from trien_client.cli.outcome import CommandError, ExitCode, OutputFormat

State = key_service_pb2.Key


class Server:
    """Answers GetKey with one state after the other, the last one for ever."""

    def __init__(self, *states: Any) -> None:
        self.keys = SimpleNamespace(GetKey="GetKey")
        self.calls = 0
        self._states = list(states)

    def call(self, method: str, request: Any) -> Any:
        assert (method, request.name) == ("GetKey", "keys/new")
        self.calls += 1
        return key(self._states.pop(0) if len(self._states) > 1 else self._states[0])

    def close(self) -> None:
        """Has nothing to close."""


def key(state: Any) -> Any:
    return key_service_pb2.Key(
        name="keys/new",
        key_type=algorithms_pb2.RSA_3072,
        protection_level=key_service_pb2.WRAPPED,
        state=state,
        public_key=b"spki" if state == State.ENABLED else b"",
        wrapping_generation=2 if state == State.ENABLED else 0,
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_POLL_SECONDS", 0.001)


def officer(server: Server) -> Officer:
    target = Target(
        connection=None, operator=None, address=None, ca_file=None, certificate_file=None, key_file=None, timeout=1.0
    )
    return Officer(target=target, output=OutputFormat.TEXT, _client=server)  # type: ignore[arg-type]


def test_a_key_is_waited_for_until_it_is_generated() -> None:
    server = Server(State.PENDING_GENERATION, State.PENDING_GENERATION, State.ENABLED)
    made = keys._generated(officer(server), key(State.PENDING_GENERATION), 60)
    assert (made.state, server.calls) == (State.ENABLED, 3)
    text = keys._text(made)
    assert "WRAPPED, by generation 2 of the wrapping key" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_key_that_the_token_cannot_generate_is_a_failure() -> None:
    server = Server(State.PENDING_GENERATION, State.GENERATION_FAILED)
    with pytest.raises(CommandError, match="could not generate keys/new") as failure:
        keys._generated(officer(server), key(State.PENDING_GENERATION), 60)
    assert failure.value.exit_code is ExitCode.REFUSED


def test_a_wait_that_ends_too_early_says_how_to_look_again() -> None:
    server = Server(State.PENDING_GENERATION)
    with pytest.raises(CommandError, match="trien keys show keys/new") as failure:
        keys._generated(officer(server), key(State.PENDING_GENERATION), 0.05)
    assert failure.value.exit_code is ExitCode.UNAVAILABLE
    assert server.calls > 0


def test_a_terminal_is_told_how_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    server = Server(State.PENDING_GENERATION, State.ENABLED)
    keys._generated(officer(server), key(State.PENDING_GENERATION), 60)
    written = capsys.readouterr().err
    assert "keys/new is being generated … 0 s" in written
    assert written.endswith("\r\x1b[K"), "the line is cleared"


def test_what_a_key_will_be_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    pending = keys._text(key(State.PENDING_GENERATION))
    assert "SHA-256" not in pending
    assert keys._line(key(State.DESTROY_SCHEDULED)).split() == ["DESTROY_SCHEDULED", "RSA_3072", "WRAPPED", "keys/new"]
    assert capsys.readouterr().out == ""
