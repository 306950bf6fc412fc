"""Groups of commands."""

from typing import Any

from typer.core import TyperGroup, TyperOption


class Group(TyperGroup):
    """A group of commands, some of which have two words, as `verify receipt` beside `verify`.

    Its help option has a value, so that typer need not load pydantic (0.2 s) to parse it.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        two_words = " ".join(args[:2])
        command = self.get_command(ctx, two_words) if len(args) > 1 else None
        return super().resolve_command(ctx, args) if command is None else (two_words, command, args[2:])

    def get_help_option(self, ctx: Any) -> TyperOption | None:
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option
