"""Any request to sign at all is answered with a documented reason."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.administration import (
    Administrator,
    Refused,
    e_office,
)
from tests.support.hostile_requests import (
    CODES,
    DIGEST,
    NAMES,
    REQUEST_IDS,
    SignItem,
    SignRequest,
    items_of,
)
from tests.support.sandbox import Installation
from trien.v1 import (
    algorithms_pb2,
    errors_pb2,
    signing_service_pb2,
)

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")


DOCUMENTED = set(errors_pb2.ErrorReason.keys()) - {"INTERNAL", "RECORD_NOT_TRUSTED", "ERROR_REASON_UNSPECIFIED"}
NUMBERS = st.integers(-(2**31), 2**31 - 1)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from([*NAMES.values(), *CODES.values(), *REQUEST_IDS.values()]).filter(lambda text: len(text) < 200),
)


def _changes(
    draw: st.DrawFn, text: Callable[[str], str], item: st.SearchStrategy[SignItem]
) -> dict[str, Callable[[SignRequest], None]]:
    def set_authorization(request: SignRequest) -> None:
        request.activated_authorization.authorization = text("authorization")
        request.activated_authorization.signature_activation_data = draw(st.binary(max_size=40))

    def set_person(request: SignRequest) -> None:
        request.one_time_password.signer = text("signer")

    def set_code(request: SignRequest) -> None:
        request.one_time_password.code = draw(TEXTS)

    return {
        "credential": lambda request: setattr(request, "credential", text("credential")),
        "algorithm": lambda request: setattr(request, "algorithm", draw(st.one_of(st.integers(0, 9), NUMBERS))),
        "items": lambda request: items_of(*draw(st.lists(item, max_size=4)))(request),
        "request_id": lambda request: setattr(request, "request_id", draw(TEXTS)),
        "salt": lambda request: setattr(request, "pss_salt_length", draw(st.one_of(st.integers(0, 300), NUMBERS))),
        "checksum": lambda request: setattr(request, "items_crc32c", draw(st.integers(0, 2**32 - 1))),
        "no authority": lambda request: request.ClearField("one_time_password"),
        "authorization": set_authorization,
        "person": set_person,
        "code": set_code,
    }


@st.composite
def sign_requests(draw: st.DrawFn, known: dict[str, list[str]]) -> SignRequest:
    """Requests that are wrong in some places and right in the others."""

    def text(field: str) -> str:
        return draw(st.one_of(st.sampled_from(known[field]), TEXTS))

    item = st.one_of(
        st.binary(max_size=80).map(lambda value: SignItem(digest=value)),
        st.just(SignItem(digest=DIGEST)),
        st.binary(max_size=200).map(lambda value: SignItem(data=value)),
        st.binary(max_size=200).map(
            lambda value: SignItem(
                signed_attributes=signing_service_pb2.SignedAttributes(document_digest=DIGEST, der=value)
            )
        ),
        st.just(SignItem()),
    )
    request = SignRequest(
        credential=known["credential"][0],
        algorithm=algorithms_pb2.ECDSA_P256_SHA256,
        items=[SignItem(digest=DIGEST)],
        request_id=str(draw(st.uuids())),
    )
    request.one_time_password.code = draw(st.from_regex(r"[0-9]{6,8}", fullmatch=True))
    for fault in draw(st.sets(st.sampled_from(sorted(changes := _changes(draw, text, item))), max_size=3)):
        changes[fault](request)
    return request


@pytest.mark.requirement("ASVS 5.0.0-16.5.1")
def test_any_request_is_answered_with_a_documented_reason(
    installation: Installation, administrator: Administrator
) -> None:
    person = administrator.create_person("hostile-any")
    rsa = "credentials/hoang-trinh-don-rsa"
    known = {
        "credential": [person.credential, rsa, "credentials/none"],
        "signer": [person.name, "signers/none", ""],
        "authorization": [f"{person.credential}/authorizations/none"],
    }
    seen: Counter[str] = Counter()
    with e_office(installation) as connection:

        @settings(
            max_examples=400,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        )
        @given(request=sign_requests(known))
        def ask(request: SignRequest) -> None:
            try:
                connection.sign(request)
                seen["OK"] += 1
            except Refused as refused:
                seen[refused.reason or refused.code.name] += 1

        ask()
    administrator.unlock(person.name)
    administrator.unlock("signers/hoang-trinh-don")
    assert set(seen) <= DOCUMENTED, seen
    assert seen.total() >= 400
    assert len(seen) >= 5, seen
