"""`trien verify`: tells whether signatures are good, without asking the server."""

from pathlib import Path
from typing import Annotated

import typer

from trien_client._algorithms import SignatureAlgorithm
from trien_client.cli import options
from trien_client.cli.outcome import CommandError, ExitCode, OutputFormat, reported, show


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A signed PDF, or any file with --signature.")],
    signature: Annotated[
        Path | None, typer.Option("--signature", metavar="FILE", help="A signature beside the file, not in it.")
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", metavar="FILE", help="With --signature: the signer's certificate chain (PEM)."),
    ] = None,
    algorithm: Annotated[
        SignatureAlgorithm | None,
        typer.Option(
            "--algorithm",
            metavar="NAME",
            help="With --signature: the algorithm; without it the one that suits the key.",
        ),
    ] = None,
    trust_anchors: options.TrustAnchors = None,
    connection: options.Connection = None,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """Tell who signed a file and when, whether it was changed since, and whether the certificate can be trusted.

    A certificate is trusted when it leads to one of the trust anchors. Revocation is not asked about. The time is what
    the signer's computer said, unless there is a time stamp.

    \b
    Examples:
      trien verify decision-signed.pdf --trust-anchors ca.pem
      trien verify a.xml --signature a.sig --certificate a.pem --connection sandbox/connection.json
    """
    with reported(output):
        from trien_client._trust import load_certificates
        from trien_client.cli.findings import Finding, verify_detached, verify_pdf

        target = options.Target(
            connection=connection,
            address=None,
            ca_file=None,
            token_file=None,
            certificate_file=None,
            key_file=None,
            trust_anchors=trust_anchors,
            timeout=1,
        )
        anchors_file = target.anchors()
        if anchors_file is None:
            raise CommandError(
                "Say whom to trust: --trust-anchors FILE with the CA's certificate, or set TRIEN_CONNECTION to a"
                " connection.json."
            )
        anchors = load_certificates(anchors_file)
        if not file.is_file():
            raise CommandError(f"There is no file {file}.")
        findings: list[Finding]
        if signature is None:
            if certificate is not None or algorithm is not None:
                raise CommandError("--certificate and --algorithm belong to --signature.")
            findings = verify_pdf(file, anchors)
        else:
            if certificate is None:
                raise CommandError("--signature needs --certificate: the signer's certificate.")
            chain = load_certificates(certificate)
            findings = [verify_detached(file, signature.read_bytes(), chain, algorithm, anchors)]
        good = bool(findings) and all(finding.good for finding in findings)
        text = "\n".join(finding.text(number, len(findings)) for number, finding in enumerate(findings, start=1))
        show(
            output,
            text or f"{file} holds no signature.",
            {"file": str(file), "good": good, "signatures": [finding.content() for finding in findings]},
        )
        if not good:
            raise typer.Exit(int(ExitCode.REFUSED))
