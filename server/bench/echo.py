"""A bare gRPC server that answers every call with the same bytes: the most that grpc.aio can do."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc


class _Echo(grpc.GenericRpcHandler):
    def __init__(self, answer: bytes) -> None:
        async def handle(_request: bytes, _context: Any) -> bytes:
            return answer

        self._handler: Any = grpc.unary_unary_rpc_method_handler(handle)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        del handler_call_details
        return self._handler


async def serve_echo(answer_bytes: int) -> None:
    """Serves on a free port, which is printed, until killed."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(bytes(answer_bytes)),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve_echo(int(sys.argv[1])))
