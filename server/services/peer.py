"""Where a call came from, also where another door of this server has passed it on."""

from __future__ import annotations

from server.services.status import Context

FORWARDED_PEER = "pointsman-forwarded-peer"
"""The metadata in which a door of this server says where a call came from that it passes on."""


def caller_address(context: Context) -> str:
    """The address, as gRPC writes it: "ipv4:127.0.0.1:50000", or "http:..." of one that came over HTTP.

    Who passes calls on comes by the server's own socket, which nobody else can open, and only it is believed.
    """
    peer = str(context.peer())
    if peer.startswith("unix:"):
        told = dict(context.invocation_metadata() or ()).get(FORWARDED_PEER)
        return str(told) if told else peer
    return peer
