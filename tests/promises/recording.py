"""Callers that note down what they do: over gRPC, and in the process of a test."""

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

from tests.promises.history import APPROVE, CREATE, SIGN, Answer, Content, History, Operation
from tests.support.administration import Connection, Refused
from tests.support.world import World
from trien.v1 import algorithms_pb2

from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.errors import Refusal
from trien_server.core.items import DataItem, DigestItem, Item, SignedAttributesItem, kind_of
from trien_server.core.principal import Principal
from trien_server.core.records import Authorization, ItemKind
from trien_server.core.secret import Secret
from trien_server.services.approve_authorizations import ApprovalResult, ApproveAuthorizationsCommand
from trien_server.services.create_authorization import CreateAuthorizationCommand
from trien_server.services.signing_commands import (
    SignDigestsCommand,
    SignDigestsResult,
    WithActivationData,
    WithOneTimePassword,
)
from trien_server.wiring import UseCases

T = TypeVar("T")


class RecordedConnection:
    """A client's connection that notes every call. `right` as in `Operation`. All methods raise `Refused`."""

    def __init__(self, connection: Connection, history: History, *, client: str = "clients/e-office") -> None:
        self.connection = connection
        self.history = history
        self._client = client

    def sign(self, request: Any, *, signer: str | None = None, right: bool | None = None, timeout: float = 30.0) -> Any:
        """Calls SignDigests; `signer` is whose code the request brings when it does not say so itself."""
        activated = request.activated_authorization
        opened = (activated.authorization,) if activated.authorization else ()
        code = None if opened else request.one_time_password.code
        operation = self.history.begin(
            self._client,
            signing_content(request, opened),
            request_id=request.request_id,
            signer=None if opened else signer or request.one_time_password.signer or None,
            code=code,
            right=right,
        )
        answer = self._call(operation, self.connection.signing.SignDigests, request, timeout)
        self.history.answered(
            operation,
            Answer(
                authorizations=(answer.authorization,),
                signatures=tuple(signature.value for signature in answer.signatures),
                audit_entry=answer.audit_entry,
                leaf_hash=answer.leaf_hash,
            ),
        )
        return answer

    def approve(self, request: Any, *, right: bool | None = None, timeout: float = 30.0) -> Any:
        """Calls ApproveAuthorizations."""
        signer = request.one_time_password.signer
        operation = self.history.begin(
            self._client,
            Content(method=APPROVE, authorizations=tuple(request.names), signer=signer),
            request_id=request.request_id or None,
            signer=signer,
            code=request.one_time_password.code,
            right=right,
        )
        answer = self._call(operation, self.connection.authorizations.ApproveAuthorizations, request, timeout)
        self.history.answered(
            operation,
            Answer(
                authorizations=tuple(answer.authorizations), audit_entry=answer.audit_entry, leaf_hash=answer.leaf_hash
            ),
        )
        return answer

    def create(self, request: Any, *, timeout: float = 30.0) -> Any:
        """Calls CreateAuthorization."""
        wanted = request.authorization
        fields = [item.WhichOneof("item") for item in wanted.items]
        kinds = {"digest": ItemKind.DIGEST, "document_digest": ItemKind.SIGNED_ATTRIBUTES, "data_digest": ItemKind.DATA}
        content = Content(
            method=CREATE,
            credential=request.parent,
            algorithm=algorithm_of(wanted.algorithm),
            pss_salt_length=wanted.pss_salt_length if wanted.HasField("pss_salt_length") else None,
            kind=kinds[fields[0] or "digest"],
            digests=tuple(getattr(item, name) for item, name in zip(wanted.items, fields, strict=True)),
            signer=wanted.approver,
        )
        operation = self.history.begin(self._client, content, request_id=request.request_id or None)
        answer = self._call(operation, self.connection.authorizations.CreateAuthorization, request, timeout)
        self.history.answered(operation, Answer(authorizations=(answer.name,)))
        return answer

    def _call(self, operation: Operation, method: Any, request: Any, timeout: float) -> Any:
        try:
            return self.connection.call(method, request, timeout=timeout)
        except Refused as refused:
            # What gRPC itself says (UNAVAILABLE, DEADLINE_EXCEEDED, …) carries no reason and tells nothing.
            if refused.reason and refused.reason != "INTERNAL":
                self.history.refused(operation, refused.reason)
            else:
                self.history.lost(operation)
            raise


def algorithm_of(value: int) -> SignatureAlgorithm:
    """Returns the algorithm that the contract's number names."""
    return SignatureAlgorithm(algorithms_pb2.SignatureAlgorithm.Name(value))


def signing_content(request: Any, opened: tuple[str, ...]) -> Content:
    """Returns what a SignDigestsRequest asks for."""
    items: list[Item] = []
    for item in request.items:
        match item.WhichOneof("item"):
            case "digest":
                items.append(DigestItem(digest=item.digest))
            case "data":
                items.append(DataItem(data=item.data))
            case _:
                attributes = item.signed_attributes
                items.append(SignedAttributesItem(document_digest=attributes.document_digest, encoded=attributes.der))
    return content_of_items(
        items,
        credential=request.credential,
        algorithm=algorithm_of(request.algorithm),
        pss_salt_length=request.pss_salt_length if request.HasField("pss_salt_length") else None,
        authorizations=opened,
        signer=request.one_time_password.signer,
    )


def content_of_items(items: list[Item], *, algorithm: SignatureAlgorithm, **fields: Any) -> Content:
    """Returns the content of a request to sign items."""
    digests, messages = [], []
    for item in items:
        match item:
            case DigestItem(digest=digest):
                digests.append(digest)
                messages.append(digest)
            case DataItem(data=data):
                digests.append(hashlib.sha512(data).digest())
                messages.append(data)
            case SignedAttributesItem(document_digest=digest, encoded=encoded):
                digests.append(digest)
                messages.append(hashlib.new(algorithm.name.rpartition("_")[2].lower(), encoded).digest())
    return Content(
        method=SIGN,
        algorithm=algorithm,
        kind=kind_of(items[0]),
        digests=tuple(digests),
        messages=tuple(messages),
        **fields,
    )


class RecordedWorld:
    """The use cases of a `World`, with every call noted by the world's clock. All methods raise `Refusal`."""

    def __init__(self, world: World, history: History, *, use: UseCases | None = None) -> None:
        self.world = world
        self.history = history
        self.use = use or world.use

    def sign(
        self,
        principal: Principal,
        command: SignDigestsCommand,
        *,
        signer: str | None = None,
        right: bool | None = None,
    ) -> SignDigestsResult:
        """Signs; `signer` is whose code the command brings."""
        code = opened = None
        match command.authority:
            case WithOneTimePassword(password=password):
                code = password.reveal().decode()
            case WithActivationData(authorization=authorization):
                opened = authorization
        content = content_of_items(
            list(command.items),
            credential=command.credential,
            algorithm=command.algorithm,
            pss_salt_length=command.pss_salt_length,
            authorizations=() if opened is None else (opened,),
            signer="" if opened is not None else getattr(command.authority, "signer", None) or "",
        )
        operation = self.history.begin(
            principal.name,
            content,
            request_id=command.request_id,
            signer=signer,
            code=code,
            right=right,
            at=self.world.clock.now(),
        )
        return self._call(
            operation,
            lambda: self.use.sign_digests(principal, command, self.world.deadline()),
            lambda result: Answer(
                authorizations=(result.authorization,),
                signatures=result.signatures,
                audit_entry=result.audit_entry,
                leaf_hash=result.leaf_hash,
            ),
        )

    def approve(
        self, principal: Principal, command: ApproveAuthorizationsCommand, *, right: bool | None = None
    ) -> ApprovalResult:
        """Approves."""
        operation = self.history.begin(
            principal.name,
            Content(method=APPROVE, authorizations=command.names, signer=command.signer),
            request_id=command.request_id,
            signer=command.signer,
            code=command.password.reveal().decode(),
            right=right,
            at=self.world.clock.now(),
        )
        return self._call(
            operation,
            lambda: self.use.approve_authorizations(principal, command, self.world.deadline()),
            lambda result: Answer(
                authorizations=result.approval.authorizations,
                audit_entry=result.audit_entry,
                leaf_hash=result.leaf_hash,
            ),
        )

    def create(self, principal: Principal, command: CreateAuthorizationCommand) -> Authorization:
        """Makes an authorization."""
        content = Content(
            method=CREATE,
            credential=command.credential,
            algorithm=command.algorithm,
            pss_salt_length=command.pss_salt_length,
            kind=command.item_kind,
            digests=command.digests,
            signer=command.approver or "",
        )
        operation = self.history.begin(
            principal.name, content, request_id=command.request_id, at=self.world.clock.now()
        )
        return self._call(
            operation,
            lambda: self.use.create_authorization(principal, command, self.world.deadline()),
            lambda authorization: Answer(authorizations=(authorization.name,)),
        )

    def activation_data(self, principal: Principal, authorization: str) -> Secret:
        """Fetches the secret that opens an authorization; not noted, for it decides nothing."""
        return self.use.fetch_activation_data(principal, authorization)[0]

    def _call(self, operation: Operation, call: Callable[[], T], answer: Callable[[T], Answer]) -> T:
        try:
            result = call()
        except Refusal as refusal:
            self.history.refused(operation, refusal.reason, at=self.world.clock.now())
            raise
        except BaseException:
            self.history.lost(operation, at=self.world.clock.now())
            raise
        self.history.answered(operation, answer(result), at=self.world.clock.now())
        return result
