"""The installation's own CA, from the host."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from trien_server.config import Config
from trien_server.core.algorithms import KeyType
from trien_server.core.errors import InvalidArgument, StateConflict
from trien_server.core.records import CertificateAuthority, Proposal, State
from trien_server.host.files import write_whole
from trien_server.host.log import Log
from trien_server.services.certificate_authorities import find_authority
from trien_server.services.own_ca import OwnCa
from trien_server.wiring import Instance


def create(
    config: Config,
    *,
    common_name: str,
    organization: str,
    key_type: KeyType,
    days: int,
    request: Path | None,
    replace: bool,
) -> Iterator[str]:
    """Makes a CA's key and certificate and proposes it, or writes a signing request; yields what to tell.

    Raises `Refusal`, `OSError`.
    """
    with _own_ca(config) as (own_ca, instance):
        present = instance.use.transactions.read(find_authority)
        if request is None and (present is None) == replace:
            # What would be refused in the end is refused before a key is made.
            raise StateConflict(
                "There is no CA to be replaced: `trien-server ca create` makes the first."
                if present is None
                else f"{present.name} issues already: `trien-server ca rotate` replaces it."
            )
        key = own_ca.authorities.make_key(key_type)
        yield f"{key.name} is in the token: {key.key_type}."
        if request is not None:
            asked = own_ca.authorities.request(key, common_name=common_name, organization=organization)
            parsed = x509.load_der_x509_csr(asked)
            write_whole(request, parsed.public_bytes(Encoding.PEM), mode=0o644)
            yield f"The request to the parent CA is in {request}: {parsed.subject.rfc4514_string()}"
            yield "With the certificate that it issues: trien-server ca import --chain FILE"
            return
        certificate = own_ca.authorities.certify_itself(
            key, common_name=common_name, organization=organization, days=days
        )
        yield from _proposed(own_ca.authorities.propose([certificate], replace=replace), [certificate])


def import_chain(config: Config, *, chain: Path, replace: bool) -> Iterator[str]:
    """Proposes the CA of a chain that a parent issued; yields what to tell. Raises `Refusal`, `OSError`."""
    try:
        read = x509.load_pem_x509_certificates(chain.read_bytes())
    except ValueError:
        raise InvalidArgument("--chain", f"{chain} holds no certificates in PEM") from None
    encoded = [certificate.public_bytes(Encoding.DER) for certificate in read]
    with _own_ca(config) as (own_ca, _):
        yield from _proposed(own_ca.authorities.propose(encoded, replace=replace), encoded)


def show(config: Config, *, pem: bool) -> Iterator[str]:
    """Yields what is known of the installation's CAs, or the issuing one's chain as PEM. Raises `Refusal`."""
    with _own_ca(config) as (own_ca, _):
        found = own_ca.authorities.list_()
    issuing = [authority for authority in found if authority.state is State.ENABLED]
    if pem:
        if not issuing:
            raise StateConflict("The installation has no CA of its own: `trien-server ca create` makes one.")
        for encoded in issuing[0].certificate_chain:
            yield x509.load_der_x509_certificate(encoded).public_bytes(Encoding.PEM).decode("ascii").rstrip()
        return
    if not found:
        yield "The installation has no CA of its own: `trien-server ca create` makes one."
    for authority in found:
        state = "issues certificates" if authority.state is State.ENABLED else "replaced: signs revocation lists alone"
        yield f"{authority.name}  {state}"
        yield from _described(authority.certificate_chain)
        yield f"  key          {authority.key}"
        yield f"  next CRL     number {authority.next_crl_number}"


def revocation_list(config: Config, *, authority: str | None, out: Path) -> Iterator[str]:
    """Writes a fresh revocation list (DER); yields what to tell. Raises `Refusal`, `OSError`."""
    with _own_ca(config) as (own_ca, _):
        chosen = _choose(own_ca.authorities.list_(), authority)
        encoded = own_ca.lists.make(chosen.name)
    write_whole(out, encoded, mode=0o644)
    listed = x509.load_der_x509_crl(encoded)
    number = listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    count = len(listed)
    yield f"{out}: list {number} of {chosen.name}, {count} revoked certificate{'' if count == 1 else 's'}"
    yield f"  next update  {listed.next_update_utc:%Y-%m-%d %H:%M} UTC"


def _choose(found: Sequence[CertificateAuthority], wanted: str | None) -> CertificateAuthority:
    for authority in found:
        if (authority.name == wanted) if wanted is not None else (authority.state is State.ENABLED):
            return authority
    if wanted is not None:
        raise InvalidArgument("--authority", f"there is no {wanted}; `trien-server ca show` lists what there is")
    raise StateConflict("The installation has no CA of its own: `trien-server ca create` makes one.")


def _proposed(proposal: Proposal, chain: Sequence[bytes]) -> Iterator[str]:
    yield from _described(chain)
    yield "It is no public CA: nobody trusts it who does not install its certificate."
    yield "It issues nothing before a security officer has approved it:"
    yield f"  trien proposals approve {proposal.name}"


def _described(chain: Sequence[bytes]) -> Iterator[str]:
    certificate = x509.load_der_x509_certificate(chain[0])
    fingerprint = hashlib.sha256(chain[0]).hexdigest()
    attributes = [rdn.rfc4514_string() for rdn in certificate.subject.rdns]
    for place, attribute in enumerate(attributes):
        yield f"  {'' if place else 'subject':12} {attribute}"
    if len(chain) > 1:
        yield f"  issued by    {certificate.issuer.rfc4514_string()}"
    yield f"  valid until  {certificate.not_valid_after_utc:%Y-%m-%d}"
    yield f"  sha256       {fingerprint[:32]}"
    yield f"               {fingerprint[32:]}"


@contextmanager
def _own_ca(config: Config) -> Iterator[tuple[OwnCa, Instance]]:
    instance = Instance(config, log=Log(form=config.log.format))
    try:
        instance.use.check_start()
        yield instance.use.own_ca, instance
    finally:
        instance.close()
