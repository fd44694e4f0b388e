"""A function packaged, start to end: what `sampan package` does.

    function.toml → version → context → checked → image | archives → measured → budgets → papers

The papers lie beside the context, in `build/functions/<name>`: bill of materials, template, waterfall, signature, and
the golden samples as requests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from sampan.contract.errors import InvalidInputError
from sampan.contract.function import FunctionConfig
from sampan.packaging import waterfall
from sampan.packaging.archive import Archives, build_archives
from sampan.packaging.budgets import MEGABYTE, Measurement, Sizes, Waterfall, assess
from sampan.packaging.context import BUILD, REQUIREMENTS, Context, write_context
from sampan.packaging.docker import Engine
from sampan.packaging.dockerfile import check_dockerfile
from sampan.packaging.files import replace_file
from sampan.packaging.golden_requests import GOLDEN, golden_requests
from sampan.packaging.image import Image, build_arguments, build_image
from sampan.packaging.payload import payload_of
from sampan.packaging.project import Function, read_function
from sampan.packaging.sizes import sizes_of
from sampan.packaging.template import ApiKind, ImageArtefact, ZipArtefact, write_template
from sampan.serving.golden import Sample
from sampan.serving.integrity import digest_of
from sampan.serving.repository import MANIFEST
from sampan.store.protocol import Store, Version

LAMBDA_BASE = "public.ecr.aws/lambda/python"
BOM, SIGNATURE, RECORD = "bom.cdx.json", "model.sig", "package.json"
SETTLED = ("placement", "memory", "snapstart", "endpoint")  # what the placement `auto` decides
APIS: tuple[ApiKind, ...] = ("rest", "http")

Measure = Callable[[Context, Image | None, Sequence[Sample]], Measurement | None]
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How to package.

    Attributes:
        base: image to build on; None: AWS's for the function's Python.
        tag: a further tag of the image, or a further name (with a colon or a slash).
        docker: build the image; else only its context.
        key: seals the model: a key file, or `kms:` with the ARN of a key.
        signing_key: private key that signs the model.
        settled: what function.toml says once its placement `auto` is resolved.
    """

    base: str | None = None
    tag: str | None = None
    docker: bool = True
    key: str | None = None
    signing_key: Path | None = None
    settled: FunctionConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What was made: `folder` holds the papers, `base` is what an image is built on, `notes` are for the person."""

    function: Function
    context: Context
    waterfall: Waterfall
    folder: Path
    base: str
    image: Image | None = None
    archives: Archives | None = None
    notes: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """The image's reference, else the path of the function's zip, else that of the context."""
        if self.image is not None:
            return self.image.reference
        return str(self.archives.function if self.archives else self.context.folder)


def base_of(function: Function, base: str | None = None) -> str:
    """The image that a function is built on."""
    return base or f"{LAMBDA_BASE}:{function.config.python}"


def package(
    project: Path,
    store: Store,
    name: str,
    order: Order | None = None,
    *,
    measure: Measure | None = None,
    step: Step = lambda words: None,
    say: Step = lambda words: None,
) -> Package:
    """Package one function of a project.

    Args:
        measure: runs what was built; None: times and memory stay unknown.
        step: gets what is being done; say: sentences for the person.

    Raises:
        SampanError: a function.toml, model, lock, engine, network or disk that does not do; says what to try.
            An exceeded budget is no error here: `waterfall.check()`.
    """
    chosen = order or Order()
    function = read_function(project, name)
    if chosen.settled is not None:
        function = replace(function, config=chosen.settled)
    _placeable(function)
    folder, base = project / BUILD / name, base_of(function, chosen.base)
    version = store.find(function.config.model)
    step("writing the context")
    context = write_context(project, function, version, key=chosen.key, say=say)
    check_dockerfile(context.folder)
    image, archives = None, None
    if function.config.placement == "lambda-zip":
        step("writing the archives")
        archives = build_archives(context, folder)
    elif chosen.docker:
        image = build_image(
            Engine(), context, base=base, tag=_named(name, chosen.tag), log=folder / "build.log", watch=step
        )
    samples = version.golden()
    measurement = None
    if measure is not None:
        step("starting the function")
        measurement = measure(context, image, samples)
    found = assess(
        function.config,
        _sizes(context, image, archives),
        measurement,
        payload_of(samples, context.manifest),
        manifest=context.manifest,
    )
    step("writing the papers")
    made = Package(
        function=function,
        context=context,
        waterfall=found,
        folder=folder,
        base=base,
        image=image,
        archives=archives,
        notes=archives.notes if archives else (),
    )
    replace_file(folder / GOLDEN, golden_requests(samples, context.manifest))
    _write_papers(made, version, store, chosen)
    return made


def as_dict(made: Package) -> dict[str, Any]:
    """What was made, in JSON's types: `sampan package -o json`, and `package.json` among the papers."""
    image, archives = made.image, made.archives
    return {
        "function": made.function.name,
        "model": made.context.ref,
        "settled": {name: msgspec.to_builtins(getattr(made.function.config, name)) for name in SETTLED},
        "reference": made.reference,
        "arguments": build_arguments(made.function, made.base),
        "image": image and image.id,
        "layers": [
            {"kind": layer.kind, "digest": layer.digest, "unpacked": layer.unpacked, "compressed": layer.compressed}
            for layer in (image.layers if image else ())
        ],
        "zip": archives and {str(path): digest_of(path) for path in (archives.function, archives.layer)},
        "context": {"folder": str(made.context.folder), "digest": made.context.digest},
        "manifest": digest_of(made.context.version / MANIFEST),
        "papers": str(made.folder),
        "waterfall": waterfall.as_dict(made.waterfall),
    }


def _named(function: str, tag: str | None) -> str | None:
    return tag if tag is None or ":" in tag or "/" in tag else f"sampan/{function}:{tag}"


def _placeable(function: Function) -> None:
    if function.config.placement not in ("lambda", "lambda-zip"):
        raise InvalidInputError(
            f"{function.name} has placement '{function.config.placement}', which 'sampan package' does not build; "
            "set lambda or lambda-zip"
        )


def _sizes(context: Context, image: Image | None, archives: Archives | None) -> Sizes:
    if archives is not None:
        return Sizes(archives.items, archives.compressed / MEGABYTE)
    if image is not None:
        return image.sizes
    return Sizes(sizes_of((context.folder / "code", context.folder / "model")), complete=False)


def _write_papers(made: Package, version: Version, store: Store, order: Order) -> None:
    from sampan.packaging.bom import bill_of_materials

    context, function = made.context, made.function
    parent = store.find(version.manifest.parent).manifest if version.manifest.parent else None
    requirements = (context.folder / REQUIREMENTS).read_text()
    python = (made.image.python if made.image else "") or function.config.python
    bom = bill_of_materials(
        function, context.manifest, requirements, digest=context.digest, python=python, parent=parent
    )
    replace_file(made.folder / BOM, bom)
    waterfall.write(made.waterfall, made.folder)
    replace_file(made.folder / RECORD, msgspec.json.format(msgspec.json.encode(as_dict(made)), indent=2) + b"\n")
    for name in (SIGNATURE, *map(template_name, APIS)):  # those of an earlier package speak of another model
        (made.folder / name).unlink(missing_ok=True)
    digest = digest_of(context.version / MANIFEST)
    artefact = _artefact(made)
    if artefact is not None:
        for api in APIS:
            write_template(made.folder / template_name(api), function, artefact, api=api, digest=digest)
    if order.signing_key is not None:
        from sampan.packaging.signing import sign_model

        sign_model(context.version, order.signing_key, made.folder / SIGNATURE)


def template_name(api: ApiKind) -> str:
    """`template.json` is the REST API; the other has its kind in its name."""
    return "template.json" if api == "rest" else f"template-{api}.json"


def _artefact(made: Package) -> ImageArtefact | ZipArtefact | None:
    if made.archives is not None:
        return ZipArtefact(made.archives.function, made.archives.layer)
    return ImageArtefact(made.image.reference) if made.image is not None else None
