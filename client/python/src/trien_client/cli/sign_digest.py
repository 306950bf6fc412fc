"""`trien sign digest`: signs the digests of any files."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client._algorithms import HashFunction, SignatureAlgorithm
from trien_client.cli import options
from trien_client.cli.outcome import CommandError, OutputFormat, reported, show
from trien_client.cli.receipts import LogKey, ReceiptFile, require_receipt, write_receipt
from trien_client.cli.results import result_content

if TYPE_CHECKING:
    from trien_client._authority import OneTimePasswordCallback
    from trien_client._client import Client
    from trien_client._items import Item
    from trien_client._resources import SigningResult


def digest(
    credential: options.CredentialName,
    files: Annotated[
        list[Path] | None,
        typer.Option("--file", metavar="FILE", help="A file whose digest is signed; may be given several times."),
    ] = None,
    hexes: Annotated[
        list[str] | None,
        typer.Option("--hex", metavar="DIGEST", help="A digest in hex digits; may be given several times."),
    ] = None,
    signature_out: Annotated[
        Path | None,
        typer.Option("--signature-out", metavar="FILE", help="Write the signature to a file (for one item only)."),
    ] = None,
    certificate_out: Annotated[
        Path | None, typer.Option("--certificate-out", metavar="FILE", help="Write the certificate chain (PEM).")
    ] = None,
    algorithm: options.Algorithm = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the written files if they exist.")] = False,
    signer: options.Signer = None,
    otp_file: options.OneTimePasswordFile = None,
    receipt: ReceiptFile = None,
    log_key: LogKey = None,
    connection: options.Connection = None,
    address: options.Address = None,
    ca_file: options.CaFile = None,
    token_file: options.TokenFile = None,
    certificate_file: options.CertificateFile = None,
    key_file: options.KeyFile = None,
    trust_anchors: options.TrustAnchors = None,
    timeout: options.Timeout = 30.0,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """Sign digests, all with one one-time password.

    First come those of the files, then those in hex. One signature is printed for each, in hex digits. With an Ed25519
    key the file itself is signed, up to 64 KiB.

    \b
    Examples:
      trien sign digest --credential hoang-trinh-don-rsa --file a.xml --file b.xml
      trien sign digest --credential hoang-trinh-don-p256 --hex "$(sha256sum < a.bin | cut -c -64)"
      trien sign digest --credential hoang-trinh-don-rsa --file a.xml --signature-out a.sig --certificate-out a.pem
      trien verify a.xml --signature a.sig --certificate a.pem
    """
    with reported(output):
        from trien_client.cli.files import require_writable
        from trien_client.cli.password import PasswordSource

        paths, given = files or [], hexes or []
        if not paths and not given:
            raise CommandError("Say what to sign: --file FILE or --hex DIGEST.")
        if signature_out is not None and len(paths) + len(given) != 1:
            raise CommandError("--signature-out takes one signature: give one --file or one --hex.")
        for path in (signature_out, certificate_out):
            if path is not None:
                require_writable(path, overwrite=force, inputs=tuple(paths))
        _require_items(paths, given)
        name = options.full_name("credentials", credential)
        person = None if signer is None else options.full_name("signers", signer)
        target = options.Target(
            connection=connection,
            address=address,
            ca_file=ca_file,
            token_file=token_file,
            certificate_file=certificate_file,
            key_file=key_file,
            trust_anchors=trust_anchors,
            timeout=timeout,
            log_key=log_key,
        )
        require_receipt(target, receipt, items=len(paths) + len(given), force=force, inputs=paths)
        labels = [str(path) for path in paths] + given
        source = PasswordSource(otp_file, what=", ".join(labels[:5]) + (" …" if len(labels) > 5 else ""))
        with target.connect() as client:
            options.require_signer(client, name, person)
            chosen = algorithm or _default_algorithm(client, name)
            items = _items(chosen, paths, given)
            result = source.until_accepted(_attempt(client, name, chosen, items, person))
        _write(signature_out, result.signatures[0], force)
        _write(certificate_out, _pem(result.certificate_chain), force)
        write_receipt(target, result, receipt, force=force)
        lines = [f"{value.hex()}  {label}" for value, label in zip(result.signatures, labels, strict=True)]
        signatures = [
            {"item": label, "signature": value.hex()} for value, label in zip(result.signatures, labels, strict=True)
        ]
        show(output, "\n".join(lines), {**result_content(result), "signatures": signatures})


def _attempt(
    client: "Client", credential: str, algorithm: SignatureAlgorithm, items: "list[Item]", signer: str | None
) -> "Callable[[OneTimePasswordCallback, str], SigningResult]":
    def attempt(source: "OneTimePasswordCallback", request_id: str) -> "SigningResult":
        return client.sign_digests(
            credential, algorithm, items, one_time_password=source, signer=signer, request_id=request_id
        )

    return attempt


def _default_algorithm(client: "Client", credential: str) -> SignatureAlgorithm:
    from trien_client._verification import key_type_of

    return key_type_of(client.trusted_certificate(credential)).default_algorithm


def _require_items(paths: list[Path], hexes: list[str]) -> None:
    from trien_client.cli.files import require_file

    for path in paths:
        require_file(path)
    for text in hexes:
        try:
            bytes.fromhex(text)
        except ValueError:
            raise CommandError(f"--hex takes a digest in hex digits, not {text!r}.") from None


def _items(algorithm: SignatureAlgorithm, paths: list[Path], hexes: list[str]) -> "list[Item]":
    from trien_client._items import MAX_DATA, Data, digest_file

    function: HashFunction | None = algorithm.hash_function
    if function is None:
        if hexes:
            raise CommandError("Ed25519 signs files themselves, not digests: use --file.")
        items: list[Item] = []
        for path in paths:
            if path.stat().st_size > MAX_DATA:
                raise CommandError(f"{path} is larger than 64 KiB: with Ed25519 it cannot be signed.")
            items.append(Data(path.read_bytes()))
        return items
    return [*(digest_file(path, function) for path in paths), *map(bytes.fromhex, hexes)]


def _write(path: Path | None, content: bytes, overwrite: bool) -> None:
    from trien_client.cli.files import new_file

    if path is not None:
        with new_file(path, overwrite=overwrite) as file:
            file.write(content)


def _pem(chain: tuple[bytes, ...]) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain)
