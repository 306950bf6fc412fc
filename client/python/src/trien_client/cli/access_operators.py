"""`trien access operators`: who administers, with which roles and certificates."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import operating, options
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import EXIT_CODES, CommandError, OutputFormat, reported

if TYPE_CHECKING:
    from trien.v1.access_service_pb2 import Operator
    from trien.v1.access_service_pb2 import Role as RoleValue

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Enter, change and disable those who administer.")


class Role(StrEnum):
    """What an operator may do."""

    SECURITY_OFFICER = "security-officer"
    REGISTRATION_OFFICER = "registration-officer"
    AUDITOR = "auditor"
    ADMINISTRATOR = "administrator"
    MONITOR = "monitor"


Name = Annotated[str, typer.Argument(metavar="NAME", help="An operator, such as tran-thi-b.")]
Roles = Annotated[
    list[Role] | None,
    typer.Option("--role", help="What the operator may do; repeat it. An auditor has no other role."),
]
Certificate = Annotated[
    Path | None,
    typer.Option("--certificate", metavar="FILE", help="The operator's certificate (PEM). The key stays with them."),
]
Organizations = Annotated[
    list[str] | None,
    typer.Option(
        "--organization",
        metavar="NAME",
        help="Limit a registration officer or monitor to this one and below it; repeat it.",
    ),
]


@app.command(epilog=EXIT_CODES)
def request(
    common_name: Annotated[str, typer.Option("--common-name", metavar="TEXT", help="Whose certificate it is to be.")],
    new_key_file: Annotated[
        Path, typer.Option("--new-key-file", metavar="FILE", help="Where your new private key goes: keep it to you.")
    ],
    request_file: Annotated[
        Path, typer.Option("--request-file", metavar="FILE", help="Where the request (PEM) goes: it is no secret.")
    ],
) -> None:
    """Make your own key and a request for its certificate.

    Give the request to who runs the server's CA: `trien-server client-certificate` makes a certificate of it. The key
    (P-256, PEM without a password, mode 0600) never leaves this computer; it also signs what you approve.

    \b
    Example:
      trien access operators request --common-name "Trần Thị B" \\
        --new-key-file b.key --request-file b.csr
    """
    with reported(OutputFormat.TEXT, officer=True):
        _make_request(common_name, new_key_file, request_file)
        typer.echo(f"{new_key_file} is your key. Have {request_file} made into a certificate, then:")
        typer.echo("  trien access operators create NAME --name … --certificate FILE --role …")


@operating.command(app)
def create(
    me: Officer,
    name: Name,
    person: Annotated[str, typer.Option("--name", metavar="TEXT", help="The person's name.")],
    certificate: Certificate = None,
    roles: Roles = None,
    organizations: Organizations = None,
) -> None:
    """Propose an operator.

    The certificate has to be of a CA that the server's `server.client_ca_file` has. No key and no certificate belongs
    to two operators.

    \b
    Examples:
      trien access operators create tran-thi-b --name "Trần Thị B" \\
        --certificate b.pem --role security-officer
      trien access operators create le-van-c --name "Lê Văn C" --certificate c.pem \\
        --role registration-officer --organization ubnd-xa-phu-lam
    """
    from trien.v1 import access_service_pb2

    if certificate is None or not roles:
        raise CommandError("Give the operator's --certificate FILE and at least one --role.")
    operator = access_service_pb2.Operator(
        display_name=person,
        certificate=_read_certificate(certificate),
        roles=_roles(roles),
        organizations=_organizations(organizations),
    )
    identifier = options.full_name("operators", name).removeprefix("operators/")
    wanted = access_service_pb2.CreateOperatorRequest(operator_id=identifier, operator=operator)
    me.propose(me.client.access.CreateOperator, wanted)


@operating.command(app, "list")
def list_operators(me: Officer) -> None:
    """List operators.

    \b
    Example:
      trien access operators list
    """
    from trien.v1 import access_service_pb2

    from trien_client.cli.access_texts import operator_line

    found = me.pages(me.client.access.ListOperators, access_service_pb2.ListOperatorsRequest(), "operators")
    me.show_all(found, operator_line, empty="No operator.")


@operating.command(app)
def show(me: Officer, name: Name) -> None:
    """Show an operator's roles and certificate. What is in force now: trien access show operators/NAME.

    \b
    Example:
      trien access operators show tran-thi-b
    """
    from trien_client.cli.access_texts import operator_text

    me.show(_read(me, name), operator_text)


@operating.command(app)
def update(
    me: Officer,
    name: Name,
    person: Annotated[str | None, typer.Option("--name", metavar="TEXT", help="The person's name.")] = None,
    certificate: Certificate = None,
    roles: Roles = None,
    organizations: Organizations = None,
    all_organizations: Annotated[bool, typer.Option("--all-organizations", help="No limit to organizations.")] = False,
) -> None:
    """Propose other roles or another certificate.

    What is not given stays. --role names all roles that remain. The last holder of a role keeps it. A new certificate
    takes the old one's place with the approval.

    \b
    Examples:
      trien access operators update tran-thi-b --certificate b-2027.pem
      trien access operators update tran-thi-b --role registration-officer
    """
    from trien.v1 import access_service_pb2

    operator = _read(me, name)
    wanted = access_service_pb2.Operator(
        name=operator.name,
        display_name=operator.display_name if person is None else person,
        certificate=b"" if certificate is None else _read_certificate(certificate),
        roles=_roles(roles) if roles else operator.roles,
        organizations=() if all_organizations else _organizations(organizations) or operator.organizations,
    )
    me.propose(me.client.access.UpdateOperator, access_service_pb2.UpdateOperatorRequest(operator=wanted))


@operating.command(app)
def disable(me: Officer, name: Name) -> None:
    """Shut an operator out, at once and on all nodes. The last holder of a role stays; `enable` is a proposal.

    \b
    Example:
      trien access operators disable tran-thi-b
    """
    from trien.v1 import access_service_pb2

    from trien_client.cli.access_texts import operator_line

    request = access_service_pb2.DisableOperatorRequest(name=options.full_name("operators", name))
    me.show(me.client.call(me.client.access.DisableOperator, request), operator_line)


@operating.command(app)
def enable(me: Officer, name: Name) -> None:
    """Propose to let a disabled operator in again.

    Roles and certificate are those of before.

    \b
    Example:
      trien access operators enable tran-thi-b
    """
    from trien.v1 import access_service_pb2

    request = access_service_pb2.EnableOperatorRequest(name=options.full_name("operators", name))
    me.propose(me.client.access.EnableOperator, request)


def _read(me: Officer, name: str) -> "Operator":
    from trien.v1 import access_service_pb2

    request = access_service_pb2.GetOperatorRequest(name=options.full_name("operators", name))
    operator: access_service_pb2.Operator = me.client.call(me.client.access.GetOperator, request)
    return operator


def _roles(roles: list[Role]) -> list["RoleValue.ValueType"]:
    from trien.v1 import access_service_pb2

    return [access_service_pb2.Role.Value(role.name) for role in roles]


def _organizations(names: list[str] | None) -> list[str]:
    return [options.full_name("organizations", name) for name in names or ()]


def _read_certificate(file: Path) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        return x509.load_pem_x509_certificate(file.read_bytes()).public_bytes(Encoding.DER)
    except ValueError:
        raise CommandError(f"{file} is not a certificate in PEM.") from None


def _make_request(common_name: str, key_file: Path, request_file: Path) -> None:
    import os

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if not 1 <= len(common_name) <= 64:
        raise CommandError("--common-name has 1 to 64 characters (RFC 5280).")
    for file in (key_file, request_file):
        if file.exists():
            raise CommandError(f"{file} exists: give a new file.")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    request_file.write_bytes(made.public_bytes(Encoding.PEM))
