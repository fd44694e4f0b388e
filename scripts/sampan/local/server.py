"""An HTTP server for an ASGI app: uvicorn, with a port that is bound before anything is said of it."""

import ctypes
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn

from sampan.contract.errors import SampanError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_KEPT = 8 * 1024 * 1024  # bytes: a few bodies of the size that the limits allow


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


def keep_memory() -> None:
    """Have glibc keep freed megabytes instead of giving them back to the system after every large body.

    Without it each request pays for fresh pages (half of the time of a 1 MB tensor), and every thread has a
    heap of its own. Source: mallopt(3). Elsewhere than on glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


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
