"""The parsers of what strangers send, one by one: any input is read or refused as the parser says, and quickly."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.x509 import ObjectIdentifier, UnrecognizedExtension
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.support.attributes import signed_attributes
from tests.support.world import CHAIR, OPERATOR, P256, World, digests, issue

from trien_server import config
from trien_server.core import der
from trien_server.core.algorithms import HashFunction, KeyType
from trien_server.core.certificates import check_chain
from trien_server.core.errors import CertificateNotValid, DigestsNotAuthorized, InvalidArgument
from trien_server.core.names import parse_id, parse_name
from trien_server.core.one_time_password import parse_one_time_password
from trien_server.core.signed_attributes import digest_signed_attributes
from trien_server.services.granted_requests import parse_request_id
from trien_server.services.paging import Page
from trien_server.services.texts import parse_title

pytestmark = pytest.mark.promise("P3", "P8")
SLOWEST = 2.0
DAMAGE = st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=6), st.integers(0, 6)), max_size=4)


@pytest.fixture(scope="module")
def world() -> World:
    return World().populate()


def damaged(content: bytes, damage: list[tuple[int, bytes, int]]) -> bytes:
    for at, put, instead_of in damage:
        place = at % (len(content) + 1)
        content = content[:place] + put + content[place + instead_of :]
    return content


def run(
    parse: Callable[[Any], object],
    inputs: st.SearchStrategy[Any],
    refusals: tuple[type[Exception], ...],
    examples: int,
    *,
    random: bool,
) -> Counter[str]:
    """Parses many inputs; whatever is raised but `refusals` is a defect."""
    seen: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=not random,
        suppress_health_check=list(HealthCheck),
    )
    @given(given_input=inputs)
    def ask(given_input: Any) -> None:
        begun = time.thread_time()
        try:
            parse(given_input)
            seen["read"] += 1
        except refusals as refusal:
            seen[type(refusal).__name__] += 1
        assert time.thread_time() - begun < SLOWEST

    ask()
    return seen


def _der_round_trip(content: bytes) -> None:
    """What is read as DER is the one encoding of it."""
    element = der.parse(content)
    assert element.encoded == content
    if element.tag & 0x20:
        assert b"".join(child.encoded for child in element.children()) == element.content


def _parsers(
    world: World,
) -> dict[str, tuple[Callable[[Any], object], st.SearchStrategy[Any], tuple[type[Exception], ...]]]:
    document = digests(1)[0]
    certificate = world.certificate(P256)
    good = signed_attributes(document, certificate, HashFunction.SHA256)

    def attributes(content: bytes) -> bytes:
        return digest_signed_attributes(
            content,
            hash_function=HashFunction.SHA256,
            document_digest=document,
            certificate=certificate,
            field="items[0]",
            budget=der.Budget(100_000),
        )

    def chain(contents: list[bytes]) -> None:
        check_chain(contents, public_key=world.public_key(P256), at=world.clock.now(), field="chain")

    texts = st.one_of(
        st.text(max_size=80), st.text(alphabet="abcdef0123456789-/", max_size=80), st.text("0123456789 ", max_size=9)
    )
    names = st.one_of(texts, texts.map(lambda text: f"credentials/{text}"))
    ids = st.one_of(texts, st.uuids().map(str), st.uuids().map(lambda found: f"{found}\n"))
    invalid = (InvalidArgument,)
    server = st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            config.SECTIONS["server"].model_fields,
            st.one_of(st.text(max_size=20), st.integers(), st.none(), st.lists(st.text(), max_size=2)),
        ),
    )
    return {
        "DER": (
            _der_round_trip,
            st.one_of(st.binary(max_size=200), DAMAGE.map(lambda found: damaged(good, found))),
            (der.NotDer,),
        ),
        "signed attributes": (
            attributes,
            DAMAGE.map(lambda found: damaged(good, found)),
            (InvalidArgument, DigestsNotAuthorized),
        ),
        "certificates": (
            chain,
            st.lists(DAMAGE.map(lambda found: damaged(certificate, found)), max_size=2),
            (InvalidArgument, CertificateNotValid),
        ),
        "names": (lambda text: parse_name("credentials", text, field="name"), names, invalid),
        "ids": (lambda text: parse_id(text, field="id"), texts, invalid),
        "request ids": (parse_request_id, ids, invalid),
        "one-time passwords": (lambda text: parse_one_time_password(text, field_name="code"), texts, invalid),
        "page tokens": (lambda text: Page.parse(1, text), texts, invalid),
        "titles": (lambda text: parse_title(text, field="title"), st.text(max_size=300), invalid),
        "settings": (config.SECTIONS["server"].model_validate, server, (ValidationError,)),
    }


PARSERS = (
    "DER",
    "signed attributes",
    "certificates",
    "names",
    "ids",
    "request ids",
    "one-time passwords",
    "page tokens",
    "titles",
    "settings",
)


@pytest.mark.parametrize("parser", PARSERS)
def test_any_input_is_read_or_refused(
    world: World, parser: str, record_property: Callable[[str, object], None]
) -> None:
    seen = run(*_parsers(world)[parser], 100, random=False)
    record_property("count", f"inputs {seen.total()}: {dict(seen)}")
    assert seen.total() >= 80


@pytest.mark.slow
@pytest.mark.parametrize("parser", PARSERS)
def test_any_input_is_read_or_refused_for_long(
    world: World, parser: str, record_property: Callable[[str, object], None]
) -> None:
    seen = run(*_parsers(world)[parser], 10_000, random=True)
    record_property("count", f"inputs {seen.total()}: {dict(seen)}")
    assert seen.total() >= 1_000


@pytest.mark.parametrize("token", ["AA==", "YQBi", "CmE=", "w6k="], ids=["NUL", "NUL inside", "line end", "not ASCII"])
def test_a_page_token_holds_a_name_and_nothing_that_a_database_refuses(token: str) -> None:
    with pytest.raises(InvalidArgument):
        Page.parse(1, token)
    assert Page.parse(1, "Y2xpZW50cy9h").after == "clients/a"


def test_a_certificate_whose_extensions_cannot_be_read_is_an_invalid_argument(world: World) -> None:
    world.use.create_key(OPERATOR, name="keys/odd", key_type=KeyType.EC_P256, deadline=world.deadline())
    world.use.key_generation.generate("keys/odd")
    request = world.use.generate_signing_request(OPERATOR, key="keys/odd", signer=CHAIR, deadline=world.deadline())
    public_key = world.use.get_key(OPERATOR, "keys/odd").public_key
    refused = 0
    for usage in ("2.5.29.15", "2.5.29.37", "2.5.29.19"):
        for content in (b"", b"\x03", b"\x04\x00", b"0\x84\xff\xff\xff\xff"):
            encoded = issue(request, world.clock, UnrecognizedExtension(ObjectIdentifier(usage), content))
            with pytest.raises(InvalidArgument):
                check_chain([encoded], public_key=public_key, at=world.clock.now(), field="chain")
            refused += 1
    assert refused == 12
