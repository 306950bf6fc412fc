"""PDFs of several programs, signed by a real server with every algorithm, judged by pyHanko and by pdfsig."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from asn1crypto import keys as asn1_keys  # type: ignore[import-untyped]
from asn1crypto import x509 as asn1_x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign import PdfSignatureMetadata, PdfSigner, SimpleSigner
from pyhanko.sign.fields import SigSeedSubFilter
from pyhanko_certvalidator.registry import SimpleCertificateStore
from tests.documents.judge import require_good
from tests.documents.producers import PRODUCERS, libreoffice_document, reportlab_page, signed_document
from tests.fakes.signing_service import CertificateAuthority
from tests.support.administration import Administrator, Person
from tests.support.sandbox import Installation, environment
from trien.v1 import algorithms_pb2

from trien_client import Client, KeyType, OneTimePasswordContext, OneTimePasswordRejected, SignatureAlgorithm
from trien_client.pyhanko import TrienSigner, sign_together

ALGORITHMS = {
    SignatureAlgorithm.RSA_PSS_SHA256: "rsa",
    SignatureAlgorithm.RSA_PSS_SHA384: "rsa",
    SignatureAlgorithm.RSA_PSS_SHA512: "rsa",
    SignatureAlgorithm.RSA_PKCS1_SHA256: "rsa",
    SignatureAlgorithm.RSA_PKCS1_SHA384: "rsa",
    SignatureAlgorithm.RSA_PKCS1_SHA512: "rsa",
    SignatureAlgorithm.ECDSA_P256_SHA256: "p256",
    SignatureAlgorithm.ECDSA_P384_SHA384: "p384",
    SignatureAlgorithm.ED25519: "ed25519",
}


@pytest.fixture(scope="session")
def people(administrator: Administrator) -> dict[str, Person]:
    """A person for each kind of key; their passwords are counted, so that no test waits for a time step."""
    kinds = {"rsa": "RSA_3072", "p256": "EC_P256", "p384": "EC_P384", "ed25519": "EC_ED25519"}
    return {
        name: administrator.create_person(f"pdf-{name}", key_type=algorithms_pb2.KeyType.Value(kind))
        for name, kind in kinds.items()
    }


@pytest.fixture(scope="session")
def anchors(installation: Installation) -> bytes:
    return (installation.directory / "signing-ca" / "ca.pem").read_bytes()


@pytest.fixture(scope="session")
def sdk(installation: Installation) -> Iterator[Client]:
    with Client.from_connection_file(installation.directory / "connection.json") as client:
        yield client


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One PDF of each producer; they are made once, for one of them has 50 MiB."""
    folder = tmp_path_factory.mktemp("documents")
    return {name: make(folder / f"{name}.pdf") for name, make in PRODUCERS.items()}


def signer_of(sdk: Client, person: Person, *, algorithm: SignatureAlgorithm | None = None) -> TrienSigner:
    return TrienSigner(
        sdk,
        person.credential,
        algorithm=algorithm,
        one_time_password=lambda _: person.authenticator.take(),
        signer=person.name,
    )


async def sign(
    document: Path, output: Path, signer: TrienSigner, *, field: str = "Signature1", pades: bool = True
) -> None:
    metadata = PdfSignatureMetadata(
        field_name=field,
        subfilter=SigSeedSubFilter.PADES if pades else SigSeedSubFilter.ADOBE_PKCS7_DETACHED,
        reason="Phê duyệt",
        location="Xã Phú Lâm",
    )
    with document.open("rb") as source, output.open("wb+") as target:
        await PdfSigner(metadata, signer).async_sign_pdf(IncrementalPdfFileWriter(source), output=target)


@pytest.mark.promise("P3", "P6")
@pytest.mark.parametrize("pades", [True, False], ids=["PAdES", "CMS"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("producer", PRODUCERS)
def test_a_pdf_of_each_producer_is_signed_with_each_algorithm(
    sdk: Client,
    people: dict[str, Person],
    documents: dict[str, Path],
    anchors: bytes,
    tmp_path: Path,
    producer: str,
    algorithm: SignatureAlgorithm,
    pades: bool,
) -> None:
    person = people[ALGORITHMS[algorithm]]
    signer = signer_of(sdk, person, algorithm=algorithm)
    asyncio.run(sign(documents[producer], tmp_path / "out.pdf", signer, pades=pades))
    [judgment] = require_good(tmp_path / "out.pdf", anchors, read_by_pdfsig=algorithm is not SignatureAlgorithm.ED25519)
    assert judgment.sub_filter == ("/ETSI.CAdES.detached" if pades else "/adbe.pkcs7.detached")
    assert signer.result is not None
    assert signer.result.approved_by == person.name
    assert signer.result.audit_entry.startswith("auditEntries/")
    assert len(signer.result.leaf_hash) == 32
    (tmp_path / "out.pdf").unlink()


def test_every_kind_of_key_was_tried(people: dict[str, Person]) -> None:
    assert set(ALGORITHMS) == set(SignatureAlgorithm)
    assert {person.key_type for person in people.values()} == {
        algorithms_pb2.KeyType.Value(kind) for kind in KeyType if kind not in (KeyType.RSA_2048, KeyType.RSA_4096)
    }


@pytest.mark.promise("P2")
def test_twenty_pdfs_take_one_password(sdk: Client, people: dict[str, Person], anchors: bytes, tmp_path: Path) -> None:
    asked: list[OneTimePasswordContext] = []
    person = people["p256"]

    def ask(context: OneTimePasswordContext) -> str:
        asked.append(context)
        return person.authenticator.take()

    signer = TrienSigner(sdk, person.credential, one_time_password=ask)
    pairs = [(reportlab_page(tmp_path / f"in{number}.pdf"), tmp_path / f"out{number}.pdf") for number in range(20)]
    asyncio.run(sign_together(signer, [partial(sign, document, output, signer) for document, output in pairs]))
    assert len(asked) == 1
    assert len(asked[0].digests) == 20
    for _, output in pairs:
        require_good(output, anchors)


def test_leader_and_seal_sign_a_pdf_that_was_signed_before(
    sdk: Client, people: dict[str, Person], anchors: bytes, tmp_path: Path
) -> None:
    authority = CertificateAuthority("Elsewhere")
    key = ec.generate_private_key(ec.SECP256R1())
    chain = [asn1_x509.Certificate.load(c.public_bytes(Encoding.DER)) for c in authority.chain("Chuyên viên", key)]
    pkcs8 = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    local = SimpleSigner(
        signing_cert=chain[0],
        signing_key=asn1_keys.PrivateKeyInfo.load(pkcs8),
        cert_registry=SimpleCertificateStore.from_certs(chain[1:]),  # type: ignore[no-untyped-call]
    )
    before = signed_document(tmp_path / "before.pdf", local)
    asyncio.run(sign(before, tmp_path / "leader.pdf", signer_of(sdk, people["rsa"]), field="Leader"))
    asyncio.run(sign(tmp_path / "leader.pdf", tmp_path / "seal.pdf", signer_of(sdk, people["p256"]), field="Seal"))
    judgments = require_good(tmp_path / "seal.pdf", anchors + authority.root_pem, count=3)
    assert [judgment.signed_by for judgment in judgments] == ["Chuyên viên", "Người ký pdf-rsa", "Người ký pdf-p256"]


@pytest.mark.promise("P2")
def test_a_password_signs_one_pdf_only(sdk: Client, people: dict[str, Person], anchors: bytes, tmp_path: Path) -> None:
    person = people["p384"]
    code = person.authenticator.take()
    document = libreoffice_document(tmp_path / "in.pdf")
    signer = TrienSigner(sdk, person.credential, one_time_password=code, signer=person.name)
    asyncio.run(sign(document, tmp_path / "first.pdf", signer))
    with pytest.raises(OneTimePasswordRejected):
        asyncio.run(sign(document, tmp_path / "second.pdf", signer))
    require_good(tmp_path / "first.pdf", anchors)
    # A right one ends the row of failures, so that this test costs the others nothing.
    asyncio.run(sign(document, tmp_path / "third.pdf", signer_of(sdk, person)))


def test_the_command_signs_as_the_readme_says(installation: Installation, anchors: bytes, tmp_path: Path) -> None:
    trien = str(Path(sys.executable).with_name("trien"))
    variables = environment(TRIEN_CONNECTION=str(installation.directory / "connection.json"))
    document = libreoffice_document(tmp_path / "quyết định.pdf")
    signed, sealed = tmp_path / "signed.pdf", tmp_path / "sealed.pdf"

    def run(*arguments: object, code: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [trien, *map(str, arguments)],
            input=code,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=variables,
        )

    for source, target, credential in (
        (document, signed, "hoang-trinh-don-rsa"),
        (signed, sealed, "ubnd-seal"),
    ):
        code = run("otp", "--credential", credential).stdout
        result = run("sign", "pdf", source, target, "--credential", credential, "--otp-file", "-", code=code)
        assert result.returncode == 0, result.stderr
        again = run(
            "sign", "pdf", source, tmp_path / "no.pdf", "--credential", credential, "--otp-file", "-", code=code
        )
        assert again.returncode == 4, again.stderr
        assert "attempts remain" in again.stderr
        assert not (tmp_path / "no.pdf").exists()
    require_good(sealed, anchors, count=2)
    verified = run("verify", sealed)
    assert verified.returncode == 0
    assert verified.stdout.count(": GOOD") == 2
    assert "Hoàng Trịnh Đôn" in verified.stdout
    assert "credentials/ubnd-seal" in run("credentials", "list").stdout
    assert {file.name for file in tmp_path.iterdir()} == {document.name, signed.name, sealed.name}
    assert os.environ.get("TRIEN_CONNECTION") is None
