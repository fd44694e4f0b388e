"""The load client, one and the same for all servers of a run: `wrk` where it is installed, else Python's.

Both keep connections open and send the next request when the answer is there (a closed loop).
"""

import http.client
import json
import shutil
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

HOST = "127.0.0.1"
TIMEOUT = 30  # seconds a request may take
LUA = """\
local file = io.open(%(body)s, "rb")
wrk.method, wrk.body = "POST", file:read("*a")
file:close()
%(headers)s
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %%d, "rate": %%f, "p50": %%f, "p95": %%f, "p99": %%f, "errors": %%d}\\n',
    summary.requests, summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3,
    latency:percentile(95) / 1e3, latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Call:
    """One POST request, and how a failure of it is recognised: any status but 200."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Load:
    """What a load run gave: answers per second, latencies in ms."""

    requests: int
    rate: float
    p50: float
    p95: float
    p99: float
    errors: int


def name() -> str:
    """The client that `load` uses here."""
    return "wrk" if shutil.which("wrk") else "Python's http.client, one process a connection"


def post(port: int, call: Call) -> bytes:
    """One request on its own connection.

    Raises:
        OSError: no connection, or a status other than 200.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT)
    try:
        connection.request("POST", call.path, call.body, call.headers)
        answer = connection.getresponse()
        body = answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"{call.path}: {error!r}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"{call.path} gave {answer.status}: {body[:200]!r}")
    return body


def load(port: int, call: Call, connections: int, seconds: int) -> Load:
    """Send the call again and again for some seconds."""
    return (_wrk if shutil.which("wrk") else _python)(port, call, connections, seconds)


def _wrk(port: int, call: Call, connections: int, seconds: int) -> Load:
    with TemporaryDirectory() as folder:
        body, script = Path(folder) / "body", Path(folder) / "post.lua"
        body.write_bytes(call.body)
        headers = "\n".join(f"wrk.headers[{json.dumps(k)}] = {json.dumps(v)}" for k, v in call.headers.items())
        script.write_text(LUA % {"body": json.dumps(str(body)), "headers": headers})
        size = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", f"{TIMEOUT}s"]
        command = ["wrk", *size, "-s", str(script), f"http://{HOST}:{port}{call.path}"]
        limit = seconds + 2 * TIMEOUT
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return Load(**json.loads(line.removeprefix("RESULT ")))


def _python(port: int, call: Call, connections: int, seconds: int) -> Load:
    with ProcessPoolExecutor(connections) as pool:
        jobs = [pool.submit(_closed_loop, port, asdict(call), seconds) for _ in range(connections)]
        parts = [job.result() for job in jobs]
    times = sorted(t for part, _ in parts for t in part)
    if not times:
        return Load(0, 0.0, *[float("nan")] * 3, sum(errors for _, errors in parts))
    quantiles = (times[min(len(times) - 1, int(len(times) * q))] * 1e3 for q in (0.5, 0.95, 0.99))
    return Load(len(times), len(times) / seconds, *quantiles, sum(errors for _, errors in parts))


def _closed_loop(port: int, call: dict, seconds: int) -> tuple[list[float], int]:
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT)
    times, errors, end = [], 0, time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        try:
            connection.request("POST", call["path"], call["body"], call["headers"])
            answer = connection.getresponse()
            answer.read()
            errors += answer.status != 200
        except (OSError, http.client.HTTPException):
            connection.close()
            errors += 1
            continue
        times.append(time.perf_counter() - start)
    return times, errors
