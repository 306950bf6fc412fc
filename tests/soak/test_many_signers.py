"""With 100,000 signers a page, a lookup and an import cost what they cost with a few.

Measured are medians in this process, over a real database. The token, a fake here, does one HMAC for each row that was
not seen before. `TRIEN_SOAK_SIGNERS` sets how many signers there are.
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.contract.store_factories import (
    Database,
    PostgresServer,
    made_database,
    postgres_fixture,
    sqlite_template_fixture,
)
from tests.support.registry import enter
from tests.support.world import OPERATOR, World, operators

from trien_server.services.paging import Page, token_behind

__all__ = ["PostgresServer", "postgres_fixture", "sqlite_template_fixture"]

SIGNERS = int(os.environ.get("TRIEN_SOAK_SIGNERS", "100000"))
AT_ONCE = 2_000
FEW = 1_000
COMMUNES = 100
TIMES = 40
MOST_TIMES_AS_LONG = 4.0
"""There is room for another load of the machine between the two measurements; a scan takes a hundred times as long."""


@pytest.fixture(name="database", params=["sqlite", "postgresql"])
def database_fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return made_database(request.param, request, tmp_path)


def people(numbers: range) -> bytes:
    rows = (f"p-{number:06},Nguyễn Thị Hồng {number},commune-{number % COMMUNES:02}" for number in numbers)
    return "\n".join(["id,name,organization", *rows]).encode()


def import_people(world: World, numbers: range) -> float:
    begun = time.monotonic()
    result = world.use.import_signers(OPERATOR, people(numbers), validate_only=False, deadline=world.deadline())
    assert (result.entered, result.faults) == (len(numbers), ())
    return time.monotonic() - begun


def medians(world: World, count: int) -> dict[str, float]:
    """Returns the median seconds of what officers do, spread over all signers."""
    seconds: dict[str, list[float]] = {"page": [], "page of an organization": [], "lookup": []}
    for turn in range(TIMES):
        name = f"signers/p-{count * turn // TIMES:06}"
        page = Page.parse(20, token_behind(name))
        organization = f"organizations/commune-{turn % COMMUNES:02}"
        first = Page.parse(5, "")
        acts = {
            "page": lambda page=page: world.use.list_signers(OPERATOR, organization=None, page=page)[0],
            "page of an organization": lambda first=first, organization=organization: world.use.list_signers(
                OPERATOR, organization=organization, page=first
            )[0],
            "lookup": lambda name=name: world.use.get_signer(OPERATOR, name),
        }
        for what, act in acts.items():
            begun = time.monotonic()
            assert act()
            seconds[what].append(time.monotonic() - begun)
    return {what: statistics.median(each) for what, each in seconds.items()}


@pytest.mark.soak
def test_what_officers_do_costs_no_more_with_many_signers(
    database: Database, record_property: Callable[[str, object], None]
) -> None:
    store = database.open()
    try:
        world = World(store=store, seconds=120)
        store.now = world.clock.now  # type: ignore[method-assign]
        world.use.create_installation({name: identity.certificate_der for name, identity in operators().items()})
        for number in range(COMMUNES):
            enter(world, f"commune-{number:02}")
        import_people(world, range(FEW))
        medians(world, FEW)
        few = medians(world, FEW)
        imports = [
            import_people(world, range(start, min(start + AT_ONCE, SIGNERS))) for start in range(FEW, SIGNERS, AT_ONCE)
        ]
        medians(world, SIGNERS)
        many = medians(world, SIGNERS)
        assert imports
    finally:
        store.close()
    record_property("count", f"{database.name}: signers {SIGNERS}, in {len(imports) + 1} imports")
    record_property(
        "count", f"{database.name}: imports of {AT_ONCE} at most took {min(imports):.1f} to {max(imports):.1f} s"
    )
    for what, seconds in many.items():
        record_property(
            "count", f"{database.name}: {what} {few[what] * 1000:.2f} ms of {FEW}, {seconds * 1000:.2f} ms of {SIGNERS}"
        )
        assert seconds < few[what] * MOST_TIMES_AS_LONG, (what, few, many)
