"""The CDK's command line: found, run, followed. The only module that runs it.

    cdk synth → build/cdk/<stage>/out → cdk deploy; what it prints → build/cdk/<stage>/{synth,deploy}.log

What CloudFormation can be asked is asked there; its words are read only where there is nothing to ask.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sampan.contract.errors import NotFoundError, StoreError
from sampan.rollout.cloud import RolloutError
from sampan.rollout.refusals import explain

VERSION = "2.1148.1"  # as in infra/package.json; npm's newest tag is not the newest version
LOCAL = "build/cdk-cli/node_modules/.bin/cdk"
WORK = "build/cdk"
_ABSENT = (
    f"the CDK's command line is not found ({{where}}); install it with npm install --prefix build/cdk-cli "
    f"aws-cdk@{VERSION}, or name one with --cdk or SAMPAN_CDK"
)
_ENVIRONMENT = {"JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20", "CDK_DISABLE_CLI_TELEMETRY": "true"}
_END = 10  # s that the command gets to end after Ctrl-C
# `sampan-dev-Serve |  3/12 | 9:04:25 AM | CREATE_COMPLETE | AWS::Lambda::Function | Magika (…)`
_EVENT = re.compile(r"^\s*(\S+) *\| *(\d+)(?:/(\d+))? *\|[^|]*\| *([A-Z_]+) *\| *(\S+) *\| *(.*)$")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Event:
    """A line of progress: the stack, how many of its resources are done (of how many), and words."""

    words: str
    stack: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Cdk:
    """The command line for one stage of one project.

    Attributes:
        program: path of the command.
        project: folder with cdk.json.
    """

    program: str
    project: Path
    stage: str

    @property
    def folder(self) -> Path:
        return self.project / WORK / self.stage

    @property
    def assembly(self) -> Path:
        """What `synth` writes."""
        return self.folder / "out"

    def synth(self, watch: Callable[[Event], None] = lambda event: None) -> Path:
        """Synthesise the stacks; needs neither credentials nor network.

        Raises:
            RolloutError: the app does not synthesise, with what it says.
        """
        app = f"{shlex.quote(sys.executable)} -m sampan.stacks"
        self._run(["synth", "-q", "--app", app, "-c", f"stage={self.stage}", "-o", str(self.assembly.resolve())], watch)
        return self.assembly

    def deploy(self, parameters: Mapping[str, str], watch: Callable[[Event], None] = lambda event: None) -> None:
        """Deploy what was synthesised.

        Args:
            parameters: of stacks, by `stack:name`.

        Raises:
            RolloutError: the deployment failed, or the connection was lost; says what to try.
        """
        given = [word for name, value in parameters.items() for word in ("--parameters", f"{name}={value}")]
        how = ["--all", "--require-approval", "never", "--progress", "events"]
        self._run(["deploy", "-a", str(self.assembly.resolve()), *how, *given], watch)

    def _run(self, arguments: Sequence[str], watch: Callable[[Event], None]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [self.program, *arguments, "--no-notices"]
        try:
            process = subprocess.Popen(
                command,
                cwd=self.project,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={**os.environ, **_ENVIRONMENT},
                start_new_session=True,  # so that Ctrl-C is ours
            )
        except OSError as error:
            raise NotFoundError(_ABSENT.format(where=f"{self.program}: {error.strerror}")) from error
        log = self.folder / f"{arguments[0]}.log"
        try:
            _follow(process, log, watch)
        finally:
            _end(process)
        if process.returncode:
            raise RolloutError(explain(arguments[0], log.read_text("utf-8", "replace"), log))


def find_cdk(project: Path, stage: str, named: str | None = None) -> Cdk:
    """The command that was named, else the project's own, else the one on the PATH.

    Raises:
        NotFoundError: there is none; says how to get it.
    """
    local = project / LOCAL
    program = shutil.which(named) if named else str(local.resolve()) if local.exists() else shutil.which("cdk")
    if program is None:
        raise NotFoundError(_ABSENT.format(where=named or f"neither {local} nor cdk on the PATH"))
    return Cdk(str(Path(program).absolute()), project, stage)


def read_event(line: str) -> Event:
    """A line that the command prints; its counts where it is about a resource of a stack."""
    found = _EVENT.match(line)
    if found is None:
        return Event(line.strip())
    stack, done, total, status, kind, name = found.groups()
    return Event(f"{stack}: {status} {kind} {name.strip()}", stack, int(done), int(total or 0))


def _follow(process: "subprocess.Popen[str]", file: Path, watch: Callable[[Event], None]) -> None:
    """Until the command ends: every line into the log, and told."""
    assert process.stdout is not None
    try:
        with file.open("w", encoding="utf-8") as log, process.stdout:
            for line in process.stdout:
                plain = _COLOUR.sub("", line)
                log.write(plain)
                log.flush()
                if plain.strip():
                    watch(read_event(plain))
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror}") from error
    process.wait()


def _end(process: "subprocess.Popen[str]") -> None:
    """Nothing of the command outlives this one."""
    if process.poll() is not None:
        return
    for how in (signal.SIGTERM, signal.SIGKILL):
        os.killpg(process.pid, how)
        try:
            process.wait(_END)
            return
        except subprocess.TimeoutExpired:
            continue
