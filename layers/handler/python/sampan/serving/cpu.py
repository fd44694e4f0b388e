"""The CPU of this process: its name, and the instruction sets that decide what int8 answers and how fast.

Without VNNI, x86-64 adds pairs of 8-bit products in 16 bits, which saturate. Source:
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html (when to use reduce_range).
"""

import platform
from dataclasses import dataclass
from pathlib import Path

from sampan.contract.manifest import VNNI_ONLY

INFO = Path("/proc/cpuinfo")
SETS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


@dataclass(frozen=True, slots=True)
class Cpu:
    """`sets` are those of `SETS` that it has; None where the system does not say."""

    name: str
    sets: tuple[str, ...] | None

    @property
    def vnni(self) -> bool | None:
        """Whether 8-bit products are added in 32 bits; None where the system does not say."""
        return None if self.sets is None else not {"avx512_vnni", "avx_vnni"}.isdisjoint(self.sets)

    def __str__(self) -> str:
        return self.name if self.sets is None else f"{self.name} ({' '.join(self.sets) or 'no AVX2'})"


def live(info: Path = INFO) -> Cpu:
    """The CPU this runs on; `info` is Linux's description of it."""
    try:
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    except OSError:
        lines = {}
    facts = {key.strip(): value.strip() for key, value in lines.items()}
    name = facts.get("model name") or platform.processor() or platform.machine()
    if "flags" not in facts:
        return Cpu(name, None)
    flags = facts["flags"].split()
    return Cpu(name, tuple(known for known in SETS if known in flags))


def here(safe: str | None, cpu: Cpu | None = None) -> str:
    """Which CPU a replay ran on, and whether a version with this stamp was to be expected to differ on it."""
    cpu = cpu or live()
    words = f"this CPU is {cpu}"
    if safe is None:
        return words
    return f"{words}, the version is safe on: {safe}" + (
        ", and this one has no VNNI" if safe == VNNI_ONLY and cpu.vnni is False else ""
    )
