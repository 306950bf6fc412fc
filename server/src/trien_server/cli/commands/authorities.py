"""The installation's own CA."""

from pathlib import Path
from typing import Annotated

import typer

from trien_server.cli.commands.host_command import ConfigOption, SetOption, explained, load

ca_app = typer.Typer(
    help="The installation's own CA, with its key in the token. It is no public CA.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


CommonNameOption = Annotated[
    str, typer.Option("--common-name", metavar="TEXT", help="The CA's name, such as 'Phú Lâm document signing'.")
]


OrganizationOption = Annotated[str, typer.Option("--organization", metavar="TEXT", help="The agency whose CA it is.")]


KeyTypeOption = Annotated[
    str, typer.Option("--key-type", metavar="TYPE", help="EC_P256, EC_P384, RSA_3072 or RSA_4096.")
]


DaysOption = Annotated[int, typer.Option("--days", metavar="N", help="How long its certificate is valid.")]


RequestOption = Annotated[
    Path | None,
    typer.Option("--request", metavar="FILE", help="Write a signing request for a parent CA, and propose nothing yet."),
]


@ca_app.command("create")
def ca_create(
    common_name: CommonNameOption,
    organization: OrganizationOption,
    key_type: KeyTypeOption = "EC_P384",
    days: DaysOption = 3650,
    request: RequestOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Make a CA: a key in the token and a certificate.

    It issues nothing before a security officer has approved the proposal that this makes; a running server goes on.
    The certificate says that it is no public CA.

    \b
    Examples:
      trien-server ca create --common-name 'Phú Lâm document signing' --organization 'UBND xã Phú Lâm'
      trien-server ca create --common-name 'Phú Lâm sub CA' --organization 'UBND xã Phú Lâm' --request ca.csr
    """
    _make_ca(config, overrides, common_name, organization, key_type, days, request, replace=False)


@ca_app.command("rotate")
def ca_rotate(
    common_name: CommonNameOption,
    organization: OrganizationOption,
    key_type: KeyTypeOption = "EC_P384",
    days: DaysOption = 3650,
    request: RequestOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Make a CA that takes the present one's place.

    It is a new authority with a new key and certificate, which whoever trusts the old one has to install too. The old
    one issues no more; its certificates stay valid, and its revocation lists go on.

    \b
    Example:
      trien-server ca rotate --common-name 'Phú Lâm document signing 2' --organization 'UBND xã Phú Lâm'
    """
    _make_ca(config, overrides, common_name, organization, key_type, days, request, replace=True)


def _make_ca(
    config: Path | None,
    overrides: list[str] | None,
    common_name: str,
    organization: str,
    key_type: str,
    days: int,
    request: Path | None,
    *,
    replace: bool,
) -> None:
    loaded = load(config, overrides)
    with explained():
        from trien_server.cli import ca
        from trien_server.services.certificate_authorities import KEY_TYPES

        wanted = next((kind for kind in KEY_TYPES if kind.value == key_type), None)
        if wanted is None:
            typer.echo(f"--key-type: expected one of {', '.join(KEY_TYPES)}", err=True)
            raise typer.Exit(2)
        for line in ca.create(
            loaded.config,
            common_name=common_name,
            organization=organization,
            key_type=wanted,
            days=days,
            request=request,
            replace=replace,
        ):
            typer.echo(line)


@ca_app.command("import")
def ca_import(
    chain: Annotated[
        Path, typer.Option("--chain", metavar="FILE", help="The CA's certificate and those above it, PEM.")
    ],
    replace: Annotated[bool, typer.Option("--replace", help="It takes the present CA's place.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Propose the CA that a parent CA certified.

    The key is the one of `trien-server ca create --request`.

    \b
    Example:
      trien-server ca import --chain ca-chain.pem
    """
    loaded = load(config, overrides)
    with explained():
        from trien_server.cli import ca

        for line in ca.import_chain(loaded.config, chain=chain, replace=replace):
            typer.echo(line)


@ca_app.command("show")
def ca_show(
    pem: Annotated[bool, typer.Option("--pem", help="Print the issuing CA's certificate chain.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Show the installation's CAs."""
    loaded = load(config, overrides)
    with explained():
        from trien_server.cli import ca

        for line in ca.show(loaded.config, pem=pem):
            typer.echo(line)


@ca_app.command("crl")
def ca_crl(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the list goes, DER.")],
    authority: Annotated[
        str | None,
        typer.Option("--authority", metavar="NAME", help="Which CA's, such as certificateAuthorities/ca-1."),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Make a fresh revocation list (CRL).

    With ca.crl_folder the server keeps such a file fresh by itself.

    \b
    Example:
      trien-server ca crl --out ca-1.crl
    """
    loaded = load(config, overrides)
    with explained():
        from trien_server.cli import ca

        for line in ca.revocation_list(loaded.config, authority=authority, out=out):
            typer.echo(line)
