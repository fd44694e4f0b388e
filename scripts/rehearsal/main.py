"""What `scripts/rehearse` does: the life of a deployed model, step by step, with the time of each.

    bootstrap → deploy → ask (no key, key, too often) → new version → candidate → promote → roll back → usage → destroy

The answers of the deployed function are held against those of the handler in this process, byte for byte.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from api import Answer, Deployed, check, find
from emulator import ACCOUNT, REGION, Emulator, clean, emulated, push_images
from sampan.emulation.artefacts import Artefacts
from sampan.emulation.compare import HandlerTarget
from sampan.emulation.requests import Ask, golden_asks
from sampan.stacks.names import Names
from sampan.store import Version, open_store

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build" / "rehearsal"
REAL = ROOT / "build" / "real" / "magika"
CDK = ROOT / "build/cdk-cli/node_modules/.bin/cdk"
MINISTACK = ROOT / "build/ministack/bin/ministack"
SAMPAN = Path(sys.executable).with_name("sampan")
NAME, STAGE = "magika", "dev"
SAMPLES = 8  # golden samples that are asked in every form
METADATA = f"/v2/models/{NAME}"
TENANTS = [{"name": "acme", "rate": 1000, "burst": 1000}, {"name": "slow", "rate": 1, "burst": 1}]


@dataclass
class Steps:
    """What was done, and the seconds that it took."""

    taken: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        say(f"\n[{len(self.taken) + 1}] {title}")
        start = time.perf_counter()
        yield
        self.taken.append((title, time.perf_counter() - start))
        say(f"    {self.taken[-1][1]:.1f} s")


@dataclass(frozen=True)
class Project:
    """A scratch project, and the emulated AWS that it is deployed to."""

    folder: Path
    emulator: Emulator
    base: str

    def run(self, *command: str | Path) -> str:
        """Standard output of a command in the project; its words go through to the terminal."""
        say(f"    $ {' '.join(str(part).replace(f'{SAMPAN}', 'sampan') for part in command)}")
        environment = self.emulator.environment | {"SAMPAN_BASE_IMAGE": self.base, "SAMPAN_CDK": str(CDK)}
        done = subprocess.run(
            list(map(str, command)), cwd=self.folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
        check(done.returncode == 0, f"exit {done.returncode}; what went wrong stands above")
        return done.stdout.strip()

    def sampan(self, *arguments: str | Path) -> str:
        return self.run(SAMPAN, *arguments)

    def version(self) -> Version:
        """The version that the function serves."""
        return self._artefacts().version

    def asks(self) -> tuple[list[Ask], list[Answer]]:
        """Requests on the packaged version's golden samples, and what the handler in this process answers."""
        artefacts = self._artefacts()
        asks = golden_asks(artefacts.version.golden()[:SAMPLES], artefacts.context.manifest)
        local = HandlerTarget(artefacts)
        return asks, [local.answer(ask.request) for ask in asks]

    def _artefacts(self) -> Artefacts:
        return Artefacts(self.folder, open_store(self.folder / "model_store/models"), NAME, base=self.base)


def main() -> None:
    options = _options()
    clean(OUT)
    steps = Steps()
    with emulated(MINISTACK, OUT) as emulator:
        os.environ.update(emulator.environment)
        base = options.base or (ROOT / "build/containers/base").read_text().strip()
        _rehearse(Project(OUT / "project", emulator, base), steps)
    for title, seconds in steps.taken:
        print(f"{seconds:6.1f} s  {title}")


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/rehearse", description="A deployed model's life, on an emulated AWS."
    )
    parser.add_argument("--base", help="base image of the function (default: the one of scripts/containers)")
    return parser.parse_args()


def _rehearse(project: Project, steps: Steps) -> None:
    with steps.step("A project with a real model: magika as it came (1), and compressed (2)"):
        _make(project)
    with steps.step("Bootstrap the account"):
        project.run(
            CDK, "bootstrap", f"aws://{ACCOUNT}/{REGION}", "--no-notices", "--app", f"{sys.executable} -m sampan.stacks"
        )
    with steps.step("Package, and plan"):
        project.sampan("deploy", "--dry-run")
        push_images(project.folder / "build/cdk" / STAGE / "out", OUT / "images.log")
    with steps.step("Deploy"):
        project.sampan("deploy", "--yes", "--no-package")
    emulator = project.emulator
    deployed = find(Names("sampan", STAGE), emulator.address, emulator.log)
    with steps.step("Ask with a key (the bytes of the handler here), and without (403)"):
        say(f"    {deployed.compare(*project.asks())} answers are the same bytes")
        deployed.triton(NAME, project.version().golden()[0])
        deployed.refused(METADATA)
    with steps.step("Ask too often (429)"):
        deployed.throttled(METADATA)
    with steps.step("Deploy the compressed version as candidate; live stays"):
        project.sampan("promote", f"{NAME}:2", "--why", "smaller")
        project.sampan("deploy", "--dry-run")
        push_images(project.folder / "build/cdk" / STAGE / "out", OUT / "images.log")
        project.sampan("deploy", "--yes", "--no-package", "--no-promote")
        check(deployed.version(NAME) == "1", "the candidate is live already")
    with steps.step("Promote it: golden samples first, then one alias move"):
        _moved(project, deployed, "promote", f"{NAME}:2", "2")
    say(f"    {deployed.compare(*project.asks())} answers are the same bytes")
    with steps.step("Roll back: one command, one alias move"):
        _moved(project, deployed, "rollback", NAME, "1")
    with steps.step("Usage of the month"):
        _count(project, deployed.answered)
    with steps.step("Destroy; the store stays until it is named"):
        project.sampan("destroy", "--yes")
        check(deployed.has_bucket(), "the store's bucket is gone")
        project.sampan("destroy", "--yes", "--delete-store", "--confirm", deployed.bucket)
        check(not deployed.stacks() and not deployed.has_bucket(), f"left: {deployed.stacks()} {deployed.bucket}")


def _moved(project: Project, deployed: Deployed, verb: str, ref: str, version: str) -> None:
    before = deployed.moves(NAME)
    project.sampan(verb, ref, "--stage", STAGE, "--why", "a rehearsal")
    check(deployed.version(NAME) == version, f"version {deployed.version(NAME)} answers, not {version}")
    moves = deployed.moves(NAME) - before
    check(moves == 1, f"the alias was moved {moves} times, not once")


def _count(project: Project, asked: int) -> None:
    """Every request that reached the function is in the bill; golden samples that were replayed are there too."""
    usage = json.loads(project.sampan("usage", "-o", "json"))
    calls = usage["total"]["calls"]
    check(calls >= asked, f"{calls} calls were counted, {asked} were made")
    say(f"    {calls} calls, {asked} of them ours")


def _make(project: Project) -> None:
    """The project's folder: the function, a stage with two tenants, a store whose live version is the source."""
    shutil.copytree(ROOT / "functions" / NAME, project.folder / "functions" / NAME)
    app = json.loads((ROOT / "cdk.json").read_text())
    app["context"]["stages"] = {STAGE: {"api": {"tenants": TENANTS}}}
    (project.folder / "cdk.json").write_text(json.dumps(app, indent=2))
    options = ["--samples", REAL / "samples", "--labels", REAL / "labels.txt", "--pipeline", REAL / "pipeline.toml"]
    project.sampan("add", REAL / "model.onnx", "--name", NAME, "--task", "classification", *options)
    project.sampan("promote", f"{NAME}:1", "--why", "as it came")
    project.sampan("compress", NAME, "--recipe", "dynamic-int8", "--gate", "top1_agreement>=0.97", "--fast")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
