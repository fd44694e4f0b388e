"""From a context to an image: built once, named by the context's digest, measured layer by layer.

    base (here, or pulled) → is it built already? → docker build, to a log → layers

The image is `sampan/<function>:<12 digits of the context's digest>`, an endpoint's `sampan/<function>-endpoint:…`, and
says in its labels which context and which base it was made of.
"""

import re
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.contract import VERSION
from sampan.contract.errors import InvalidInputError
from sampan.packaging.budgets import MEGABYTE, Sizes
from sampan.packaging.context import Context
from sampan.packaging.docker import Engine, EngineError, ImageFacts, log_tail
from sampan.packaging.files import PackagingError
from sampan.packaging.install import EPOCH
from sampan.packaging.layers import Layer, read_layers

CACHE = Path("~/.cache/sampan/layers")
# Bytes unpacked: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html, and what the volume of an
# instance holds, which SageMaker says: https://docs.aws.amazon.com/sagemaker/latest/dg/large-model-inference-hosting.html
LIMIT, ENDPOINT_LIMIT = 10 * 1024**3, 30 * 1024**3
CONTEXT_LABEL, BASE_LABEL = "sampan.context", "sampan.base"
MODEL_LABEL, VERSION_LABEL, STAGE_LABEL = "sampan.model", "sampan.version", "sampan.stage"
SWEEP = 15.0  # seconds that the engine has to end an interrupted build
_DANGLING = ("images", "--filter", "dangling=true")
# https://pkg.go.dev/github.com/distribution/reference
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(rf"(?:[\w.-]+(?::\d+)?/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?", re.ASCII)
_MACHINES = {"x86_64": "amd64", "arm64": "arm64"}
_INSTALL = re.compile(r"install: (.+)$", re.MULTILINE)
STOPPED = "the Docker engine stopped half way; start it and try again"
_SAID = (
    (re.compile(r"no space left on device", re.IGNORECASE), "no space left on the engine's disk; docker system prune"),
    (
        re.compile(r"cannot connect to the docker daemon|error during connect|unexpected EOF|connection reset", re.I),
        STOPPED,
    ),
    (
        re.compile(r"non-zero code: 137|exit code: 137"),
        "a step was killed, mostly for want of memory; give the engine more",
    ),
)
Watch = Callable[[str], None]


@dataclass(frozen=True)
class Image:
    """A built image: reference, id, digest of its context, and its layers, the base first."""

    reference: str
    id: str
    context: str
    layers: tuple[Layer, ...]

    @property
    def python(self) -> str:
        """Version of the Python that its libraries were built for."""
        return next((layer.python for layer in self.layers if layer.python), "")

    @property
    def sizes(self) -> Sizes:
        """All layers but the base's, by their parts."""
        own = [layer for layer in self.layers if layer.kind != "base"]
        items = (item for layer in own for item in layer.items)
        return Sizes(tuple(items), sum(layer.compressed or 0 for layer in own) / MEGABYTE)


def build_image(
    engine: Engine,
    context: Context,
    *,
    base: str,
    log: Path,
    tag: str | None = None,
    watch: Watch | None = None,
    cache: Path | None = None,
) -> Image:
    """The image of a context; built unless it is there already.

    Args:
        engine: that was checked.
        base: reference of the base image; pulled where it is not here.
        log: file for what the builder says.
        tag: a further name for the image; None: only the one with the digest.
        watch: gets each line of the builder.
        cache: where measures of layers stay; None: `~/.cache/sampan/layers`.

    Raises:
        InvalidInputError: a tag that Docker refuses.
        EngineError: no engine, or it stopped.
        PackagingError: no base image, a build that failed, or over 10 GB (of an endpoint 30); says where the log is.
    """
    if tag and not _REFERENCE.fullmatch(tag):
        raise InvalidInputError(f"'{tag}' is no name for an image; write name:tag in small letters, such as fish:1")
    found = _base(engine, context, base, log, watch)
    reference = f"sampan/{context.title}:{context.digest.removeprefix('sha256:')[:12]}"
    facts = engine.inspect(reference)
    if facts is None or not _made_of(facts, context, found):
        _build(engine, context, base, found, reference, log, watch)
        facts = engine.inspect(reference)
    if facts is None:
        raise EngineError(f"{reference} was built but is not there; was it removed meanwhile?")
    _check_size(engine, context, reference, facts.size)
    if tag:
        engine.output("tag", reference, tag)
    above = facts.layers[len(found.layers) :]
    own = read_layers(engine, context, facts.id, above, (cache or CACHE).expanduser())
    return Image(tag or reference, facts.id, context.digest, (Layer("base", found.id, found.size, 0, None), *own))


def build_arguments(context: Context, base: str) -> dict[str, str]:
    """The image's build arguments, which decide with the context what is in it."""
    if not context.shape.code:
        return {"BASE_IMAGE": base, "MODEL": context.manifest.name}
    if context.shape.endpoint:
        return {"BASE_IMAGE": base}
    return {"BASE_IMAGE": base, "SNAPSTART": "Allow" if context.function.config.snapstart else ""}


def _check_size(engine: Engine, context: Context, reference: str, size: int) -> None:
    whose, limit = ("an instance's", ENDPOINT_LIMIT) if context.shape.endpoint else ("Lambda's", LIMIT)
    if size > limit:
        engine.output("image", "rm", reference)
        raise PackagingError(
            f"the image of {context.title} has {size / 1e9:.1f} GB, over {whose} {limit / 1e9:.1f}; "
            f"make the model smaller with: sampan compress {context.manifest.name}"
        )


def _made_of(facts: ImageFacts, context: Context, base: ImageFacts) -> bool:
    return facts.labels.get(CONTEXT_LABEL) == context.digest and facts.labels.get(BASE_LABEL) == base.id


def _base(engine: Engine, context: Context, base: str, log: Path, watch: Watch | None) -> ImageFacts:
    """The base image, pulled where it is not here."""
    machine = _MACHINES[context.function.config.architecture]
    option = "--endpoint-base-image" if context.shape.endpoint else "--base-image"
    found = engine.inspect(base)
    if found is None:
        status = _logged(engine, ["pull", "--platform", f"linux/{machine}", base], log, watch)
        found = engine.inspect(base)
        if status or found is None:
            raise PackagingError(
                f"the base image {base} is not here and cannot be pulled ({_reason(log)}); name another with "
                f"{option}; the log is {log}"
            )
    if found.architecture != machine:
        raise PackagingError(
            f"the base image {base} is for {found.architecture}, {context.title} wants {machine}; pull it with "
            f"docker pull --platform linux/{machine} {base}, or name another with {option}"
        )
    return found


def _build(
    engine: Engine, context: Context, base: str, found: ImageFacts, reference: str, log: Path, watch: Watch | None
) -> None:
    arguments = build_arguments(context, base)
    labels = {CONTEXT_LABEL: context.digest, BASE_LABEL: found.id, MODEL_LABEL: context.ref, VERSION_LABEL: VERSION}
    buildx = engine.has_buildx()
    buildkit = buildx or engine.has_buildkit()
    options = ["--provenance=false", "--sbom=false", "--load"] if buildx else []
    options += ["--progress", "plain"] if buildkit else ["--force-rm"]
    if buildx:
        arguments["SOURCE_DATE_EPOCH"] = str(EPOCH)
    for name, value in arguments.items():
        options += ["--build-arg", f"{name}={value}"]
    for name, value in labels.items():
        options += ["--label", f"{name}={value}"]
    command = ["build", *options, "--tag", reference, str(context.folder)]
    before = _listed(engine, *_DANGLING), _listed(engine, "ps", "--all")
    try:
        status = _logged(engine, command, log, watch, {"DOCKER_BUILDKIT": "1" if buildkit else "0"})
    except KeyboardInterrupt:
        _sweep(engine, *before)
        raise
    if status:
        raise PackagingError(f"{context.title} could not be built: {_cause(engine, log)}; the log is {log}")


def _listed(engine: Engine, *what: str) -> set[str]:
    """Ids of images or containers of our stages; a classic builder keeps untagged images as its cache."""
    return set(engine.output(*what, "--quiet", "--no-trunc", "--filter", f"label={STAGE_LABEL}").split())


def _sweep(engine: Engine, images: set[str], containers: set[str]) -> None:
    """After an interrupted build: wait until the engine has removed its container, then remove the build's stages.

    Args:
        images, containers: those that were there before.
    """
    until = time.monotonic() + SWEEP
    while _listed(engine, "ps", "--all") - containers and time.monotonic() < until:
        time.sleep(0.1)
    for stage in _listed(engine, *_DANGLING) - images:
        with suppress(EngineError):  # another build may use it by now
            engine.output("image", "rm", stage)


def _logged(
    engine: Engine, command: list[str], log: Path, watch: Watch | None, environment: dict[str, str] | None = None
) -> int:
    """Run a command to its end, its lines to the log and to `watch`; gives its exit code.

    Interrupted, it is stopped first: the builder then removes what it was at.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    process: Any = engine.popen(*command, output=subprocess.PIPE, environment=environment)
    try:
        with log.open("wb") as file:
            for line in process.stdout:
                file.write(line)
                file.flush()
                if watch is not None:
                    watch(line.decode("utf-8", "replace").rstrip())
        return int(process.wait())
    finally:
        process.stdout.close()
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def _cause(engine: Engine, log: Path) -> str:
    """Why a build failed; an engine that is gone is the cause of whatever the log says."""
    try:
        engine.check()
    except EngineError:
        return STOPPED
    return _reason(log)


def _reason(log: Path) -> str:
    """What went wrong, from the log: what install.py said, what we know, else its last line."""
    text = log.read_text("utf-8", "replace")
    said = _INSTALL.findall(text)
    if said:
        return str(said[-1]).strip()
    return next((words for pattern, words in _SAID if pattern.search(text)), log_tail(log) or "no reason was given")
