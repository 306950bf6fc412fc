"""Private keys that sign remotely, for code that is written against `cryptography`.

    key = remote_key(client, "credentials/hoang-trinh-don-rsa", one_time_password=ask)
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())

Each `sign` is one request with one one-time password, and its signature is verified before it is returned. What is sent
is the digest; of Ed25519 the data, at most 64 KiB. What needs the private key itself (`decrypt`, `exchange`,
`private_bytes`, `private_numbers`) raises `UnsupportedAlgorithm`: it is in the server's hardware security module.
"""

from typing import Any, NoReturn, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from trien_client._algorithms import HashFunction, SignatureAlgorithm
from trien_client._authority import OneTimePasswordCallback
from trien_client._client import Client
from trien_client._errors import VerificationError
from trien_client._items import Data, Item, digest_bytes
from trien_client._resources import SigningResult

__all__ = ["RemoteEd25519PrivateKey", "RemoteEllipticCurvePrivateKey", "RemoteRSAPrivateKey", "remote_key"]

_PADDINGS = {"EMSA-PKCS1-v1_5": "RSA_PKCS1", "EMSA-PSS": "RSA_PSS"}


class _RemoteKey:
    """What the three kinds of key have in common."""

    def __init__(
        self,
        client: Client,
        credential: str,
        certificate: x509.Certificate,
        *,
        one_time_password: str | OneTimePasswordCallback | None,
        signer: str | None,
        timeout: float | None,
    ) -> None:
        self.credential = credential
        self.certificate = certificate
        """The credential's certificate, which is trusted."""
        self.result: SigningResult | None = None
        """What the server answered to the last signature: its authorization and audit entry."""
        self._client = client
        self._one_time_password = one_time_password
        self._signer = signer
        self._timeout = timeout

    def _sign(self, algorithm: SignatureAlgorithm, item: Item, *, pss_salt_length: int | None = None) -> bytes:
        self.result = self._client.sign_digests(
            self.credential,
            algorithm,
            [item],
            one_time_password=self._one_time_password,
            signer=self._signer,
            pss_salt_length=pss_salt_length,
            timeout=self._timeout,
        )
        return self.result.signatures[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.credential!r})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a remote key is not pickled: it holds a connection")

    def private_bytes(self, *_: Any, **__: Any) -> NoReturn:
        """Raises `UnsupportedAlgorithm`."""
        _refuse("be serialized")

    def private_numbers(self) -> NoReturn:
        """Raises `UnsupportedAlgorithm`."""
        _refuse("be told")


class RemoteRSAPrivateKey(_RemoteKey, rsa.RSAPrivateKey):
    """An RSA key: RSASSA-PKCS1-v1_5, or RSASSA-PSS whose mask generation has the digest's hash."""

    def public_key(self) -> rsa.RSAPublicKey:
        """Returns the certificate's key."""
        key = self.certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise TypeError(key)
        return key

    @property
    def key_size(self) -> int:
        """The modulus' length in bits."""
        return self.public_key().key_size

    def sign(
        self,
        data: Any,
        padding: padding.AsymmetricPadding,
        algorithm: utils.Prehashed | hashes.HashAlgorithm | utils.NoDigestInfo,
    ) -> bytes:
        """Signs `data`, or the digest that it is when `algorithm` is `Prehashed`."""
        if isinstance(algorithm, utils.NoDigestInfo):
            raise UnsupportedAlgorithm("Trien signs digests of a named hash function only.")
        function, digest = _digest(data, algorithm)
        name = _PADDINGS.get(padding.name)
        if name is None:
            raise UnsupportedAlgorithm(f"Trien does not sign with the padding {padding.name}.")
        salt = _salt_length(padding, function, self.public_key())
        return self._sign(SignatureAlgorithm(f"{name}_{function}"), digest, pss_salt_length=salt)

    def decrypt(self, *_: Any, **__: Any) -> NoReturn:
        """Raises `UnsupportedAlgorithm`."""
        _refuse("decrypt")


class RemoteEllipticCurvePrivateKey(_RemoteKey, ec.EllipticCurvePrivateKey):
    """A key of P-256, which signs SHA-256, or of P-384, which signs SHA-384."""

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Returns the certificate's key."""
        key = self.certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise TypeError(key)
        return key

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        return self.public_key().curve

    @property
    def key_size(self) -> int:
        """The length of a number of the curve, in bits."""
        return self.public_key().key_size

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Signs `data`, or the digest that it is when the algorithm has a `Prehashed`; the signature is DER."""
        if not isinstance(signature_algorithm, ec.ECDSA) or signature_algorithm.deterministic_signing:
            raise UnsupportedAlgorithm("Trien signs with ECDSA and random numbers of the token only.")
        function, digest = _digest(data, signature_algorithm.algorithm)
        name = f"ECDSA_P{self.key_size}_{function}"
        if name not in set(SignatureAlgorithm):
            raise UnsupportedAlgorithm(f"Trien does not sign {function} with a key of {self.curve.name}.")
        return self._sign(SignatureAlgorithm(name), digest)

    def exchange(self, *_: Any, **__: Any) -> NoReturn:
        """Raises `UnsupportedAlgorithm`."""
        _refuse("agree on a secret")


class RemoteEd25519PrivateKey(_RemoteKey, ed25519.Ed25519PrivateKey):
    """An Ed25519 key: it signs the data itself, at most 64 KiB."""

    def public_key(self) -> ed25519.Ed25519PublicKey:
        """Returns the certificate's key."""
        key = self.certificate.public_key()
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise TypeError(key)
        return key

    def sign(self, data: Any) -> bytes:
        """Signs `data`."""
        return self._sign(SignatureAlgorithm.ED25519, Data(bytes(data)))

    def private_bytes_raw(self) -> NoReturn:
        """Raises `UnsupportedAlgorithm`."""
        _refuse("be serialized")


def remote_key(
    client: Client,
    credential: str,
    *,
    one_time_password: str | OneTimePasswordCallback | None = None,
    signer: str | None = None,
    timeout: float | None = None,
) -> RemoteRSAPrivateKey | RemoteEllipticCurvePrivateKey | RemoteEd25519PrivateKey:
    """Returns the private key of `credential`; it reads the credential and checks its certificate.

    `one_time_password` is asked once for each signature.

    Raises `TrustNotConfigured`, `VerificationError`, `Refusal`, `TransportError`.
    """
    certificate = client.trusted_certificate(credential, timeout=timeout)
    kind: type[RemoteRSAPrivateKey] | type[RemoteEllipticCurvePrivateKey] | type[RemoteEd25519PrivateKey]
    match certificate.public_key():
        case rsa.RSAPublicKey():
            kind = RemoteRSAPrivateKey
        case ec.EllipticCurvePublicKey():
            kind = RemoteEllipticCurvePrivateKey
        case ed25519.Ed25519PublicKey():
            kind = RemoteEd25519PrivateKey
        case _:
            raise VerificationError("The certificate's public key is of a type that Trien does not sign with.")
    return kind(client, credential, certificate, one_time_password=one_time_password, signer=signer, timeout=timeout)


def _digest(data: Any, algorithm: utils.Prehashed | hashes.HashAlgorithm) -> tuple[HashFunction, bytes]:
    prehashed = isinstance(algorithm, utils.Prehashed)
    hash_algorithm = algorithm._algorithm if isinstance(algorithm, utils.Prehashed) else algorithm
    name = hash_algorithm.name.upper()
    if name not in set(HashFunction):
        raise UnsupportedAlgorithm(f"Trien does not sign digests of {hash_algorithm.name}.")
    function = HashFunction(name)
    return function, bytes(data) if prehashed else digest_bytes(bytes(data), function)


def _salt_length(chosen: padding.AsymmetricPadding, function: HashFunction, key: rsa.RSAPublicKey) -> int | None:
    if not isinstance(chosen, padding.PSS):
        return None
    if chosen.mgf._algorithm.name.upper() != function:
        raise UnsupportedAlgorithm("Trien's RSASSA-PSS generates its mask with the digest's own hash.")
    wanted = chosen._salt_length
    if isinstance(wanted, int):
        return wanted
    if wanted is padding.PSS.DIGEST_LENGTH:
        return function.size
    if wanted is padding.PSS.MAX_LENGTH:
        return padding.calculate_max_pss_salt_length(key, chosen.mgf._algorithm)
    raise ValueError("a signature's salt has a length: PSS.AUTO is for verification")


def _refuse(what: str) -> NoReturn:
    raise UnsupportedAlgorithm(
        f"The private key cannot {what} here: it never leaves the server's hardware security module."
    )
