"""A process that listens: uvicorn around an ASGI app, a port that is bound before anything is said of it, memory."""

import ctypes
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn

from sampan.contract.errors import SampanError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_KEPT = 8 * 1024 * 1024  # bytes: a few bodies of the size that the limits allow


def bind(host: str, port: int, advice: str = "choose another with --port") -> socket.socket:
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
        raise SampanError(f"cannot listen on {host}:{port}: {reason}; {advice}") from error


def keep_memory() -> None:
    """Have glibc keep freed megabytes instead of giving them back to the system after every large body.

    Without it each request pays for fresh pages (half of the time of a 1 MB tensor), and every thread has a
    heap of its own. Source: mallopt(3). Elsewhere than on glibc nothing happens.
    """
    mallopt = _libc("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def return_memory() -> None:
    """Have glibc give back what it kept, as after a model was closed. Source: malloc_trim(3)."""
    trim = _libc("malloc_trim")
    if trim is not None:
        trim(0)


def run(app: Callable[..., Any], listener: socket.socket, grace: int = 30) -> None:
    """Serve until SIGINT or SIGTERM; then answer what is under way for at most `grace` seconds."""
    server_of(app, grace).run(sockets=[listener])


def server_of(app: Callable[..., Any], grace: int) -> uvicorn.Server:
    """A server that can be told to end before it runs, too (`should_exit`)."""
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
    return uvicorn.Server(config)


def _libc(function: str) -> Any:
    return getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
