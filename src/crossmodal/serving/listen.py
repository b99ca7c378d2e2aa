"""The socket of a server, bound before anything is loaded, so that a port in use is an error before that."""

from __future__ import annotations

import socket

from crossmodal.errors import UserError


def listen(host: str, port: int) -> socket.socket:
    """A TCP socket that is bound to an address, but does not listen yet.

    Raises:
        UserError: the address is not one of this machine, or the port is in use.
    """
    kind, passive = socket.SOCK_STREAM, socket.AI_PASSIVE
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(host or None, port, type=kind, flags=passive)
        bound = socket.socket(family, kind)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot listen there ({error.strerror or error})") from None
    return bound
