"""What a signing command prints about the server's answer."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trien_client._resources import SigningResult


def result_content(result: "SigningResult") -> dict[str, object]:
    """The answer for programs, without the signatures."""
    return {
        "credential": result.credential,
        "algorithm": result.algorithm,
        "pss_salt_length": result.pss_salt_length,
        "certificate_sha256": hashlib.sha256(result.certificate_chain[0]).hexdigest(),
        "authorization": result.authorization,
        "approved_by": result.approved_by,
        "assurance": result.assurance,
        "audit_entry": result.audit_entry,
        "leaf_hash": result.leaf_hash.hex(),
        "request_id": result.request_id,
    }
