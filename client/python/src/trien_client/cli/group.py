"""Groups of commands."""

from typing import Any

from typer.core import TyperGroup, TyperOption


class Group(TyperGroup):
    """A group of commands whose help option has a value, so that typer need not load pydantic (0.2 s) to parse it."""

    def get_help_option(self, ctx: Any) -> TyperOption | None:
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option
