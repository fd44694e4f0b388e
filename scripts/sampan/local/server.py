"""An HTTP server for an ASGI app: uvicorn, with a port that is bound before anything is said of it."""

import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from sampan.contract.errors import SampanError


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        SampanError: the port is taken, or not ours to take.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY on sockets of this very protocol number only; without it answers wait 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
        return listener
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise SampanError(f"cannot listen on {host}:{port}: {reason}; choose another with --port") from error


def run(app: Callable[..., Any], listener: socket.socket, grace: int = 30) -> None:
    """Serve until SIGINT or SIGTERM; then answer what is under way for at most `grace` seconds."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        interface="asgi3",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=grace,
    )
    uvicorn.Server(config).run(sockets=[listener])
