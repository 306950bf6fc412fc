"""SigningService at the gRPC edge."""

import google_crc32c
import grpc
from trien.v1 import signing_service_pb2 as messages
from trien.v1 import signing_service_pb2_grpc

from trien_server.core.errors import InvalidArgument
from trien_server.core.items import MOST_ITEMS, check_count
from trien_server.core.names import parse_name
from trien_server.core.one_time_password import parse_one_time_password
from trien_server.core.principal import Principal
from trien_server.core.secret import Secret
from trien_server.rpc import translate
from trien_server.rpc.calls import Calls
from trien_server.services.deadline import Deadline
from trien_server.services.granted_requests import parse_request_id
from trien_server.services.sign_digests import SignDigests
from trien_server.services.signing_commands import (
    SignDigestsCommand,
    SignDigestsResult,
    WithActivationData,
    WithOneTimePassword,
)


class SigningServicer(signing_service_pb2_grpc.SigningServiceServicer):
    """Translates SignDigests."""

    def __init__(self, *, calls: Calls, sign_digests: SignDigests) -> None:
        self._calls = calls
        self._sign_digests = sign_digests

    def SignDigests(  # noqa: N802 - gRPC's name
        self, request: messages.SignDigestsRequest, context: grpc.ServicerContext
    ) -> messages.SignDigestsResponse:
        def work(principal: Principal, deadline: Deadline) -> messages.SignDigestsResponse:
            command = _command(request)
            checked = _check_crc32c(request, command)
            return _response(self._sign_digests(principal, command, deadline), checked)

        return self._calls.run("SignDigests", context, work)


def _command(request: messages.SignDigestsRequest) -> SignDigestsCommand:
    check_count(len(request.items), most=MOST_ITEMS)
    return SignDigestsCommand(
        credential=parse_name("credentials", request.credential, field="credential"),
        algorithm=translate.algorithm_in(request.algorithm, field="algorithm"),
        pss_salt_length=request.pss_salt_length if request.HasField("pss_salt_length") else None,
        items=translate.items_in(request.items),
        request_id=parse_request_id(request.request_id),
        authority=_authority(request),
    )


def _authority(request: messages.SignDigestsRequest) -> WithOneTimePassword | WithActivationData:
    match request.WhichOneof("authority"):
        case "one_time_password":
            given = request.one_time_password
            if given.challenge:
                message = "a challenge is answered by ApproveAuthorizations"
                raise InvalidArgument("one_time_password.challenge", message)
            return WithOneTimePassword(
                password=parse_one_time_password(given.code, field_name="one_time_password.code"),
                signer=parse_name("signers", given.signer, field="one_time_password.signer") if given.signer else None,
            )
        case "activated_authorization":
            opened = request.activated_authorization
            return WithActivationData(
                authorization=parse_name(
                    "authorizations", opened.authorization, field="activated_authorization.authorization"
                ),
                activation_data=Secret(opened.signature_activation_data),
            )
        case _:
            raise InvalidArgument("authority", "a one-time password or an activated authorization is required")


def _check_crc32c(request: messages.SignDigestsRequest, command: SignDigestsCommand) -> bool:
    if not request.HasField("items_crc32c"):
        return False
    if request.items_crc32c != translate.items_crc32c(command.items):
        raise InvalidArgument("items_crc32c", "the items were altered on their way, or the checksum is wrong")
    return True


def _response(result: SignDigestsResult, verified_items_crc32c: bool) -> messages.SignDigestsResponse:
    return messages.SignDigestsResponse(
        credential=result.credential,
        algorithm=translate.algorithm_out(result.scheme.algorithm),
        pss_salt_length=result.scheme.pss_salt_length,
        signatures=[
            messages.Signature(value=signature, crc32c=google_crc32c.value(signature))
            for signature in result.signatures
        ],
        verified_items_crc32c=verified_items_crc32c,
        authorization=result.authorization,
        approved_by=result.approved_by,
        assurance=translate.assurance_out(result.assurance),
        audit_entry=result.audit_entry,
        leaf_hash=result.leaf_hash,
    )
