"""What is found about the signatures of a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from asn1crypto import cms  # type: ignore[import-untyped]
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pyhanko_certvalidator.errors import PathBuildingError

from trien_client._algorithms import SignatureAlgorithm
from trien_client._errors import VerificationError
from trien_client._items import digest_file
from trien_client._trust import CertificateTrust
from trien_client._verification import key_type_of, verify_signature
from trien_client.cli.outcome import plain

if TYPE_CHECKING:
    from pyhanko.sign.validation.status import StandardCMSSignatureStatus


_LARGEST_ATTRIBUTES = 64 * 1024
_CERTIFICATE = {True: "leads to a trust anchor", False: "NOT TRUSTED", None: "not looked at"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One signature: good only when the file is unchanged and the certificate is trusted."""

    field: str | None
    signed_by: str | None
    signed_at: datetime | None
    time_is_stamped: bool
    unchanged: bool
    whole: bool
    """Whether it covers the file to its end: nothing was added after it."""
    trusted: bool | None
    """Whether the certificate leads to a trust anchor; None when it was not looked at."""
    unknown_issuer: str | None
    """Who issued the certificate, when no trust anchor leads to it."""
    algorithm: str | None
    good: bool
    remark: str

    def text(self, number: int, count: int) -> str:
        """The finding for people."""
        when = "not said"
        if self.signed_at is not None:
            stamp = "a time stamp" if self.time_is_stamped else "the signer's own clock"
            when = f"{self.signed_at.astimezone().isoformat(sep=' ', timespec='seconds')} ({stamp})"
        later = "" if self.whole or not self.unchanged else "; something permitted was added after it"
        verdict = "GOOD" if self.good else "NOT GOOD"
        if self.unchanged and self.unknown_issuer is not None:
            verdict = (
                "intact, but signed by a CA that is not among your trust anchors"
                f" (issuer: {plain(self.unknown_issuer)}): NOT GOOD"
            )
        lines = [
            f"Signature {number} of {count}: {verdict}" + (f" (field {plain(self.field)})" if self.field else ""),
            f"  signed by:   {plain(self.signed_by or 'not known')}",
            f"  when:        {when}",
            f"  document:    {'unchanged since' if self.unchanged else 'CHANGED, or the signature is broken'}{later}",
            f"  certificate: {_CERTIFICATE[self.trusted]}",
        ]
        if self.remark:
            lines.append(f"  remark:      {plain(self.remark)}")
        return "\n".join(lines)

    def content(self) -> dict[str, object]:
        """The finding for programs."""
        return {
            "field": self.field,
            "good": self.good,
            "unchanged": self.unchanged,
            "whole": self.whole,
            "trusted": self.trusted,
            "unknown_issuer": self.unknown_issuer,
            "signed_by": self.signed_by,
            "signed_at": None if self.signed_at is None else self.signed_at.isoformat(),
            "time_is_stamped": self.time_is_stamped,
            "algorithm": self.algorithm,
            "remark": self.remark,
        }


def verify_detached(
    file: Path,
    signature: bytes,
    chain: Sequence[x509.Certificate],
    algorithm: SignatureAlgorithm | None,
    anchors: Sequence[x509.Certificate],
) -> Finding:
    """Verifies a signature that lies beside its file."""
    chosen = algorithm or key_type_of(chain[0]).default_algorithm
    function = chosen.hash_function
    signed = file.read_bytes() if function is None else digest_file(file, function)
    remarks: list[str] = []
    try:
        verify_signature(chain[0], chosen, signature, signed)
    except VerificationError as error:
        remarks.append(str(error))
    if _holds_signed_attributes(file):
        # What a CMS signature signs is its attributes: taken out, they would be a file and its value a raw signature.
        remarks.append("the file is what another kind of signature signs (CMS signed attributes): it may come from one")
    unchanged = not remarks
    unknown_issuer = None
    try:
        CertificateTrust(anchors=anchors, pins={}).check(
            "the signer", [certificate.public_bytes(Encoding.DER) for certificate in chain]
        )
        trusted = True
    except VerificationError as error:
        trusted = False
        if isinstance(error.__cause__, PathBuildingError):
            unknown_issuer = _common_name(asn1_x509.Certificate.load(chain[0].public_bytes(Encoding.DER)).issuer.native)
        remarks.append(str(error))
    names = chain[0].subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return Finding(
        field=None,
        signed_by=str(names[0].value) if names else chain[0].subject.rfc4514_string(),
        signed_at=None,
        time_is_stamped=False,
        unchanged=unchanged,
        whole=True,
        trusted=trusted,
        unknown_issuer=unknown_issuer,
        algorithm=chosen,
        good=unchanged and trusted,
        remark=" ".join(remarks),
    )


def _holds_signed_attributes(file: Path) -> bool:
    if file.stat().st_size > _LARGEST_ATTRIBUTES:
        return False
    try:
        attributes = cms.CMSAttributes.load(file.read_bytes(), strict=True)
        return "message_digest" in {attribute["type"].native for attribute in attributes}
    except (ValueError, TypeError, KeyError):
        return False


def verify_pdf(file: Path, anchors: Sequence[x509.Certificate]) -> list[Finding]:
    """Verifies every signature in a PDF.

    Raises `CommandError` when the file cannot be read as a PDF.
    """
    from trien_client.cli.pdf import opened_pdf, plainly, silence_libraries

    silence_libraries()
    roots = [asn1_x509.Certificate.load(anchor.public_bytes(Encoding.DER)) for anchor in anchors]
    with opened_pdf(file) as reader:
        with plainly(file):
            embedded = reader.embedded_regular_signatures
        return [_finding(signature, roots) for signature in embedded]


def _finding(signature: object, roots: list[object]) -> Finding:
    from pyhanko.sign.validation import validate_pdf_signature
    from pyhanko.sign.validation.pdf_embedded import EmbeddedPdfSignature
    from pyhanko.sign.validation.status import SignatureCoverageLevel
    from pyhanko_certvalidator import ValidationContext

    if not isinstance(signature, EmbeddedPdfSignature):
        raise TypeError(signature)
    context = ValidationContext(trust_roots=roots, allow_fetching=False)
    try:
        status = validate_pdf_signature(signature, context, ts_validation_context=context)
    except Exception as error:  # noqa: BLE001 - the file is anyone's: whatever it makes a parser do, it is not good
        return unreadable(signature.field_name, str(error))
    whole = status.coverage is SignatureCoverageLevel.ENTIRE_FILE
    return finding_of_status(
        status,
        field=signature.field_name,
        algorithm=str(signature.signer_info["signature_algorithm"]["algorithm"].native),
        unchanged=status.intact and status.valid and (whole or bool(status.docmdp_ok)),
        whole=whole,
        remark="" if whole or status.docmdp_ok else "what was added after it is not permitted",
    )


def finding_of_status(
    status: "StandardCMSSignatureStatus",
    *,
    field: str | None,
    algorithm: str,
    unchanged: bool,
    whole: bool = True,
    remark: str = "",
) -> Finding:
    """Returns what pyHanko found about a signature."""
    from pyhanko.sign.ades.report import AdESIndeterminate

    stamped = status.timestamp_validity is not None and status.timestamp_validity.trusted
    remarks = []
    unknown_issuer = None
    if status.trust_problem_indic is AdESIndeterminate.NO_CERTIFICATE_CHAIN_FOUND:
        unknown_issuer = _common_name(status.signing_cert.issuer.native)
    elif status.trust_problem_indic is not None:
        remarks.append(
            f"certificate: {str(getattr(status.trust_problem_indic, 'name', 'not trusted')).lower().replace('_', ' ')}"
        )
    if remark:
        remarks.append(remark)
    return Finding(
        field=field,
        signed_by=_common_name(status.signing_cert.subject.native),
        signed_at=status.timestamp_validity.timestamp
        if stamped and status.timestamp_validity is not None
        else status.signer_reported_dt,
        time_is_stamped=stamped,
        unchanged=unchanged,
        whole=whole,
        trusted=_trust_in_certificate(status),
        unknown_issuer=unknown_issuer,
        algorithm=algorithm,
        good=unchanged and status.bottom_line,
        remark="; ".join(remarks),
    )


def _trust_in_certificate(status: "StandardCMSSignatureStatus") -> bool | None:
    # `status.trusted` is also False for a broken signature, wherever its certificate leads.
    if status.trust_problem_indic is not None:
        return False
    return None if status.validation_path is None else True


def _common_name(subject: dict[str, object]) -> str:
    for attribute in ("common_name", "organization_name"):
        if attribute in subject:
            return str(subject[attribute])
    return ", ".join(str(value) for value in subject.values())


def unreadable(field: str | None, remark: str) -> Finding:
    """Returns what to say about a signature that cannot be read."""
    return Finding(
        field=field,
        signed_by=None,
        signed_at=None,
        time_is_stamped=False,
        unchanged=False,
        whole=False,
        trusted=None,
        unknown_issuer=None,
        algorithm=None,
        good=False,
        remark=f"it cannot be read: {remark}",
    )
