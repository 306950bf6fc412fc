"""Verifies detached CMS signatures (RFC 5652) for the command line."""

from collections.abc import Sequence
from pathlib import Path

from asn1crypto import cms, pem  # type: ignore[import-untyped]
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from trien_client._trust import run_to_completion
from trien_client.cli.findings import Finding, finding_of_status, unreadable


def read_cms(content: bytes) -> cms.SignedData | None:
    """Returns the CMS SignedData in `content` (DER or PEM), or None when it is something else."""
    try:
        if pem.detect(content):
            _, _, content = pem.unarmor(content)
        info = cms.ContentInfo.load(content, strict=True)
        return info["content"] if info["content_type"].native == "signed_data" else None
    except (ValueError, TypeError, KeyError):
        return None


def verify_cms(file: Path, signed: cms.SignedData, anchors: Sequence[x509.Certificate]) -> Finding:
    """Verifies a CMS signature that lies beside its file, which is read in pieces."""
    from pyhanko.sign.validation.generic_cms import async_validate_detached_cms
    from pyhanko_certvalidator import ValidationContext

    from trien_client.cli.pdf import silence_libraries

    silence_libraries()
    roots = [asn1_x509.Certificate.load(anchor.public_bytes(Encoding.DER)) for anchor in anchors]
    context = ValidationContext(trust_roots=roots, allow_fetching=False)
    with file.open("rb") as content:
        try:
            status = run_to_completion(async_validate_detached_cms(content, signed, signer_validation_context=context))
            info = signed["signer_infos"][0]
            algorithm = str(info["signature_algorithm"]["algorithm"].native)
            has_attributes = info["signed_attrs"].native is not None
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - the file is anyone's: whatever it makes a parser do, it is not good
            return unreadable(None, str(error))
    return finding_of_status(
        status,
        field=None,
        algorithm=algorithm,
        unchanged=status.intact and status.valid and has_attributes,
        # A signature over attributes, taken out of its message, is also one over a file that consists of them.
        remark="" if has_attributes else "it has no signed attributes, so it may have been made for something else",
    )
