"""`trien-server`: everything that is done on the server's own machine.

Exit codes: 0 done; 1 it failed or was refused; 2 wrong usage or configuration; 3 the token refused the PIN: do not
start again before an operator looked at it, for tokens lock after a few wrong ones.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trien_server.config import Config, LoadedConfig
    from trien_server.founding import TokenChoice
    from trien_server.host.stop import StopSignal

app = typer.Typer(
    name="trien-server",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="Show and check the configuration.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config_app, name="config")
token_app = typer.Typer(help="Look at the token, and add to it.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(token_app, name="token")
delivery_app = typer.Typer(help="Try how one-time passwords are sent.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(delivery_app, name="delivery")
ca_app = typer.Typer(
    help="The installation's own CA, with its key in the token. It is no public CA.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(ca_app, name="ca")
backup_app = typer.Typer(
    help="Write the whole database into one encrypted file.", invoke_without_command=True, rich_markup_mode=None
)
app.add_typer(backup_app, name="backup")
operators_app = typer.Typer(
    help="The way out when one officer is left. All else about operators: trien operators.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(operators_app, name="operators")

_PLACES = (Path("trien.toml"), Path("/etc/trien/trien.toml"))

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="TRIEN_CONFIG", help="The file; else ./trien.toml or /etc/trien/trien.toml."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Overrides one value; may be repeated.")
]


def main() -> None:
    """Runs the command line."""
    # gRPC writes lines of its own amid the log; what matters is said in ours. An operator may set it to see them.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    app()


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"trien-server {version('trien-server')}")
        raise typer.Exit


@app.callback()
def trien_server(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Remote signing server: keys stay in an HSM, every signature is authorized by a one-time password."""


def _chosen(path: Path | None) -> Path | None:
    return path or next((place for place in _PLACES if place.exists()), None)


def _load(path: Path | None, overrides: list[str] | None) -> "LoadedConfig":
    from trien_server import config as configuration

    chosen = _chosen(path)
    try:
        return configuration.load(chosen, environment=os.environ, overrides=overrides or [])
    except configuration.BadConfiguration as fault:
        # Who has no file and set nothing else has made no mistake in a value: that all are missing would say nothing.
        if chosen is not None or overrides or any(name.startswith("TRIEN_") and "__" in name for name in os.environ):
            typer.echo(f"The configuration cannot be used:\n{fault}", err=True)
        if chosen is None:
            places = " or ".join(str(place) for place in _PLACES)
            typer.echo(
                f"There is no configuration file {places}: name one with --config FILE, "
                "or make one with `trien-server init --dir DIR`.",
                err=True,
            )
        raise typer.Exit(2) from None


@app.command()
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
    with _explained():
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
    with _explained():
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


@app.command()
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
    """Make an installation from one reviewed file, before witnesses.

    That is: a token's keys, in the custody of two people when the file says so, the installation's CA, the database,
    the first officers by their own keys, the configuration; and a record to be signed on paper. An interrupted ceremony
    is completed by running it again with the same file. deploy/ceremony/example.toml explains the file.

    \b
    Examples:
      trien-server ceremony ceremony.toml --check
      trien-server ceremony ceremony.toml
    """
    with _explained():
        from trien_server.ceremony.plan import BadPlan
        from trien_server.cli import ceremony as ceremonies

        try:
            loaded, faults = ceremonies.prepare(file)
        except BadPlan as fault:
            typer.echo(f"The file cannot be used:\n{fault}", err=True)
            raise typer.Exit(2) from None
        _require_none(faults)
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


@app.command()
def run(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Then it finishes what is at work, and ends. With server.workers above 1, a supervisor keeps so many processes on the
    same ports and replaces those that die or hang. The schema of the database is never changed here: `trien-server
    migrate` does that.
    """
    loaded = _load(config, overrides)
    from trien_server.cli.checks import file_findings

    _require_none(file_findings(loaded.config))
    if loaded.config.server.workers > 1:
        with _explained():
            from trien_server.cli.supervise import supervise

            code = supervise(loaded, stop=_stop_signal())
        raise typer.Exit(code)
    with _explained():
        from trien_server.cli.serve import serve

        code = serve(loaded, stop=_stop_signal())
    raise typer.Exit(code)


@app.command(hidden=True)
def worker(
    heartbeat: Annotated[int, typer.Option("--heartbeat", help="The descriptor of the supervisor's pipe.")],
) -> None:
    """Serve as one of several processes. Started by `run`; reads its configuration from standard input."""
    with _explained():
        from trien_server.cli.serve import serve_as_worker

        code = serve_as_worker(heartbeat, stop=_stop_signal())
    raise typer.Exit(code)


@app.command()
def sandbox(
    directory: Annotated[Path, typer.Option("--dir", help="An empty folder, or one with a sandbox.")],
    token_address: Annotated[
        str, typer.Option("--token-address", help="Where clients with bearer tokens connect; port 0 takes a free one.")
    ] = "127.0.0.1:0",
    certificate_address: Annotated[
        str, typer.Option("--certificate-address", help="Where callers with client certificates connect.")
    ] = "127.0.0.1:0",
) -> None:
    """Serve a disposable instance to try.

    Never for real documents. Everything needed to connect, one-time password secrets included, is in
    DIR/connection.json.

    \b
    Example:
      trien-server sandbox --dir build/sandbox
    """
    with _explained():
        from trien_server.sandbox import WARNING, Sandbox

        typer.echo(f"*** {WARNING}", err=True)
        stop = _stop_signal()
        running = Sandbox(
            directory, token_address=token_address, certificate_address=certificate_address, log_format="text"
        )
        path = running.start()
        typer.echo(f"The sandbox is ready. Connect with {path}", err=True)
        while not stop.wait(0.2) and not running.instance.fatal.is_set():
            pass
        running.stop()
        if running.instance.fatal.is_set():
            raise typer.Exit(1)


@app.command()
def migrate(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Bring the database to this server's schema.

    Stop the server and make a backup first.
    """
    loaded = _load(config, overrides)
    with _explained():
        from trien_server.store.schema import migrate as migrate_store

        before = migrate_store(loaded.config.store.url)
        if before.current == before.head:
            typer.echo(f"The schema was current: {before.head}.")
        else:
            typer.echo(f"The schema went from {before.current or 'none'} to {before.head}.")


@app.command()
def fsck(
    output: Annotated[str, typer.Option("--output", metavar="text|json", help="What to print.")] = "text",
    unwrap: Annotated[
        bool, typer.Option("--unwrap", help="Also have the token open every wrapped key and sign with it.")
    ] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Look for what was changed behind the server's back.

    Reads every row of the database and every key of the token: seals, the whole log and what was signed and published
    of it, what it names, references, approvals, recorded signatures. Changes nothing, and works while servers run and
    when they are down. Says how long it takes. Exit code 1 when something was found, or when not everything could be
    looked at.

    \b
    Examples:
      trien-server fsck --config /var/lib/trien/trien.toml
      trien-server fsck --output json | jq .findings
      trien-server fsck --unwrap
    """
    if output not in {"text", "json"}:
        typer.echo("--output is text or json.", err=True)
        raise typer.Exit(2)
    loaded = _load(config, overrides)
    from trien_server.cli.checks import file_findings

    _require_none(file_findings(loaded.config))
    with _explained():
        from trien_server.cli.fsck import check

        if check(loaded.config, as_json=output == "json", unwrap=unwrap):
            raise typer.Exit(1)


@app.command()
def doctor(
    output: Annotated[str, typer.Option("--output", metavar="text|json", help="What to print.")] = "text",
    network: Annotated[
        bool, typer.Option("--network", help="Also try mail server and SMS gateway; nothing is sent.")
    ] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Look at the installation, and say what to do.

    Configuration, files, certificates, disks, clock, database and token, each by itself. Works when the server is down,
    and beside a running one, to which it does no harm. Only database and token are contacted. The PIN is tried once: a
    wrong one counts. Exit code 1 when there is an error, 0 else.

    \b
    Examples:
      trien-server doctor --config /var/lib/trien/trien.toml
      trien-server doctor --output json | jq '.findings[] | select(.severity == "error")'
    """
    if output not in {"text", "json"}:
        typer.echo("--output is text or json.", err=True)
        raise typer.Exit(2)
    chosen = _chosen(config)
    if chosen is None and not overrides:
        _load(config, overrides)
    from trien_server.cli.doctor.command import doctor as look

    if look(chosen, overrides or [], as_json=output == "json", network=network):
        raise typer.Exit(1)


@backup_app.callback()
def backup(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The backup: a new file.")] = None,
    recipient: Annotated[
        list[str] | None,
        typer.Option(
            "--recipient",
            metavar="AGE1...",
            help="Who can open it, as age-keygen prints it; may be repeated, and joins backup.recipients.",
        ),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Write the whole database into one encrypted file.

    It is one consistent snapshot, also while servers run, and the same for SQLite and PostgreSQL. The file is in the
    format age, of mode 0600, and there whole or not at all. Keys on the token are not in it: it says which it needs.

    \b
    Examples:
      trien-server backup --out /backup/trien-2026-11-25.age --recipient age1...
      trien-server backup show /backup/trien-2026-11-25.age --identity key.txt
    """
    if context.invoked_subcommand is not None:
        return
    if out is None:
        typer.echo("--out FILE says where the backup goes.", err=True)
        raise typer.Exit(2)
    loaded = _load(config, overrides)
    with _explained():
        from trien_server.cli.backup import take

        _tell(take(loaded.config, out=out, recipients=recipient or []))


@backup_app.command("show")
def backup_show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")],
    identity: Annotated[
        Path, typer.Option("--identity", metavar="FILE", help="A recipient's identity, as age-keygen wrote it.")
    ],
    output: Annotated[str, typer.Option("--output", metavar="text|json", help="What to print.")] = "text",
) -> None:
    """Read a backup whole, check it, and print what it says of itself.

    Neither database nor token is asked. Exit code 1 when it is not whole, was changed, or is for others.

    \b
    Example:
      trien-server backup show /backup/trien-2026-11-25.age --identity key.txt
    """
    if output not in {"text", "json"}:
        typer.echo("--output is text or json.", err=True)
        raise typer.Exit(2)
    with _explained():
        from trien_server.cli.backup import show

        _tell(show(file, identity=identity, as_json=output == "json"))


@app.command()
def restore(
    backup_file: Annotated[Path, typer.Option("--backup", metavar="FILE", help="The backup.")],
    identity: Annotated[
        Path, typer.Option("--identity", metavar="FILE", help="A recipient's identity, as age-keygen wrote it.")
    ],
    approval: Annotated[
        list[Path] | None,
        typer.Option("--approval", metavar="FILE", help="An officer's approval of the statement; given twice."),
    ] = None,
    entries: Annotated[
        Path | None,
        typer.Option("--entries", metavar="FILE", help="The log's entries since the backup, as `trien audit export`."),
    ] = None,
    published: Annotated[
        Path | None, typer.Option("--published", metavar="DIR", help="The tile folder in which the log was published.")
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", metavar="FILE", help="A signed checkpoint of the log; may be repeated."),
    ] = None,
    out_dir: Annotated[
        Path, typer.Option("--out-dir", metavar="DIR", help="Where the statement and the report go.")
    ] = Path(),
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Put a backup back into an empty database.

    The database is the one of --config: one that is not there yet, or has nothing in it. The token has to hold the keys
    that the backup needs. No server starts before the end was reached; after a crash, run it again. The log goes on
    under another name. A backup that is older than the last known checkpoint needs the approval of two security
    officers: the first run writes the statement that they sign.

    \b
    Examples:
      trien-server restore --backup b.age --identity key.txt --config new/trien.toml --published /srv/log
      trien-server restore ... --entries lost.jsonl --approval first.json --approval second.json
    """
    loaded = _load(config, overrides)
    from trien_server.cli.checks import file_findings

    _require_none(file_findings(loaded.config))
    with _explained(), _told():
        from trien_server.cli.restore import Wanted
        from trien_server.cli.restore import restore as put_back

        wanted = Wanted(
            backup=backup_file,
            identity=identity,
            checkpoints=checkpoint or [],
            published=published,
            entries=entries,
            approvals=approval or [],
            folder=out_dir,
        )
        if not put_back(loaded.config, wanted, tell=typer.echo):
            raise typer.Exit(1)


@app.command("client-certificate")
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
    with _explained():
        from trien_server.cli.client_certificate import certify

        if ca_file is None or ca_key_file is None:
            folder = _load(config, overrides).config.server.client_ca_file.parent
            ca_file, ca_key_file = ca_file or folder / "ca.pem", ca_key_file or folder / "ca.key"
        try:
            certify(request, ca_certificate=ca_file, ca_key=ca_key_file, out=out)
        except ValueError as fault:
            typer.echo(f"{request}: {fault}", err=True)
            raise typer.Exit(1) from None
        typer.echo(f"certificate    {out}, by {ca_file}")


@config_app.command("show")
def config_show(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Print every value in force and where it comes from.

    What it prints is TOML; what is not set is a comment.
    """
    from trien_server.core.toml_values import toml_value

    loaded = _load(config, overrides)
    for section, values in loaded.config.model_dump(mode="json").items():
        if values is None:
            typer.echo(f"# [{section}]  # default")
            continue
        typer.echo(f"[{section}]")
        for key, value in values.items():
            source = loaded.sources.get(f"{section}.{key}", "default")
            typer.echo(f"# {key} =  # {source}" if value is None else f"{key} = {toml_value(value)}  # {source}")


@config_app.command("check")
def config_check(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Check the configuration and the files that it names.

    Nothing is started, and the token is not asked. Exit code 1 when something was found.
    """
    loaded = _load(config, overrides)
    from trien_server.cli.checks import findings

    _require_none(findings(loaded.config))
    typer.echo("The configuration can be used.")


@delivery_app.command("test")
def delivery_test(
    to: Annotated[
        str, typer.Option("--to", metavar="ADDRESS", help="A mail address, or a number such as +84912345678.")
    ],
    kind: Annotated[str, typer.Option("--kind", metavar="sms|email", help="By which carrier.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Send a text that says it is a test.

    It has no code and changes nothing; neither token nor database is asked, and a running server goes on. Exit code 1
    when the carrier did not take it.

    \b
    Examples:
      trien-server delivery test --kind email --to you@district.example
      trien-server delivery test --kind sms --to +84912345678
    """
    loaded = _load(config, overrides)
    with _explained():
        from trien_server.cli.checks import delivery_findings
        from trien_server.cli.delivery import WrongUse, send_trial

        _require_none(delivery_findings(loaded.config))
        try:
            taken, line = send_trial(loaded.config, kind=kind, address=to)
        except WrongUse as fault:
            typer.echo(str(fault), err=True)
            raise typer.Exit(2) from None
        typer.echo(line, err=not taken)
        if not taken:
            raise typer.Exit(1)


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
    loaded = _load(config, overrides)
    with _explained():
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
    loaded = _load(config, overrides)
    with _explained():
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
    loaded = _load(config, overrides)
    with _explained():
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
    loaded = _load(config, overrides)
    with _explained():
        from trien_server.cli import ca

        for line in ca.revocation_list(loaded.config, authority=authority, out=out):
            typer.echo(line)


@token_app.command("check")
def token_check(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Try what the token does with wrapped keys.

    Makes, wraps, unwraps and uses a throw-away key of each kind, and tries on it what a thief of the PIN would try.
    Nothing stays on the token; a running server goes on. Exit code 1 when the token does not keep wrapped keys closed.
    """
    loaded = _load(config, overrides)
    from trien_server.cli.checks import file_findings

    _require_none(file_findings(loaded.config))
    warned = False
    with _explained():
        from trien_server.cli.token import wrapping_lines

        for line, warning in wrapping_lines(loaded.config):
            typer.echo(line, err=warning)
            warned = warned or warning
    if warned:
        raise typer.Exit(1)


ShareOption = Annotated[
    list[Path],
    typer.Option("--share", metavar="FILE", help="A custodian's share; given twice, once for each custodian."),
]
SoPinFileOption = Annotated[
    Path | None,
    typer.Option("--so-pin-file", metavar="FILE", help="The PIN of the token's security officer, for trusted keys."),
]


ExportOption = Annotated[
    Path, typer.Option("--export", metavar="FILE", help="The file of wrapped keys that the ceremony wrote.")
]


@token_app.command("add-sealing-key")
def token_add_sealing_key(
    export: ExportOption, share: ShareOption, config: ConfigOption = None, overrides: SetOption = None
) -> None:
    """Make the next sealing key, when keys are in custody.

    A server makes it by itself as soon as two operators agreed on it, unless custodians hold the keys: then it is made
    here, with both shares, and added to the export. A running server goes on, and takes it into use.

    \b
    Example:
      trien-server token add-sealing-key --export keys.toml --share /media/a/share --share /media/b/share
    """
    loaded = _load(config, overrides)
    _require_none(_custody_faults(loaded.config, share, None))
    with _explained():
        from trien_server.cli.custody import add_lines
        from trien_server.core.records import InstallationKeyPurpose

        for line in add_lines(
            loaded.config, InstallationKeyPurpose.SEALING, export=export, shares=share, so_pin_file=None
        ):
            typer.echo(line)


@token_app.command("add-wrapping-key")
def token_add_wrapping_key(
    so_pin_file: Annotated[
        Path,
        typer.Option(
            "--so-pin-file",
            metavar="FILE",
            help="The PIN of the token's security officer (`init` wrote token-so-pin).",
        ),
    ],
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="In custody: the file of wrapped keys.")
    ] = None,
    share: Annotated[
        list[Path] | None, typer.Option("--share", metavar="FILE", help="In custody: a share; given twice.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Make the next trusted wrapping key on the token.

    Only the token's security officer can make one that wraps what the one before opened. It serves nobody until two
    operators agree: trien keys installation rotate --purpose wrapping. A running server goes on.

    \b
    Examples:
      trien-server token add-wrapping-key --so-pin-file /media/safe/so-pin
      trien-server token add-wrapping-key --so-pin-file /media/safe/so-pin
        --export keys.toml --share /media/a/share --share /media/b/share
    """
    loaded = _load(config, overrides)
    from trien_server.cli.checks import file_findings, secret_faults

    _require_none([*file_findings(loaded.config), *(f"--so-pin-file {fault}" for fault in secret_faults(so_pin_file))])
    with _explained():
        from trien_server.cli.custody import add_lines, is_in_custody
        from trien_server.cli.token import make_wrapping_key
        from trien_server.core.records import InstallationKeyPurpose

        if is_in_custody(loaded.config, InstallationKeyPurpose.WRAPPING):
            if export is None or not share:
                typer.echo("The wrapping key is in custody: give --export, and --share twice.", err=True)
                raise typer.Exit(2)
            for line in add_lines(
                loaded.config, InstallationKeyPurpose.WRAPPING, export=export, shares=share, so_pin_file=so_pin_file
            ):
                typer.echo(line)
            return
        generation = make_wrapping_key(loaded.config, so_pin_file)
    typer.echo(f"The token holds the wrapping key of generation {generation}. Put it in use with")
    typer.echo("  trien keys installation rotate --purpose wrapping")


@token_app.command("import-keys")
def token_import_keys(
    export: ExportOption,
    share: ShareOption,
    so_pin_file: SoPinFileOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Bring the installation's keys to an empty token.

    It takes the export and both custodians' shares. The keys are named, by their check values, in the list of
    token.exported_keys_file, which is made when it is not there. Run again after an interruption, it goes on.

    \b
    Example:
      trien-server token import-keys --export keys.toml --share /media/a/share --share /media/b/share
        --so-pin-file /media/so/pin
    """
    loaded = _load(config, overrides)
    _require_none(_custody_faults(loaded.config, share, so_pin_file))
    with _explained():
        from trien_server.cli.custody import import_lines

        for line in import_lines(loaded.config, export=export, shares=share, so_pin_file=so_pin_file):
            typer.echo(line)


def _custody_faults(config: "Config", shares: list[Path], so_pin_file: Path | None) -> list[str]:
    """Returns what keeps keys from being brought to the token, a line each."""
    from trien_server.cli.checks import module_faults, secret_faults

    faults = [f"token.module: {fault}" for fault in module_faults(config.token.module)]
    faults += [f"token.pin_file: {fault}" for fault in secret_faults(config.token.pin_file)]
    faults += [f"--share {fault}" for path in shares for fault in secret_faults(path)]
    if so_pin_file is not None:
        faults += [f"--so-pin-file {fault}" for fault in secret_faults(so_pin_file)]
    if config.token.exported_keys_file is None:
        faults.append("token.exported_keys_file: not set; without that list, exported keys are not believed")
    return faults


@operators_app.command("recover")
def operators_recover(
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The new operator's id, such as le-van-c.")],
    display_name: Annotated[str, typer.Option("--display-name", metavar="TEXT", help="The person's name.")],
    certificate: Annotated[
        Path,
        typer.Option("--certificate", metavar="FILE", help="The person's certificate (PEM), of server.client_ca_file."),
    ],
    role: Annotated[
        list[str],
        typer.Option("--role", metavar="ROLE", help="Such as security-officer; may be repeated."),
    ],
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Propose an operator when one officer is left.

    Alone, that officer can propose a colleague and nobody can approve it. Here the host proposes, and that officer
    approves; who has only the host gets no power by it. A running server goes on. When no security officer is left,
    nothing of this kind helps: keep three.

    \b
    Example:
      trien-server operators recover --name le-van-c --display-name 'Lê Văn C' --certificate c.pem
        --role security-officer --role registration-officer
    """
    loaded = _load(config, overrides)
    with _explained():
        from trien_server.cli.operators import recover

        for line in recover(loaded.config, name=name, display_name=display_name, certificate=certificate, roles=role):
            typer.echo(line)


class _told:  # noqa: N801 - used as a statement
    """Turns what is wrong with a backup, or with what was given for it, into its text and exit code 1."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: object) -> None:
        from trien_server.host.age import NotDecrypted

        if isinstance(fault, NotDecrypted | ValueError):
            typer.echo(str(fault), err=True)
            raise typer.Exit(1) from None


def _tell(lines: "Iterable[str]") -> None:
    with _told():
        for line in lines:
            typer.echo(line)


def _require_none(findings: list[str]) -> None:
    for finding in findings:
        typer.echo(finding, err=True)
    if findings:
        raise typer.Exit(1)


def _stop_signal() -> "StopSignal":
    from trien_server.host.stop import StopSignal

    return StopSignal()


class _explained:  # noqa: N801 - used as a statement
    """Turns what can go wrong at a start into one clear line and exit code 1."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: object) -> None:
        if fault is None or isinstance(fault, typer.Exit):
            return
        from trien_server.cli.checks import explain, is_pin_refused

        message = explain(fault)
        if message is not None:
            typer.echo(message, err=True)
            raise typer.Exit(3 if is_pin_refused(fault) else 1) from None
