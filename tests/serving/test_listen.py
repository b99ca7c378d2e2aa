"""Addresses that a server listens at."""

import socket

import pytest
from assertions import raises_naming

from crossmodal.serving.listen import accept, is_open, listen


@pytest.mark.parametrize(
    ("host", "everywhere"), [("0.0.0.0", True), ("0", True), ("", True), ("127.0.0.1", False), ("127.1", False)]
)
def test_an_address_is_told_by_what_is_bound(host, everywhere):
    with listen(host, 0) as bound:
        assert is_open(bound) is everywhere


@pytest.mark.parametrize("host", ["a..b", ".", "a" * 70, "203.0.113.7"])
def test_a_name_that_is_none_is_refused(host):
    with raises_naming(f"--host {host} ", "--port 0"):
        listen(host, 0)


def test_of_two_servers_that_load_for_one_port_the_second_is_refused():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with listen("127.0.0.1", port) as second:  # Linux lets both be bound, as neither listens
            accept(first, "127.0.0.1", port, 8)
            with raises_naming("--host 127.0.0.1", f"--port {port}", "Address already in use"):
                accept(second, "127.0.0.1", port, 8)
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_small_answers_do_not_wait_for_each_other():
    """asyncio sets TCP_NODELAY on connections that say they are TCP; without it an answer takes 40 ms longer."""
    with listen("127.0.0.1", 0) as bound:
        bound.listen(1)
        with socket.create_connection(bound.getsockname()), bound.accept()[0] as connection:
            assert connection.proto == socket.IPPROTO_TCP
