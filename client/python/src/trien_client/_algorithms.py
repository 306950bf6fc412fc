"""Keys, hash functions and complete signature algorithms, as the API names them."""

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
        """The name by which `hashlib` and pyHanko know the function."""
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
    def largest_signature(self) -> int:
        """The longest signature of such a key, in bytes (for ECDSA as DER)."""
        return {
            "RSA_2048": 256,
            "RSA_3072": 384,
            "RSA_4096": 512,
            "EC_P256": 72,
            "EC_P384": 104,
            "EC_ED25519": 64,
        }[self.value]

    @property
    def default_algorithm(self) -> "SignatureAlgorithm":
        """The algorithm that the SDK takes when none is named.

        For RSA it is RSASSA-PSS with SHA-256, which the standards for Vietnam's state agencies require
        (Circular 39/2017/TT-BTTTT).
        """
        if self.is_rsa:
            return SignatureAlgorithm.RSA_PSS_SHA256
        return {
            KeyType.EC_P256: SignatureAlgorithm.ECDSA_P256_SHA256,
            KeyType.EC_P384: SignatureAlgorithm.ECDSA_P384_SHA384,
            KeyType.EC_ED25519: SignatureAlgorithm.ED25519,
        }[self]


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
        return key_type.default_algorithm is self
