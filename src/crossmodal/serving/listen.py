"""A socket that listens, opened before the server runs so that a port in use is one line."""

from __future__ import annotations

import socket

from crossmodal.errors import UserError


def listen(host: str, port: int) -> socket.socket:
    """A TCP socket that listens at an address.

    Raises:
        UserError: the address is not one of this machine, or the port is in use.
    """
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot listen there ({error.strerror or error})") from None
