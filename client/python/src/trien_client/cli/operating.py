"""What the commands of officers share: who calls, how proposals and resources are shown.

A command is a function whose first parameter is the `Officer`; `command` gives it the options that all of them have:

    @operating.command(app, "destroy")
    def destroy(me: Officer, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
        \"\"\"Destroy a key.\"\"\"
        from trien.v1 import key_service_pb2

        request = key_service_pb2.DestroyKeyRequest(name=options.full_name("keys", name))
        me.propose(me.client.keys.DestroyKey, request)
"""

import inspect
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from trien_client.cli import options
from trien_client.cli.outcome import EXIT_CODES, CommandError, OutputFormat, plain, reported

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

    from trien_client.operators import OperatorClient

P = ParamSpec("P")

As = Annotated[
    str | None,
    typer.Option(
        "--as",
        envvar="TRIEN_OPERATOR",
        metavar="NAME",
        help="As which operator of the connection file; without it the first there.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="The server's port for certificates, instead of --connection."),
]
CertificateFile = Annotated[
    Path | None, typer.Option("--certificate-file", metavar="FILE", help="Your certificate (PEM).")
]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", metavar="FILE", help="The key of --certificate-file (PEM).")
]


@dataclass(frozen=True, kw_only=True)
class Target:
    """How to reach the server as an operator. Explicit options are preferred to the connection file's values."""

    connection: Path | None
    operator: str | None
    address: str | None
    ca_file: Path | None
    certificate_file: Path | None
    key_file: Path | None
    timeout: float

    def connect(self) -> "OperatorClient":
        """Makes the client; nothing is connected yet."""
        from trien_client.operators import OperatorClient

        file = None if self.connection is None else options.load_connection(self.connection)
        address = self.address or (file.mutual_tls_address if file is not None else None)
        ca_file = self.ca_file or (file.ca_file if file is not None else None)
        if address is None or ca_file is None:
            raise CommandError(
                "Say which server: set TRIEN_CONNECTION to a connection.json that has operators, or give --connection"
                " FILE, or --address with --ca-file, --certificate-file and --key-file."
            )
        certificate, key = self.identity()
        return OperatorClient(address, ca_certificates=ca_file, certificate=certificate, key=key, timeout=self.timeout)

    def log_key(self) -> str | None:
        """The audit log's key that the connection file has, if it has one."""
        return None if self.connection is None else options.load_connection(self.connection).log_key

    def identity(self) -> tuple[Path, Path]:
        """Returns the files of the operator's certificate and key; nothing is connected for it."""
        file = None if self.connection is None else options.load_connection(self.connection)
        certificate, key = self.certificate_file, self.key_file
        if (certificate is None) is not (key is None):
            raise CommandError("--certificate-file and --key-file go together.")
        if certificate is None or key is None:
            operators = [name for name in (file.certificates if file is not None else ()) if "/" in name]
            if file is None or not operators:
                raise CommandError("Say who calls: --certificate-file with --key-file.")
            wanted = operators[0] if self.operator is None else options.full_name("operators", self.operator)
            if wanted not in operators:
                raise CommandError(f"The connection file has no {wanted}. Give --as {' or '.join(operators)}.")
            identity = file.certificate_of(wanted)
            certificate, key = identity.certificate_file, identity.key_file
        return certificate, key


@dataclass(kw_only=True)
class Officer:
    """An operator at the terminal: calls the server and prints what it answers."""

    target: Target
    output: OutputFormat
    _client: "OperatorClient | None" = field(default=None, repr=False)

    @property
    def client(self) -> "OperatorClient":
        """The client, made when it is first needed."""
        if self._client is None:
            self._client = self.target.connect()
        return self._client

    def close(self) -> None:
        """Closes the client, if there is one."""
        if self._client is not None:
            self._client.close()

    def pages(self, method: Any, request: Any, items: str) -> Iterator[Any]:
        """Yields what a List method finds, page after page; `items` is the field of the response that holds them."""
        while True:
            response: Any = self.client.call(method, request)
            yield from getattr(response, items)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def propose(self, method: Any, request: Any) -> None:
        """Calls a method that makes a proposal, and prints what would change and who has to agree."""
        proposal: Any = self.client.call(method, request)
        if self.output is OutputFormat.JSON:
            self.show(proposal, lambda _: "")
        else:
            from trien_client.cli.statements import proposed

            typer.echo(proposed(proposal))

    def show(self, message: "Message", text: Callable[[Any], str]) -> None:
        """Prints a message: as `text` makes it for people, or as JSON with the fields' names of the API."""
        typer.echo(as_json(content(message)) if self.output is OutputFormat.JSON else text(message))

    def show_all(self, messages: Iterable["Message"], text: Callable[[Any], str], *, empty: str) -> None:
        """Prints messages, each as `text` makes it; `empty` is the sentence for none."""
        if self.output is OutputFormat.JSON:
            typer.echo(as_json([content(message) for message in messages]))
            return
        none = True
        for message in messages:
            typer.echo(text(message))
            none = False
        if none:
            typer.echo(empty)


def command(
    app: typer.Typer, name: str | None = None, *, epilog: str = EXIT_CODES
) -> Callable[[Callable[Concatenate[Officer, P], None]], Callable[Concatenate[Officer, P], None]]:
    """Makes a command of a function, with the options that say who calls which server and what is printed."""

    def decorate(body: Callable[Concatenate[Officer, P], None]) -> Callable[Concatenate[Officer, P], None]:
        def run(
            *,
            connection: options.Connection = None,
            operator: As = None,
            address: Address = None,
            ca_file: options.CaFile = None,
            certificate_file: CertificateFile = None,
            key_file: KeyFile = None,
            timeout: options.Timeout = 30.0,
            output: options.Output = OutputFormat.TEXT,
            **arguments: Any,
        ) -> None:
            with reported(output, officer=True):
                target = Target(
                    connection=connection,
                    operator=operator,
                    address=address,
                    ca_file=ca_file,
                    certificate_file=certificate_file,
                    key_file=key_file,
                    timeout=timeout,
                )
                me = Officer(target=target, output=output)
                try:
                    body(me, **arguments)  # type: ignore[call-arg]
                finally:
                    me.close()

        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
        shared = [
            parameter
            for parameter in inspect.signature(run, eval_str=True).parameters.values()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        ]
        # typer reads a command's parameters from these two.
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [*own, *shared]]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__name__, run.__doc__ = body.__name__, body.__doc__
        app.command(name, epilog=epilog)(run)
        return body

    return decorate


def block(title: str, *lines: tuple[str, object]) -> str:
    """Returns a title and indented lines of a label and a value; lines whose value is empty or None are left out.

    An empty label goes on with the line above.
    """
    shown = [(label, plain(str(value))) for label, value in lines if value is not None and value != ""]
    width = max((len(label) for label, _ in shown), default=0)
    labels = [f"{label}:" if label else "" for label, _ in shown]
    return "\n".join(
        [plain(title), *(f"  {label:{width + 1}} {value}" for label, (_, value) in zip(labels, shown, strict=True))]
    )


def moment(time: "Timestamp") -> str:
    """Returns a time to the minute, with the offset of this computer's zone: `2026-11-24 22:51 +07:00`."""
    from datetime import UTC

    local = time.ToDatetime(tzinfo=UTC).astimezone()
    offset = local.strftime("%z")
    return f"{local:%Y-%m-%d %H:%M} {offset[:3]}:{offset[3:5]}"


def moment_of(message: "Message", name: str) -> str:
    """Returns the time in a field of a message, or "" when it is not set."""
    return moment(getattr(message, name)) if message.HasField(name) else ""


def value_name(message: "Message", name: str) -> str:
    """Returns the name of the value in an enum field of a message, such as `ENABLED`."""
    enum = message.DESCRIPTOR.fields_by_name[name].enum_type
    number = getattr(message, name)
    # A newer server may have values that this program does not know.
    value = None if enum is None else enum.values_by_number.get(number)
    return str(number) if value is None else str(value.name)


def content(message: "Message") -> dict[str, Any]:
    """Returns a message as JSON can hold it: fields by their names in the API, bytes as base64."""
    from google.protobuf.json_format import MessageToDict

    found: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return found


def as_json(value: object) -> str:
    """Returns JSON for a terminal or a file."""
    return json.dumps(value, ensure_ascii=False, indent=2)
