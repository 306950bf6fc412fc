"""Certificates of the private CA that `init` made, for operators and applications who keep their own keys."""

from pathlib import Path

from cryptography import x509

from trien_server.core.tls import TLS_KEYS, has_tls_key
from trien_server.host.files import read_secret
from trien_server.host.private_ca import Identity, PrivateCa


def certify(request: Path, *, ca_certificate: Path, ca_key: Path, out: Path) -> None:
    """Writes the certificate for a request (both PEM) to the new file `out`.

    Raises `OSError`, `FileExistsError`, `ValueError` for what is no CA or no good request, or a key that nobody can
    connect with.
    """
    ca = PrivateCa(Identity(certificate=ca_certificate.read_bytes(), private_key=read_secret(ca_key).reveal()))
    certificate = ca.certify_client(request.read_bytes())
    if not has_tls_key(x509.load_pem_x509_certificate(certificate)):
        raise ValueError(f"its key is none of {TLS_KEYS}")
    with out.open("xb") as stream:
        stream.write(certificate)
