"""How much memory a further model may take.

Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max, memory.current, memory.stat),
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html, proc_meminfo(5).
"""

from pathlib import Path

_LIMITS = (  # limit, what is used, and what of that are files that the system can drop
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current", "inactive_file"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes until this container's limit or the machine's end, whichever is nearer; None where nobody says."""
    found = [_machine(root), *(_container(root, *names) for names in _LIMITS)]
    return min((size for size in found if size is not None), default=None)


def _machine(root: Path) -> int | None:
    kilobytes = _fields(root / "proc/meminfo").get("MemAvailable:")
    return None if kilobytes is None else kilobytes * 1024


def _container(root: Path, limit: str, used: str, droppable: str) -> int | None:
    most, now = _number(root / limit), _number(root / used)
    if most is None or now is None:
        return None
    return max(0, most - now + _fields((root / limit).parent / "memory.stat").get(droppable, 0))


def _number(path: Path) -> int | None:
    text = _text(path).strip()  # "max": no limit
    return int(text) if text.isdigit() else None


def _fields(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    lines = (line.split() for line in _text(path).splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
