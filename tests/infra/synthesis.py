"""Projects for the stacks, and the templates that come of them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import aws_cdk

import models
from sampan.packaging.build import Order, package
from sampan.stacks.app import add_stacks
from sampan.stacks.config import read_project
from sampan.store.add import add_model
from sampan.store.local import LocalStore

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "ab" * 32
Resource = dict[str, Any]


def flags() -> dict[str, Any]:
    """The feature flags of the repository's cdk.json."""
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    return {key: value for key, value in context.items() if key.startswith("@")}


def write_project(folder: Path, functions: Mapping[str, str], stages: Mapping[str, Any] | None = None) -> Path:
    """A project of functions, each with the text of its function.toml."""
    stages = {"dev": {}} if stages is None else stages
    (folder / "cdk.json").write_text(json.dumps({"context": {"project": "sampan", "stages": stages}}))
    for name, text in functions.items():
        (folder / "functions" / name).mkdir(parents=True)
        (folder / "functions" / name / "function.toml").write_text(text)
    return folder


def package_image(folder: Path, name: str) -> None:
    """What `sampan package --no-docker --no-measure` makes, of a tiny model with the function's name."""
    store = LocalStore(folder / "store")
    add_model(store, models.save(models.linear(), folder / f"{name}.onnx"), name=name)
    package(folder, store, name, Order(docker=False))


def package_zip(folder: Path, name: str) -> None:
    """The files that stand for a zip function; to install its dependencies would take the network."""
    built = folder / "build/functions" / name
    built.mkdir(parents=True)
    for file in ("function.zip", "layer.zip"):
        with ZipFile(built / file, "w") as archive:
            archive.writestr("python/here", file)
    (built / "package.json").write_text(json.dumps({"model": f"{name}:1", "manifest": DIGEST}))


@dataclass(frozen=True)
class Templates:
    """What an app was synthesised to."""

    folder: Path
    stage: str

    def of(self, part: str) -> dict[str, Any]:
        """A stack's template."""
        return json.loads((self.folder / f"sampan-{self.stage}-{part}.template.json").read_bytes())

    def parts(self) -> set[str]:
        return {path.name.split(".")[0].split("-")[-1] for path in self.folder.glob("*.template.json")}

    def resources(self, part: str, kind: str) -> dict[str, Resource]:
        """Resources of a kind, by logical id."""
        found = self.of(part)["Resources"].items()
        return {id: resource for id, resource in found if resource["Type"] == f"AWS::{kind}"}

    def all(self, part: str, kind: str) -> list[Resource]:
        """Properties of the resources of a kind."""
        return [resource.get("Properties", {}) for resource in self.resources(part, kind).values()]

    def one(self, part: str, kind: str, **wanted: Any) -> Resource:
        """Properties of the only resource of a kind that has these."""
        found = [item for item in self.all(part, kind) if all(item.get(key) == wanted[key] for key in wanted)]
        assert len(found) == 1, f"{len(found)} resources are {kind} with {wanted}"
        return found[0]

    def statements(self, part: str, principal: str = "lambda.amazonaws.com") -> Iterator[Resource]:
        """Every statement of the roles that a service takes, resources as text."""
        for role in self.all(part, "IAM::Role"):
            if role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": principal}:
                assert "ManagedPolicyArns" not in role
                for policy in role["Policies"]:
                    yield from policy["PolicyDocument"]["Statement"]
        for policy in self.all(part, "IAM::Policy"):
            yield from policy["PolicyDocument"]["Statement"]


def synthesise(folder: Path, out: Path, stage: str = "dev", **context: Any) -> Templates:
    app = aws_cdk.App(
        analytics_reporting=False,
        builtin_cloud_formation_validation=False,
        outdir=str(out),
        context={**flags(), **context},
    )
    add_stacks(app, read_project(folder, stage))
    app.synth()
    return Templates(out, stage)


def text(value: Any) -> str:
    """An intrinsic function as one line: `arn:<AWS::Partition>:logs:…`, references in angle brackets."""
    if not isinstance(value, dict):
        return str(value)
    ((name, given),) = value.items()
    if name == "Fn::Join":
        return given[0].join(map(text, given[1]))
    return f"<{given if name == 'Ref' else '.'.join(given)}>"


def words(items: Iterable[str] | str) -> set[str]:
    """One or several, as a set."""
    return {items} if isinstance(items, str) else set(items)
