"""Whether a port of this machine can be listened on, and in which words not."""

from __future__ import annotations

import errno
import os
import socket

from bot.text import health as text


def try_port(host: str, port: int) -> None:
    """Listen on it for a moment, as the endpoint of health does; raises `OSError`."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as listening:
            if os.name == "posix":
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            listening.listen()


def described(error: OSError, *, host: str, port: int) -> tuple[str, str]:
    """The setting because of which the endpoint of health cannot listen, and what is wrong with it, in one clause."""
    if isinstance(error, socket.gaierror):
        return "health.host", text.host_unknown(host)
    if error.errno == errno.EADDRNOTAVAIL:
        return "health.host", text.host_elsewhere(host)
    if error.errno == errno.EADDRINUSE:
        return "health.port", text.port_in_use(host, port)
    return "health.port", text.port_unusable(host, port, os.strerror(error.errno) if error.errno else str(error))
