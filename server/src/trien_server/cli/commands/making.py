"""Makes an installation, and certificates for those who call it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_server.cli.commands.host_command import ConfigOption, SetOption, explained, load, require_none

if TYPE_CHECKING:
    from trien_server.founding import TokenChoice


def init(
    directory: Annotated[Path, typer.Option("--dir", help="Where the installation goes.")],
    host: Annotated[
        list[str] | None, typer.Option("--host", help="A host name or IP address of the server; may be repeated.")
    ] = None,
    module: Annotated[Path | None, typer.Option("--module", help="A PKCS#11 module; by default SoftHSM's.")] = None,
    token_label: Annotated[str | None, typer.Option("--token-label", help="The existing token's label.")] = None,
    pin_file: Annotated[Path | None, typer.Option("--pin-file", help="A file with the existing token's PIN.")] = None,
) -> None:
    """Make an installation: keys, database and CA.

    That is: the installation's keys on the token, the database, a private CA with the server's TLS certificate and two
    operators' certificates, and DIR/trien.toml. Without --host the server can be reached from this machine alone.
    Without --module it makes a SoftHSM token, which keeps keys in files: for development and tests only.

    \b
    Examples:
      trien-server init --dir /var/lib/trien --host sign.district.example
      trien-server init --dir /var/lib/trien --host 10.0.0.5 --module /usr/lib/hsm.so --token-label T --pin-file pin
    """
    from trien_server.founding import CONFIG_NAME, TokenChoice
    from trien_server.initialize import initialize

    token = None
    if module is not None or token_label is not None or pin_file is not None:
        if module is None or token_label is None or pin_file is None:
            typer.echo("An existing token needs all of --module, --token-label and --pin-file.", err=True)
            raise typer.Exit(2)
        token = TokenChoice(module=module.absolute(), label=token_label, pin_file=pin_file.absolute())
        _require_token_files(token)
    hosts = [*(host or []), "localhost", "127.0.0.1", "::1"]
    with explained():
        made = initialize(
            directory,
            hosts=hosts,
            token=token,
            token_address="0.0.0.0:8443" if host else "127.0.0.1:8443",
            certificate_address="0.0.0.0:8444" if host else "127.0.0.1:8444",
            service_name="Trien",
            log_format="json",
        )
    typer.echo(f"The installation is in {directory}.")
    typer.echo(f"  configuration  {directory / CONFIG_NAME}")
    typer.echo(f"  TLS CA         {directory / 'tls' / 'ca.pem'}   (give it to clients; keep ca.key offline)")
    typer.echo(
        f"  operators      {directory / 'operators'}   (give each person ca.pem and the three files of one name, then"
    )
    typer.echo("                 remove them: NAME.json is what `trien --connection` reads)")
    if token is None:
        typer.echo("  token          SoftHSM: keys are kept in files, for development and tests only")
    with explained():
        from trien_server.cli.token import wrapping_lines

        for line, _ in wrapping_lines(made.config):
            typer.echo(f"  {line}")
    if not host:
        typer.echo("  reached from   this machine alone: without --host the server listens on 127.0.0.1, and its")
        typer.echo("                 certificate names only localhost, 127.0.0.1 and ::1")
    typer.echo(f"Start it: trien-server run --config {directory / CONFIG_NAME}")


def _require_token_files(token: "TokenChoice") -> None:
    """Ends the command before anything is made when the existing token could not be used."""
    from trien_server.cli.checks import module_faults, secret_faults

    faults = [f"--module {fault}" for fault in module_faults(token.module)]
    faults += [f"--pin-file {fault}" for fault in secret_faults(token.pin_file)]
    for fault in faults:
        typer.echo(fault, err=True)
    if faults:
        raise typer.Exit(2)


def ceremony(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="What is to be made; reviewed before.")],
    check: Annotated[
        bool,
        typer.Option("--check", help="Make nothing: check all that could fail, and print what would be made."),
    ] = False,
    sha256: Annotated[
        str | None,
        typer.Option("--sha256", metavar="DIGITS", help="The reviewed file's, instead of typing it."),
    ] = None,
) -> None:
    """Make an installation from one reviewed file.

    That is: a token's keys, in the custody of two people when the file says so, the installation's CA, the database,
    the first officers by their own keys, the configuration; and a record to be signed on paper. An interrupted ceremony
    is completed by running it again with the same file. deploy/ceremony/example.toml explains the file.

    \b
    Examples:
      trien-server ceremony ceremony.toml --check
      trien-server ceremony ceremony.toml
    """
    with explained():
        from trien_server.ceremony.plan import BadPlan
        from trien_server.cli import ceremony as ceremonies

        try:
            loaded, faults = ceremonies.prepare(file)
        except BadPlan as fault:
            typer.echo(f"The file cannot be used:\n{fault}", err=True)
            raise typer.Exit(2) from None
        require_none(faults)
        for line in ceremonies.announce(loaded):
            typer.echo(line)
        if check:
            typer.echo("Nothing was made. All of this can be done.")
            return
        try:
            ceremonies.confirm(loaded, sha256=sha256, ask=typer.prompt)
        except ceremonies.NotConfirmed as fault:
            typer.echo(str(fault), err=True)
            raise typer.Exit(1) from None
        record = ceremonies.hold(loaded, tell=typer.echo)
        typer.echo("")
        typer.echo(record, nl=False)
        typer.echo("")
        typer.echo(f"Print and sign {loaded.plan.ceremony.record_file}.")
        typer.echo("Take the shares, the export, tls/ca.key and the security officer's PIN away from this machine.")


def client_certificate(
    request: Annotated[
        Path,
        typer.Option(
            "--request", metavar="FILE", help="What `trien access operators request`, or OpenSSL, made (PEM)."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the certificate (PEM) goes: a new file.")],
    ca_file: Annotated[
        Path | None, typer.Option("--ca-file", metavar="FILE", help="The CA's certificate; else tls/ca.pem of `init`.")
    ] = None,
    ca_key_file: Annotated[
        Path | None, typer.Option("--ca-key-file", metavar="FILE", help="Its key; else tls/ca.key of `init`.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Make an operator's or application's certificate.

    The owner keeps the key; the private CA of `init` certifies it. It lets nobody in: an operator has to be proposed
    with it, and another operator has to approve.

    \b
    Example:
      trien-server client-certificate --request b.csr --out b.pem
    """
    with explained():
        from trien_server.cli.client_certificate import certify

        if ca_file is None or ca_key_file is None:
            folder = load(config, overrides).config.server.client_ca_file.parent
            ca_file, ca_key_file = ca_file or folder / "ca.pem", ca_key_file or folder / "ca.key"
        try:
            certify(request, ca_certificate=ca_file, ca_key=ca_key_file, out=out)
        except ValueError as fault:
            typer.echo(f"{request}: {fault}", err=True)
            raise typer.Exit(1) from None
        typer.echo(f"certificate    {out}, by {ca_file}")
