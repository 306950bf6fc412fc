"""Where one-time passwords are delivered: telephone numbers and mail addresses, taken up and shown with care."""

import re

from trien_server.core.errors import InvalidArgument
from trien_server.core.records import AuthenticatorKind

_TELEPHONE_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
"""E.164: a plus sign, the country's code, 15 digits at most."""
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*", re.ASCII)
"""A dot-atom (RFC 5322, section 3.2.3): no quoted string, so nothing that ends a header or begins another address."""
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_LONGEST_LOCAL_PART, _LONGEST_DOMAIN = 64, 253
_HIDDEN = "•"


def parse_address(kind: AuthenticatorKind, value: str, *, field: str) -> str:
    """Returns where an authenticator's codes go, as it is kept; "" for kinds that deliver nothing.

    A domain in Unicode becomes its ASCII form (IDNA). Raises `InvalidArgument` for anything but one telephone
    number (E.164) for SMS, one mail address for EMAIL, nothing for the others.
    """
    match kind:
        case AuthenticatorKind.SMS:
            if _TELEPHONE_NUMBER.fullmatch(value) is None:
                raise InvalidArgument(field, "expected a telephone number in E.164, such as '+84912345678'")
            return value
        case AuthenticatorKind.EMAIL:
            return _parse_mail_address(value, field=field)
    if value:
        raise InvalidArgument(field, "only SMS and EMAIL have an address")
    return ""


def masked(address: str) -> str:
    """Returns an address with most of it hidden: `•••••••••123` or `a•••@example.vn`."""
    local, separator, domain = address.rpartition("@")
    if not separator:
        return _HIDDEN * (len(address) - 3) + address[-3:]
    # The same number of dots for all: the length of a name is part of it.
    return f"{local[:1] if len(local) > 1 else ''}{_HIDDEN * 3}@{domain}"


def _parse_mail_address(value: str, *, field: str) -> str:
    local, separator, domain = value.rpartition("@")
    try:
        labels = domain.encode("idna").decode("ascii").lower().split(".")
    except UnicodeError:
        labels = []
    if (
        not separator
        or len(local) > _LONGEST_LOCAL_PART
        or _LOCAL_PART.fullmatch(local) is None
        or len(labels) < 2
        or len(".".join(labels)) > _LONGEST_DOMAIN
        or any(_LABEL.fullmatch(label) is None for label in labels)
    ):
        raise InvalidArgument(field, "expected one mail address, such as 'a@example.vn'")
    return f"{local}@{'.'.join(labels)}"
