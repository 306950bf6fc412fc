"""Keys in custody: made in one token, brought to an empty second one, and believed by their check values alone."""

import hashlib
import hmac
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11 import Attribute, ObjectClass
from tests.integration.hsm.test_planted_keys import WAYS, Plant, put
from tests.integration.hsm.test_provisioning import logged_in
from tests.support.softhsm import LABEL, MODULE, PIN, SO_PIN, SoftHsmToken, environment_kept

from trien_server import custody
from trien_server.config import TokenSection
from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.custody import CustodyRefused, join
from trien_server.core.ports import KeyMismatch, KeyReference, SecurityOfficerNeeded
from trien_server.core.records import InstallationKeyPurpose
from trien_server.core.secret import Secret
from trien_server.host.exported_keys import add_to_list, exported_keys
from trien_server.hsm import FIRST_KEYS, NotProvisioned, Pkcs11Hsm, create_softhsm_token, provision
from trien_server.hsm.calls import Calls
from trien_server.hsm.check_values import check_message
from trien_server.hsm.keys import ONE_TIME_PASSWORD_KEY, SEALING_KEY, WRAPPING_KEY, label_of
from trien_server.hsm.module import find_objects, function_list

ROW = b"a row of the database"
MORE_PLACES = [
    (ONE_TIME_PASSWORD_KEY, put),
    *((label, way) for label in (SEALING_KEY, WRAPPING_KEY) for way in WAYS if (label, way) != (SEALING_KEY, put)),
]


@dataclass
class Place:
    """A folder with a token, a list of exported keys, and what a server's configuration says of both."""

    folder: Path

    def __post_init__(self) -> None:
        self.token = SoftHsmToken(self.folder / "token", {})
        create_softhsm_token(self.token.directory, label=LABEL, pin=PIN, so_pin=SO_PIN, module_path=MODULE)
        pin = self.folder / "pin"
        pin.write_bytes(PIN.reveal())
        pin.chmod(0o600)
        self.section = TokenSection(
            module=Path(MODULE),
            label=LABEL,
            pin_file=pin,
            softhsm_configuration_file=self.token.configuration,
            exported_keys_file=self.folder / "exported-keys.toml",
        )

    def open(self) -> Pkcs11Hsm:
        return self.token.open(exported=exported_keys(self.section.exported_keys_file))


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    with environment_kept("SOFTHSM2_CONF"):
        yield


@pytest.fixture
def first(tmp_path: Path) -> Place:
    return Place(tmp_path / "first")


@pytest.fixture
def second(tmp_path: Path) -> Place:
    return Place(tmp_path / "second")


@pytest.fixture
def held(tmp_path: Path) -> custody.Custody:
    return custody.Custody(
        custodians=("Nguyễn Văn A", "Trần Thị B"),
        share_files=(tmp_path / "a" / "share", tmp_path / "b" / "share"),
        export_file=tmp_path / "keys.toml",
    )


def make(place: Place, held: custody.Custody, *labels: str, so_pin: Secret | None = SO_PIN) -> Mapping[str, str]:
    shares = custody.make_shares(held)
    export = custody.make_in_custody(
        place.section, labels or FIRST_KEYS, shares=shares, export_file=held.export_file, so_pin=so_pin
    )
    return export.check_values()


def bring(place: Place, held: custody.Custody, so_pin: Secret | None = SO_PIN) -> tuple[str, ...]:
    _, made = custody.import_keys(
        place.section, export_file=held.export_file, share_files=held.share_files, so_pin=so_pin
    )
    return made


@pytest.mark.promise("P4", "P5")
@pytest.mark.parametrize("so_pin", [SO_PIN, None], ids=["trusted", "not trusted"])
def test_a_second_token_goes_on_with_the_exported_keys(
    first: Place, second: Place, held: custody.Custody, so_pin: Secret | None
) -> None:
    made = make(first, held, so_pin=so_pin)
    hsm = first.open()
    try:
        seal = hsm.authenticate(ROW)
        sealed = hsm.encrypt(Secret(b"the secret of an authenticator"), associated_data=b"authenticators/1")
        pair = hsm.generate_wrapped_key_pair(KeyType.EC_P256)
        findings = hsm.wrapping_findings()
    finally:
        hsm.close()
    assert len(findings) == (0 if so_pin else 1), findings

    assert bring(second, held, so_pin) == (*FIRST_KEYS, "trien probe key")
    assert bring(second, held, so_pin) == ()
    assert exported_keys(second.section.exported_keys_file)() == made
    hsm = second.open()
    try:
        assert hsm.authenticate(ROW) == seal
        opened = hsm.decrypt(sealed, associated_data=b"authenticators/1")
        assert opened == Secret(b"the secret of an authenticator")
        key = KeyReference(
            object_id=os.urandom(16),
            key_type=KeyType.EC_P256,
            public_key=pair.public_key,
            wrapped_key=pair.wrapped_key,
        )
        digest = hashlib.sha256(b"a document").digest()
        hsm.prepare(key)
        [signature] = hsm.sign(key, SignatureAlgorithm.ECDSA_P256_SHA256, [digest], pss_salt_length=None)
        public = load_der_public_key(pair.public_key)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        public.verify(signature, digest, ec.ECDSA(Prehashed(SHA256())))
        assert hsm.wrapping_findings() == findings
    finally:
        hsm.close()


def test_openssl_opens_the_export_with_both_components_and_finds_the_check_values(
    first: Place, held: custody.Custody
) -> None:
    """What `docs/ceremony.md` says of the format, by another program."""
    make(first, held)
    key = join(custody.read_shares(held.share_files))
    hsm = first.open()
    try:
        seal = hsm.authenticate(ROW)
    finally:
        hsm.close()
    export = custody._read_export(held.export_file, key)
    opened = {}
    for one in export.keys:
        opened[one.label] = subprocess.run(
            ["openssl", "enc", "-d", "-id-aes256-wrap-pad", "-K", key.reveal().hex(), "-iv", "A65959A6"],
            input=one.wrapped,
            capture_output=True,
            check=True,
            timeout=30,
        ).stdout
    assert {len(value) for value in opened.values()} == {32}
    sealing = opened[SEALING_KEY]
    assert hmac.digest(sealing, ROW, "sha256") == seal
    check = hashlib.sha256(hmac.digest(sealing, check_message(SEALING_KEY), "sha256")).hexdigest()[:32]
    assert check == export.check_values()[SEALING_KEY]
    wrapped = subprocess.run(
        ["openssl", "enc", "-id-aes256-wrap-pad", "-K", opened[WRAPPING_KEY].hex(), "-iv", "A65959A6"],
        input=hashlib.sha256(check_message(WRAPPING_KEY)).digest(),
        capture_output=True,
        check=True,
        timeout=30,
    ).stdout
    assert hashlib.sha256(wrapped).hexdigest()[:32] == export.check_values()[WRAPPING_KEY]


@pytest.mark.promise("P5")
@pytest.mark.parametrize(
    ("label", "plant"),
    [(SEALING_KEY, put), *(pytest.param(label, way, marks=pytest.mark.slow) for label, way in MORE_PLACES)],
)
def test_another_key_in_the_place_of_an_exported_one_is_refused(
    first: Place, held: custody.Custody, label: str, plant: Plant
) -> None:
    make(first, held)
    with logged_in() as session:
        for item in find_objects(session, {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label}):
            item.destroy()
        plant(session, Calls(function_list(MODULE)), label, 1)
    with pytest.raises(NotProvisioned, match="another key"):
        first.open()
    with pytest.raises(NotProvisioned, match="another key"):
        bring(first, held)


@pytest.mark.promise("P5")
@pytest.mark.parametrize("plant", [WAYS[0], *(pytest.param(way, marks=pytest.mark.slow) for way in WAYS[1:])])
def test_a_key_that_the_list_does_not_name_is_refused_as_ever(
    first: Place, held: custody.Custody, plant: Plant
) -> None:
    make(first, held)
    with logged_in() as session:
        plant(session, Calls(function_list(MODULE)), SEALING_KEY, 2)
    hsm = first.open()
    try:
        with pytest.raises(KeyMismatch, match="attributes of its purpose"):
            hsm.authenticate(ROW, generation=2)
        assert len(hsm.authenticate(ROW)) == 32
    finally:
        hsm.close()


@pytest.mark.promise("P5")
def test_exported_keys_count_only_while_a_list_that_nobody_else_writes_names_them(
    first: Place, held: custody.Custody
) -> None:
    make(first, held)
    listed = first.section.exported_keys_file
    assert listed is not None
    with pytest.raises(NotProvisioned, match=r"attributes of its purpose: .*NEVER_EXTRACTABLE"):
        first.token.open()
    listed.chmod(0o664)
    with pytest.raises(NotProvisioned, match="others may write"):
        first.open()
    listed.chmod(0o644)
    first.open().close()
    listed.rename(listed.with_suffix(".away"))
    with pytest.raises(NotProvisioned, match="cannot be read"):
        first.open()


def test_the_next_sealing_key_of_an_installation_in_custody_is_made_with_the_shares_alone(
    first: Place, second: Place, held: custody.Custody
) -> None:
    make(first, held)
    hsm = first.open()
    try:
        for purpose in (InstallationKeyPurpose.SEALING, InstallationKeyPurpose.WRAPPING):
            with pytest.raises(SecurityOfficerNeeded):
                hsm.make_installation_key(purpose, 2)
    finally:
        hsm.close()
    labels = [label_of(SEALING_KEY, 2), label_of(WRAPPING_KEY, 2)]
    assert set(make(first, held, *labels)) == {*FIRST_KEYS, *labels}
    hsm = first.open()
    try:
        for purpose in (InstallationKeyPurpose.SEALING, InstallationKeyPurpose.WRAPPING):
            hsm.make_installation_key(purpose, 2)
        seal = hsm.authenticate(ROW, generation=2)
        assert seal != hsm.authenticate(ROW)
        old = hsm.generate_wrapped_key_pair(KeyType.EC_P256)
        key = KeyReference(
            object_id=os.urandom(16),
            key_type=KeyType.EC_P256,
            public_key=old.public_key,
            wrapped_key=old.wrapped_key,
        )
        assert hsm.rewrap(key, generation=2).wrapping_generation == 2
    finally:
        hsm.close()
    assert len(bring(second, held)) == 6
    hsm = second.open()
    try:
        assert hsm.authenticate(ROW, generation=2) == seal
    finally:
        hsm.close()


def test_a_token_that_has_other_keys_takes_none(first: Place, second: Place, held: custody.Custody) -> None:
    make(first, held)
    os.environ["SOFTHSM2_CONF"] = str(second.token.configuration)
    before = provision(module_path=MODULE, token_label=LABEL, pin=PIN, so_pin=SO_PIN)
    with pytest.raises(NotProvisioned, match="another key"):
        bring(second, held)
    assert len(before) >= 4


def test_a_trusted_key_is_not_brought_without_the_security_officers_pin(
    first: Place, second: Place, held: custody.Custody
) -> None:
    make(first, held)
    with pytest.raises(NotProvisioned, match="security officer"):
        bring(second, held, so_pin=None)
    assert len(bring(second, held)) == 4


def test_shares_that_nobody_brings_are_not_replaced_by_new_ones(first: Place, held: custody.Custody) -> None:
    make(first, held)
    held.share_files[1].unlink()
    with pytest.raises(CustodyRefused, match="not both shares"):
        custody.make_shares(held)
    held.export_file.unlink()
    again = custody.make_shares(held)
    assert {share.number for share in again} == {1, 2}
    other = custody.Custody(custodians=("A", "B"), share_files=held.share_files, export_file=held.export_file)
    with pytest.raises(CustodyRefused, match="of these custodians"):
        custody.make_shares(other)


def test_a_list_that_names_another_key_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "list"
    add_to_list(path, {SEALING_KEY: "0" * 32})
    before = path.read_bytes()
    with pytest.raises(KeyMismatch, match="names another key"):
        add_to_list(path, {SEALING_KEY: "1" * 32})
    assert path.read_bytes() == before
