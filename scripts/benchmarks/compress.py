"""Sampan's search beside onnxruntime's stock quantisers and Olive: the same models, samples, gates, one run.

    scripts/bench compress [--models build/real] [--only a,b] [--peers a,b] [--objective size|latency|cost] [--fast]
                           [--report DIR] [--cache DIR] [--out docs/benchmarks/compress.md] [-o table|json]

    prepare   an environment for each tool (build/peers, kept for the next run)
    make      each peer's model, then `sampan compress` under the model's gates, in a scratch store
    measure   all of them in the same way, against the source: paired latency on one thread, fresh load, gates, size
    report    per model: a table, the targets with what was reached, the search's front and why it ended;
              the page is written anew after each model

Needs `scripts/real-models build/real` first. Tables on stdout, words on stderr.
"""

import argparse
import json
import signal
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

import compress_page as page
from compress_page import Comparison
from paired import Result, Scale
from quantisers import PEERS, PROJECT, Peer, prepare, quantise
from report import machine
from sampan.compress.candidate import FAST, THOROUGH
from sampan.contract.errors import SampanError
from sampan.store import open_store
from searched import Searched, add, search
from servers import version
from targets import FAST_LIMIT, SEARCH_LIMIT, TARGETS, Target

TOOLS = {"ort": ("onnxruntime",), "olive": ("olive-ai", "onnxruntime", "torch")}


def main() -> int:
    options = _options()
    peers = [PEERS[name] for name in _names(options.peers)]
    done: list[Comparison] = []
    try:
        venvs = {peer.environment: prepare(peer, options.cache.resolve()) for peer in peers}
        facts = _facts(venvs, options)
        for name in _names(options.only):
            done.append(compare(TARGETS[name], peers, venvs, options))
            if options.out:
                _write(options.out, page.page(done, facts, peers))
    except (RuntimeError, SampanError) as error:
        _say(f"error: {error}")
        return 1
    if options.output == "json":
        print(json.dumps({"facts": facts, "models": [_plain(comparison) for comparison in done]}, indent=2))
    else:
        print("\n\n".join([page.summary(done), *(f"{one.target.title}\n\n{page.table(one)}" for one in done)]))
    return 0


def compare(target: Target, peers: list[Peer], venvs: dict[str, Path], options: argparse.Namespace) -> Comparison:
    """All that concerns one model; its files are gone when it is done."""
    folder, effort = (options.models / target.name).resolve(), FAST if options.fast else THOROUGH
    limit = FAST_LIMIT if options.fast else SEARCH_LIMIT
    with TemporaryDirectory(prefix="sampan-bench-") as place:
        scratch = Path(place).resolve()
        ref = add(scratch / "store", folder)
        store = open_store(str(scratch / "store"))
        scale = Scale(store, store.find(ref), folder / "samples", target, scratch, effort)
        results = [scale.source()]
        for peer in peers:
            _say(f"{target.name}: {peer.name}")
            objective = options.objective or target.objective
            made = quantise(peer, venvs[peer.environment], folder, target, scratch / peer.name, limit, objective)
            failed = Result(peer.name, made.error, seconds=made.seconds)
            results.append(failed if made.error else scale.file(peer.name, made.model, made.seconds, made.note))
        found = _search(scratch, ref, target, folder, options)
        results.append(
            scale.version("sampan", store.find(found.ref), found.seconds, found.report["winner"])
            if found.ref
            else Result("sampan", found.error, seconds=found.seconds)
        )
    return Comparison(target, results, found.report, scale.count, limit)


def _search(scratch: Path, ref: str, target: Target, folder: Path, options: argparse.Namespace) -> Searched:
    _say(f"{target.name}: sampan")
    report = (options.report / target.name).resolve() if options.report else scratch / "report"
    objective = options.objective or target.objective
    asked = ["--samples", str(folder / "samples"), "--objective", objective, *["--fast"] * options.fast]
    return search(scratch / "store", ref, target, asked, report, FAST_LIMIT if options.fast else SEARCH_LIMIT)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)


def _plain(comparison: Comparison) -> dict[str, Any]:
    """For JSON: the rows, what the targets came to, and the search's own report."""
    rows = [
        asdict(result)
        | {name: msgspec.to_builtins(getattr(result, name)) for name in ("latency", "gates", "beyond")}
        | {"holds": result.holds}
        for result in comparison.results
    ]
    checks = [asdict(check) for check in page.checks(comparison)]
    return {"model": comparison.target.name, "results": rows, "targets": checks, "report": comparison.report}


def _facts(venvs: dict[str, Path], options: argparse.Namespace) -> dict[str, str]:
    ours = [f"{name} {metadata.version(name)}" for name in ("sampan", "onnxruntime", "onnx")]
    theirs = [
        f"{environment}'s environment: " + ", ".join(f"{name} {version(venv, name)}" for name in TOOLS[environment])
        for environment, venv in venvs.items()
    ]
    words = ["scripts/bench compress", *["--fast"] * options.fast]
    words += [f"--objective {options.objective}"] if options.objective else []
    for name, all_of_them in (("only", TARGETS), ("peers", PEERS)):
        given = getattr(options, name)
        words += [f"--{name} {given}"] if given != ",".join(all_of_them) else []
    return {"machine": machine(), "versions": "; ".join([", ".join(ours), *theirs]), "command": f"`{' '.join(words)}`"}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench compress", description="Compare `sampan compress` with other quantisers."
    )
    parser.add_argument("--models", type=Path, default=PROJECT / "build" / "real", help="folder of scripts/real-models")
    parser.add_argument("--only", default=",".join(TARGETS), help=f"of {','.join(TARGETS)}; default: all")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {','.join(PEERS)}; default: all")
    parser.add_argument(
        "--objective", choices=["size", "latency", "cost"], help="of the searches; default: each model's (targets.py)"
    )
    parser.add_argument("--fast", action="store_true", help="compress --fast; searches of a minute, brief measuring")
    parser.add_argument("--report", type=Path, metavar="DIR", help="keep each search's report in DIR/MODEL")
    parser.add_argument("--cache", type=Path, default=PROJECT / "build" / "peers", help="where environments stay")
    parser.add_argument("--out", type=Path, metavar="PAGE.md", help="also write a Markdown page")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="what stdout gets")
    options = parser.parse_args()
    unknown = [name for name in _names(options.only) if name not in TARGETS]
    unknown += [name for name in _names(options.peers) if name not in PEERS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    absent = [name for name in _names(options.only) if not (options.models / name / "model.json").exists()]
    if absent:
        parser.error(f"{options.models} has no {', '.join(absent)}; run scripts/real-models {options.models}")
    return options


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
