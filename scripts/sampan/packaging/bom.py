"""The bill of materials of a packaged function: CycloneDX 1.6 with the model's card (ML-BOM). No clock, no network.

    function.toml, manifest, requirements.txt → components and what needs what → JSON

Source: https://cyclonedx.org/docs/1.6/json/
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sampan.contract import VERSION
from sampan.contract.manifest import Manifest
from sampan.packaging.card import model_card
from sampan.packaging.files import PackagingError
from sampan.packaging.project import Function

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component


_LICENCE = "Apache-2.0"  # Sampan's
_SPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "sampan.bom")
_MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Library:
    """One line of a lock: name, exact version, and the SHA-256 (hex) of every file that may be installed for it."""

    name: str
    version: str
    hashes: tuple[str, ...]

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


def bill_of_materials(
    function: Function,
    manifest: Manifest,
    requirements: str,
    *,
    digest: str,
    title: str = "",
    python: str = "",
    parent: Manifest | None = None,
    fallback: Manifest | None = None,
) -> bytes:
    """The document, as JSON; the same arguments give the same bytes.

    Args:
        manifest: of the packaged model; where it has no model file, an endpoint has that.
        requirements: text of the lock that the function's dependencies are installed from.
        digest: `sha256:…` of the build context; the serial number comes from it.
        title: what the document is of; empty: the function.
        python: version that the lock's markers are read for; empty: the function's.
        parent: manifest of the version that the model was made from, for its digest.
        fallback: manifest of the packaged version that the function runs while its endpoint does not answer.

    Raises:
        PackagingError: the packages for it are missing.
    """
    try:
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError as error:
        raise PackagingError(f"a bill of materials needs {error.name}: pip install 'sampan[package]'") from error
    found = libraries(requirements, python or function.config.python, function.config.architecture)
    model = _model(manifest, parent)
    models = [model, *([_model(fallback, None, "fallback/")] if fallback else [])]
    bom = _bom(function, title or function.name, models, found, digest)
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    document["metadata"].pop("timestamp", None)
    for component in document["components"]:
        if component["bom-ref"] == model.bom_ref.value:
            component["modelCard"] = model_card(manifest)
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def libraries(requirements: str, python: str, architecture: str) -> list[Library]:
    """What of a lock is installed on Lambda, in its order.

    Args:
        python: such as "3.12".
        architecture: x86_64 or arm64.
    """
    from packaging.requirements import Requirement

    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": _MACHINES[architecture],
    }
    found = []
    for words, hashes in _lines(requirements):
        requirement = Requirement(words)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            version = next(iter(requirement.specifier)).version
            found.append(Library(requirement.name.lower().replace("_", "-"), version, hashes))
    return found


def _lines(requirements: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in requirements.replace("\\\n", " ").splitlines():
        words, *hashes = line.partition("#")[0].split("--hash=sha256:")
        if words.strip() and not words.startswith("-"):
            yield words.strip(), tuple(each.strip() for each in hashes)


def _bom(function: Function, title: str, models: list["Component"], found: list[Library], digest: str) -> "Bom":
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository

    config = function.config
    main = Component(
        type=ComponentType.APPLICATION,
        name=title,
        bom_ref=f"function:{title}",
        version=digest,
        description=config.description or None,
        properties=_properties(placement=config.placement, architecture=config.architecture, python=config.python),
    )
    sampan = _sampan("sampan")
    parts = [_library(library) for library in found]
    bom = Bom(
        serial_number=uuid.uuid5(_SPACE, digest),
        metadata=BomMetaData(component=main, tools=ToolRepository(components=[_sampan("tool")])),
        components=[*models, sampan, *parts],
    )
    bom.register_dependency(main, [sampan, *models])
    bom.register_dependency(sampan, parts)
    return bom


def _sampan(ref: str) -> "Component":
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return Component(
        type=ComponentType.APPLICATION,
        name="sampan",
        bom_ref=ref,
        version=VERSION,
        licenses=_licence(_LICENCE),
        purl=PackageURL("pypi", name="sampan", version=VERSION),
    )


def _library(library: Library) -> "Component":
    """One of the files of `hashes` is installed, which is why they stand with the distribution."""
    from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
    from cyclonedx.model.component import Component
    from packageurl import PackageURL

    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(library.purl),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in library.hashes],
    )
    return Component(
        name=library.name,
        bom_ref=library.purl,
        version=library.version,
        purl=PackageURL("pypi", name=library.name, version=library.version),
        external_references=[files],
    )


def _model(manifest: Manifest, parent: Manifest | None, place: str = "") -> "Component":
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    files = [
        Component(
            type=ComponentType.FILE,
            name=path,
            bom_ref=f"file:{place}{path}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=entry.sha256)],
        )
        for path, entry in manifest.artefact.items()
    ]
    model = manifest.files.get(manifest.model)
    opsets = {f"opset:{domain}": str(number) for domain, number in manifest.opset.items()}
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=manifest.name,
        bom_ref=f"model:{place}{manifest.ref}",
        version=str(manifest.version),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=model.sha256)] if model else [],
        licenses=_licence(manifest.licence),
        components=files,
        pedigree=_pedigree(manifest, parent),
        properties=_properties(digest=manifest.digest, **opsets),
    )


def _pedigree(manifest: Manifest, parent: Manifest | None) -> Any:
    """The version that it was made from, and how; else the file of another framework."""
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    kind = ComponentType.MACHINE_LEARNING_MODEL
    if manifest.parent:
        name, _, version = manifest.parent.partition(":")
        properties = _properties(digest=parent.digest) if parent else []
        ancestor = Component(
            type=kind, name=name, version=version, bom_ref=f"model:{name}:{version}", properties=properties
        )
        recipe = json.dumps(manifest.recipe, sort_keys=True) if manifest.recipe else None
        return Pedigree(ancestors=[ancestor], notes=recipe)
    if manifest.conversion:
        source = manifest.conversion
        ancestor = Component(
            type=kind, name=source.source, bom_ref=f"source:{source.source}", description=source.format
        )
        return Pedigree(ancestors=[ancestor], notes=f"exported by {source.exporter}")
    return None


def _licence(text: str | None) -> list[Any]:
    from cyclonedx.contrib.license.factories import LicenseFactory

    return [LicenseFactory().make_from_string(text)] if text else []


def _properties(**values: str) -> list[Any]:
    from cyclonedx.model import Property

    return [Property(name=f"sampan:{name}", value=value) for name, value in values.items()]
