"""Organizations as a tree of lines."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from trien_client.cli.operating import moment
from trien_client.cli.outcome import plain

if TYPE_CHECKING:
    from trien.v1.organization_service_pb2 import Organization

_WIDTH = 80


def tree(organizations: "Iterable[Organization]", *, below: str = "") -> list[str]:
    """Returns a line or two for each organization below another one, or below none; each under its parent.

    One whose parent is not among the organizations stands at the top.
    """
    found = {organization.name: organization for organization in organizations}
    children: dict[str, list[Organization]] = defaultdict(list)
    for organization in found.values():
        parent = organization.parent if organization.parent in found or organization.parent == below else ""
        children[parent].append(organization)
    return list(_level(children, below, ""))


def has_ended(organization: "Organization") -> bool:
    """Tells whether an organization's time is over, by this computer's clock."""
    return organization.HasField("end_time") and organization.end_time.ToDatetime(tzinfo=UTC) <= datetime.now(UTC)


def _level(children: "dict[str, list[Organization]]", parent: str, indent: str) -> Iterator[str]:
    """Yields the lines below one organization. `indent` stands before them all, the way that it came by."""
    level = children.pop(parent, [])  # Taken out: a circle, which no server makes, would never end.
    for place, organization in enumerate(level):
        last = place == len(level) - 1
        top = parent == "" and indent == ""
        branch, beside = ("", "") if top else ("└─ ", "   ") if last else ("├─ ", "│  ")
        yield _cut(f"{indent}{branch}{organization.name.partition('/')[2]}  {organization.display_name}")
        below = children.get(organization.name)
        if dates := _dates(organization):
            yield _cut(f"{indent}{beside}{'│  ' if below else '   '}  {dates}")
        yield from _level(children, organization.name, f"{indent}{beside}")


def _dates(organization: "Organization") -> str:
    words = []
    if organization.HasField("start_time"):
        words.append(f"from {moment(organization.start_time)}")
    if organization.HasField("end_time"):
        words.append(f"{'ended' if has_ended(organization) else 'until'} {moment(organization.end_time)}")
    if organization.successor:
        words.append(f"then {organization.successor.partition('/')[2]}")
    return ", ".join(words)


def _cut(line: str) -> str:
    shown = plain(line)
    return shown if len(shown) <= _WIDTH else f"{shown[: _WIDTH - 1]}…"
