"""A text that says it is a test, sent as one-time passwords are."""

from collections.abc import Mapping

from trien_server.config import Config
from trien_server.core.delivered_text import Language, trial_text
from trien_server.core.delivery_addresses import parse_address
from trien_server.core.errors import DeliveryFailed, InvalidArgument
from trien_server.core.records import AuthenticatorKind
from trien_server.host.clock import SystemClock
from trien_server.host.randomness import SystemRandomness
from trien_server.services.identifiers import new_id
from trien_server.wiring import build_deliveries

_SECONDS = 10.0
_KINDS = {"sms": AuthenticatorKind.SMS, "email": AuthenticatorKind.EMAIL}


class WrongUse(Exception):  # noqa: N818
    """What was asked for cannot be sent; the message says why."""


def send_trial(config: Config, *, kind: str, address: str) -> tuple[bool, str]:
    """Returns whether the carrier took a test text on, and what an operator reads about it.

    Raises `WrongUse` for another kind, one that is not configured, and what is no address of that kind.
    """
    if kind not in _KINDS:
        raise WrongUse("--kind: expected sms or email")
    reasons: list[str] = []

    def note(event: str, fields: Mapping[str, str]) -> None:  # noqa: ARG001 - there is one event
        reasons.append(fields["reason"])

    delivery = build_deliveries(config, clock=SystemClock(), report=note).get(_KINDS[kind])
    if delivery is None:
        raise WrongUse(f"The configuration has no section [{kind}].")
    try:
        to = parse_address(_KINDS[kind], address, field="--to")
    except InvalidArgument as fault:
        raise WrongUse(fault.message) from None
    text = trial_text(kind=_KINDS[kind], service=config.service.name, language=Language(config.delivery.language))
    message = new_id(SystemRandomness())
    carrier = _carrier(config, kind)
    try:
        delivery.deliver(address=to, text=text, message=message, timeout=_SECONDS)
    except DeliveryFailed:
        return False, f"{carrier} did not take the test message {message}: {', '.join(reasons)}."
    return True, f"{carrier} took the test message {message} for {to}. Look whether it arrives."


def _carrier(config: Config, kind: str) -> str:
    if kind == "email" and config.email is not None:
        return f"The mail server {config.email.host}"
    return f"The SMS gateway {config.sms.url}" if config.sms is not None else "The carrier"
