"""The service's methods as gRPC calls them. A message that cannot be read is the caller's mistake, and is told so.

gRPC itself would answer UNKNOWN, as to a fault of the server's, and write a stack trace for each.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

Method = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


def handlers(service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
    """The handlers of a service whose methods are unary; the servicer has a coroutine of each method's name."""
    return grpc.method_handlers_generic_handler(
        service.full_name,
        {
            method.name: grpc.unary_unary_rpc_method_handler(
                _refusing(getattr(servicer, method.name), method.input_type.name),
                request_deserializer=_reader(GetMessageClass(method.input_type)),
                response_serializer=GetMessageClass(method.output_type).SerializeToString,
            )
            for method in service.methods
        },
    )


def _reader(kind: type[Message]) -> Callable[[bytes], Message | DecodeError]:
    def read(content: bytes) -> Message | DecodeError:
        try:
            return kind.FromString(content)
        except DecodeError as error:
            return error

    return read


def _refusing(method: Method, wanted: str) -> Method:
    async def call(request: Message | DecodeError, context: grpc.aio.ServicerContext) -> Any:
        if isinstance(request, DecodeError):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"The message is no {wanted}.")
        return await method(request, context)

    return call
