"""The servers that are compared: an environment of its own for each, one start command, one request form.

`Running` is a server process with all its children: started in its own session, stopped as a whole.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client import HOST, Call, post
from workloads import Workload, raw, right, rows, upload, v2, v2_binary

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
START_LIMIT = 60.0  # seconds until the first right answer
Form = Callable[[Workload], Call]


@dataclass(frozen=True, slots=True)
class Server:
    """`command` may name {port}, {port2}, {port3}, {store}, {threads}; its first word is of the environment."""

    name: str
    environment: str
    command: str
    json: Form = rows
    binary: Form | None = raw
    package: str = ""

    def call(self, form: str, work: Workload) -> Call | None:
        chosen = self.json if form == "json" else self.binary
        return chosen(work) if chosen else None

    @property
    def folder(self) -> Path:
        return HERE / "peers" / self.environment


SAMPAN = "sampan --store {store} serve --port {port} --threads {threads} --log none --mode"
GUNICORN = "gunicorn --bind 127.0.0.1:{port} --workers 1 --worker-class gthread --threads 8 --log-level error app:app"
SERVERS = {
    server.name: server
    for server in (
        Server("sampan", "sampan", f"{SAMPAN} lambda", binary=v2_binary),
        Server("sampan-asgi", "sampan", f"{SAMPAN} asgi", binary=v2_binary),
        Server("flask", "flask", GUNICORN, package="gunicorn"),
        Server("flask-run", "flask", "flask --app app run --host 127.0.0.1 --port {port}"),
        Server(
            "fastapi", "fastapi", "uvicorn app:app --host 127.0.0.1 --port {port} --no-access-log", package="uvicorn"
        ),
        Server("litserve", "litserve", "python app.py {port}", binary=upload),
        Server("bentoml", "bentoml", "bentoml serve app:Model --host 127.0.0.1 --port {port}"),
        Server("mlserver", "mlserver", "mlserver start .", json=v2, binary=None),
    )
}


def prepare(server: Server, cache: Path) -> Path:
    """The server's environment, installed and compiled to bytecode; Sampan's is made anew from the project."""
    venv = cache / server.environment
    ours = server.environment == "sampan"
    wanted = str(PROJECT) if ours else (server.folder / "requirements.txt").read_text()
    stamp = venv / "installed.txt"
    if not ours and stamp.exists() and stamp.read_text() == wanted:
        return venv
    print(f"{server.environment}: installing", file=sys.stderr, flush=True)
    what = ["--no-cache-dir", str(PROJECT)] if ours else ["-r", str(server.folder / "requirements.txt")]
    shutil.rmtree(venv, ignore_errors=True)
    uv = shutil.which("uv")
    if uv:
        _run([uv, "venv", "-q", "--python", sys.executable, str(venv)])
        pip = [uv, "pip", "install", "-q", "--python", str(venv / "bin" / "python")]
        what = ["--reinstall-package", "sampan", str(PROJECT)] if ours else what
    else:
        _run([sys.executable, "-m", "venv", str(venv)])
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q"]
    _run([*pip, *what])
    _run([str(venv / "bin" / "python"), "-m", "compileall", "-q", str(venv / "lib")], check=False)
    stamp.write_text(wanted)
    return venv


def fill_store(venv: Path, work: Workload, store: Path) -> None:
    """Put the workload's model into a new store, under the name `model`."""
    _run([str(venv / "bin" / "sampan"), "--store", str(store), "add", str(work.model), "--name", "model"])


def version(venv: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run(
        [str(venv / "bin" / "python"), "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


@dataclass(slots=True)
class Running:
    """A started server; `cold` is the time from its start to its first right answer, in ms."""

    process: subprocess.Popen
    port: int
    cold: float = 0.0

    def memory(self) -> float:
        """Megabytes of all its processes: proportional set size, or resident size where that is not told."""
        return sum(_memory(pid) for pid in _tree(self.process.pid)) / 1e6

    def stop(self) -> None:
        """End the whole tree: first politely, after five seconds by force."""
        family = _tree(self.process.pid)
        for sign, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            for pid in family:
                _signal(pid, sign)
            end = time.monotonic() + patience
            while self.process.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
        self.process.wait(5)


@contextmanager
def running(server: Server, venv: Path, work: Workload, store: Path, threads: int) -> Iterator[Running]:
    """Start a server on free ports of 127.0.0.1, wait for its first right answer, stop it at the end.

    Raises:
        RuntimeError: it ends, or gives no right answer within the limit; with its last words.
    """
    ports = _free_ports(3)
    places = dict(zip(("port", "port2", "port3"), ports, strict=True), store=store, threads=threads)
    program, *rest = server.command.format(**places).split()
    log = venv / f"{server.name}.log"
    expected, call = work.expected, server.call("json", work)
    assert call is not None
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(venv / "bin" / program), *rest],
            cwd=server.folder if server.folder.exists() else venv,
            env=_environment(venv, work, threads, ports),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        server_process = Running(process, ports[0])
        try:
            _wait(server_process, call, expected, start, log)
            yield server_process
        finally:
            server_process.stop()


def _wait(server: Running, call: Call, expected: np.ndarray, start: float, log: Path) -> None:
    problem = "no connection"
    while time.perf_counter() - start < START_LIMIT and server.process.poll() is None:
        try:
            answer = post(server.port, call)
            if not right(answer, expected):
                raise RuntimeError(f"a wrong answer: {answer[:200]!r}")
            server.cold = (time.perf_counter() - start) * 1e3
            return
        except OSError as error:
            problem = str(error)
            time.sleep(0.005)
    last = log.read_text(errors="replace")[-1500:]
    raise RuntimeError(f"{server.process.args[0]} did not answer ({problem}); its last words:\n{last}")


def _environment(venv: Path, work: Workload, threads: int, ports: list[int]) -> dict[str, str]:
    """The same for all: bytecode may be written and read, the environment's programs come first."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SAMPAN"))}
    own = {
        "PATH": f"{venv / 'bin'}:{os.environ.get('PATH', '')}",
        "BENCH_MODEL": str(work.model),
        "BENCH_THREADS": str(threads),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(venv / "home"),
        "MLSERVER_HOST": HOST,
        "MLSERVER_HTTP_PORT": str(ports[0]),
        "MLSERVER_GRPC_PORT": str(ports[1]),
        "MLSERVER_METRICS_PORT": str(ports[2]),
    }
    return inherited | own


def _run(command: list[str], *, check: bool = True) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} … failed:\n{(done.stderr or done.stdout)[-1500:]}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def _tree(root: int) -> list[int]:
    """The process and its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    family = [root]
    for pid in family:
        family += children.get(pid, [])
    return family


def _memory(pid: int) -> int:
    """Bytes."""
    for name, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            lines = Path(f"/proc/{pid}/{name}").read_text().splitlines()
        except OSError:
            continue
        found = [int(line.split()[1]) for line in lines if line.startswith(field)]
        if found:
            return found[0] * 1024
    return 0


def _signal(pid: int, sign: signal.Signals) -> None:
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return
