"""`trien-server operators`: the way out when one officer is left."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from trien_server.config import Config
from trien_server.core.errors import InvalidArgument
from trien_server.core.names import parse_name
from trien_server.core.roles import Role
from trien_server.host.log import Log
from trien_server.services.deadline import Deadline
from trien_server.services.operators import CreateOperator, OperatorValues
from trien_server.wiring import Instance

_SECONDS = 30.0


def recover(config: Config, *, name: str, display_name: str, certificate: Path, roles: Sequence[str]) -> Iterator[str]:
    """Proposes an operator as the host, for the one officer who is left to approve; yields what to tell.

    Raises `Refusal`, `OSError`.
    """
    full = parse_name("operators", name if "/" in name else f"operators/{name}", field="--name")
    values = OperatorValues(
        name=full,
        display_name=display_name,
        certificate=_read_certificate(certificate),
        roles=tuple(_role(role) for role in roles),
    )
    instance = Instance(config, log=Log(form=config.log.format))
    try:
        instance.use.check_start()
        deadline = Deadline(instance.clock, _SECONDS)
        proposal = instance.use.proposals.propose_from_host(CreateOperator.method, values, deadline=deadline)
    finally:
        instance.close()
    yield f"{full} is proposed, with {', '.join(values.roles)}."
    yield f"  certificate  sha256 {hashlib.sha256(values.certificate).hexdigest()[:32]}"
    yield f"                      {hashlib.sha256(values.certificate).hexdigest()[32:]}"
    yield "Nothing has changed yet. The security officer who is left approves it, until"
    yield f"{proposal.expire_time:%Y-%m-%d %H:%M} UTC, on a computer of their own:"
    yield f"  trien proposals approve {proposal.name}"


def _read_certificate(path: Path) -> bytes:
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError:
        raise InvalidArgument("--certificate", f"{path} holds no certificate in PEM") from None
    return found[0].public_bytes(Encoding.DER)


def _role(value: str) -> Role:
    try:
        return Role(value.upper().replace("-", "_"))
    except ValueError:
        names = ", ".join(role.value.lower().replace("_", "-") for role in Role)
        raise InvalidArgument("--role", f"there is no role {value}: there are {names}") from None
