"""Certificate signing requests (PKCS #10, RFC 2986), built around a signature that the token makes."""

from cryptography import x509
from cryptography.x509.oid import NameOID

from trien_server.core import der
from trien_server.core.algorithms import KeyType, SignatureAlgorithm

ALGORITHMS = {
    KeyType.RSA_2048: SignatureAlgorithm.RSA_PKCS1_SHA256,
    KeyType.RSA_3072: SignatureAlgorithm.RSA_PKCS1_SHA256,
    KeyType.RSA_4096: SignatureAlgorithm.RSA_PKCS1_SHA256,
    KeyType.EC_P256: SignatureAlgorithm.ECDSA_P256_SHA256,
    KeyType.EC_P384: SignatureAlgorithm.ECDSA_P384_SHA384,
    KeyType.EC_ED25519: SignatureAlgorithm.ED25519,
}
"""What a key of each type signs its request with."""

_IDENTIFIERS = {
    SignatureAlgorithm.RSA_PKCS1_SHA256: bytes.fromhex("300d06092a864886f70d01010b0500"),  # RFC 4055, section 5
    SignatureAlgorithm.ECDSA_P256_SHA256: bytes.fromhex("300a06082a8648ce3d040302"),  # RFC 5758, section 3.2
    SignatureAlgorithm.ECDSA_P384_SHA384: bytes.fromhex("300a06082a8648ce3d040303"),
    SignatureAlgorithm.ED25519: bytes.fromhex("300506032b6570"),  # RFC 8410, section 3
}
_EXTENSION_REQUEST = bytes.fromhex("06092a864886f70d01090e")  # 1.2.840.113549.1.9.14 (RFC 2985, section 5.4.2)
_KEY_USAGE = bytes.fromhex("0603551d0f")  # 2.5.29.15 (RFC 5280, section 4.2.1.3)


def subject_name(*, common_name: str, organization: str, title: str) -> bytes:
    """Returns the subject as a DER Name (RFC 5280, section 4.1.2.6); an empty title is left out."""
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization[:64])]
    if title:
        attributes.append(x509.NameAttribute(NameOID.TITLE, title[:64]))
    attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]))
    return x509.Name(attributes).public_bytes()


def request_information(subject: bytes, public_key: bytes) -> bytes:
    """Returns the CertificationRequestInfo (RFC 2986, section 4.1); it asks for the usages of document signatures."""
    usage = x509.KeyUsage(
        digital_signature=True,
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
    return der.encode(der.SEQUENCE, information, _IDENTIFIERS[ALGORITHMS[key_type]], bits)
