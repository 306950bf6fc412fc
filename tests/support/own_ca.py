"""The installation's own CA over fakes."""

from tests.support.world import CHAIR, OPERATOR, World

from trien_server.core.algorithms import KeyType
from trien_server.core.records import IssuedCertificate
from trien_server.services.issued_certificates import IssuedView

ORGANIZATION = "Ủy ban nhân dân xã Phú Lâm"


def certify(world: World, *, days: int = 3650, key_type: KeyType = KeyType.EC_P384) -> bytes:
    """Has the host make a CA's key and certificate (DER)."""
    authorities = world.use.own_ca.authorities
    key = authorities.make_key(key_type)
    return authorities.certify_itself(key, common_name="Phú Lâm signing", organization=ORGANIZATION, days=days)


def create_ca(world: World, *, days: int = 3650, replace: bool = False, key_type: KeyType = KeyType.EC_P384) -> bytes:
    """Makes a CA that two agreed on; returns its certificate (DER)."""
    certificate = certify(world, days=days, key_type=key_type)
    world.agree(world.use.own_ca.authorities.propose([certificate], replace=replace))
    return certificate


def grant(world: World, key: str, signer: str = CHAIR, *, valid_days: int = 0) -> str:
    """Has two officers agree on a certificate; returns its name. Nothing has signed it yet."""
    proposal = world.use.own_ca.issue(
        OPERATOR, key=key, signer=signer, valid_days=valid_days, deadline=world.deadline()
    )
    (name,) = world.agree(proposal).resources
    return name


def issue_certificate(world: World, key: str, signer: str = CHAIR, *, valid_days: int = 0) -> IssuedView:
    """Issues a certificate."""
    name = grant(world, key, signer, valid_days=valid_days)
    world.use.own_ca.issuance.issue(name)
    return world.use.own_ca.get(OPERATOR, name)


def issued_record(world: World, name: str) -> IssuedCertificate:
    """Returns the record as it is stored."""
    return world.use.own_ca.get(OPERATOR, name).issued
