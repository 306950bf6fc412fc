"""Signatures of the installation's own CA: made in the token, and verified by who asks for them."""

import hashlib

from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import Hsm, KeyMismatch
from trien_server.core.records import Key
from trien_server.core.signing_request import ALGORITHMS
from trien_server.services.access import reference_of


def sign_content(hsm: Hsm, key: Key, content: bytes) -> bytes:
    """Returns the signature of a certificate's or list's content, of which an audit entry is durable (P1).

    Raises `HsmUnavailable`, also when the token does not hold the key.
    """
    algorithm = ALGORITHMS[key.key_type]
    function = algorithm.hash_function
    message = content if function is None else hashlib.new(function.hashlib_name, content).digest()
    reference = reference_of(key)
    try:
        hsm.prepare(reference)
    except KeyMismatch as mismatch:
        raise HsmUnavailable("The token does not hold the CA's key.") from mismatch
    (signature,) = hsm.sign(reference, algorithm, [message], pss_salt_length=None)
    return signature


def not_verified() -> HsmUnavailable:
    """Returns the refusal when what the token signed does not verify; it is thrown away."""
    return HsmUnavailable("A signature did not verify and was thrown away.")
