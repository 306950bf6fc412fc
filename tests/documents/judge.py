"""Every signature of a PDF, judged by pyHanko and by pdfsig, its chain by the given trust anchors."""

from dataclasses import dataclass
from pathlib import Path

from asn1crypto import pem  # type: ignore[import-untyped]
from asn1crypto import x509 as asn1_x509
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.validation import validate_pdf_signature
from pyhanko.sign.validation.status import SignatureCoverageLevel
from pyhanko_certvalidator import ValidationContext
from tests.documents.pdfsig import pdfsig


@dataclass(frozen=True)
class Judgment:
    """One signature: whether pyHanko finds it good, whole and trusted, and what it says it was made with."""

    bottom_line: bool
    trusted: bool
    covers_the_file: bool
    mechanism: str
    signed_by: str
    sub_filter: str


def judge(path: Path, anchors_pem: bytes) -> list[Judgment]:
    """Returns pyHanko's judgment on each signature, in the file's order."""
    roots = [asn1_x509.Certificate.load(der) for _, _, der in pem.unarmor(anchors_pem, multiple=True)]
    judgments = []
    with path.open("rb") as file:
        for embedded in PdfFileReader(file).embedded_signatures:
            status = validate_pdf_signature(embedded, ValidationContext(trust_roots=roots, allow_fetching=False))
            judgments.append(
                Judgment(
                    bottom_line=status.bottom_line,
                    trusted=status.trusted,
                    covers_the_file=status.coverage is SignatureCoverageLevel.ENTIRE_FILE,
                    mechanism=embedded.signer_info["signature_algorithm"]["algorithm"].native,
                    signed_by=status.signing_cert.subject.native["common_name"],
                    sub_filter=embedded.sig_object["/SubFilter"],
                )
            )
    return judgments


def require_good(path: Path, anchors_pem: bytes, *, count: int = 1, read_by_pdfsig: bool = True) -> list[Judgment]:
    """Asserts that there are `count` signatures, all of them good in the eyes of both judges."""
    judgments = judge(path, anchors_pem)
    assert len(judgments) == count
    assert all(judgment.bottom_line for judgment in judgments), judgments
    assert judgments[-1].covers_the_file
    if read_by_pdfsig:
        findings = pdfsig(path, anchors_pem)
        assert len(findings) == count
        assert all(finding.is_valid and finding.is_trusted for finding in findings), findings
        assert findings[-1].whole_document
    return judgments
