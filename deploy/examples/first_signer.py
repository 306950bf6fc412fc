#!/usr/bin/env python3
"""From a server that runs to a first person who can sign: everything that an operator enters, in its order.

    organization → signer → authenticator → client → key → certificate signing request → certificate → credential

To try it, with a test CA that is made on the spot:

    python first_signer.py --address sign.district.example:8444 --ca-file ca.pem \\
        --certificate first.pem --key first.key --out first-signer --ca-dir first-signer/test-ca

With a real CA it takes two runs. The first one stops at the certificate signing request; when the CA has answered, the
second one goes on with its certificates (PEM: the signer's first, then each one's issuer, the root last):

    python first_signer.py … --out first-signer
    python first_signer.py … --out first-signer --certificate-chain chain.pem

It can be run again at any time: what exists already stays as it is. It needs the packages trien-proto, grpcio and
cryptography, and runs wherever the server can be reached from. Read it as an example, too: there is nothing in it that
another language with gRPC could not do. The contract is proto/trien/v1/.
"""

import argparse
import os
import re
import shlex
import sys
import time
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

# gRPC writes lines of its own; what matters is said in one line of ours. It looks when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID
from trien.v1 import (
    access_service_pb2,
    access_service_pb2_grpc,
    algorithms_pb2,
    credential_service_pb2,
    credential_service_pb2_grpc,
    key_service_pb2,
    key_service_pb2_grpc,
    organization_service_pb2,
    organization_service_pb2_grpc,
    signer_service_pb2,
    signer_service_pb2_grpc,
)

CALL_SECONDS = 30.0
KEY_SECONDS = 300.0
CERTIFICATE_LIFETIME = timedelta(days=365)
TOKEN_PORT = 8443


class CannotGoOn(Exception):  # noqa: N818
    """Something that a person has to see to; the message says what."""


def main() -> int:
    """Does what the arguments say; returns the exit code."""
    arguments = parse_arguments()
    try:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=arguments.ca_file.read_bytes(),  # who the server has to be
            private_key=arguments.key.read_bytes(),  # who the operator is
            certificate_chain=arguments.certificate.read_bytes(),
        )
        arguments.out.mkdir(mode=0o700, parents=True, exist_ok=True)
        with grpc.secure_channel(arguments.address, credentials) as channel:
            FirstSigner(channel, arguments).make()
    except grpc.RpcError as error:
        print(explain(error, arguments.address), file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except CannotGoOn as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    first, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    server = parser.add_argument_group("the server, and who you are")
    server.add_argument("--address", required=True, metavar="HOST:PORT", help="server.certificate_address, port 8444")
    server.add_argument("--ca-file", required=True, type=Path, metavar="FILE", help="the CA of its TLS certificate")
    server.add_argument("--certificate", required=True, type=Path, metavar="FILE", help="the operator's certificate")
    server.add_argument("--key", required=True, type=Path, metavar="FILE", help="the operator's private key")
    server.add_argument(
        "--token-address",
        metavar="HOST:PORT",
        help=f"server.token_address, where applications connect; by default port {TOKEN_PORT} of the same host",
    )
    names = parser.add_argument_group("names as people read them; identifiers are made of them")
    names.add_argument("--organization", default="Ủy ban nhân dân xã Phú Lâm", help="default: %(default)s")
    names.add_argument("--signer", default="Hoàng Trịnh Đôn", help="default: %(default)s")
    names.add_argument("--position", default="Chủ tịch Ủy ban nhân dân xã", help="default: %(default)s")
    names.add_argument("--client", default="E-office", help="the application that asks for signatures: %(default)s")
    names.add_argument("--authenticator", default="phone", help="another one for a lost phone; default: %(default)s")
    names.add_argument(
        "--key-type",
        default="RSA_3072",
        choices=["RSA_3072", "RSA_4096", "EC_P256", "EC_P384"],
        help="default: %(default)s, which every PDF reader can verify",
    )
    results = parser.add_argument_group("certificate and results")
    results.add_argument("--out", required=True, type=Path, metavar="DIR", help="where token, request, certificates go")
    issuer = results.add_mutually_exclusive_group()
    issuer.add_argument("--ca-dir", type=Path, metavar="DIR", help="issue by a test CA in DIR, made if not there")
    issuer.add_argument("--certificate-chain", type=Path, metavar="FILE", help="what your CA issued, its root last")
    return parser.parse_args()


class FirstSigner:
    """The steps. Each leaves something on the server or in the folder that a second run finds again."""

    def __init__(self, channel: grpc.Channel, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._out: Path = arguments.out
        self._signer_id = identifier(arguments.signer)
        self._organizations = organization_service_pb2_grpc.OrganizationServiceStub(channel)
        self._signers = signer_service_pb2_grpc.SignerServiceStub(channel)
        self._access = access_service_pb2_grpc.AccessServiceStub(channel)
        self._keys = key_service_pb2_grpc.KeyServiceStub(channel)
        self._credentials = credential_service_pb2_grpc.CredentialServiceStub(channel)

    def make(self) -> None:
        """Makes all that is missing, as far as there is a certificate."""
        organization = self._organization()
        signer = self._signer(organization)
        self._authenticator(signer)
        client, token_file = self._client()
        credential = self._existing_credential()
        if credential is None:
            key = self._key()
            request = self._signing_request(key, signer)
            chain = self._certificate_chain(request)
            if chain is None:
                return
            credential = self._credential(key, signer, client, chain)
        elif client not in credential.clients:
            raise CannotGoOn(f"{credential.name} exists, and not for {client}: its clients are made with it.")
        root = x509.load_der_x509_certificate(credential.certificate_chain[-1])
        anchors_file = self._out / "trust-anchors.pem"
        anchors_file.write_bytes(root.public_bytes(Encoding.PEM))
        self._say_how_to_sign(credential.name, token_file, anchors_file)

    def _organization(self) -> str:
        """Makes the organization that the signer belongs to."""
        organization_id = identifier(self._arguments.organization)
        request = organization_service_pb2.CreateOrganizationRequest(
            organization_id=organization_id,
            organization=organization_service_pb2.Organization(display_name=self._arguments.organization),
        )
        name = f"organizations/{organization_id}"
        report(name, create(self._organizations.CreateOrganization, request) is not None)
        return name

    def _signer(self, organization: str) -> str:
        """Makes the person."""
        request = signer_service_pb2.CreateSignerRequest(
            signer_id=self._signer_id,
            signer=signer_service_pb2.Signer(
                display_name=self._arguments.signer,
                kind=signer_service_pb2.Signer.PERSON,
                organization=organization,
                position=self._arguments.position,
            ),
        )
        name = f"signers/{self._signer_id}"
        report(name, create(self._signers.CreateSigner, request) is not None)
        return name

    def _authenticator(self, signer: str) -> None:
        """Makes the one-time password generator on the person's phone (TOTP, RFC 6238).

        The server tells the secret once, here. Who sees it can approve in the person's place: do this with the person
        and the phone beside you, and clear the terminal.
        """
        request = signer_service_pb2.CreateAuthenticatorRequest(
            parent=signer,
            authenticator_id=self._arguments.authenticator,
            authenticator=signer_service_pb2.Authenticator(kind=signer_service_pb2.Authenticator.TOTP, digits=6),
        )
        made = create(self._signers.CreateAuthenticator, request)
        report(f"{signer}/authenticators/{self._arguments.authenticator}", made is not None)
        if made is None:
            print("    (its secret was shown when it was made; for another phone: --authenticator phone-2)")
            return
        print(
            "\n  Enter this in the signer's authenticator app now; it is shown this once. As a QR code:"
            " paste the line into `qrencode -t ansiutf8`.\n"
        )
        print(f"    {made.otpauth_uri}\n", flush=True)

    def _client(self) -> tuple[str, Path]:
        """Makes the application that may ask for signatures; returns its name and the file with its bearer token."""
        client_id = identifier(self._arguments.client)
        name, token_file = f"clients/{client_id}", self._out / f"{client_id}.token"
        request = access_service_pb2.CreateClientRequest(
            client_id=client_id, client=access_service_pb2.Client(display_name=self._arguments.client)
        )
        made = create(self._access.CreateClient, request)
        report(name, made is not None)
        if made is not None:
            # The server tells the token once: after a crash here the client is there and its token is lost.
            write_private(token_file, made.bearer_token.encode() + b"\n")
        elif not token_file.exists():
            raise CannotGoOn(
                f"{name} exists, but its token, which was shown once, is not in {token_file}. "
                "Put it there, or make another client with --client NAME."
            )
        return name, token_file

    def _key(self) -> key_service_pb2.Key:
        """Makes the signer's key. It is generated in the token, which takes seconds for RSA, and never leaves it."""
        name = f"keys/{self._signer_id}"
        key_type = algorithms_pb2.KeyType.Value(self._arguments.key_type)
        request = key_service_pb2.CreateKeyRequest(key_id=self._signer_id, key=key_service_pb2.Key(key_type=key_type))
        report(name, create(self._keys.CreateKey, request) is not None)
        end = time.monotonic() + KEY_SECONDS
        while True:
            key: key_service_pb2.Key = self._keys.GetKey(key_service_pb2.GetKeyRequest(name=name), timeout=CALL_SECONDS)
            if key.state == key_service_pb2.Key.ENABLED:
                return key
            if key.state != key_service_pb2.Key.PENDING_GENERATION:
                raise CannotGoOn(f"{name} is {key_service_pb2.Key.State.Name(key.state)}: see the server's log.")
            if time.monotonic() > end:
                raise CannotGoOn(f"{name} is not generated yet: see the server's log, and run this again.")
            time.sleep(0.2)

    def _signing_request(self, key: key_service_pb2.Key, signer: str) -> x509.CertificateSigningRequest:
        """Returns the certificate signing request (PKCS#10), signed in the token with the key itself."""
        answer = self._credentials.GenerateCertificateSigningRequest(
            credential_service_pb2.GenerateCertificateSigningRequestRequest(key=key.name, signer=signer),
            timeout=CALL_SECONDS,
        )
        request = x509.load_der_x509_csr(answer.certificate_signing_request)
        path = self._out / f"{self._signer_id}.csr"
        path.write_bytes(request.public_bytes(Encoding.PEM))
        print(f"  {path}: the certificate signing request of {request.subject.rfc4514_string()}")
        return request

    def _certificate_chain(self, request: x509.CertificateSigningRequest) -> list[x509.Certificate] | None:
        """Returns the signer's certificate and its issuers, the root last; None when the CA has to be asked first."""
        source: Path | None = self._arguments.certificate_chain
        if self._arguments.ca_dir is not None:
            source = self._out / f"{self._signer_id}-chain.pem"
            if not source.exists():
                certificates = TestCa(self._arguments.ca_dir).issue(request)
                source.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in certificates))
                print(f"  {source}: issued by the test CA in {self._arguments.ca_dir}. Nobody else trusts it.")
        if source is None:
            print("\nGive the request to your CA. With the certificates that it issues, go on by the same line and")
            print("\n  --certificate-chain FILE    (PEM: the signer's certificate first, the CA's root last)")
            return None
        try:
            chain = x509.load_pem_x509_certificates(source.read_bytes())
        except ValueError:
            raise CannotGoOn(f"{source} holds no certificates in PEM.") from None
        if chain[0].public_key() != request.public_key():
            raise CannotGoOn(f"The first certificate in {source} is for another key than the request's.")
        if len(chain) < 2:
            raise CannotGoOn(f"{source} holds the signer's certificate alone: append its CA's certificates.")
        return chain

    def _existing_credential(self) -> credential_service_pb2.Credential | None:
        """Returns what an earlier run made; its key then makes no more certificate signing requests."""
        request = credential_service_pb2.GetCredentialRequest(name=f"credentials/{self._signer_id}")
        try:
            credential: credential_service_pb2.Credential = self._credentials.GetCredential(
                request, timeout=CALL_SECONDS
            )
        except grpc.RpcError as error:
            # The answer does not tell what does not exist from what one may not see. An operator sees all.
            if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                return None
            raise
        report(credential.name, made=False)
        return credential

    def _credential(
        self, key: key_service_pb2.Key, signer: str, client: str, chain: list[x509.Certificate]
    ) -> credential_service_pb2.Credential:
        """Joins key, certificate, signer and client: from here on there can be signatures."""
        request = credential_service_pb2.CreateCredentialRequest(
            credential_id=self._signer_id,
            credential=credential_service_pb2.Credential(
                key=key.name,
                signer=signer,
                display_name=self._arguments.signer,
                certificate_chain=[certificate.public_bytes(Encoding.DER) for certificate in chain],
                clients=[client],  # which applications may ask; all others hear that it does not exist
                client_collected_otp_allowed=True,  # the application may ask for the code and hand it on
            ),
        )
        credential: credential_service_pb2.Credential = self._credentials.CreateCredential(
            request, timeout=CALL_SECONDS
        )
        report(credential.name, made=True)
        return credential

    def _say_how_to_sign(self, credential: str, token_file: Path, anchors_file: Path) -> None:
        host = self._arguments.address.rpartition(":")[0]
        options = {
            "--address": self._arguments.token_address or f"{host}:{TOKEN_PORT}",
            "--ca-file": self._arguments.ca_file.absolute(),
            "--token-file": token_file.absolute(),
            "--trust-anchors": anchors_file.absolute(),
            "--credential": credential,
        }
        words = [word for option, value in options.items() for word in (option, shlex.quote(str(value)))]
        print(f"\n{self._arguments.signer} can sign now. It asks for the code that the phone shows:\n")
        print(f"  trien sign pdf {' '.join(words)} in.pdf signed.pdf")


class TestCa:
    """A CA of one key in a folder, for tests. A real one has its key in an HSM, and people who check who asks."""

    def __init__(self, directory: Path) -> None:
        """Opens it, or makes it when the folder has none."""
        key_file, certificate_file = directory / "ca.key", directory / "ca.pem"
        if not certificate_file.exists():
            new_key = ec.generate_private_key(ec.SECP256R1())
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA, for trying out only")])
            certificate = (
                new_certificate(subject=name, issuer=name, public_key=new_key.public_key())
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
                .sign(new_key, hashes.SHA256())
            )
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The key is written first, so a key alone is what an interrupted run left.
            write_private(key_file, new_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        key = load_pem_private_key(key_file.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CannotGoOn(f"{key_file} is no elliptic curve key: choose another --ca-dir.")
        self._key = key
        self._certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())

    def issue(self, request: x509.CertificateSigningRequest) -> list[x509.Certificate]:
        """Returns a document signer's certificate and the CA's own."""
        if not request.is_signature_valid:
            raise CannotGoOn("The certificate signing request's signature does not verify.")
        certificate = (
            new_certificate(subject=request.subject, issuer=self._certificate.subject, public_key=request.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            # contentCommitment, once called nonRepudiation: this key signs what its owner has read.
            .add_extension(key_usage(digital_signature=True, content_commitment=True), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return [certificate, self._certificate]


def new_certificate(*, subject: x509.Name, issuer: x509.Name, public_key: Any) -> x509.CertificateBuilder:
    """Begins a certificate that is valid for a year."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + CERTIFICATE_LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def key_usage(**usages: bool) -> x509.KeyUsage:
    """Returns a key usage with these bits set alone."""
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    more = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: usages.get(name, False) for name in (*names, *more)})


def create(method: Callable[..., Any], request: Any) -> Any | None:
    """Calls a method that creates something; returns its answer, or None when that exists already."""
    try:
        return method(request, timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.ALREADY_EXISTS:
            return None
        raise


def report(name: str, made: bool) -> None:
    """Says what was made, or was there."""
    print(f"  {name}{'' if made else ': exists already'}", flush=True)


def identifier(display_name: str) -> str:
    """Makes a resource identifier of a name: `Hoàng Trịnh Đôn` gives `hoang-trinh-don`."""
    plain = unicodedata.normalize("NFKD", display_name.lower().replace("đ", "d"))
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    found = re.sub(r"[^a-z0-9]+", "-", letters)[:63].strip("-")
    if not found:
        raise CannotGoOn(f"{display_name!r} has no letters from a to z to make an identifier of.")
    return found


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that its owner alone may read; one that is there is replaced."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(path)


def explain(error: grpc.RpcError, address: str) -> str:
    """Returns what a call failed with, and what to look at."""
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.UNAVAILABLE:
        return (
            f"The server does not answer at {address} ({details}). Is it server.certificate_address, is the host's "
            "name in the server's certificate, and is --ca-file the CA of it?"
        )
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return f"The server does not know this operator: --certificate and --key have to be an operator's ({details})."
    return f"{code.name}: {details}"


if __name__ == "__main__":
    sys.exit(main())
