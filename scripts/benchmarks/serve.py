"""`sampan serve` beside Flask, FastAPI, LitServe, BentoML and MLServer: same model, same client, one run.

    python scripts/benchmarks/serve.py [--peers a,b] [--workloads tiny,image] [--seconds N] [--rounds N]
                                       [--cache DIR] [--out PAGE.md] [-o table|json]

    prepare   an environment for each server, installed and compiled (build/peers, kept for the next run)
    round 0   every server once, not counted: its answers are compared with onnxruntime's
    rounds    each server in turn: start → first right answer → load by 1 and by 8 clients → memory → stop
    report    medians with intervals, ratios to Sampan within a round

Traffic goes to 127.0.0.1 only. Tables on stdout, words on stderr.
"""

import argparse
import json
import signal
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import client
import report
from servers import PROJECT, SERVERS, Running, Server, fill_store, prepare, running, version
from workloads import WORKLOADS, Workload, right

CLIENTS = 8
THREADS = 1


def main() -> int:
    options = _options()
    chosen = _chosen(options.peers, SERVERS)
    try:
        with TemporaryDirectory() as folder:
            made = {server.environment: server for server in chosen}
            made = {name: prepare(server, options.cache.resolve()) for name, server in made.items()}
            venvs = {server.name: made[server.environment] for server in chosen}
            works = [WORKLOADS[name](Path(folder)) for name in _names(options.workloads)]
            results = {work.name: compare(chosen, venvs, work, options.rounds, options.seconds) for work in works}
    except RuntimeError as error:
        _say(f"error: {error}")
        return 1
    facts = _facts(chosen, venvs, options)
    if options.output == "json":
        found = {name: report.summaries(figures) for name, figures in results.items()}
        print(json.dumps({"facts": facts, "results": found, "rounds": results}, indent=2))
    else:
        for name, figures in results.items():
            print(f"{report.WORKLOADS[name]}\n\n{report.table(figures)}\n")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report.page(results, facts, {server.name: server.command for server in chosen}))
    return 0


def compare(chosen: list[Server], venvs: dict[str, Path], work: Workload, rounds: int, seconds: int) -> report.Figures:
    """All rounds of one workload; a server that fails in one is left out, and that is said."""
    store = work.model.parent / f"store-{work.name}"
    ours = next((venvs[server.name] for server in chosen if server.environment == "sampan"), None)
    if ours:
        fill_store(ours, work, store)
    figures: report.Figures = {server.name: {} for server in chosen}
    for number in range(rounds + 1):
        for server in [server for server in chosen if server.name in figures]:
            _say(f"{work.name}: round {number} of {rounds}, {server.name}")
            try:
                with running(server, venvs[server.name], work, store, THREADS) as process:
                    found = one_round(server, process, work, seconds) if number else _check(server, process, work)
            except (RuntimeError, OSError) as error:
                _say(f"{work.name}: {server.name} is left out: {error}")
                del figures[server.name]
                continue
            for metric, value in found.items():
                figures[server.name].setdefault(metric, []).append(value)
    return figures


def one_round(server: Server, process: Running, work: Workload, seconds: int) -> dict[str, float]:
    """Every figure of one server in one round."""
    figures = {"cold": process.cold}
    for form in work.forms:
        call = server.call(form, work)
        if call is None:
            continue
        client.load(process.port, call, 1, 1)  # warm-up
        alone = client.load(process.port, call, 1, seconds)
        crowd = client.load(process.port, call, CLIENTS, seconds)
        if alone.errors or crowd.errors:
            _say(f"{server.name}: {alone.errors + crowd.errors} requests failed")
        figures |= {f"{form} p50": alone.p50, f"{form} p99": alone.p99, f"{form} rate": crowd.rate}
    return figures | {"memory": process.memory()}


def _check(server: Server, process: Running, work: Workload) -> dict[str, float]:
    """Every form's answer against onnxruntime's; no figures."""
    for form in work.forms:
        call = server.call(form, work)
        if call and not right(client.post(process.port, call), work.expected):
            raise RuntimeError(f"its answer to {form} differs from onnxruntime's")
    return {}


def _facts(chosen: list[Server], venvs: dict[str, Path], options: argparse.Namespace) -> dict[str, str]:
    versions = {}
    for server in chosen:
        for package in (server.environment, server.package, "onnxruntime"):
            with suppress(OSError, ValueError):
                versions |= {package: version(venvs[server.name], package)} if package else {}
    return {
        "machine": report.machine(),
        "client": f"{client.name()}, {options.seconds} s a load, {options.rounds} rounds, servers in turn",
        "onnxruntime threads": str(THREADS),
        "versions": ", ".join(f"{name} {number}" for name, number in sorted(versions.items())),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare `sampan serve` with other servers.")
    parser.add_argument("--peers", default=",".join(SERVERS), help=f"of {','.join(SERVERS)}; default: all")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help=f"of {','.join(WORKLOADS)}")
    parser.add_argument("--seconds", type=int, default=3, help="length of one load; default: 3")
    parser.add_argument("--rounds", type=int, default=5, help="starts of each server; default: 5")
    parser.add_argument("--cache", type=Path, default=PROJECT / "build" / "peers", help="where environments stay")
    parser.add_argument("--out", type=Path, metavar="PAGE.md", help="also write a Markdown page")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="what stdout gets")
    options = parser.parse_args()
    unknown = [n for n in _names(options.peers) if n not in SERVERS]
    unknown += [n for n in _names(options.workloads) if n not in WORKLOADS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    return options


def _chosen(names: str, servers: dict[str, Server]) -> list[Server]:
    return [servers[name] for name in _names(names)]


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # the running server was stopped on the way here
        sys.exit(130)
