"""Which function answers which path. No CDK here: paths as API Gateway writes them."""

from collections.abc import Iterator

from sampan.stacks.config import Deployable, Project

REST_OF_PATH = "{proxy+}"
METHODS = ("GET", "POST")
# that a page of another origin may send: of bodies, keys, tokens, and of the V2 protocol's binary extension
HEADERS = ("content-type", "x-api-key", "authorization", "inference-header-content-length")
EMBEDDINGS = "/v1/embeddings"
COMMON = (
    *("/", "/docs", "/openapi.json", "/predict"),
    *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/repository/index"),
    "/v1/models",
    *("/ping", "/invocations"),
)


def routes(project: Project) -> Iterator[tuple[str, Deployable]]:
    """Every path of the API and its function; paths without a model's name go to the default one."""
    for path in COMMON:
        yield path, project.default
    yield EMBEDDINGS, _embedding(project)
    for function in project.functions:
        for path in of_model(function.model):
            yield path, function


def of_model(model: str) -> tuple[str, ...]:
    """The paths of one model: V2, task level, V1."""
    return (
        f"/v2/models/{model}",
        f"/v2/models/{model}/{REST_OF_PATH}",
        f"/models/{model}/{REST_OF_PATH}",
        f"/v1/models/{model}",
        f"/v1/models/{model}:predict",
        f"/v1/models/{model}/{REST_OF_PATH}",
    )


def _embedding(project: Project) -> Deployable:
    """The first function whose pipeline gives vectors."""
    for function in project.functions:
        pipeline = (function.manifest and function.manifest.pipeline) or {}
        if pipeline.get("output", {}).get("kind") == "vector":
            return function
    return project.default
