"""A function packaged, start to end: what `sampan package` does.

    function.toml → version → context → checked → image | archives → measured → budgets → papers

A heavy model's endpoint has a context and an image of its own. The papers lie beside the contexts, in
`build/functions/<name>`: bills of materials, template, waterfall, signature, and the golden samples as requests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from sampan.contract.errors import InvalidInputError
from sampan.contract.function import FunctionConfig
from sampan.contract.manifest import Manifest
from sampan.packaging import waterfall
from sampan.packaging.archive import Archives, build_archives
from sampan.packaging.budgets import MEGABYTE, Measurement, Sizes, Waterfall, assess
from sampan.packaging.context import BUILD, REQUIREMENTS, Context
from sampan.packaging.docker import Engine
from sampan.packaging.dockerfile import check_dockerfile
from sampan.packaging.endpoint import endpoint_base, write_contexts
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
BOM, ENDPOINT_BOM, SIGNATURE, RECORD = "bom.cdx.json", "bom-endpoint.cdx.json", "model.sig", "package.json"
SETTLED = ("placement", "memory", "snapstart", "endpoint")  # what the placement `auto` decides
APIS: tuple[ApiKind, ...] = ("rest", "http")

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How to package.

    Attributes:
        base: image to build on; None: AWS's for the function's Python.
        endpoint_base: image to build its endpoint on; None: Python's own, or Triton.
        tag: a further tag of the image, or a further name (with a colon or a slash).
        docker: build the image; else only its context.
        key: seals the model: a key file, or `kms:` with the ARN of a key.
        signing_key: private key that signs the model.
        settled: what function.toml says once its placement `auto` is resolved.
    """

    base: str | None = None
    endpoint_base: str | None = None
    tag: str | None = None
    docker: bool = True
    key: str | None = None
    signing_key: Path | None = None
    settled: FunctionConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What was made of a heavy model's endpoint: `base` is what its image is built on."""

    context: Context
    base: str
    image: Image | None = None

    @property
    def reference(self) -> str:
        """The image's reference, else the path of the context."""
        return self.image.reference if self.image else str(self.context.folder)


Measure = Callable[[Context, Image | None, Endpoint | None, Sequence[Sample]], Measurement | None]


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
    endpoint: Endpoint | None = None
    fallback: Manifest | None = None
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
    _placeable(function, chosen.key is not None)
    folder, base = project / BUILD / name, base_of(function, chosen.base)
    version = store.find(function.config.model)
    step("writing the context")
    contexts = write_contexts(project, function, store, version, key=chosen.key, say=say)
    context = contexts.function
    check_dockerfile(context.folder)
    endpoint = _endpoint(contexts.endpoint, folder, chosen, step) if contexts.endpoint else None
    image, archives = None, None
    if function.config.placement == "lambda-zip":
        step("writing the archives")
        archives = build_archives(context, folder)
    elif chosen.docker:
        image = build_image(
            Engine(), context, base=base, tag=_named(context, chosen.tag), log=folder / "build.log", watch=step
        )
    samples = version.golden()
    measurement = None
    if measure is not None:
        step("starting the function")
        measurement = measure(context, image, endpoint, samples)
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
        endpoint=endpoint,
        fallback=contexts.fallback,
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
        "arguments": build_arguments(made.context, made.base),
        "image": image and image.id,
        "layers": _layers(image),
        "zip": archives and {str(path): digest_of(path) for path in (archives.function, archives.layer)},
        "context": {"folder": str(made.context.folder), "digest": made.context.digest},
        "manifest": digest_of(made.context.version / MANIFEST),
        "endpoint": _endpoint_dict(made.endpoint) if made.endpoint else None,
        "papers": str(made.folder),
        "waterfall": waterfall.as_dict(made.waterfall),
    }


def _endpoint_dict(made: Endpoint) -> dict[str, Any]:
    context = made.context
    return {
        "engine": context.function.config.endpoint.engine,
        "reference": made.reference,
        "arguments": build_arguments(context, made.base),
        "image": made.image and made.image.id,
        "layers": _layers(made.image),
        "context": {"folder": str(context.folder), "digest": context.digest},
        "manifest": digest_of(context.version / MANIFEST),
    }


def _layers(image: Image | None) -> list[dict[str, Any]]:
    return [
        {"kind": layer.kind, "digest": layer.digest, "unpacked": layer.unpacked, "compressed": layer.compressed}
        for layer in (image.layers if image else ())
    ]


def _endpoint(context: Context, folder: Path, order: Order, step: Step) -> Endpoint:
    """The endpoint's image, from its context."""
    check_dockerfile(context.folder)
    base = endpoint_base(context.function, order.endpoint_base)
    if not order.docker:
        return Endpoint(context=context, base=base)
    tag, log = _named(context, order.tag), folder / "build-endpoint.log"
    return Endpoint(
        context=context, base=base, image=build_image(Engine(), context, base=base, tag=tag, log=log, watch=step)
    )


def _named(context: Context, tag: str | None) -> str | None:
    """The further name of a context's image; that of an endpoint differs from the function's."""
    if tag is None or (":" not in tag and "/" not in tag):
        return tag and f"sampan/{context.title}:{tag}"
    place, slash, name = tag.rpartition("/")
    stem, colon, number = name.partition(":")
    return f"{place}{slash}{stem}{'-endpoint' if context.shape.endpoint else ''}{colon}{number}"


def _placeable(function: Function, sealed: bool) -> None:
    if function.config.placement == "auto":
        raise InvalidInputError(
            f"{function.name} has placement 'auto', which 'sampan package' does not build; it is settled before, or "
            "set lambda, lambda-zip, sagemaker or sagemaker-async"
        )
    if function.config.heavy and sealed:
        raise InvalidInputError(
            f"the endpoint of {function.name} has no network, so it reaches no key; package it without --key"
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
    (made.folder / ENDPOINT_BOM).unlink(missing_ok=True)  # the function may have been heavy before
    images = [(BOM, context, made.image)]
    images += [(ENDPOINT_BOM, made.endpoint.context, made.endpoint.image)] if made.endpoint else []
    for name, each, image in images:
        bom = bill_of_materials(
            function,
            each.manifest,
            (each.folder / REQUIREMENTS).read_text(),
            digest=each.digest,
            title=each.title,
            python=(image.python if image else "") or function.config.python,
            parent=parent,
            fallback=made.fallback if each is context else None,
        )
        replace_file(made.folder / name, bom)
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

        signed = made.endpoint.context if made.endpoint else context  # where the weights are
        sign_model(signed.version, order.signing_key, made.folder / SIGNATURE)


def template_name(api: ApiKind) -> str:
    """`template.json` is the REST API; the other has its kind in its name."""
    return "template.json" if api == "rest" else f"template-{api}.json"


def _artefact(made: Package) -> ImageArtefact | ZipArtefact | None:
    if made.archives is not None:
        return ZipArtefact(made.archives.function, made.archives.layer)
    return ImageArtefact(made.image.reference) if made.image is not None else None
