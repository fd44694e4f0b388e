"""What answers a request: a route, and the call that its function gets."""

from collections.abc import Callable

import msgspec

from sampan.serving.dataplane import DataPlane
from sampan.serving.http import Request, Response
from sampan.serving.repository import ServedModel

Params = dict[str, str | None]


class Call(msgspec.Struct, frozen=True):
    """A request with what its path said and its body, inflated."""

    plane: DataPlane
    request: Request
    params: Params
    body: bytes

    def model(self) -> ServedModel:
        return self.plane.model(self.params["model"] or "", self.params.get("version"))


Answer = Callable[[Call], Response]


class Route(msgspec.Struct, frozen=True):
    """`path` as OpenAPI writes it, `summary` as the reference shows it."""

    method: str
    path: str
    answer: Answer
    summary: str
