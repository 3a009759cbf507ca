"""The event loop of a server."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections import Counter

import grpc

from server.event_loop import ServingLoop

_CALLS = 200


class PollerCompletionQueue:
    """Reads as gRPC's does: one byte, and all events that there are."""

    def __init__(self) -> None:
        self.reader, self.writer = socket.socketpair()
        self.reader.setblocking(False)
        self.events: list[str] = []
        self.handled: list[list[str]] = []

    def write(self, event: str) -> None:
        self.events.append(event)
        self.writer.send(b"1")

    def _handle_events(self, _loop: object) -> None:
        assert self.reader.recv(1) == b"1"
        self.handled.append(self.events[:])
        self.events.clear()

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_events_that_are_there_together_wake_the_loop_once() -> None:
    queue = PollerCompletionQueue()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(queue.reader, functools.partial(queue._handle_events, loop))
        for name in ("one", "two", "three"):
            queue.write(name)
        await _turns(8)
        queue.write("four")
        await _turns(4)
        loop.remove_reader(queue.reader)

    with asyncio.Runner(loop_factory=ServingLoop) as runner:
        runner.run(run())
    queue.close()
    assert queue.handled == [["one", "two", "three"], ["four"]]


def test_what_is_not_grpcs_is_read_as_ever() -> None:
    reader, writer = socket.socketpair()
    taken: list[bytes] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(reader, lambda: taken.append(reader.recv(1)))
        writer.send(b"abc")
        await _turns(8)
        loop.remove_reader(reader)

    with asyncio.Runner(loop_factory=ServingLoop) as runner:
        runner.run(run())
    reader.close()
    writer.close()
    assert taken == [b"a", b"b", b"c"]


class _Service(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        del handler_call_details

        async def answer(request: bytes, _context: object) -> bytes:
            await asyncio.sleep(0)
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


def test_grpc_answers_all_calls_with_few_wakes() -> None:
    wakes: Counter[str] = Counter()

    class Counting(ServingLoop):
        def _process_events(self, event_list: list[object]) -> None:
            wakes["events"] += len(event_list)
            super()._process_events(event_list)  # type: ignore[misc]

    async def run() -> list[bytes]:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Service(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/a.B/C")
            answers = await asyncio.gather(*(call(str(each).encode()) for each in range(_CALLS)))
        await server.stop(None)
        return answers

    with asyncio.Runner(loop_factory=Counting) as runner:
        assert runner.run(run()) == [str(each).encode() for each in range(_CALLS)]
    # Without this loop five a call, and one or two with it.
    assert wakes["events"] < 3.5 * _CALLS, wakes
