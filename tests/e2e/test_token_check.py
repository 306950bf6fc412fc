"""What `init` and `trien-server token check` find out about wrapped keys, with tokens of both kinds."""

from pathlib import Path

import pytest
from tests.support.sandbox import trien_server

from trien_server.core.secret import Secret
from trien_server.hsm.softhsm import create_softhsm_token, find_softhsm_module

CLOSED = "the token kept them closed to every attempt that was made with its PIN"
PIN = "48151623"


@pytest.mark.promise("P4")
def test_a_token_that_init_made_keeps_wrapped_keys_closed_and_says_so(tmp_path: Path) -> None:
    directory = tmp_path / "made"
    made = trien_server("init", "--dir", str(directory))
    assert made.returncode == 0, made.stderr
    objects_before = sorted((directory / "token").rglob("*.object"))
    checked = trien_server("token", "check", "--config", str(directory / "trien.toml"))
    assert (checked.returncode, checked.stderr) == (0, "")
    for told in (made.stdout, checked.stdout):
        assert (
            "wrapped keys   RSA (tried with RSA_2048), EC_P256, EC_P384: made, wrapped, unwrapped and signed with"
            in told
        )
        assert "not EC_ED25519: the token's module refuses to wrap them (CKR_KEY_NOT_WRAPPABLE)" in told
        assert CLOSED in told
    assert len(objects_before) > 0
    assert sorted((directory / "token").rglob("*.object")) == objects_before, "something stayed on the token"


@pytest.mark.promise("P4")
def test_a_wrapping_key_that_no_security_officer_trusted_is_reported(
    tmp_path: Path,
) -> None:
    token, pin_file, directory = tmp_path / "token", tmp_path / "pin", tmp_path / "made"
    environment = {"SOFTHSM2_CONF": str(token / "softhsm2.conf")}
    module = find_softhsm_module()
    create_softhsm_token(token, label="T", pin=Secret(PIN.encode()), so_pin=Secret(b"98765432"), module_path=module)
    pin_file.touch(mode=0o600)
    pin_file.write_text(PIN)
    existing = ("--module", module, "--token-label", "T", "--pin-file", str(pin_file))
    made = trien_server("init", "--dir", str(directory), *existing, **environment)
    assert made.returncode == 0, made.stderr
    assert "WARNING        The wrapping key is not marked as trusted (CKA_TRUSTED)" in made.stdout
    checked = trien_server("token", "check", "--config", str(directory / "trien.toml"), **environment)
    assert checked.returncode == 1
    assert checked.stderr.startswith("WARNING        The wrapping key is not marked as trusted (CKA_TRUSTED)")
    assert CLOSED not in checked.stdout
    assert PIN not in made.stdout + made.stderr + checked.stdout + checked.stderr
