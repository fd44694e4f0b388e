"""From the figures of the rounds to tables: medians, 95 % intervals, ratios to Sampan.

A figure is the median over the rounds; its interval is a bootstrap of that median. A ratio is taken within
a round, where both servers ran minutes apart, and then over the rounds in the same way.
"""

import os
import platform
from pathlib import Path

import numpy as np

Figures = dict[str, dict[str, list[float]]]  # server → metric → one value a round
REFERENCE = "sampan"
TITLES = {
    "cold": "cold start, ms",
    "memory": "memory, MB",
    "json p50": "JSON p50, ms",
    "json p99": "JSON p99, ms",
    "json rate": "JSON, 8 clients, answers/s",
    "binary p50": "binary p50, ms",
    "binary p99": "binary p99, ms",
    "binary rate": "binary, 8 clients, answers/s",
}


def summary(values: list[float]) -> dict[str, float]:
    """Median with a 95 % bootstrap interval of it."""
    draws = np.random.default_rng(0).choice(values, (2000, len(values)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return {"median": float(np.median(values)), "low": float(low), "high": float(high)}


def ratio(values: list[float], reference: list[float]) -> dict[str, float]:
    return summary([a / b for a, b in zip(values, reference, strict=True)])


def summaries(figures: Figures) -> dict[str, dict[str, dict[str, float]]]:
    """Server → metric → its summary, with the ratio's summary under `ratio` where Sampan ran too."""
    answer: dict[str, dict] = {}
    for server, metrics in figures.items():
        answer[server] = {metric: summary(values) for metric, values in metrics.items()}
        for metric, reference in figures.get(REFERENCE, {}).items():
            if metric in metrics:
                answer[server][metric]["ratio"] = ratio(metrics[metric], reference)
    return answer


def table(figures: Figures) -> str:
    """Markdown: one row a server, one column a metric."""
    found = summaries(figures)
    metrics = [metric for metric in TITLES if any(metric in row for row in found.values())]
    lines = [_row(["server", *(TITLES[metric] for metric in metrics)]), _row(["---"] * (len(metrics) + 1))]
    lines += [_row([server, *(_cell(row.get(metric), server) for metric in metrics)]) for server, row in found.items()]
    return "\n".join(lines)


def page(results: dict[str, Figures], facts: dict[str, str], commands: dict[str, str]) -> str:
    """The whole Markdown page."""
    parts = [INTRODUCTION]
    for workload, figures in results.items():
        parts.append(f"## {WORKLOADS[workload]}\n\n{table(figures)}")
    parts.append("## How it was run\n\n" + "\n".join(f"- {key}: {value}" for key, value in facts.items()))
    listed = "\n".join(f"{name:<12} {command}" for name, command in commands.items())
    parts.append(f"Start commands (the same model, the same number of onnxruntime threads):\n\n```\n{listed}\n```")
    return "\n\n".join(parts) + "\n"


def machine() -> str:
    """Processor, cores and system of this machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.release().split('-')[0]}"
    return f"{names[0] if names else platform.processor()}, {cores} cores, {system}, Python {platform.python_version()}"


WORKLOADS = {
    "tiny": "A small classifier, 10 floats",
    "image": "A picture, 3 × 320 × 320 floats",
}
INTRODUCTION = """\
# Serving, side by side

`sampan serve` against the usual ways to put an ONNX model behind HTTP, on one machine. Made by
`scripts/benchmarks/serve.py`; nothing here is typed by hand. Each cell is the median over the rounds with its
95 % bootstrap interval; in bold the ratio to `sampan` in the same round. Cold start runs from the start of
the process to the first right answer; p50 and p99 with one client; memory is the sum over the server's processes
after the load (proportional set size). `sampan` is the Lambda path (every request goes through an API Gateway
event and the Lambda handler), `sampan-asgi` the same data plane as an ASGI application."""


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: dict | None, server: str) -> str:
    if value is None:
        return "n/a"
    text = f"{_number(value['median'])} [{_number(value['low'])}–{_number(value['high'])}]"
    return f"{text} **×{value['ratio']['median']:.2f}**" if "ratio" in value and server != REFERENCE else text


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
