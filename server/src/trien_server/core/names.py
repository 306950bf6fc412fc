"""Resource names (AIP-122): `credentials/hoang-trinh-don-rsa`."""

import re

from trien_server.core.errors import InvalidArgument

_ID = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ID_ALONE = re.compile(_ID, re.ASCII)

_PATTERNS: dict[str, re.Pattern[str]] = {
    collection: re.compile(pattern, re.ASCII)
    for collection, pattern in {
        "organizations": f"organizations/{_ID}",
        "signers": f"signers/{_ID}",
        "authenticators": f"signers/{_ID}/authenticators/{_ID}",
        "challenges": f"signers/{_ID}/challenges/{_ID}",
        "keys": f"keys/{_ID}",
        "credentials": f"credentials/{_ID}",
        "authorizations": f"credentials/{_ID}/authorizations/{_ID}",
        "clients": f"clients/{_ID}",
        "operators": f"operators/{_ID}",
        "auditEntries": f"auditEntries/{_ID}",
        "proposals": f"proposals/{_ID}",
        "enrolments": f"signers/{_ID}/enrolments/{_ID}",
        "installationKeys": f"installationKeys/{_ID}",
        "certificateAuthorities": f"certificateAuthorities/{_ID}",
        "issuedCertificates": f"certificateAuthorities/{_ID}/certificates/{_ID}",
    }.items()
}


def parse_name(collection: str, value: str, *, field: str) -> str:
    """Returns `value` when it is a name in `collection`.

    Raises `InvalidArgument` that names `field`, with the pattern that was expected.
    """
    if _PATTERNS[collection].fullmatch(value) is None:
        raise InvalidArgument(field, f"expected a resource name such as {example(collection)!r}")
    return value


def parse_id(value: str, *, field: str) -> str:
    """Returns `value` when it can be a resource's id (AIP-122: lower case, digits, hyphens, 1 to 63)."""
    if _ID_ALONE.fullmatch(value) is None:
        raise InvalidArgument(
            field, "an id has 1 to 63 lower-case letters, digits and hyphens, and no hyphen at either end"
        )
    return value


def example(collection: str) -> str:
    """Returns the shape of a name in `collection`, for messages."""
    return {
        "authenticators": "signers/{signer}/authenticators/{authenticator}",
        "challenges": "signers/{signer}/challenges/{challenge}",
        "authorizations": "credentials/{credential}/authorizations/{authorization}",
        "enrolments": "signers/{signer}/enrolments/{enrolment}",
        "issuedCertificates": "certificateAuthorities/{certificate_authority}/certificates/{certificate}",
    }.get(collection, f"{collection}/{{id}}")


def parent_of(name: str) -> str:
    """Returns the name of the resource that `name` lies in: `signers/a` for `signers/a/authenticators/b`."""
    return name.rsplit("/", 2)[0]
