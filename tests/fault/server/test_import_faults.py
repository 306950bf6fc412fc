"""A large list that is entered while the server is killed, and while people sign."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from tests.support.administration import Administrator, Refused, e_office, request_of
from tests.support.sandbox import Installation, running_sandbox
from trien.v1 import organization_service_pb2, signer_service_pb2

KILLS = 8
LINES = 4000
SECONDS = 120.0


def people(prefix: str, count: int, organization: str) -> bytes:
    rows = (f"{prefix}-{number:05},Nguyễn Thị Hồng {number},{organization}" for number in range(count))
    return "\n".join(["id,name,organization", *rows]).encode()


def import_people(administrator: Administrator, content: bytes) -> signer_service_pb2.ImportSignersResponse:
    request = signer_service_pb2.ImportSignersRequest(csv=content)
    answer: signer_service_pb2.ImportSignersResponse = administrator.connection.call(
        administrator.connection.signers.ImportSigners, request, timeout=SECONDS
    )
    return answer


def unless_killed(administrator: Administrator, content: bytes) -> bool:
    """Imports a list of `LINES`; returns whether there was an answer."""
    try:
        answer = import_people(administrator, content)
    except Refused as refused:
        if refused.code is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    assert answer.signer_count == LINES
    return True


def entered(installation: Installation, prefix: str) -> tuple[int, int, int]:
    """Returns how many signers, counts and audit entries of a list there are."""
    with installation.read_database() as database:
        signers, counts = (
            database.execute(f"SELECT count(*) FROM {table} WHERE name LIKE ?", (f"signers/{prefix}-%",)).fetchone()[0]
            for table in ("signers", "signer_attempts")
        )
        (entries,) = database.execute(
            "SELECT count(*) FROM audit_entries WHERE kind = 'signer_created' AND subject LIKE ?",
            (f"signers/{prefix}-%",),
        ).fetchone()
    return signers, counts, entries


@pytest.mark.slow
@pytest.mark.promise("P1", "P7")
def test_a_list_is_entered_whole_or_not_at_all_when_the_server_is_killed(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    whole = 0
    with running_sandbox(tmp_path / "installation") as installation:
        with Administrator(installation) as administrator:
            organization = administrator.organization.partition("/")[2]
            begun = time.monotonic()
            import_people(administrator, people("first", LINES, organization))
            takes = time.monotonic() - begun
        for kill in range(KILLS):
            prefix = f"k{kill}"
            content = people(prefix, LINES, organization)
            with Administrator(installation) as administrator:
                grpc.channel_ready_future(administrator.connection.channel).result(timeout=60)
                killer = threading.Timer(takes * (kill + 1) / (KILLS + 1), installation.kill)
                killer.start()
                answered = unless_killed(administrator, content)
                killer.join()
            installation.start()
            found = entered(installation, prefix)
            assert found in {(0, 0, 0), (LINES, LINES, LINES)}, found
            assert not answered or found[0] == LINES
            whole += found[0] == LINES
            with Administrator(installation) as administrator:
                grpc.channel_ready_future(administrator.connection.channel).result(timeout=60)
                again = import_people(administrator, content)
            assert (again.signer_count, again.unchanged_count) == (LINES - found[0], found[0])
            assert entered(installation, prefix) == (LINES, LINES, LINES)
    record_property(
        "count", f"SQLite: servers killed while {LINES} signers were entered {KILLS}, of which {whole} after the commit"
    )


@pytest.mark.slow
def test_people_sign_while_the_largest_list_is_entered(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with (
        running_sandbox(tmp_path / "installation") as installation,
        Administrator(installation) as administrator,
        e_office(installation) as office,
    ):
        request = organization_service_pb2.CreateOrganizationRequest(
            organization_id="huyen", organization=organization_service_pb2.Organization(display_name="Huyện")
        )
        administrator.connection.call(administrator.connection.organizations.CreateOrganization, request)
        person = administrator.create_person("signing")
        office.sign(request_of(person))
        answers: list[signer_service_pb2.ImportSignersResponse] = []
        importing = threading.Thread(
            target=lambda: answers.append(import_people(administrator, people("p", 10_000, "huyen")))
        )
        seconds: list[float] = []
        importing.start()
        while importing.is_alive():
            begun = time.monotonic()
            office.sign(request_of(person))
            seconds.append(time.monotonic() - begun)
        importing.join()
        assert [answer.signer_count for answer in answers] == [10_000]
        assert seconds
    record_property(
        "count",
        f"SQLite: signatures while 10000 signers were entered {len(seconds)}; the longest took {max(seconds):.1f} s",
    )
