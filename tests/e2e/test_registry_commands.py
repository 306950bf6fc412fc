"""Organizations and signers by the officers' own commands, against a server with a SoftHSM token."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.integration.client.command import Trien, at_terminal
from tests.support.administration import Administrator, Connection, Refused, request_of
from tests.support.sandbox import Installation

EXAMPLE = Path(__file__).parents[2] / "docs/examples/signers.csv"
DISTRICT = 600


@pytest.fixture
def trien(installation: Installation) -> Trien:
    return Trien(installation.directory / "connection.json")


def agree(trien: Trien, *arguments: object) -> None:
    """Proposes by a command as the first officer, and approves what was shown as the second."""
    shown = trien(*arguments).stdout
    name, digest = re.findall(r"proposals/\w+", shown)[0], re.findall(r"sha256:[0-9a-f]{64}", shown)[0]
    assert (
        "EXECUTED by operators/second"
        in trien("proposals", "approve", name, "--digest", digest, "--as", "second").stdout
    )


def shown(trien: Trien, *arguments: object, exit_code: int = 0) -> Any:
    return json.loads(trien(*arguments, "--output", "json", exit_code=exit_code).stdout)


def write_district(path: Path, *, organization: str, count: int = DISTRICT) -> Path:
    rows = (
        f"{path.stem}-{number:03},Nguyễn Thị Hồng {number},{organization},,Công chức số {number},,+8491{number:07}"
        for number in range(count)
    )
    path.write_text("\ufeff" + "\r\n".join(["id,name,organization,kind,position,email,phone", *rows]), newline="")
    return path


@pytest.mark.usefixtures("nothing_unforeseen_is_logged")
def test_agencies_are_entered_moved_and_merged_by_commands(trien: Trien) -> None:
    for identifier, *more in (
        ("tinh", "--until", "2100-01-01"),
        ("xa-cu", "--parent", "tinh"),
        ("xa-moi", "--parent", "tinh", "--from", "2025-07-01T00:00+07:00"),
        ("truong-cu", "--parent", "xa-cu"),
    ):
        trien("organizations", "create", identifier, "--title", f"Ủy ban nhân dân {identifier}", *more)
    trien("signers", "create", "o-lai", "--name", "Người ở lại", "--organization", "xa-cu")
    agree(trien, "organizations", "update", "xa-cu", "--until", "2026-07-01", "--successor", "xa-moi")
    agree(trien, "organizations", "update", "truong-cu", "--parent", "xa-moi", "--title", "Trường mới")
    lines = trien("organizations", "list").stdout.splitlines()
    assert "├─ xa-cu  Ủy ban nhân dân xa-cu" in lines
    assert any("ended 2026-07-01" in line and "then xa-moi" in line for line in lines)
    assert "   └─ truong-cu  Trường mới" in lines
    assert all(len(line) <= 80 for line in lines)
    left = trien("organizations", "show", "xa-cu").stdout
    assert re.search(r"Left behind; their credentials sign nothing \(1\):\n  signers/o-lai +Người ở lại", left)
    assert shown(trien, "organizations", "show", "xa-moi")["below"] == ["organizations/truong-cu"]
    agree(trien, "signers", "update", "o-lai", "--organization", "xa-moi")
    assert "Left behind" not in trien("organizations", "show", "xa-cu").stdout
    agree(trien, "organizations", "update", "xa-cu", "--until", "", "--successor", "", "--parent", "")
    assert set(shown(trien, "organizations", "show", "xa-cu")) == {
        "name",
        "display_name",
        "create_time",
        "below",
        "signers",
    }
    for wrong in (["--until", "tomorrow"], ["--parent", "X"]):
        trien("organizations", "update", "xa-cu", *wrong, exit_code=2)
    refused = trien("organizations", "update", "tinh", "--parent", "truong-cu", exit_code=1)
    assert "cannot lie below itself" in refused.stderr


@pytest.mark.usefixtures("nothing_unforeseen_is_logged")
def test_a_district_of_600_signers_is_entered_by_one_command(
    trien: Trien, tmp_path: Path, installation: Installation
) -> None:
    trien("organizations", "create", "huyen", "--title", "Ủy ban nhân dân huyện")
    file = write_district(tmp_path / "d.csv", organization="huyen")
    assert trien("signers", "import", file, "--dry-run").stdout == "600 signers would be entered; nothing is wrong.\n"
    assert shown(trien, "signers", "list", "--organization", "huyen") == []
    assert trien("signers", "import", file).stdout == "600 signers entered.\n"
    assert trien("signers", "import", file).stdout == "0 signers entered. 600 were there with the same values.\n"
    found = shown(trien, "signers", "list", "--organization", "huyen")
    assert [signer["name"] for signer in found] == [f"signers/d-{number:03}" for number in range(DISTRICT)]
    with installation.read_database() as database:
        (entries,) = database.execute(
            "SELECT count(*) FROM audit_entries WHERE kind = 'signer_created' AND subject LIKE 'signers/d-%'"
        ).fetchone()
    assert entries == DISTRICT


def test_every_fault_of_a_list_is_said(trien: Trien, tmp_path: Path) -> None:
    trien("organizations", "create", "xa-loi", "--title", "Ủy ban nhân dân xã")
    file = write_district(tmp_path / "e.csv", organization="xa-loi", count=100)
    file.write_text(file.read_text(encoding="utf-8-sig").replace("+84", "0"), encoding="utf-8")
    faults = tmp_path / "faults.csv"
    said = trien("signers", "import", file, "--faults-file", faults, exit_code=1).stdout
    assert said.startswith("e.csv: nothing was entered; 100 faults:\n")
    assert "    51  phone" in said
    assert "    52  phone" not in said
    assert "and 50 more: --faults-file" in said
    with faults.open(encoding="utf-8-sig", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [(row["line"], row["column"]) for row in rows] == [(str(line), "phone") for line in range(2, 102)]
    answered = shown(trien, "signers", "import", file, exit_code=1)
    assert [fault["line"] for fault in answered["faults"]] == list(range(2, 102))
    assert shown(trien, "signers", "list", "--organization", "xa-loi") == []
    (tmp_path / "none.csv").write_bytes(b"a" * 3_000_000)
    refused = trien("signers", "import", tmp_path / "none.csv", exit_code=1)
    assert "3,000,000 bytes" in refused.stderr
    trien("signers", "import", tmp_path / "missing.csv", exit_code=2)


def test_a_person_sees_how_far_a_list_is_checked(trien: Trien, tmp_path: Path) -> None:
    trien("organizations", "create", "xa-xem", "--title", "Ủy ban nhân dân xã")
    file = write_district(tmp_path / "f.csv", organization="xa-xem", count=300)
    environment = {"TRIEN_CONNECTION": str(trien.connection)}
    code, screen, _ = at_terminal(["signers", "import", str(file)], [], environment)
    assert code == 0, screen
    assert "Checking the list" in screen
    assert "100%" in screen
    assert "300 signers entered." in screen


def test_the_example_of_the_documentation_is_entered(trien: Trien) -> None:
    assert trien("signers", "import", EXAMPLE).stdout == "4 signers entered.\n"
    signers = {line.split(",")[0] for line in EXAMPLE.read_text(encoding="utf-8").splitlines()[1:]}
    assert all("ubnd-xa-phu-lam" in trien("signers", "show", signer).stdout for signer in signers)


def test_signers_are_changed_shut_out_and_let_in_again_by_commands(trien: Trien) -> None:
    made = shown(
        trien,
        *("signers", "create", "an", "--name", "Vũ Thị An", "--organization", "ubnd-xa-phu-lam"),
        *("--position", "Kế toán", "--email", "an@phulam.example"),
    )
    assert (made["state"], made["kind"], made["email"]) == ("ENABLED", "PERSON", "an@phulam.example")
    agree(trien, "signers", "update", "an", "--phone", "+84912345678", "--email", "")
    changed = shown(trien, "signers", "show", "an")
    assert (changed["phone"], changed.get("email"), changed["position"]) == ("+84912345678", None, "Kế toán")
    assert shown(trien, "signers", "disable", "an")["state"] == "DISABLED"
    assert (
        "signers/an (disabled)\n  Vũ Thị An, Kế toán"
        in trien("signers", "list", "--organization", "ubnd-xa-phu-lam").stdout
    )
    agree(trien, "signers", "enable", "an")
    assert shown(trien, "signers", "unlock", "an")["state"] == "ENABLED"
    assert "STATE_CONFLICT" in trien("signers", "enable", "an", exit_code=1).stderr


@pytest.mark.promise("P8")
def test_an_agency_that_has_ended_signs_nothing_and_keeps_the_code(
    trien: Trien, installation: Installation, client: Connection
) -> None:
    trien("organizations", "create", "xa-het", "--title", "Ủy ban nhân dân xã")
    with Administrator(installation) as administrator:
        administrator.organization = "organizations/xa-het"
        person = administrator.create_person("nguoi-xa-het")
    code = person.authenticator.take()
    agree(trien, "organizations", "update", "xa-het", "--until", "2026-01-01")
    with pytest.raises(Refused) as refused:
        client.sign(request_of(person, code=code))
    assert refused.value.reason == "CREDENTIAL_DISABLED"
    agree(trien, "organizations", "update", "xa-het", "--until", "2100-01-01")
    assert client.sign(request_of(person, code=code)).signatures
