"""What a thief with the user's PIN, the token and the wrapped keys can do: each attempt on a real token, counted."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import KDF, Attribute, Mechanism, MechanismFlag, ObjectClass, Session, _pkcs11
from pkcs11 import KeyType as TokenKeyType
from pkcs11.exceptions import AttributeSensitive, AttributeTypeInvalid, FunctionFailed, PKCS11Error
from pkcs11.util.ec import encode_named_curve_parameters
from tests.integration.hsm.test_provisioning import logged_in
from tests.support.softhsm import LABEL, MODULE, PIN, SO_PIN, SoftHsmToken, copy_token

from trien_server.core.algorithms import KeyType
from trien_server.hsm import create_softhsm_token, provision
from trien_server.hsm.calls import ALLOWED_MECHANISMS, Calls, Template
from trien_server.hsm.keys import WRAPPING_KEY, encode_public_key, generate_key_pair_to_wrap
from trien_server.hsm.module import find_objects, function_list
from trien_server.hsm.wrapping import TRUSTED_UNWRAP_TEMPLATE, UNWRAP_TEMPLATE

PAD = Mechanism.AES_KEY_WRAP_PAD
SECRETS = (Attribute.VALUE, Attribute.PRIVATE_EXPONENT, Attribute.PRIME_1, Attribute.COEFFICIENT)


class AnyUse(_pkcs11.EncryptMixin, _pkcs11.DecryptMixin, _pkcs11.SignMixin, _pkcs11.DeriveMixin):  # type: ignore
    """A key by its handle, with all uses: the module alone refuses."""

    session: Any = None
    handle: Any = 0
    key_type: Any = None

    def __init__(self, session: Session, handle: int, key_type: TokenKeyType) -> None:
        self.session, self.handle, self.key_type = session, handle, key_type


class Thief:
    """A session with the user's PIN, and a score: how many attempts of each kind were refused, and what was not."""

    def __init__(
        self, session: Session, wrapping_key: int, wrapped: bytes, key_type: TokenKeyType, *, trusted: bool = True
    ) -> None:
        self.session = session
        self.calls = Calls(function_list(MODULE))
        self.wrapping_key = wrapping_key
        self.wrapped = wrapped
        template = TRUSTED_UNWRAP_TEMPLATE if trusted else UNWRAP_TEMPLATE
        self.trusted = trusted
        self.base: Template = {Attribute.KEY_TYPE: int(key_type), Attribute.EXTRACTABLE: False, **template}
        self.refused: Counter[str] = Counter()
        self.allowed: list[str] = []

    def attempt(self, kind: str, name: object, act: Callable[[], object]) -> Any:
        try:
            result = act()
        except PKCS11Error:
            self.refused[kind] += 1
            return None
        self.allowed.append(f"{kind}: {name}")
        return result

    def own_key(self) -> Any:
        return self.session.generate_key(
            TokenKeyType.AES,
            256,
            template={Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: False},
            capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP | MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
        )

    def unwrap(self, change: Template, *, without: object = None, mechanism: Mechanism = PAD, **more: Any) -> int:
        # The last attribute is CKA_MODIFIABLE: SoftHSM changes nothing after it.
        order = {**self.base, **change}
        order[Attribute.MODIFIABLE] = order.pop(Attribute.MODIFIABLE)
        template = {name: value for name, value in order.items() if name != without}
        if Attribute.CLASS in change:
            del template[Attribute.SIGN_RECOVER]  # a private key's alone
        return self.calls.unwrap_key(self.session, mechanism, self.wrapping_key, self.wrapped, template, **more)

    def read(self, handle: int) -> list[bytes]:
        """Reads what is secret of an object."""
        for item in find_objects(self.session, {}):
            if item.handle == handle:  # type: ignore[attr-defined]
                return [value for name in SECRETS if (value := _value(item, name))]
        return []


def _value(item: Any, name: Attribute) -> bytes:
    try:
        return bytes(item[name])
    except (AttributeSensitive, AttributeTypeInvalid, FunctionFailed):
        return b""


@contextmanager
def thief(token: SoftHsmToken, key_type: KeyType) -> Iterator[Thief]:
    os.environ["SOFTHSM2_CONF"] = str(token.configuration)
    with logged_in() as session:
        (wrapping_key,) = find_objects(session, {Attribute.LABEL: WRAPPING_KEY})
        kind = TokenKeyType.RSA if key_type.is_rsa else TokenKeyType.EC
        handle = wrapping_key.handle  # type: ignore[attr-defined]
        yield Thief(session, handle, token.wrapped[key_type].wrapped_key or b"", kind)


def attack_unwrapping(of: Thief) -> None:
    """Unwraps in every weaker way."""
    untrusted: Template = {Attribute.WRAP_WITH_TRUSTED: False} if of.trusted else {}
    weaker: list[Template] = [
        {Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: False},
        {Attribute.EXTRACTABLE: True, **untrusted},
        {Attribute.SENSITIVE: False},
        {Attribute.PRIVATE: False},
        {Attribute.TOKEN: True},
        {Attribute.DECRYPT: True},
        {Attribute.DERIVE: True},
        {Attribute.UNWRAP: True},
        {Attribute.SIGN: False},
        {Attribute.MODIFIABLE: True},
        {Attribute.COPYABLE: True},
        {Attribute.CLASS: int(ObjectClass.SECRET_KEY), Attribute.KEY_TYPE: int(TokenKeyType.GENERIC_SECRET)},
        {Attribute.CLASS: int(ObjectClass.SECRET_KEY), Attribute.KEY_TYPE: int(TokenKeyType.AES)},
        {Attribute.CLASS: int(ObjectClass.DATA)},
    ]
    for change in weaker:
        of.attempt("unwrap weaker", change, lambda change=change: of.unwrap(change))
    kept = Attribute.WRAP_WITH_TRUSTED if of.trusted else Attribute.EXTRACTABLE
    for name in (Attribute.SENSITIVE, kept, Attribute.DERIVE, Attribute.DECRYPT, Attribute.COPYABLE):
        of.attempt("unwrap without", name, lambda name=name: of.unwrap({}, without=name))
    for mechanism, parameter in (
        (Mechanism.AES_KEY_WRAP, b""),
        (Mechanism.AES_KEY_WRAP_KWP, b""),
        (Mechanism.AES_CBC_PAD, bytes(16)),
        (Mechanism.AES_CBC, bytes(16)),
        (Mechanism.AES_ECB, b""),
        (Mechanism.AES_GCM, bytes(40)),
        (Mechanism.RSA_PKCS, b""),
    ):
        of.attempt(
            "unwrap by another mechanism",
            mechanism,
            lambda mechanism=mechanism, parameter=parameter: of.unwrap({}, mechanism=mechanism, parameter=parameter),
        )


def attack_wrapping_key(of: Thief) -> None:
    """Uses the wrapping key for something else, changes it, copies it, takes it out."""
    key = AnyUse(of.session, of.wrapping_key, TokenKeyType.AES)
    for mechanism, parameter in (
        (Mechanism.AES_ECB, None),
        (Mechanism.AES_CBC, bytes(16)),
        (Mechanism.AES_CBC_PAD, bytes(16)),
    ):
        for use in (key.encrypt, key.decrypt):
            of.attempt(
                "use the wrapping key",
                (use, mechanism),
                lambda use=use, m=mechanism, p=parameter: use(bytes(16), mechanism=m, mechanism_param=p),
            )
    of.attempt("use the wrapping key", "CMAC", lambda: key.sign(bytes(16), mechanism=Mechanism.AES_CMAC))
    for mechanism in (Mechanism.AES_ECB_ENCRYPT_DATA,):
        of.attempt(
            "use the wrapping key",
            mechanism,
            lambda mechanism=mechanism: key.derive_key(
                TokenKeyType.GENERIC_SECRET, 128, mechanism=mechanism, mechanism_param=bytes(16)
            ),
        )
    changes: list[Template] = [
        {Attribute.DECRYPT: True},
        {Attribute.ENCRYPT: True},
        {Attribute.DERIVE: True},
        {Attribute.SENSITIVE: False},
        {Attribute.EXTRACTABLE: True},
        {Attribute.MODIFIABLE: True},
        {Attribute.LABEL: b"mine"},
        {Attribute.UNWRAP_TEMPLATE: {}},
        {Attribute.UNWRAP_TEMPLATE: {Attribute.EXTRACTABLE: True}},
        {ALLOWED_MECHANISMS: [PAD, Mechanism.AES_CBC_PAD]},
    ]
    for change in changes:
        of.attempt(
            "change the wrapping key", change, lambda c=change: of.calls.set_attributes(of.session, of.wrapping_key, c)
        )
        of.attempt(
            "copy the wrapping key", change, lambda c=change: of.calls.copy_object(of.session, of.wrapping_key, c)
        )
    own = of.own_key()
    for name, wrapping in (("itself", of.wrapping_key), ("an own key", own.handle)):
        of.attempt(
            "wrap the wrapping key",
            name,
            lambda wrapping=wrapping: of.calls.wrap_key(of.session, PAD, wrapping, of.wrapping_key),
        )
    assert of.read(of.wrapping_key) == []


def derive(of: Thief, handle: int) -> bytes:
    """Computes the shared secret of a key and a point of the thief's choice."""
    point = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    shared = AnyUse(of.session, handle, TokenKeyType.EC).derive_key(
        TokenKeyType.GENERIC_SECRET,
        256,
        mechanism=Mechanism.ECDH1_DERIVE,
        mechanism_param=(KDF.NULL, None, b"\x04" + point.x.to_bytes(32) + point.y.to_bytes(32)),
        template={Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: False},
    )
    return bytes(shared[Attribute.VALUE])


def attack_unwrapped_key(of: Thief) -> None:
    """Unwraps as is right, and then weakens, copies, wraps and reads."""
    handle = of.unwrap({})
    changes: list[Template] = [
        {Attribute.EXTRACTABLE: True},
        {Attribute.SENSITIVE: False},
        {Attribute.PRIVATE: False},
        {Attribute.DERIVE: True},
        {Attribute.DECRYPT: True},
        {Attribute.MODIFIABLE: True},
        {Attribute.TOKEN: True},
        {},
    ]
    for change in changes:
        if change:
            of.attempt("change a key", change, lambda c=change: of.calls.set_attributes(of.session, handle, c))
        of.attempt("copy a key", change, lambda c=change: of.calls.copy_object(of.session, handle, c))
    own = of.own_key()
    for wrapping in (own.handle, of.wrapping_key):
        of.attempt("wrap a key", wrapping, lambda w=wrapping: of.calls.wrap_key(of.session, PAD, w, handle))
    if of.base[Attribute.KEY_TYPE] == TokenKeyType.EC:
        of.attempt("derive from a key", "ECDH", lambda: derive(of, handle))
    assert of.read(handle) == []


def attack_leaving_key(of: Thief) -> None:
    """Unwraps a key as one that is to be wrapped anew, and takes it out by other ways than a trusted key."""
    handle = of.unwrap({Attribute.EXTRACTABLE: True})
    for change in (
        {Attribute.WRAP_WITH_TRUSTED: False},
        {Attribute.SENSITIVE: False},
        {Attribute.PRIVATE: False},
        {Attribute.DERIVE: True},
        {Attribute.MODIFIABLE: True},
        {Attribute.TOKEN: True},
    ):
        of.attempt("change a key", change, lambda c=change: of.calls.set_attributes(of.session, handle, c))  # type: ignore
        of.attempt("copy a key", change, lambda c=change: of.calls.copy_object(of.session, handle, c))  # type: ignore
    own = of.own_key()
    given = {
        Attribute.CLASS: int(ObjectClass.SECRET_KEY),
        Attribute.KEY_TYPE: int(TokenKeyType.AES),
        Attribute.VALUE: bytes(32),
        Attribute.WRAP: True,
    }
    for key in (own.handle, of.calls.create_object(of.session, given)):
        for mechanism, parameter in (
            (PAD, b""),
            (Mechanism.AES_KEY_WRAP, b""),
            (Mechanism.AES_CBC_PAD, bytes(16)),
            (Mechanism.AES_CBC, bytes(16)),
        ):
            of.attempt(
                "wrap by an own key",
                mechanism,
                lambda k=key, m=mechanism, p=parameter: of.calls.wrap_key(of.session, m, k, handle, parameter=p),
            )
    for mechanism, parameter in ((Mechanism.AES_KEY_WRAP, b""), (Mechanism.AES_CBC_PAD, bytes(16))):
        of.attempt(
            "wrap by another mechanism",
            mechanism,
            lambda m=mechanism, p=parameter: of.calls.wrap_key(of.session, m, of.wrapping_key, handle, parameter=p),
        )
    if of.base[Attribute.KEY_TYPE] == TokenKeyType.EC:
        of.attempt("derive from a key", "ECDH", lambda: derive(of, handle))
    assert of.read(handle) == []
    again = of.calls.wrap_key(of.session, PAD, of.wrapping_key, handle)
    assert len(again) == len(of.wrapped)  # a trusted key wraps it: that is all


def attack_trust(of: Thief) -> None:
    """Makes an own wrapping key a trusted one; wraps the token's keys, and a key that waits to be wrapped."""
    own = of.own_key()
    trusted: Template = {
        Attribute.CLASS: int(ObjectClass.SECRET_KEY),
        Attribute.KEY_TYPE: int(TokenKeyType.AES),
        Attribute.WRAP: True,
        Attribute.TRUSTED: True,
    }
    of.attempt(
        "be trusted",
        "generated",
        lambda: of.calls.generate_key(of.session, Mechanism.AES_KEY_GEN, {**trusted, Attribute.VALUE_LEN: 32}),
    )
    of.attempt(
        "be trusted", "made", lambda: of.calls.create_object(of.session, {**trusted, Attribute.VALUE: bytes(32)})
    )
    of.attempt(
        "be trusted", "changed", lambda: of.calls.set_attributes(of.session, own.handle, {Attribute.TRUSTED: True})
    )
    of.attempt("be trusted", "copied", lambda: of.calls.copy_object(of.session, own.handle, {Attribute.TRUSTED: True}))
    for item in find_objects(of.session, {Attribute.TOKEN: True, Attribute.PRIVATE: True}):
        for wrapping in (own.handle, of.wrapping_key):
            of.attempt(
                "wrap a key of the token",
                item,
                lambda w=wrapping, i=item: of.calls.wrap_key(of.session, PAD, w, i.handle),  # type: ignore[attr-defined]
            )
    public, waiting = generate_key_pair_to_wrap(of.session, KeyType.EC_P256, trusted=True)
    of.attempt(
        "wrap a key that waits", "own key", lambda: of.calls.wrap_key(of.session, PAD, own.handle, waiting.handle)
    )
    for change in ({Attribute.WRAP_WITH_TRUSTED: False}, {Attribute.SENSITIVE: False}):
        of.attempt(
            "weaken a key that waits",
            change,
            lambda c=change: of.calls.set_attributes(of.session, waiting.handle, c),  # type: ignore[misc, arg-type]
        )
        of.attempt(
            "weaken a key that waits",
            change,
            lambda c=change: of.calls.copy_object(of.session, waiting.handle, c),  # type: ignore[misc, arg-type]
        )
    assert of.read(waiting.handle) == []
    for half in (public, waiting):
        half.destroy()


EXPECTED = {
    "unwrap weaker": 14,
    "unwrap without": 5,
    "unwrap by another mechanism": 7,
    "use the wrapping key": 8,
    "change the wrapping key": 10,
    "copy the wrapping key": 10,
    "wrap the wrapping key": 2,
    "change a key": 7 + 6,
    "copy a key": 8 + 6,
    "wrap a key": 2,
    "be trusted": 4,
    "wrap a key of the token": 2 * (4 + len(KeyType)),
    "wrap a key that waits": 1,
    "weaken a key that waits": 4,
    "wrap by an own key": 8,
    "wrap by another mechanism": 2,
}


@pytest.mark.requirement("ASVS 5.0.0-13.3.3")
@pytest.mark.promise("P4")
@pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.RSA_2048])
def test_softhsm_refuses_every_attempt_of_a_thief_who_has_the_pin_and_the_wrapped_key(
    tmp_path: Path, key_type: KeyType
) -> None:
    with thief(copy_token(tmp_path / "token"), key_type) as of:
        for attack in (
            attack_unwrapping,
            attack_wrapping_key,
            attack_unwrapped_key,
            attack_leaving_key,
            attack_trust,
        ):
            attack(of)
        derived = {"derive from a key": 2} if key_type is KeyType.EC_P256 else {}
        assert of.allowed == []
        assert of.refused == {**EXPECTED, **derived}
        assert sum(of.refused.values()) == (126 if key_type is KeyType.EC_P256 else 124)


@pytest.mark.promise("P4")
def test_an_exact_copy_of_the_wrapping_key_opens_nothing_that_the_key_itself_does_not(tmp_path: Path) -> None:
    """A trusted wrapping key can be copied, unchanged: SoftHSM takes CKA_COPYABLE from no copy."""
    with thief(copy_token(tmp_path / "token"), KeyType.EC_P256) as of:
        of.wrapping_key = of.calls.copy_object(of.session, of.wrapping_key, {})
        attack_unwrapping(of)
        attack_wrapping_key(of)
        attack_unwrapped_key(of)
        assert of.allowed == []
        assert sum(of.refused.values()) == 14 + 5 + 7 + 8 + 10 + 10 + 2 + 7 + 8 + 2 + 1


@pytest.fixture
def unprotected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsmToken:
    """A token whose wrapping key has the right uses, but no template, no list of mechanisms and no trust."""
    token = SoftHsmToken(tmp_path / "token", {})
    create_softhsm_token(token.directory, label=LABEL, pin=PIN, so_pin=SO_PIN, module_path=MODULE)
    monkeypatch.setenv("SOFTHSM2_CONF", str(token.configuration))
    with logged_in() as session:
        session.generate_key(
            TokenKeyType.AES,
            256,
            label=WRAPPING_KEY,
            store=True,
            capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP,
            template={Attribute.EXTRACTABLE: False},
        )
    assert WRAPPING_KEY not in provision(module_path=MODULE, token_label=LABEL, pin=PIN, so_pin=SO_PIN)
    return token


@pytest.mark.promise("P4")
def test_without_its_template_the_wrapping_key_gives_keys_away_and_the_findings_say_so(
    unprotected: SoftHsmToken,
) -> None:
    """The control: the same attempts read a private key where nothing protects it."""
    hsm = unprotected.open()
    findings = hsm.wrapping_findings()
    pair = hsm.generate_wrapped_key_pair(KeyType.EC_P256)
    hsm.close()
    with logged_in() as session:
        (wrapping_key,) = find_objects(session, {Attribute.LABEL: WRAPPING_KEY})
        handle = wrapping_key.handle  # type: ignore[attr-defined]
        of = Thief(session, handle, pair.wrapped_key, TokenKeyType.EC, trusted=False)
        (value,) = of.read(of.unwrap({Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: False}))
        stolen = ec.derive_private_key(int.from_bytes(value), ec.SECP256R1())
        curve = encode_named_curve_parameters("secp256r1")
        point = stolen.public_key().public_numbers()
        imported = session.create_object(
            {
                Attribute.CLASS: ObjectClass.PUBLIC_KEY,
                Attribute.KEY_TYPE: TokenKeyType.EC,
                Attribute.EC_PARAMS: curve,
                Attribute.EC_POINT: b"\x04\x41\x04" + point.x.to_bytes(32) + point.y.to_bytes(32),
            }
        )
        assert encode_public_key(imported) == pair.public_key
        assert len(derive(of, of.unwrap({Attribute.DERIVE: True}))) == 32
        attack_unwrapping(of)
        attack_wrapping_key(of)
        assert len(of.allowed) >= 20
        assert not any(allowed.startswith("use the wrapping key") for allowed in of.allowed)
        decrypting = of.calls.copy_object(session, handle, {Attribute.DECRYPT: True})
        key = AnyUse(session, decrypting, TokenKeyType.AES)
        assert len(key.decrypt(pair.wrapped_key, mechanism=Mechanism.AES_ECB)) == 80
    said = "\n".join(findings)
    for part in (
        "not marked as trusted",
        "can be changed (CKA_MODIFIABLE)",
        "also wraps with AES_KEY_WRAP",
        "unwrap a key as one that is extractable",
        "unwrap a key as one that is not sensitive",
        "unwrap a key as one that is able to derive",
        "unwrap a key as one that is changeable",
        "unwrap a key as one that is a secret key",
    ):
        assert part in said
    assert len(findings) == 8
