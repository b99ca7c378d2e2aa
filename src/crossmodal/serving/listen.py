"""The socket of a server, bound before anything is loaded, so that a port in use is an error before that."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from crossmodal.errors import UserError


def listen(host: str, port: int) -> socket.socket:
    """A TCP socket that is bound to an address, but does not listen yet.

    Raises:
        UserError: the address is not one of this machine, or the port is in use.
    """
    kind, passive = socket.SOCK_STREAM, socket.AI_PASSIVE
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(host or None, port, type=kind, flags=passive)
        # Named as TCP: asyncio sends small pieces at once on such sockets alone; else an answer's body waits 40 ms for
        # the client's acknowledgement of its headers.
        bound = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that is none, such as a..b
        raise _refused(host, port, error) from None
    return bound


def accept(bound: socket.socket, host: str, port: int, backlog: int) -> None:
    """Accept connections from here on; ``backlog`` of them may wait.

    Raises:
        UserError: another process, which was bound to the port too, has begun to listen since.
    """
    try:
        bound.listen(backlog)
    except OSError as error:
        raise _refused(host, port, error) from None


def is_open(bound: socket.socket) -> bool:
    """Whether a socket is bound to every address of this machine, however the address was written."""
    return ip_address(bound.getsockname()[0]).is_unspecified


def _refused(host: str, port: int, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(f"--host {host} --port {port}: cannot listen there ({reason})")
