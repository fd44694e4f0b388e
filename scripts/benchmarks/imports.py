"""What start-up costs, over a bare Python: scripts/bench imports [--rounds N]

Each line is a fresh process; rounds are interleaved and the figure is the median. Bytecode is compiled, as in
an image.
"""

import argparse
import os
import subprocess
import sys
import time

from report import machine, summary

SAMPAN = [sys.executable, "-m", "sampan.cli.main"]
WAYS = {
    "bare Python": [sys.executable, "-c", "pass"],
    "sampan --help": [*SAMPAN, "--help"],
    "sampan list": [*SAMPAN, "list"],
    "numpy + onnxruntime": [sys.executable, "-c", "import numpy, onnxruntime"],
    "the function's hot lane": [sys.executable, "-c", "import sampan.serving.handler, sampan.serving.session"],
    "with its cold lane": [
        sys.executable,
        "-c",
        "import sampan.serving.handler, sampan.serving.session, mangum, sampan.serving.asgi",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench imports", description="Milliseconds of start-up.")
    parser.add_argument("--rounds", type=int, default=11, help="interleaved rounds (default 11)")
    rounds = parser.parse_args().rounds
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(rounds + 1):
        for name, command in WAYS.items():
            start = time.perf_counter()
            subprocess.run(command, env=environment, capture_output=True, check=True)
            if number:  # the first round compiles
                times[name].append((time.perf_counter() - start) * 1000)
    print(f"{machine()}\n{'':<26}{'median, ms':>12}{'95 % interval':>20}{'over bare Python':>18}")
    base = summary(times["bare Python"])["median"]
    for name, values in times.items():
        found = summary(values)
        interval = f"{found['low']:.0f} – {found['high']:.0f}"
        print(f"{name:<26}{found['median']:>12.0f}{interval:>20}{found['median'] - base:>18.0f}")


if __name__ == "__main__":
    main()
