"""Certificates of the private CA that `init` made, for operators and applications who keep their own keys."""

from pathlib import Path

from trien_server.core.approval import public_key_hash
from trien_server.host.files import read_secret
from trien_server.host.private_ca import Identity, PrivateCa


def certify(request: Path, *, ca_certificate: Path, ca_key: Path, out: Path) -> None:
    """Writes the certificate for a request (both PEM) to the new file `out`.

    Raises `OSError`, `FileExistsError`, `ValueError` for what is no CA or no good request, `InvalidArgument` for a key
    that nobody approves with.
    """
    ca = PrivateCa(Identity(certificate=ca_certificate.read_bytes(), private_key=read_secret(ca_key).reveal()))
    certificate = ca.certify_client(request.read_bytes())
    public_key_hash(Identity(certificate=certificate, private_key=b"").certificate_der, field="the request")
    with out.open("xb") as stream:
        stream.write(certificate)
