"""Certificate chains: a good one is taken, and each way of being bad has an error of its own."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID
from tests.support.openssl import openssl

from trien_server.core.certificates import LONGEST_CHAIN, assert_valid_at, check_chain, validity_of
from trien_server.core.errors import CertificateNotValid, InvalidArgument

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
DAY = timedelta(days=1)
DOCUMENT_SIGNING = "1.3.6.1.5.5.7.3.36"
USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def key_of(name: str, kind: str = "P-256") -> Any:
    """The key of a name: made once for all tests."""
    return _key_of(name, kind)


@cache
def _key_of(_: str, kind: str) -> Any:
    match kind:
        case "RSA-2048":
            return rsa.generate_private_key(65537, 2048)
        case "RSA-1024":
            return rsa.generate_private_key(65537, 1024)
        case "DSA-1024":
            return dsa.generate_private_key(1024)
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "P-192":
            return ec.generate_private_key(ec.SECP192R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
    return ec.generate_private_key(ec.SECP256R1())


def public_key_of(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in names for name in USAGES})


@dataclass(frozen=True)
class Plan:
    """A certificate to be made: each field is a way of being wrong."""

    subject: str
    ca: bool | None = False
    path_length: int | None = None
    usages: tuple[str, ...] | None = ("content_commitment",)
    purposes: tuple[str, ...] | None = None
    kind: str = "P-256"
    begin: datetime = NOW - DAY
    end: datetime = NOW + 30 * DAY
    issuer: str | None = None
    issuer_key: Any = None
    function: Any = field(default_factory=hashes.SHA256)
    others: tuple[tuple[x509.ExtensionType, bool], ...] = ()


def authority(subject: str, **changes: Any) -> Plan:
    plan = Plan(subject, ca=True, usages=("key_cert_sign", "crl_sign"))
    return replace(plan, **changes)


SIGNER = Plan("signer")
SUB, ROOT = authority("sub"), authority("root")
GOOD = (SIGNER, SUB, ROOT)


def name_of(subject: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])


def make(plans: Sequence[Plan]) -> list[bytes]:
    """Returns the chain: each issued by the next, the last by itself."""
    made = []
    for plan, above in zip(plans, [*plans[1:], plans[-1]], strict=True):
        key, issuer_key = key_of(plan.subject, plan.kind), plan.issuer_key or key_of(above.subject, above.kind)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name_of(plan.subject))
            .issuer_name(name_of(plan.issuer or above.subject))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(plan.begin)
            .not_valid_after(plan.end)
        )
        if plan.ca is not None:
            constraints = x509.BasicConstraints(ca=plan.ca, path_length=plan.path_length)
            builder = builder.add_extension(constraints, critical=True)
        if plan.usages is not None:
            builder = builder.add_extension(usage(*plan.usages), critical=True)
        if plan.purposes is not None:
            purposes = [x509.ObjectIdentifier(purpose) for purpose in plan.purposes]
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        for extension, critical in plan.others:
            builder = builder.add_extension(extension, critical=critical)
        function = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else plan.function
        made.append(builder.sign(issuer_key, function).public_bytes(Encoding.DER))
    return made


def check(chain: Sequence[bytes], *, kind: str = "P-256", at: datetime = NOW) -> None:
    check_chain(chain, public_key=public_key_of(key_of("signer", kind)), at=at, field="chain")


def long_chain(authorities: int, **changes: Any) -> list[bytes]:
    return make([SIGNER, *(authority(f"ca-{number}", **changes) for number in range(authorities))])


@pytest.mark.parametrize(
    "plans",
    [
        GOOD,
        GOOD[:2],
        (replace(SIGNER, usages=("digital_signature",)), SUB, ROOT),
        (replace(SIGNER, usages=None, ca=None), SUB, ROOT),
        (replace(SIGNER, purposes=(DOCUMENT_SIGNING,)), SUB, ROOT),
        (replace(SIGNER, purposes=("1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.4")), SUB, ROOT),
        (SIGNER, replace(SUB, path_length=0), replace(ROOT, path_length=1)),
        (SIGNER, replace(SUB, usages=None), ROOT),
        (SIGNER, replace(SUB, kind="RSA-2048"), replace(ROOT, kind="P-384")),
        (SIGNER, replace(SUB, kind="Ed25519"), ROOT),
    ],
    ids=[
        "three",
        "two of three",
        "digitalSignature alone",
        "without extensions",
        "for documents",
        "for e-mail among others",
        "path lengths that suffice",
        "a CA without key usage",
        "RSA and P-384 CAs",
        "an Ed25519 CA",
    ],
)
def test_a_good_chain_is_taken_whole_and_without_its_root(plans: Sequence[Plan]) -> None:
    chain = make(plans)
    check(chain)
    check(chain[:1])


@pytest.mark.parametrize("kind", ["RSA-2048", "P-384", "Ed25519"])
def test_keys_of_every_kind_have_chains(kind: str) -> None:
    check(make((replace(SIGNER, kind=kind), SUB, ROOT)), kind=kind)


def test_ten_certificates_are_taken_and_eleven_are_not() -> None:
    check(long_chain(LONGEST_CHAIN - 1))
    with pytest.raises(InvalidArgument, match="expected 1 to 10 certificates"):
        check(long_chain(LONGEST_CHAIN))


_UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
_UNREADABLE = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.31"), b"\x04\x00")

BAD: dict[str, tuple[Callable[[], list[bytes]], int | None, str]] = {
    "none at all": (list, None, "expected 1 to 10 certificates"),
    "empty bytes": (lambda: [b""], 0, "not a DER certificate"),
    "PEM": (
        lambda: [x509.load_der_x509_certificate(make(GOOD)[0]).public_bytes(Encoding.PEM)],
        0,
        "not a DER certificate",
    ),
    "cut off": (lambda: [make(GOOD)[0][:-1]], 0, "not a DER certificate"),
    "bytes behind": (lambda: [make(GOOD)[0] + b"\x00"], 0, "not a DER certificate"),
    "another key": (lambda: make(GOOD)[1:], 0, "for another key"),
    "the root first": (lambda: make(GOOD)[::-1], 0, "for another key"),
    "out of order": (lambda: [make(GOOD)[0], *make(GOOD)[:0:-1]], 0, "not its issuer's but that of"),
    "one missing": (lambda: [make(GOOD)[0], make(GOOD)[2]], 0, "not its issuer's but that of"),
    "the signer's twice": (lambda: (lambda made: [made[0], made[0], *made[1:]])(make(GOOD)), 1, "same certificate"),
    "the root twice": (lambda: (lambda made: [*made, made[2]])(make(GOOD)), 3, "same certificate"),
    "issued by another key of that name": (
        lambda: make((replace(SIGNER, issuer_key=key_of("stranger")), SUB, ROOT)),
        0,
        "did not issue it",
    ),
    "the CA issued by another key of that name": (
        lambda: make((SIGNER, replace(SUB, issuer_key=key_of("stranger")), ROOT)),
        1,
        "did not issue it",
    ),
    "self-signed": (lambda: make((SIGNER,)), 0, "its own key signed it"),
    "self-signed as openssl req -x509 makes it": (
        lambda: make((replace(SIGNER, ca=True, usages=None),)),
        0,
        "its own key signed it",
    ),
    "a CA's": (lambda: make((replace(SIGNER, ca=True), SUB, ROOT)), 0, "it is a CA's"),
    "may issue": (
        lambda: make((replace(SIGNER, usages=("content_commitment", "key_cert_sign")), SUB, ROOT)),
        0,
        "it is a CA's",
    ),
    "issued by one that is no CA": (lambda: make((SIGNER, Plan("sub"), ROOT)), 1, "no CA's"),
    "issued by one that does not say": (lambda: make((SIGNER, replace(SUB, ca=None), ROOT)), 1, "no CA's"),
    "a root that is no CA": (lambda: make((SIGNER, SUB, replace(ROOT, ca=None, usages=None))), 2, "no CA's"),
    "a CA that may only sign CRLs": (
        lambda: make((SIGNER, replace(SUB, usages=("crl_sign",)), ROOT)),
        1,
        "lacks keyCertSign",
    ),
    "a root of path length 0 above a CA": (lambda: make((SIGNER, SUB, replace(ROOT, path_length=0))), 2, "path length"),
    "a path length of 1 above two CAs": (
        lambda: make((SIGNER, SUB, authority("middle"), replace(ROOT, path_length=1))),
        3,
        "path length allows 1 CAs below it, and there are 2",
    ),
    "a CA of path length 0 in the middle": (
        lambda: make((SIGNER, SUB, authority("middle", path_length=0), ROOT)),
        2,
        "path length",
    ),
    "for keys": (
        lambda: make((replace(SIGNER, usages=("key_encipherment",)), SUB, ROOT)),
        0,
        "key usage allows no signatures",
    ),
    "for servers": (
        lambda: make((replace(SIGNER, purposes=("1.3.6.1.5.5.7.3.1",)), SUB, ROOT)),
        0,
        "extended key usage allows no signatures",
    ),
    "unknown and critical": (
        lambda: make((replace(SIGNER, others=((_UNKNOWN, True),)), SUB, ROOT)),
        0,
        "unknown critical extension, 1.3.6.1.4.1.99999.1",
    ),
    "unknown and critical at the CA": (
        lambda: make((SIGNER, replace(SUB, others=((_UNKNOWN, True),)), ROOT)),
        1,
        "unknown critical extension",
    ),
    "an extension that cannot be read": (
        lambda: make((SIGNER, replace(SUB, others=((_UNREADABLE, False),)), ROOT)),
        1,
        "cannot be read",
    ),
    "an extension twice": (lambda: twice(make(GOOD)), 0, "cannot be read|not a DER certificate"),
    "a CA of RSA 1024": (lambda: make((SIGNER, replace(SUB, kind="RSA-1024"), ROOT)), 1, "RSA key has 1024 bits"),
    "a CA of DSA": (lambda: make((SIGNER, replace(SUB, kind="DSA-1024"), ROOT)), 1, "key of a kind that is not used"),
    "a CA of P-192": (lambda: make((SIGNER, replace(SUB, kind="P-192"), ROOT)), 1, "curve has 192 bits"),
}


def twice(chain: list[bytes]) -> list[bytes]:
    """Names the basic constraints as a second key usage."""
    old, new = bytes.fromhex("0603551d13"), bytes.fromhex("0603551d0f")
    assert chain[0].count(old) == 1
    return [chain[0].replace(old, new), *chain[1:]]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_chain_is_refused_by_its_first_fault_and_position(name: str) -> None:
    made, position, said = BAD[name]
    with pytest.raises(InvalidArgument, match=said) as refused:
        check(made())
    assert refused.value.field == ("chain" if position is None else f"chain[{position}]")


@pytest.mark.requirement("ASVS 5.0.0-11.4.1")
@pytest.mark.parametrize("function", ["sha1", "sha256"])
@pytest.mark.parametrize("which", ["signer", "sub", "root"])
def test_a_signature_over_a_broken_hash_is_worth_nothing_but_on_a_root(
    tmp_path: Path, which: str, function: str
) -> None:
    """`cryptography` makes no such certificates any more; OpenSSL does."""
    (tmp_path / "x.cnf").write_text(
        "[signer]\nkeyUsage=critical,nonRepudiation\n"
        "[sub]\nbasicConstraints=critical,CA:TRUE\n[root]\nbasicConstraints=critical,CA:TRUE\n"
    )
    names = ["root", "sub", "signer"]
    for above, name in zip(["root", *names], names, strict=False):
        pem = key_of(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{name}.key").write_bytes(pem)
        issuer = ["-CA", "root.pem", "-CAkey", "root.key"] if above != name else ["-signkey", "root.key"]
        if name == "signer":
            issuer = ["-CA", "sub.pem", "-CAkey", "sub.key"]
        openssl(tmp_path, "req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", "request.pem")
        openssl(
            tmp_path, "x509", "-req", "-in", "request.pem", *issuer, "-set_serial", "7", "-days", "9",
            "-extfile", "x.cnf", "-extensions", name, "-out", f"{name}.pem",
            f"-{function if name == which else 'sha256'}",
        )  # fmt: skip
    files = [(tmp_path / f"{name}.pem").read_bytes() for name in reversed(names)]
    chain = [x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for pem in files]
    if which == "root" or function == "sha256":
        check(chain, at=datetime.now(UTC))
        return
    position = names[::-1].index(which)
    for given in (chain, chain[: position + 1]):
        with pytest.raises(InvalidArgument, match=f"signed over {function.upper()}, which can be forged") as refused:
            check(given, at=datetime.now(UTC))
        assert refused.value.field == f"chain[{position}]"


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"begin": NOW - 9 * DAY, "end": NOW - DAY}, "expired on 2026-11-23"),
        ({"begin": NOW + DAY}, "valid only from 2026-11-25"),
    ],
)
def test_dates_are_those_of_every_certificate(which: int, changes: dict[str, Any], said: str) -> None:
    plans = [replace(plan, **changes) if number == which else plan for number, plan in enumerate(GOOD)]
    with pytest.raises(CertificateNotValid, match=said):
        check(make(plans))


def test_the_validity_of_a_chain_is_what_all_have_in_common() -> None:
    chain = make(
        (SIGNER, replace(SUB, begin=NOW - timedelta(hours=1)), replace(ROOT, end=NOW + 2 * DAY, begin=NOW - 99 * DAY))
    )
    begin, end = validity_of(chain)
    assert (begin, end) == (NOW - timedelta(hours=1), NOW + 2 * DAY)
    for at, valid in ((begin, True), (end, True), (begin - DAY / 99, False), (end + DAY / 99, False)):
        if valid:
            assert_valid_at(chain, at)
        else:
            with pytest.raises(CertificateNotValid):
                assert_valid_at(chain, at)


def test_a_self_issued_ca_does_not_count_for_the_path_length() -> None:
    """A CA that changed its key: the new one is issued by the old under the same name (RFC 5280, section 4.2.1.9)."""
    renewed = authority("root-new")
    plans = (SIGNER, replace(SUB, issuer="root"), renewed, replace(ROOT, path_length=1))
    chain = make(plans)
    with pytest.raises(InvalidArgument, match="not its issuer's but that of"):
        check(chain)  # Of the new one's own name.
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of("root"))
        .issuer_name(name_of("root"))
        .public_key(key_of("root-new").public_key())
        .serial_number(7)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    chain[2] = builder.sign(key_of("root"), hashes.SHA256()).public_bytes(Encoding.DER)
    check(chain)


def test_chains_that_openssl_makes_are_judged_alike(tmp_path: Path) -> None:
    """OpenSSL issues from the same request: with `-extensions` of a person and of a CA."""
    (tmp_path / "signer.key").write_bytes(
        key_of("signer").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    (tmp_path / "x.cnf").write_text(
        "[person]\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,nonRepudiation\n"
        "extendedKeyUsage=1.3.6.1.5.5.7.3.36\n"
        "[server]\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n"
        "[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n"
    )
    openssl(tmp_path, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "top.key")
    openssl(
        tmp_path, "req", "-x509", "-key", "top.key", "-subj", "/CN=CA", "-days", "9",
        "-addext", "basicConstraints=critical,CA:TRUE", "-out", "top.pem",
    )  # fmt: skip
    openssl(tmp_path, "req", "-new", "-key", "signer.key", "-subj", "/CN=signer", "-out", "signer.csr")
    chains = {}
    for section in ("person", "server", "ca"):
        openssl(
            tmp_path, "x509", "-req", "-in", "signer.csr", "-CA", "top.pem", "-CAkey", "top.key", "-CAcreateserial",
            "-days", "5", "-extfile", "x.cnf", "-extensions", section, "-out", f"{section}.pem",
        )  # fmt: skip
        files = [(tmp_path / f"{name}.pem").read_bytes() for name in (section, "top")]
        chains[section] = [x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for pem in files]
    now = datetime.now(UTC)
    check(chains["person"], at=now)
    for section, said in (("server", "extended key usage"), ("ca", "it is a CA's")):
        with pytest.raises(InvalidArgument, match=said):
            check(chains[section], at=now)


@pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")
def test_every_byte_that_the_ca_signed_matters() -> None:
    """Flips bytes all over the signer's certificate: nothing but the two refusals comes out."""
    chain = make(GOOD)
    signed = x509.load_der_x509_certificate(chain[0]).tbs_certificate_bytes
    begin = chain[0].index(signed)
    refused = 0
    for offset, flip in itertools.product(range(begin, begin + len(signed), 2), (0x01, 0x80)):
        damaged = bytearray(chain[0])
        damaged[offset] ^= flip
        with pytest.raises((InvalidArgument, CertificateNotValid)):
            check([bytes(damaged), *chain[1:]])
        refused += 1
    assert refused > 200
