"""The mail server and the SMS gateway: tried only when asked for, and without a message."""

from collections.abc import Iterator, Mapping

from trien_server.cli.doctor.files import require_files
from trien_server.cli.doctor.findings import Finding, NotLookedAt, error
from trien_server.cli.doctor.subject import Subject
from trien_server.core.errors import DeliveryFailed
from trien_server.wiring import build_deliveries

_SECONDS = 10.0


def carriers(subject: Subject) -> Iterator[Finding]:
    """Yields which carrier does not let itself be reached."""
    if subject.config.email is None and subject.config.sms is None:
        raise NotLookedAt("neither [email] nor [sms] is configured")
    for section in ("email", "sms"):
        require_files(subject, section)
    told: list[Mapping[str, str]] = []
    deliveries = build_deliveries(subject.config, clock=subject.clock, report=lambda _, fields: told.append(fields))
    for kind, delivery in deliveries.items():
        try:
            delivery.reach(timeout=_SECONDS)
        except DeliveryFailed:
            section = kind.value.lower()
            yield error(
                f"{section}: the carrier cannot be used: {told[-1]['reason']}.",
                f"Correct [{section}], or ask who runs it. `trien-server delivery test` sends a text that says it is a "
                "test.",
            )
