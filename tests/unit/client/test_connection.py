"""Connection files and secrets."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from trien_client import Client, ConnectionFile, ConnectionFileError
from trien_client._secret import Secret

CANARY = "canary-4711"


def content() -> dict[str, Any]:
    return {
        "sandbox": True,
        "address": "localhost:8443",
        "mutual_tls_address": "localhost:8444",
        "ca_file": "ca.pem",
        "client": {"name": "clients/portal", "token": CANARY},
        "client_certificate": {"name": "clients/batch", "certificate_file": "b.pem", "key_file": "/keys/b.key"},
        "operators": [{"name": "operators/admin", "certificate_file": "a.pem", "key_file": "a.key"}],
        "trust_anchors_file": "anchors.pem",
        "organization": "organizations/ubnd",
        "credentials": [{"name": "credentials/c", "activators": ["signers/s"]}],
        "signers": [{"name": "signers/s", "display_name": "S", "otpauth_uri": f"otpauth://totp/x?secret={CANARY}"}],
    }


def write(folder: Path, value: object) -> Path:
    path = folder / "connection.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    file = ConnectionFile.load(write(tmp_path, content()))
    assert file.ca_file == tmp_path / "ca.pem"
    assert file.trust_anchors_file == tmp_path / "anchors.pem"
    identity = file.certificate_of("client_certificate")
    assert (identity.certificate_file, identity.key_file) == (tmp_path / "b.pem", Path("/keys/b.key"))
    assert file.require_token().reveal() == CANARY


@pytest.mark.promise("P12")
def test_its_secrets_are_hidden(tmp_path: Path) -> None:
    file = ConnectionFile.load(write(tmp_path, content()))
    assert CANARY not in repr(file) + str(file)
    assert CANARY not in f"{Secret(CANARY)!r} {Secret(CANARY)} {[Secret(CANARY)]}"
    with pytest.raises(TypeError):
        pickle.dumps(Secret(CANARY))


@pytest.mark.parametrize("missing", ["address", "ca_file"])
def test_a_missing_field_is_named_and_nothing_else_is_told(tmp_path: Path, missing: str) -> None:
    value = content()
    del value[missing]
    with pytest.raises(ConnectionFileError, match=missing) as caught:
        ConnectionFile.load(write(tmp_path, value))
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("value", [[], "text", {"address": 1, "ca_file": 2}, {**content(), "credentials": ["x"]}])
def test_a_file_of_another_form_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(ConnectionFileError, match="not one of Trien's"):
        ConnectionFile.load(write(tmp_path, value))


def test_a_file_that_is_not_there_or_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFileError, match="cannot be read"):
        ConnectionFile.load(tmp_path / "nothing.json")
    (tmp_path / "x.json").write_text(f"{{ {CANARY}")
    with pytest.raises(ConnectionFileError, match="not JSON"):
        ConnectionFile.load(tmp_path / "x.json")


def test_only_true_makes_a_sandbox(tmp_path: Path) -> None:
    for value in ("true", 1, None, False):
        assert not ConnectionFile.load(write(tmp_path, {**content(), "sandbox": value})).sandbox


@pytest.mark.promise("P12")
@pytest.mark.parametrize("token", [f"{CANARY}\n", f"{CANARY} x", f"{CANARY}é"])
def test_a_token_that_cannot_be_sent_is_not_repeated(token: str) -> None:
    with pytest.raises(ValueError, match="no token has") as caught:
        Client("localhost:8443", ca_certificates=b"-----BEGIN CERTIFICATE-----", token=token)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "who calls"),
        ({"token": "t", "certificate": b"c", "key": b"k"}, "who calls"),
        ({"certificate": b"c"}, "needs its key"),
        ({"token": "t", "address": "https://sign.example.vn"}, "expected an address"),
        ({"token": "t"}, "no certificate in PEM"),
        ({"token": ""}, "no token has"),
        ({"token": "t", "address": "sign.example.vn"}, "expected an address"),
    ],
)
def test_a_client_that_could_not_work_is_not_made(options: dict[str, Any], message: str) -> None:
    address = options.pop("address", "localhost:8443")
    with pytest.raises(ValueError, match=message):
        Client(address, ca_certificates=b"-", **options)
