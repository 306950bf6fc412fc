"""Keys, hash functions and complete signature algorithms.

A signature algorithm names padding, curve and hash in one value, as Cloud KMS does, so that no
combination of parameters can be wrong.
"""

from enum import StrEnum


class HashFunction(StrEnum):
    """A hash function of FIPS 180-4."""

    SHA256 = "SHA256"
    SHA384 = "SHA384"
    SHA512 = "SHA512"

    @property
    def size(self) -> int:
        """The digest's length in bytes."""
        return {"SHA256": 32, "SHA384": 48, "SHA512": 64}[self.value]

    @property
    def hashlib_name(self) -> str:
        """The name by which `hashlib` knows the function."""
        return self.value.lower()


class KeyType(StrEnum):
    """What kind of key pair a key is."""

    RSA_2048 = "RSA_2048"
    RSA_3072 = "RSA_3072"
    RSA_4096 = "RSA_4096"
    EC_P256 = "EC_P256"
    EC_P384 = "EC_P384"
    EC_ED25519 = "EC_ED25519"

    @property
    def is_rsa(self) -> bool:
        return self.name.startswith("RSA_")

    @property
    def bits(self) -> int:
        """The modulus's length for RSA, the field's for elliptic curves, in bits."""
        return {
            "RSA_2048": 2048,
            "RSA_3072": 3072,
            "RSA_4096": 4096,
            "EC_P256": 256,
            "EC_P384": 384,
            "EC_ED25519": 255,
        }[self.value]


class SignatureAlgorithm(StrEnum):
    """A complete signature algorithm (RFC 8017 for RSA, FIPS 186-5 for ECDSA, RFC 8032 for Ed25519)."""

    RSA_PSS_SHA256 = "RSA_PSS_SHA256"
    RSA_PSS_SHA384 = "RSA_PSS_SHA384"
    RSA_PSS_SHA512 = "RSA_PSS_SHA512"
    RSA_PKCS1_SHA256 = "RSA_PKCS1_SHA256"
    RSA_PKCS1_SHA384 = "RSA_PKCS1_SHA384"
    RSA_PKCS1_SHA512 = "RSA_PKCS1_SHA512"
    ECDSA_P256_SHA256 = "ECDSA_P256_SHA256"
    ECDSA_P384_SHA384 = "ECDSA_P384_SHA384"
    ED25519 = "ED25519"

    @property
    def is_pss(self) -> bool:
        return self.name.startswith("RSA_PSS_")

    @property
    def is_pkcs1(self) -> bool:
        return self.name.startswith("RSA_PKCS1_")

    @property
    def is_ecdsa(self) -> bool:
        return self.name.startswith("ECDSA_")

    @property
    def hash_function(self) -> HashFunction | None:
        """The hash whose digests are signed; None for Ed25519, which signs the data itself."""
        if self is SignatureAlgorithm.ED25519:
            return None
        return HashFunction(self.name.rsplit("_", 1)[1])

    def fits(self, key_type: KeyType) -> bool:
        """Tells whether a key of `key_type` can make signatures of this algorithm."""
        if self.is_pss or self.is_pkcs1:
            return key_type.is_rsa
        return (
            key_type
            is {
                SignatureAlgorithm.ECDSA_P256_SHA256: KeyType.EC_P256,
                SignatureAlgorithm.ECDSA_P384_SHA384: KeyType.EC_P384,
                SignatureAlgorithm.ED25519: KeyType.EC_ED25519,
            }[self]
        )


def largest_pss_salt(key_type: KeyType, hash_function: HashFunction) -> int:
    """Returns the longest salt that fits, in bytes (RFC 8017, section 9.1.1: emLen - hLen - 2)."""
    encoded_length = (key_type.bits - 1 + 7) // 8
    return encoded_length - hash_function.size - 2
