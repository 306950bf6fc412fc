"""Signs files of any kind: detached CMS signatures (RFC 5652) with the attributes of CAdES-B-B (ETSI EN 319 122-1).

    signer = TrienSigner(client, "credentials/hoang-trinh-don-rsa", one_time_password=ask)
    with open("contract.docx", "rb") as content:
        signature = sign_detached(signer, content)

The file is hashed here, in pieces. What is sent are the signed attributes (content type, message digest, signing time,
ESSCertIDv2 of the certificate) and the file's digest. `openssl cms -verify -binary -content FILE` verifies the result.
"""

from datetime import datetime
from typing import BinaryIO

from asn1crypto import pem  # type: ignore[import-untyped]
from pyhanko.sign.signers.pdf_cms import PdfCMSSignedAttributes

from trien_client._trust import run_to_completion
from trien_client.pyhanko import TrienSigner

__all__ = ["async_sign_detached", "sign_detached", "to_pem"]

_HASH_OF_ED25519 = "sha512"  # RFC 8419, section 2.3


def sign_detached(signer: TrienSigner, content: BinaryIO) -> bytes:
    """Returns a detached signature (DER) of what `content` has from its present position on.

    Raises what `TrienSigner` raises.
    """
    return run_to_completion(async_sign_detached(signer, content))


async def async_sign_detached(signer: TrienSigner, content: BinaryIO) -> bytes:
    """Does what `sign_detached` does; in `sign_together` many files take one one-time password."""
    function = signer.algorithm.hash_function
    signed = await signer.async_sign_general_data(
        content,
        _HASH_OF_ED25519 if function is None else function.hashlib_name,
        detached=True,
        use_cades=True,
        signed_attr_settings=PdfCMSSignedAttributes(signing_time=datetime.now().astimezone()),
    )
    return bytes(signed.dump())


def to_pem(signature: bytes) -> bytes:
    """Returns the signature as PEM (RFC 7468, section 9)."""
    return bytes(pem.armor("CMS", signature))
