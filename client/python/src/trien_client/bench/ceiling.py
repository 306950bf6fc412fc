"""The token alone: what the service could reach at most.

Each process signs with held handles, one signature a call, with the mechanisms that the server uses. As many processes
as there are cores, for python-pkcs11 as it comes does not bear threads.
"""

import base64
import os
import time
from collections.abc import Callable
from itertools import cycle
from typing import Any, Final

import pkcs11
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from pkcs11 import MGF, Attribute, Mechanism, ObjectClass

from trien_client._algorithms import HashFunction, SignatureAlgorithm
from trien_client.bench.process import Handler, Message, serve

_DIGEST_INFO: Final = {
    HashFunction.SHA256: bytes.fromhex("3031300d060960864801650304020105000420"),
    HashFunction.SHA384: bytes.fromhex("3041300d060960864801650304020205000430"),
}
"""What precedes the digest in a DigestInfo (RFC 8017, section 9.2, note 1)."""

_HASHES: Final = {HashFunction.SHA256: hashes.SHA256(), HashFunction.SHA384: hashes.SHA384()}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
Sign = Callable[[Any, bytes], bytes]


def hash_of(algorithm: SignatureAlgorithm) -> HashFunction:
    """Returns the hash whose digests are signed. Raises `ValueError` for an algorithm that signs none."""
    if algorithm.hash_function is None:
        raise ValueError(f"{algorithm} signs no digests")
    return algorithm.hash_function


def signing_call(algorithm: SignatureAlgorithm) -> Sign:
    """Returns what signs one digest with a private key object: CKM_RSA_PKCS_PSS, CKM_RSA_PKCS or CKM_ECDSA."""
    function = hash_of(algorithm)
    if algorithm.is_pss:
        parameter = (Mechanism[function.value], MGF[function.value], function.size)
        return lambda key, digest: key.sign(digest, mechanism=Mechanism.RSA_PKCS_PSS, mechanism_param=parameter)
    if algorithm.is_pkcs1:
        prefix = _DIGEST_INFO[function]
        return lambda key, digest: key.sign(prefix + digest, mechanism=Mechanism.RSA_PKCS)
    return lambda key, digest: key.sign(digest, mechanism=Mechanism.ECDSA)


def verify(public_key: PublicKey, algorithm: SignatureAlgorithm, signature: bytes, digest: bytes) -> None:
    """Verifies what a token returned. Raises `InvalidSignature`."""
    function = _HASHES[hash_of(algorithm)]
    prehashed = utils.Prehashed(function)
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        half = len(signature) // 2
        der = utils.encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
        public_key.verify(der, digest, ec.ECDSA(prehashed))
    elif algorithm.is_pss:
        salted = padding.PSS(mgf=padding.MGF1(function), salt_length=function.digest_size)
        public_key.verify(signature, digest, salted, prehashed)
    else:
        public_key.verify(signature, digest, padding.PKCS1v15(), prehashed)


class TokenAlone:
    """An open token with the handles of the keys that the service uses."""

    def __init__(self, setup: Message) -> None:
        token = pkcs11.lib(setup["module"]).get_token(token_label=setup["label"])
        self._session = token.open(user_pin=setup["pin"])
        self._keys = {
            key_type: [self._find(base64.b64decode(key)) for key in keys] for key_type, keys in setup["keys"].items()
        }

    def measure(self, message: Message) -> Message:
        """Signs random digests with all keys of a type in turn; returns how many and in how many seconds."""
        algorithm = SignatureAlgorithm(message["algorithm"])
        keys = self._keys[message["key_type"]]
        sign, size = signing_call(algorithm), hash_of(algorithm).size
        for public_key, private in keys:
            digest = os.urandom(size)
            verify(public_key, algorithm, sign(private, digest), digest)
        handles = cycle([private for _, private in keys])
        self._run(sign, handles, size, message["warm_up_seconds"])
        cpu_before = time.process_time()
        count, seconds = self._run(sign, handles, size, message["seconds"])
        return {"signatures": count, "seconds": seconds, "cpu_seconds": time.process_time() - cpu_before}

    @staticmethod
    def _run(sign: Sign, handles: "cycle[Any]", size: int, seconds: float) -> tuple[int, float]:
        begin = time.perf_counter()
        count = 0
        while True:
            sign(next(handles), os.urandom(size))
            count += 1
            passed = time.perf_counter() - begin
            if passed >= seconds:
                return count, passed

    def _find(self, encoded: bytes) -> tuple[PublicKey, Any]:
        """Returns a public key and the private key object that belongs to it."""
        key = load_der_public_key(encoded)
        if isinstance(key, rsa.RSAPublicKey):
            modulus = key.public_numbers().n
            kind = {Attribute.KEY_TYPE: pkcs11.KeyType.RSA}

            def is_it(found: Any) -> bool:
                return int.from_bytes(found[Attribute.MODULUS]) == modulus
        elif isinstance(key, ec.EllipticCurvePublicKey):
            point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            kind = {Attribute.KEY_TYPE: pkcs11.KeyType.EC}

            def is_it(found: Any) -> bool:
                return bool(found[Attribute.EC_POINT].endswith(point))
        else:
            raise ValueError("the public key is of a type that is not measured")
        for found in list(self._session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, **kind})):
            if is_it(found):
                return key, self._session.get_key(object_class=ObjectClass.PRIVATE_KEY, id=found[Attribute.ID])
        raise ValueError("the token does not hold the key")


def _set_up(setup: Message) -> Handler:
    return TokenAlone(setup).measure


if __name__ == "__main__":
    serve(_set_up)
