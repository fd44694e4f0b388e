"""What Lambda gives a function of a machine, and how a process without a container is held to it.

    memory → CPU share, memory limit → cgroup (v1 or v2); where none may be made, whole cores, and what is missing said

Source: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html (one vCPU per 1,769 MB).
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from sampan.serving.settings import MEMORY_PER_CPU

MEBIBYTE = 1024 * 1024  # what Lambda calls an MB
PERIOD = 100_000  # µs over which the kernel holds a CPU quota
_FILES = {  # file of the memory limit, and of the limit with swap; cgroup v1 and v2
    1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "{limit}"),
    2: ("memory.max", "memory.swap.max", "0"),
}
_REMOVALS = 50  # tries to remove a cgroup whose processes are just ending, 10 ms apart


@dataclass(frozen=True, slots=True)
class Quota:
    """Memory in MB (of 1,048,576 bytes), vCPUs that Lambda gives for it, and how many of them this machine has."""

    memory: int
    share: float
    cpus: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What of it this machine cannot give."""
        if self.cpus >= self.share:
            return ()
        return (f"Lambda gives {self.share:.2f} vCPUs for {self.memory} MB, this machine has {self.cpus:g}",)


def quota_of(memory: int, cores: int | None = None) -> Quota:
    """The quota of a memory setting in MB on a machine of `cores` (None: this one)."""
    share = memory / MEMORY_PER_CPU
    return Quota(memory, share, min(share, float(cores or os.cpu_count() or 1)))


class Confinement:
    """A process, and all that it will start, within a quota.

    Args:
        pid: of a process that has not yet started what the quota is for.
        mounts: text of /proc/self/mountinfo; membership: text of /proc/self/cgroup.

    Attributes:
        notes: what is not limited, a sentence each.
    """

    def __init__(self, pid: int, quota: Quota, mounts: str | None = None, membership: str | None = None) -> None:
        self._groups: list[Path] = []
        self.notes: tuple[str, ...] = ()
        parents = _parents(
            Path("/proc/self/mountinfo").read_text() if mounts is None else mounts,
            Path("/proc/self/cgroup").read_text() if membership is None else membership,
        )
        name = f"sampan-{uuid4().hex[:12]}"
        unlimited = []
        for controller, apply in (("cpu", self._cpu), ("memory", self._memory)):
            version, parent = parents.get(controller, (0, None))
            if parent is None or not self._held(pid, parent / name, version, quota, apply):
                unlimited.append(controller)
        if "cpu" in unlimited:
            self.notes += (_whole_cores(pid, quota),)
        if "memory" in unlimited:
            self.notes += ("memory is not limited here: no cgroup may be made; use --level docker, or run as root",)

    @property
    def processes(self) -> set[int]:
        """What runs in it now."""
        found: set[int] = set()
        for group in self._groups:
            with suppress(OSError):
                found |= {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
        return found

    def release(self) -> None:
        """Remove its cgroups; what ran in them must have been ended."""
        for group in self._groups:
            for _ in range(_REMOVALS):
                try:
                    group.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)
        self._groups = []

    def _held(
        self, pid: int, group: Path, version: int, quota: Quota, apply: Callable[[Path, int, Quota], None]
    ) -> bool:
        try:
            group.mkdir(exist_ok=True)
            if group not in self._groups:
                self._groups.append(group)
            apply(group, version, quota)
            (group / "cgroup.procs").write_text(str(pid))
        except OSError:
            return False
        return True

    @staticmethod
    def _cpu(group: Path, version: int, quota: Quota) -> None:
        allowed = max(1000, round(quota.cpus * PERIOD))
        if version == 2:
            (group / "cpu.max").write_text(f"{allowed} {PERIOD}")
            return
        (group / "cpu.cfs_period_us").write_text(str(PERIOD))
        (group / "cpu.cfs_quota_us").write_text(str(allowed))

    @staticmethod
    def _memory(group: Path, version: int, quota: Quota) -> None:
        limit = quota.memory * MEBIBYTE
        memory, swap, value = _FILES[version]
        (group / memory).write_text(str(limit))
        with suppress(OSError):  # kernels that do not account for swap
            (group / swap).write_text(value.format(limit=limit))


def _parents(mounts: str, membership: str) -> dict[str, tuple[int, Path]]:
    """Per controller the cgroup version and the folder in which a group may be made."""
    own = {}
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        own.update({controller: path.lstrip("/") for controller in controllers.split(",")})
    found: dict[str, tuple[int, Path]] = {}
    for kind, mount, options in _mounted(mounts):
        if kind == "cgroup2":
            parent = _delegated(mount, own.get("", ""))
            for controller in ("cpu", "memory") if parent else ():
                found.setdefault(controller, (2, parent))  # type: ignore[arg-type]
        for controller in {"cpu", "memory"} & options if kind == "cgroup" else ():
            inside = mount / own.get(controller, "")
            found[controller] = (1, inside if inside.is_dir() else mount)
    return found


def _mounted(mounts: str) -> Iterator[tuple[str, Path, set[str]]]:
    """Kind, folder and options of every cgroup mount; see proc_pid_mountinfo(5)."""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = after.split()
        if fields and fields[0] in ("cgroup", "cgroup2"):
            yield fields[0], Path(before.split()[4]), set(fields[2].split(","))


def _delegated(mount: Path, own: str) -> Path | None:
    """The nearest folder above the own group whose children may have both controllers and may be made by us."""
    inside = mount / own
    for folder in (inside, *inside.parents):
        if not folder.is_relative_to(mount):
            return None
        control = folder / "cgroup.subtree_control"
        with suppress(OSError):
            if {"cpu", "memory"} <= set(control.read_text().split()) and os.access(folder / "cgroup.procs", os.W_OK):
                return folder
    return None


def _whole_cores(pid: int, quota: Quota) -> str:
    """Hold a process to whole cores, which is the next best to a share."""
    cores = sorted(os.sched_getaffinity(pid))[: math.ceil(quota.cpus)]
    os.sched_setaffinity(pid, cores)
    plural = "" if len(cores) == 1 else "s"
    return (
        f"CPU is not limited here to {quota.cpus:.2f} vCPUs but to {len(cores)} whole core{plural}: "
        "no cgroup may be made; use --level docker, or run as root"
    )
