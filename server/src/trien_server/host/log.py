"""The log: one line an event on standard error. Fields are names, reasons and numbers, never messages (P12)."""

import sys
from collections.abc import Mapping

import structlog


class Log:
    """Writes lines as JSON for machines, or as text for people."""

    def __init__(self, *, form: str) -> None:
        renderer = (
            structlog.processors.JSONRenderer(ensure_ascii=False)
            if form == "json"
            else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        )
        self._logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            structlog.WriteLogger(sys.stderr),
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.add_log_level,
                renderer,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        )

    def call(self, *, event: str, **fields: str | float | None) -> None:
        """Writes what a call was and how it ended."""
        shown = {key: value for key, value in fields.items() if value is not None}
        if "fault" in shown:
            self._logger.error(event, **shown)
        else:
            self._logger.info(event, **shown)

    def report(self, event: str, fields: Mapping[str, str]) -> None:
        """Writes what needs an operator's attention."""
        self._logger.warning(event, **{f"{key}_" if key == "event" else key: value for key, value in fields.items()})

    def info(self, event: str, **fields: str | int | float) -> None:
        """Writes what an operator likes to know."""
        self._logger.info(event, **fields)
