"""`trien keys`: key pairs in the server's hardware security module, from their making to their end."""

import sys
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import installation_keys, operating, options
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import CommandError, ExitCode, OutputFormat, plain

if TYPE_CHECKING:
    from trien.v1.key_service_pb2 import Key

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make, disable and destroy signing keys.")
app.add_typer(installation_keys.app, name="installation")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A key: keys/…, as `list` shows it, or what follows keys/.")]

_POLL_SECONDS = 1.0


class KeyType(StrEnum):
    """What kind of key pair."""

    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    EC_ED25519 = "ec-ed25519"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"


class Protection(StrEnum):
    """Where the private half lives."""

    TOKEN = "token"
    WRAPPED = "wrapped"


class State(StrEnum):
    """Where a key stands."""

    PENDING_GENERATION = "pending-generation"
    ENABLED = "enabled"
    DISABLED = "disabled"
    GENERATION_FAILED = "generation-failed"
    DESTROY_SCHEDULED = "destroy-scheduled"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


@operating.command(app)
def create(
    me: Officer,
    identifier: Annotated[str, typer.Argument(metavar="ID", help="What the name ends in: keys/ID.")],
    key_type: Annotated[KeyType, typer.Option("--type", help="What kind of key pair.")] = KeyType.EC_P256,
    protection: Annotated[
        Protection,
        typer.Option(
            "--protection",
            help="`token`: an object on the token, of which it holds thousands. `wrapped`: generated in the token, kept"
            " in the database as only the token can open it, of which there may be millions.",
        ),
    ] = Protection.TOKEN,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the key is generated; RSA takes seconds.")] = False,
    wait_seconds: Annotated[
        float, typer.Option("--wait-seconds", metavar="SECONDS", min=1, help="With --wait: how long at most.")
    ] = 600.0,
) -> None:
    """Make a key. Its private half is generated in the hardware security module and never leaves it in clear.

    \b
    Examples:
      trien keys create seal-2027 --type rsa-3072 --wait
      trien keys create hoang-trinh-don --protection wrapped
    """
    from trien.v1 import algorithms_pb2, key_service_pb2

    wanted = key_service_pb2.Key(
        key_type=algorithms_pb2.KeyType.Value(key_type.name),
        protection_level=key_service_pb2.ProtectionLevel.Value(protection.name),
    )
    request = key_service_pb2.CreateKeyRequest(key_id=identifier.removeprefix("keys/"), key=wanted)
    key = me.client.call(me.client.keys.CreateKey, request)
    try:
        key = _generated(me, key, wait_seconds) if wait else key
    except KeyboardInterrupt:
        _progress("")
        raise _still_generated(key, ExitCode.INTERRUPTED) from None
    me.show(key, _text)


@operating.command(app, "list")
def list_keys(
    me: Officer,
    state: Annotated[State | None, typer.Option("--state", help="Only keys in this state.")] = None,
) -> None:
    """List keys by name.

    \b
    Examples:
      trien keys list
      trien keys list --state destroy-scheduled
      trien keys list --output json | jq -r '.[] | select(.key_type == "RSA_2048") | .name'
    """
    from trien.v1 import key_service_pb2

    states = key_service_pb2.Key.State
    request = key_service_pb2.ListKeysRequest(
        page_size=100, state=states.Value("STATE_UNSPECIFIED" if state is None else state.name)
    )
    found = me.pages(me.client.keys.ListKeys, request, "keys")
    me.show_all(found, _line, empty="There is no key." if state is None else f"No key is {state.replace('-', ' ')}.")


@operating.command(app)
def show(me: Officer, name: Name) -> None:
    """Show a key.

    \b
    Examples:
      trien keys show seal-2027
      trien keys show seal-2027 --output json | jq -r .public_key | base64 -d |
        openssl pkey -pubin -inform DER
    """
    me.show(_read(me, name), _text)


@operating.command(app)
def disable(me: Officer, name: Name) -> None:
    """Take a key out of use at once: nothing signs with it until two operators enable it again.

    \b
    Example:
      trien keys disable hoang-trinh-don
    """
    from trien.v1 import key_service_pb2

    request = key_service_pb2.DisableKeyRequest(name=options.full_name("keys", name))
    me.show(me.client.call(me.client.keys.DisableKey, request), _text)


@operating.command(app)
def enable(me: Officer, name: Name) -> None:
    """Propose to take a disabled key into use again.

    \b
    Example:
      trien keys enable hoang-trinh-don
    """
    from trien.v1 import key_service_pb2

    me.propose(me.client.keys.EnableKey, key_service_pb2.EnableKeyRequest(name=options.full_name("keys", name)))


@operating.command(app)
def destroy(
    me: Officer,
    name: Name,
    delay_days: Annotated[
        int,
        typer.Option("--delay-days", metavar="DAYS", min=1, max=365, help="How many days after the approval it goes."),
    ] = 30,
) -> None:
    """Propose to destroy a key, for ever.

    From the approval on nothing signs with it. Until its time has come either officer can keep it with
    `trien keys cancel-destruction`. Signatures that it made stay valid.

    \b
    Examples:
      trien keys destroy hoang-trinh-don-2024
      trien keys destroy hoang-trinh-don-2024 --delay-days 7
    """
    from trien.v1 import key_service_pb2

    request = key_service_pb2.DestroyKeyRequest(name=options.full_name("keys", name), delay_days=delay_days)
    me.propose(me.client.keys.DestroyKey, request)


@operating.command(app, "cancel-destruction")
def cancel_destruction(me: Officer, name: Name) -> None:
    """Keep a key whose destruction is scheduled. It is disabled then: two operators can enable it again.

    \b
    Example:
      trien keys cancel-destruction hoang-trinh-don-2024
    """
    from trien.v1 import key_service_pb2

    request = key_service_pb2.CancelKeyDestructionRequest(name=options.full_name("keys", name))
    me.show(me.client.call(me.client.keys.CancelKeyDestruction, request), _text)


def _read(me: Officer, name: str) -> "Key":
    from trien.v1 import key_service_pb2

    request = key_service_pb2.GetKeyRequest(name=options.full_name("keys", name))
    key: Key = me.client.call(me.client.keys.GetKey, request)
    return key


def _generated(me: Officer, key: "Key", seconds: float) -> "Key":
    """Reads a key until it is generated, and tells a person at a terminal how long it takes.

    Raises `CommandError` when the token could not generate it, or has not yet.
    """
    begun = time.monotonic()
    while (state := operating.value_name(key, "state")) == "PENDING_GENERATION":
        waited = time.monotonic() - begun
        if waited >= seconds:
            _progress("")
            raise _still_generated(key, ExitCode.UNAVAILABLE)
        if me.output is OutputFormat.TEXT:
            _progress(f"{plain(key.name)} is being generated … {waited:.0f} s")
        time.sleep(min(_POLL_SECONDS, seconds - waited))
        key = _read(me, key.name)
    _progress("")
    if state == "GENERATION_FAILED":
        raise CommandError(
            f"The token could not generate {plain(key.name)}: the server's log says why. Make another.",
            exit_code=ExitCode.REFUSED,
        )
    return key


def _still_generated(key: "Key", exit_code: ExitCode) -> CommandError:
    name = plain(key.name)
    return CommandError(
        f"{name} is still being generated. Look again with trien keys show {name}.", exit_code=exit_code
    )


def _progress(text: str) -> None:
    """Writes over the line at a terminal; "" clears it."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _line(key: "Key") -> str:
    kind = operating.value_name(key, "key_type")
    level = operating.value_name(key, "protection_level")
    return plain(f"{operating.value_name(key, 'state'):18}  {kind:10}  {level:7}  {key.name}")


def _text(key: "Key") -> str:
    import hashlib

    level = operating.value_name(key, "protection_level")
    if key.wrapping_generation:
        level += f", by generation {key.wrapping_generation} of the wrapping key"
    return operating.block(
        key.name,
        ("state", operating.value_name(key, "state")),
        ("destruction", operating.moment_of(key, "destroy_time")),
        ("type", operating.value_name(key, "key_type")),
        ("protection", level),
        ("key SHA-256", hashlib.sha256(key.public_key).hexdigest() if key.public_key else ""),
        ("asked for", operating.moment_of(key, "create_time")),
    )
