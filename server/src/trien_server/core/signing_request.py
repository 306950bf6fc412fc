"""Certificate signing requests (PKCS #10, RFC 2986), built around a signature that the token makes.

They ask for one extension: keyUsage, critical, contentCommitment alone, as ETSI EN 319 412-2 (section 4.3.2, type A)
recommends for signatures that commit their signer. No extendedKeyUsage is asked for: a certificate without one is good
for documents wherever they are verified, while with document signing (RFC 9336) alone `openssl cms -verify` and pdfsig,
which look for e-mail protection, refuse it. A CA that adds either is welcome.
"""

from cryptography import x509

from trien_server.core import der
from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.errors import InvalidArgument

LONGEST_NAME = 64
"""The upper bound of commonName, organizationName and title, in characters (RFC 5280, appendix A.1)."""

ALGORITHMS = {
    KeyType.RSA_2048: SignatureAlgorithm.RSA_PKCS1_SHA256,
    KeyType.RSA_3072: SignatureAlgorithm.RSA_PKCS1_SHA256,
    KeyType.RSA_4096: SignatureAlgorithm.RSA_PKCS1_SHA256,
    KeyType.EC_P256: SignatureAlgorithm.ECDSA_P256_SHA256,
    KeyType.EC_P384: SignatureAlgorithm.ECDSA_P384_SHA384,
    KeyType.EC_ED25519: SignatureAlgorithm.ED25519,
}
"""What a key of each type signs its request with."""

ALGORITHM_IDENTIFIERS = {
    SignatureAlgorithm.RSA_PKCS1_SHA256: bytes.fromhex("300d06092a864886f70d01010b0500"),  # RFC 4055, section 5
    SignatureAlgorithm.ECDSA_P256_SHA256: bytes.fromhex("300a06082a8648ce3d040302"),  # RFC 5758, section 3.2
    SignatureAlgorithm.ECDSA_P384_SHA384: bytes.fromhex("300a06082a8648ce3d040303"),
    SignatureAlgorithm.ED25519: bytes.fromhex("300506032b6570"),  # RFC 8410, section 3
}
"""Their AlgorithmIdentifiers in DER."""
_UTF8_STRING = 0x0C
_COMMON_NAME = bytes.fromhex("0603550403")  # 2.5.4.3 (RFC 5280, appendix A.1)
_ORGANIZATION_NAME = bytes.fromhex("060355040a")  # 2.5.4.10
_TITLE = bytes.fromhex("060355040c")  # 2.5.4.12
_EXTENSION_REQUEST = bytes.fromhex("06092a864886f70d01090e")  # 1.2.840.113549.1.9.14 (RFC 2985, section 5.4.2)
_KEY_USAGE = bytes.fromhex("0603551d0f")  # 2.5.29.15 (RFC 5280, section 4.2.1.3)


def subject_name(*, common_name: str, organization: str, title: str) -> bytes:
    """Returns the subject as a DER Name (RFC 5280, section 4.1.2.6); an empty title is left out.

    Raises `InvalidArgument` when a name is longer than a certificate can have: it is never cut, for a cut name is
    somebody else's. A shorter one has to be entered for the signer or the organization.
    """
    named = (
        (_ORGANIZATION_NAME, organization, "the organization's display_name"),
        (_TITLE, title, "the signer's position"),
        (_COMMON_NAME, common_name, "the signer's display_name"),
    )
    for _, value, what in named:
        if len(value) > LONGEST_NAME:
            raise InvalidArgument(
                "signer",
                f"{what} has {len(value)} characters, and in a certificate a name has at most {LONGEST_NAME}"
                " (RFC 5280): enter a shorter one",
            )
    # Built here, for `cryptography` counts bytes, and a Vietnamese letter has up to three.
    attributes = [
        der.encode(der.SET, der.encode(der.SEQUENCE, identifier, der.encode(_UTF8_STRING, value.encode())))
        for identifier, value, _ in named
        if value
    ]
    return der.encode(der.SEQUENCE, *attributes)


def request_information(subject: bytes, public_key: bytes) -> bytes:
    """Returns the CertificationRequestInfo (RFC 2986, section 4.1)."""
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=True,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    ).public_bytes()
    critical = der.encode(der.BOOLEAN, b"\xff")
    extension = der.encode(der.SEQUENCE, _KEY_USAGE, critical, der.encode(der.OCTET_STRING, usage))
    values = der.encode(der.SET, der.encode(der.SEQUENCE, extension))
    attributes = der.encode(0xA0, der.encode(der.SEQUENCE, _EXTENSION_REQUEST, values))
    return der.encode(der.SEQUENCE, der.encode(der.INTEGER, b"\x00"), subject, public_key, attributes)


def signing_request(information: bytes, key_type: KeyType, signature: bytes) -> bytes:
    """Returns the CertificationRequest in DER."""
    bits = der.encode(0x03, b"\x00" + signature)
    return der.encode(der.SEQUENCE, information, ALGORITHM_IDENTIFIERS[ALGORITHMS[key_type]], bits)
