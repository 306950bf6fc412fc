"""The text that a person gets with a one-time password: ours, on one line, with the client's words quoted."""

from trien_server.core.ports import DeliveredText
from trien_server.core.records import AuthenticatorKind
from trien_server.core.secret import Secret


def delivered_text(
    *,
    kind: AuthenticatorKind,
    code: Secret,
    client_title: str,
    count: int,
    fingerprint: str,
    title: str,
    service: str,
) -> DeliveredText:
    """Returns the text. `client_title` and `title` are one line each, checked when they were taken up."""
    documents = "1 document" if count == 1 else f"{count} documents"
    quoted = f' "{title}"' if title and kind is AuthenticatorKind.EMAIL else ""
    body = f'{code.reveal().decode()} is your code for {documents}{quoted} from "{client_title}", list {fingerprint}.'
    return DeliveredText(subject=f"{service}: {documents}, list {fingerprint}", body=Secret(body.encode()))
