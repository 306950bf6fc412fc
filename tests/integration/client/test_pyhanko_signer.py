"""PDFs signed through the SDK, judged by pyHanko and by pdfsig."""

import asyncio
import io
from functools import partial
from pathlib import Path

import pytest
from asn1crypto import keys as asn1_keys  # type: ignore[import-untyped]
from asn1crypto import x509 as asn1_x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign import PdfSignatureMetadata, PdfSigner, SimpleSigner, sign_pdf
from pyhanko.sign.fields import SigSeedSubFilter
from pyhanko.sign.general import SigningError
from pyhanko_certvalidator.registry import SimpleCertificateStore
from tests.documents.judge import judge, require_good
from tests.documents.pdfsig import pdfsig
from tests.documents.producers import large_document, libreoffice_document, reportlab_page, signed_document
from tests.fakes.signing_service import Abort, CertificateAuthority, FakeServer, FakeSigningService, PrivateKey, Tamper

from trien_client import AlgorithmMismatch, Client, OneTimePasswordContext, SignatureAlgorithm, VerificationError
from trien_client.pyhanko import TrienSigner, document_digest_of, sign_together

CODE = "111111"
RSA = "credentials/rsa"
P256 = "credentials/p256"
FOR_PDF = {
    SignatureAlgorithm.RSA_PSS_SHA256: (RSA, "rsassa_pss"),
    SignatureAlgorithm.RSA_PSS_SHA384: (RSA, "rsassa_pss"),
    SignatureAlgorithm.RSA_PSS_SHA512: (RSA, "rsassa_pss"),
    SignatureAlgorithm.RSA_PKCS1_SHA256: (RSA, "sha256_rsa"),
    SignatureAlgorithm.RSA_PKCS1_SHA384: (RSA, "sha384_rsa"),
    SignatureAlgorithm.RSA_PKCS1_SHA512: (RSA, "sha512_rsa"),
    SignatureAlgorithm.ECDSA_P256_SHA256: (P256, "sha256_ecdsa"),
    SignatureAlgorithm.ECDSA_P384_SHA384: ("credentials/p384", "sha384_ecdsa"),
    SignatureAlgorithm.ED25519: ("credentials/ed25519", "ed25519"),
}


def sign(document: Path, output: Path, signer: TrienSigner, *, field: str = "Signature1", pades: bool = True) -> None:
    metadata = PdfSignatureMetadata(
        field_name=field,
        subfilter=SigSeedSubFilter.PADES if pades else SigSeedSubFilter.ADOBE_PKCS7_DETACHED,
        reason="Phê duyệt",
        location="Hà Nội",
    )
    with document.open("rb") as source, output.open("wb+") as target:
        PdfSigner(metadata, signer).sign_pdf(IncrementalPdfFileWriter(source), output=target)


@pytest.mark.parametrize("pades", [True, False], ids=["PAdES", "CMS"])
@pytest.mark.parametrize("algorithm", FOR_PDF)
def test_a_pdf_is_signed_with_every_algorithm(
    client: Client,
    service: FakeSigningService,
    authority: CertificateAuthority,
    tmp_path: Path,
    algorithm: SignatureAlgorithm,
    pades: bool,
) -> None:
    credential, mechanism = FOR_PDF[algorithm]
    asked: list[OneTimePasswordContext] = []

    def ask(context: OneTimePasswordContext) -> str:
        asked.append(context)
        return CODE

    signer = TrienSigner(client, credential, algorithm=algorithm, one_time_password=ask)
    sign(reportlab_page(tmp_path / "in.pdf"), tmp_path / "out.pdf", signer, pades=pades)
    [judgment] = require_good(
        tmp_path / "out.pdf", authority.root_pem, read_by_pdfsig=algorithm is not SignatureAlgorithm.ED25519
    )
    assert judgment.mechanism == mechanism
    assert judgment.sub_filter == ("/ETSI.CAdES.detached" if pades else "/adbe.pkcs7.detached")
    assert len(asked) == 1
    assert signer.result is not None
    [request] = service.requests("SignDigests")
    kind = request.items[0].WhichOneof("item")
    assert kind == ("data" if algorithm is SignatureAlgorithm.ED25519 else "signed_attributes")


def test_the_pdfs_of_other_programs_are_signed(client: Client, authority: CertificateAuthority, tmp_path: Path) -> None:
    signer = TrienSigner(client, P256, one_time_password=CODE)
    sign(libreoffice_document(tmp_path / "in.pdf"), tmp_path / "out.pdf", signer)
    [judgment] = require_good(tmp_path / "out.pdf", authority.root_pem)
    assert judgment.signed_by == "Hoàng Trình Đôn p256"


def test_fifty_mebibytes_are_signed(client: Client, authority: CertificateAuthority, tmp_path: Path) -> None:
    signer = TrienSigner(client, RSA, one_time_password=CODE)
    document = large_document(tmp_path / "in.pdf")
    assert document.stat().st_size > 50 * 1024 * 1024
    sign(document, tmp_path / "out.pdf", signer)
    require_good(tmp_path / "out.pdf", authority.root_pem)


def test_a_second_signature_keeps_the_first(
    client: Client, authority: CertificateAuthority, keys: dict[str, PrivateKey], tmp_path: Path
) -> None:
    chain = [
        asn1_x509.Certificate.load(c.public_bytes(Encoding.DER)) for c in authority.chain("Trưởng phòng", keys["p256"])
    ]
    pkcs8 = keys["p256"].private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    local = SimpleSigner(
        signing_cert=chain[0],
        signing_key=asn1_keys.PrivateKeyInfo.load(pkcs8),
        cert_registry=SimpleCertificateStore.from_certs(chain[1:]),  # type: ignore[no-untyped-call]
    )
    before = signed_document(tmp_path / "before.pdf", local)
    sign(before, tmp_path / "once.pdf", TrienSigner(client, RSA, one_time_password="111111"), field="Leader")
    sign(
        tmp_path / "once.pdf",
        tmp_path / "twice.pdf",
        TrienSigner(client, P256, one_time_password="222222"),
        field="Seal",
    )
    judgments = require_good(tmp_path / "twice.pdf", authority.root_pem, count=3)
    assert [judgment.signed_by for judgment in judgments] == [
        "Trưởng phòng",
        "Hoàng Trình Đôn rsa",
        "Hoàng Trình Đôn p256",
    ]


def test_it_works_inside_an_event_loop(client: Client, authority: CertificateAuthority, tmp_path: Path) -> None:
    document = reportlab_page(tmp_path / "in.pdf")

    async def work() -> None:
        signer = await asyncio.to_thread(TrienSigner, client, P256, one_time_password=CODE)
        with document.open("rb") as source, (tmp_path / "out.pdf").open("wb") as target:
            metadata = PdfSignatureMetadata(field_name="S")
            await PdfSigner(metadata, signer).async_sign_pdf(IncrementalPdfFileWriter(source), output=target)

    asyncio.run(work())
    require_good(tmp_path / "out.pdf", authority.root_pem)


def test_documents_are_signed_together(
    client: Client, service: FakeSigningService, authority: CertificateAuthority, tmp_path: Path
) -> None:
    asked: list[OneTimePasswordContext] = []

    def ask(context: OneTimePasswordContext) -> str:
        asked.append(context)
        return CODE

    signer = TrienSigner(client, RSA, one_time_password=ask)

    async def job(number: int) -> int:
        document = reportlab_page(tmp_path / f"in{number}.pdf")
        with document.open("rb") as source, (tmp_path / f"out{number}.pdf").open("wb") as target:
            metadata = PdfSignatureMetadata(field_name="S", subfilter=SigSeedSubFilter.PADES)
            await PdfSigner(metadata, signer).async_sign_pdf(IncrementalPdfFileWriter(source), output=target)
        return number

    async def bad() -> int:
        raise KeyError("cannot be prepared")

    with pytest.raises(KeyError, match="cannot be prepared"):
        asyncio.run(sign_together(signer, [lambda: job(0), bad, lambda: job(1)]))
    assert asked == []
    service.plan("SignDigests", Abort(work=True))
    assert asyncio.run(sign_together(signer, [partial(job, number) for number in range(5)])) == [0, 1, 2, 3, 4]
    assert len(asked) == service.approvals == 1
    assert len(asked[0].digests) == 5
    for number in range(5):
        require_good(tmp_path / f"out{number}.pdf", authority.root_pem)
    assert asyncio.run(sign_together(signer, [])) == []


def test_a_changed_byte_is_noticed_by_both_judges(
    client: Client, authority: CertificateAuthority, tmp_path: Path
) -> None:
    sign(reportlab_page(tmp_path / "in.pdf"), tmp_path / "out.pdf", TrienSigner(client, P256, one_time_password=CODE))
    content = (tmp_path / "out.pdf").read_bytes()
    assert b"/MediaBox [ 0 0 595.2756 841.8898 ]" in content
    (tmp_path / "bad.pdf").write_bytes(content.replace(b"595.2756", b"594.2756", 1))
    assert [judgment.bottom_line for judgment in judge(tmp_path / "bad.pdf", authority.root_pem)] == [False]
    assert [finding.is_valid for finding in pdfsig(tmp_path / "bad.pdf")] == [False]


@pytest.mark.promise("P6")
def test_a_wrong_signature_never_reaches_a_pdf(client: Client, service: FakeSigningService, tmp_path: Path) -> None:
    import google_crc32c

    def change(answer: object) -> None:
        signature = answer.signatures[0]  # type: ignore[attr-defined]
        signature.value = signature.value[:-1] + bytes([signature.value[-1] ^ 1])
        signature.crc32c = google_crc32c.value(signature.value)

    service.plan("SignDigests", Tamper(change))
    output = io.BytesIO()
    with reportlab_page(tmp_path / "in.pdf").open("rb") as source, pytest.raises(VerificationError):
        sign_pdf(
            IncrementalPdfFileWriter(source),
            PdfSignatureMetadata(field_name="S"),
            TrienSigner(client, RSA, one_time_password=CODE),
            output=output,
        )


@pytest.mark.parametrize("algorithm", FOR_PDF)
def test_a_dry_run_asks_nobody_and_is_long_enough(
    client: Client, service: FakeSigningService, algorithm: SignatureAlgorithm
) -> None:
    signer = TrienSigner(client, FOR_PDF[algorithm][0], algorithm=algorithm)
    placeholder = asyncio.run(signer.async_sign_raw(b"anything", "sha256", dry_run=True))
    assert service.requests("SignDigests") == []
    function = algorithm.hash_function
    lengths = set()
    for number in range(8):
        service.codes.add(CODE)
        from trien_client import Data

        item = Data(b"x") if function is None else bytes([number]) * function.size
        signed = client.sign_digests(FOR_PDF[algorithm][0], algorithm, [item], one_time_password=CODE)
        lengths.add(len(signed.signatures[0]))
    assert max(lengths) <= len(placeholder) <= max(lengths) + 4


def test_an_algorithm_that_does_not_fit_is_refused(client: Client, tmp_path: Path) -> None:
    with pytest.raises(AlgorithmMismatch):
        TrienSigner(client, P256, algorithm=SignatureAlgorithm.RSA_PSS_SHA256)
    signer = TrienSigner(client, P256, one_time_password=CODE)
    with reportlab_page(tmp_path / "in.pdf").open("rb") as source, pytest.raises(SigningError, match="sha512"):
        sign_pdf(
            IncrementalPdfFileWriter(source),
            PdfSignatureMetadata(field_name="S", md_algorithm="sha512"),
            signer,
            output=io.BytesIO(),
        )


def test_data_that_is_no_attributes_is_signed_as_a_digest(client: Client, service: FakeSigningService) -> None:
    signer = TrienSigner(client, P256, one_time_password=CODE)
    asyncio.run(signer.async_sign_raw(b"content without attributes", "sha256"))
    [request] = service.requests("SignDigests")
    assert request.items[0].WhichOneof("item") == "digest"


@pytest.mark.parametrize("data", [b"", b"\x31\x00", b"\x31\x80", b"text", b"\x30\x03\x02\x01\x00", b"\x31\x02\x05\x00"])
def test_what_is_no_signed_attributes_is_told_apart(data: bytes) -> None:
    from trien_client import HashFunction

    assert document_digest_of(data, HashFunction.SHA256) is None


def test_the_chain_is_embedded_without_the_root(
    client: Client, server: FakeServer, authority: CertificateAuthority, tmp_path: Path
) -> None:
    from pyhanko.pdf_utils.reader import PdfFileReader

    sign(reportlab_page(tmp_path / "in.pdf"), tmp_path / "out.pdf", TrienSigner(client, P256, one_time_password=CODE))
    with (tmp_path / "out.pdf").open("rb") as file:
        [embedded] = PdfFileReader(file).embedded_signatures
        found = {c.chosen.dump() for c in embedded.signed_data["certificates"]}
    expected = {c.public_bytes(Encoding.DER) for c in server.service.credentials[P256].chain}
    assert found == expected
    assert authority.root.public_bytes(Encoding.DER) not in found
