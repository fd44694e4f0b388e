"""Install what a function needs into a folder, as small and as ready as it can be: `python install.py STEP …`.

    dependencies: pip install → trim → strip → compile → normalise          code: compile → normalise

The same input gives the same bytes. Needs Python 3.11 alone, for it runs in an image's build, whose base may have no
more than that, and on the host. Whatever fails is said in one line that begins with `install:`.
"""

import argparse
import importlib.util
import marshal
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType

EPOCH = 315532800  # 1980-01-01, the oldest that a zip can say
RETRIES = 5
CLIENT = "awslambdaric"
HERE = "{}.{}".format(*sys.version_info)  # version of this Python
DEPLOYED = "/opt/python"  # where the packages lie in a function, for tracebacks

# Relative to the target. What is left out is reached by no route, pipeline or decorator of a function.
UNUSED = (
    "bin",
    "onnxruntime/capi/libonnxruntime.so*",  # a second copy, for C programs
    "onnxruntime/tools",
    "onnxruntime/transformers",
    "onnxruntime/quantization",
    "onnxruntime/datasets",
    "onnxruntime/backend",
    "numpy/f2py",
    "numpy/distutils",
    "numpy/_pyinstaller",
    "numpy/conftest.py",
    "numpy/_core/_*_tests.*.so",
    "numpy/_core/_simd.*.so",  # for numpy's own tests
    "pydantic/v1",
    "pydantic/mypy.py",
    "google/protobuf/testdata",
    "simdjson/simdjson.cpp",
    "simdjson/util.cpp",
    "aws_lambda_powertools/event_handler",
    *(
        f"aws_lambda_powertools/utilities/{part}"
        for part in (
            *("auth_alpha", "batch", "circuit_breaker", "data_masking", "feature_flags", "idempotency"),
            *("kafka", "parser", "streaming", "validation"),
        )
    ),
)
# botocore describes every service of AWS, in 28 MB. Where the lock brings boto3, so that a function asks an endpoint,
# these stay: the endpoint's, those that credentials come from, and those that a function's own pipeline mostly asks.
SERVICES = ("sagemaker-runtime", "sts", "sso", "sso-oidc", "kms", "s3", "dynamodb", "secretsmanager", "ssm")
# Anywhere: tests, stubs, headers, static libraries, caches.
UNUSED_FOLDERS = {"__pycache__", "tests", "pkgconfig", "include"}
UNUSED_ENDINGS = (".pyi", ".pyx", ".pxd", ".pxi", ".h", ".hpp", ".a", ".pyc", "py.typed")
# Of a package's metadata licences, name and version stay (scanners read them), and the entry points, which are loaded.
METADATA_FILES = ("METADATA", "entry_points.txt")
LEGAL = ("licen", "copying", "notice", "author", "sbom")

ENTRYPOINT = """#!/bin/sh
# What AWS's base images have: the handler goes to Lambda's runtime client, under the emulator where it is there.
[ $# -eq 1 ] || { echo "the handler's name must be the only argument" >&2; exit 142; }
if [ -z "$AWS_LAMBDA_RUNTIME_API" ] && [ -x /usr/local/bin/aws-lambda-rie ]; then
    exec /usr/local/bin/aws-lambda-rie python3 -m awslambdaric "$1"
fi
exec python3 -m awslambdaric "$1"
"""

NETWORK = re.compile(
    r"NewConnectionError|ConnectTimeout|ReadTimeout|ConnectionError|ConnectionReset|Connection (?:broken|refused|reset)"
    r"|NameResolutionError|Temporary failure in name resolution|SSLError|CERTIFICATE_VERIFY_FAILED|ProxyError"
    r"|Could not fetch URL|dns error|error sending request|Failed to fetch|tcp connect error|timed out",
    re.IGNORECASE,
)
CAUSE = re.compile(r"\[Errno -?\d+\] [\w ]+|certificate verify failed: [\w -]+|Cannot connect to proxy")
NO_MATCH = (
    re.compile(r"No matching distribution found for ([\w.-]+)==(\S+)"),  # pip
    re.compile(r"Because (?:there is no version of )?([\w.-]+)(?:\{[^}]*\})?==(\S+) (?:has no|and)"),  # uv
)
NO_SPACE = re.compile(r"No space left on device|os error 28")
HASHES = re.compile(r"DO NOT MATCH THE HASHES|Hash mismatch", re.IGNORECASE)


class InstallError(Exception):
    """A sentence for the person."""


def install_dependencies(
    target: Path, requirements: Sequence[Path], platform: str | None = None, python_version: str | None = None
) -> None:
    """Install exact locks into an empty folder, reduced to what a function can reach.

    Args:
        target: the folder; it is made.
        requirements: locks with hashes.
        platform: of the wheels, such as manylinux_2_28_x86_64; None: this machine's.
        python_version: of the wheels, such as 3.12; None: this interpreter's. Bytecode is written where an
            interpreter of that version is here.

    Raises:
        InstallError: no network, no wheel for the target, no space; one sentence.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        command = _installer(Path(scratch), platform, python_version)
        files = [part for path in requirements for part in ("--requirement", str(path))]
        options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", str(target)]
        _run([*command, *options, *files], platform, python_version)
    trim(target)
    strip(target)
    interpreter = _interpreter(python_version)
    if interpreter == sys.executable:
        compile_dependencies(target)
    elif interpreter:
        subprocess.run([interpreter, __file__, "bytecode", str(target)], check=True)
    normalise(target)


def install_code(root: Path) -> None:
    """Add bytecode beside every source file below a folder, and normalise it."""
    for source in _walk(root, ".py"):
        cache = Path(importlib.util.cache_from_source(str(source)))
        cache.parent.mkdir(exist_ok=True)
        _compile(source, cache, "/" + source.relative_to(root).as_posix())
    normalise(root)


def trim(target: Path) -> None:
    """Remove what no function reaches."""
    for pattern in UNUSED:
        for path in target.glob(pattern):
            _remove(path)
    _trim_services(target)
    for folder, names, files in os.walk(target, topdown=True):
        here = Path(folder)
        for name in [name for name in names if name in UNUSED_FOLDERS]:
            shutil.rmtree(here / name)
            names.remove(name)
        for name in files:
            if name.endswith(UNUSED_ENDINGS) or (folder.endswith(".dist-info") and not _kept_metadata(name)):
                (here / name).unlink()
    for empty in sorted((path for path in target.rglob("*") if path.is_dir()), reverse=True):
        if not any(empty.iterdir()):
            empty.rmdir()


def _trim_services(target: Path) -> None:
    """Of boto3 and botocore the services that a function asks; files beside them hold for all of them."""
    if not (target / "boto3").is_dir():
        return
    for path in target.glob("boto*/data/*/"):
        if path.is_dir() and path.name not in SERVICES:
            _remove(path)
    for path in (*target.glob("botocore/data/*/*/examples-1.json*"), *target.glob("boto3/examples")):
        _remove(path)


def strip(target: Path) -> None:
    """Cut debug information off libraries: what lies behind everything that the program headers load.

    Section headers go with it, which only debuggers and linkers read. Libraries without debug information stay
    untouched. Source: System V ABI, "Object Files", 64-bit little-endian.
    """
    for path in _walk(target, ".so"):
        data = path.read_bytes()
        if data[:6] != b"\x7fELF\x02\x01" or b".debug_info\0" not in data:
            continue
        offset, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
        headers = [struct.unpack_from("<IIQQQQ", data, offset + index * size) for index in range(count)]
        end = max(offset + count * size, *(start + length for _, _, start, _, _, length in headers))
        header = bytearray(data[:64])
        struct.pack_into("<Q", header, 40, 0)  # e_shoff
        struct.pack_into("<HHH", header, 58, 0, 0, 0)  # e_shentsize, e_shnum, e_shstrndx
        path.unlink()  # it may be a hard link into a cache
        path.write_bytes(bytes(header) + data[64:end])


def compile_dependencies(target: Path) -> None:
    """Replace sources by bytecode, named as PEP 3147 says where there is no source."""
    for source in _walk(target, ".py"):
        if _compile(source, source.with_suffix(".pyc"), f"{DEPLOYED}/{source.relative_to(target).as_posix()}"):
            source.unlink()


def normalise(root: Path) -> None:
    """One modification time, modes 0644 and 0755, so that the same input makes the same layer."""
    for folder, names, files in os.walk(root, topdown=False):
        for name in (*names, *files):
            _normalise(Path(folder, name))
    _normalise(root)


def _normalise(path: Path) -> None:
    """Of one path; what is right already is not touched, or a layer above would hold it again."""
    facts = path.stat()
    mode = 0o755 if path.is_dir() or path.suffix == ".sh" else 0o644
    if facts.st_mode & 0o7777 != mode:
        path.chmod(mode)
    if facts.st_mtime_ns != EPOCH * 10**9:
        os.utime(path, (EPOCH, EPOCH))


def has_client() -> bool:
    """Whether this Python has Lambda's runtime client."""
    return importlib.util.find_spec(CLIENT) is not None


def _write_entrypoint(path: Path) -> None:
    """Give a root file system the entrypoint that AWS's bases have, where this one has none, and normalise it."""
    if not Path("/", path.name).exists():
        path.write_text(ENTRYPOINT)
    normalise(path.parent)


def _kept_metadata(name: str) -> bool:
    return name in METADATA_FILES or any(word in name.lower() for word in LEGAL)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _walk(root: Path, ending: str) -> Iterator[Path]:
    """Files in a fixed order; those of an ABI such as `.cpython-311.so` and `.so.1` count as `.so`."""
    for folder, names, files in os.walk(root):
        names.sort()
        for name in sorted(files):
            if name.endswith(ending) or (ending == ".so" and ".so." in name):
                yield Path(folder, name)


def _compile(source: Path, cache: Path, shown: str) -> bool:
    """Write bytecode that is never compared with its source (PEP 552); False: the file is for another Python."""
    data = source.read_bytes()
    try:
        with warnings.catch_warnings(action="ignore"):
            code = compile(data, shown, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError):
        return False
    held = list(_parts(code))
    flags = struct.pack("<I", 1)  # by hash, unchecked
    cache.write_bytes(importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(data) + marshal.dumps(code))
    held.clear()
    return True


def _parts(value: object) -> Iterator[object]:
    """Everything in a code object.

    marshal marks what is referred to more than once, also by this process; when all of it is held, all is marked,
    and the bytes hang on the source alone.
    """
    yield value
    if isinstance(value, CodeType):
        names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
        tables = (value.co_filename, value.co_name, value.co_qualname, value.co_linetable, value.co_exceptiontable)
        value = (value.co_consts, *names, *tables)
    if isinstance(value, tuple | frozenset):
        for part in value:
            yield from _parts(part)


def _interpreter(version: str | None) -> str | None:
    """A Python of the target's version that runs here."""
    if version in (None, HERE):
        return sys.executable
    found = shutil.which(f"python{version}")
    runs = found and subprocess.run([found, "-c", "pass"], capture_output=True, check=False).returncode == 0
    return found if runs else None


def _installer(scratch: Path, platform: str | None, python_version: str | None) -> list[str]:
    """The command that installs: this Python's pip, uv, or the pip of a throw-away environment."""
    if importlib.util.find_spec("pip") is not None:
        return _pip(sys.executable, platform, python_version)
    uv = shutil.which("uv")
    if uv is not None:
        return _uv(uv, platform, python_version)
    made = subprocess.run([sys.executable, "-m", "venv", str(scratch / "venv")], capture_output=True, text=True)
    if made.returncode:
        raise InstallError(f"{sys.executable} has neither pip nor venv; install one (Debian: python3-venv), or uv")
    return _pip(str(scratch / "venv" / "bin" / "python"), platform, python_version)


def _pip(python: str, platform: str | None, python_version: str | None) -> list[str]:
    quiet = ["--quiet", "--no-compile", "--disable-pip-version-check", "--no-warn-script-location", "--no-input"]
    root = ["--root-user-action", "ignore", "--retries", str(RETRIES)]
    wheels = [part for tag in _platforms(platform) for part in ("--platform", tag)] if platform else []
    wheels += ["--python-version", python_version, "--implementation", "cp"] if python_version else []
    return [python, "-m", "pip", "install", *quiet, *root, *wheels]


def _uv(uv: str, platform: str | None, python_version: str | None) -> list[str]:
    wheels = ["--python-platform", _uv_platform(platform)] if platform else []
    wheels += ["--python-version", python_version] if python_version else []
    return [uv, "pip", "install", "--quiet", "--no-config", "--link-mode", "copy", "--python", sys.executable, *wheels]


def _platforms(platform: str) -> list[str]:
    """A policy and all that it includes: manylinux_2_28_x86_64, manylinux_2_27_x86_64 … (PEP 600)."""
    match = re.fullmatch(r"manylinux_2_(\d+)_(\w+)", platform)
    if not match:
        return [platform]
    policies = [f"manylinux_2_{minor}_{match[2]}" for minor in range(int(match[1]), 4, -1)]
    return [*policies, *(f"{legacy}_{match[2]}" for legacy in ("manylinux2014", "manylinux2010", "manylinux1"))]


def _uv_platform(platform: str) -> str:
    """manylinux_2_28_x86_64 as uv says it: x86_64-manylinux_2_28."""
    machine = "aarch64" if platform.endswith("aarch64") else "x86_64"
    return f"{machine}-{platform.removesuffix('_' + machine)}"


def _run(command: list[str], platform: str | None, python_version: str | None) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    sys.stderr.write(done.stdout)
    if done.returncode:
        raise InstallError(_reason(done.stdout, platform, python_version))


def _reason(text: str, platform: str | None, python_version: str | None) -> str:
    """Why pip or uv failed, in one sentence."""
    if NO_SPACE.search(text):
        return "no space left on the disk while the dependencies were installed; free some and try again"
    if NETWORK.search(text):
        said = CAUSE.findall(text) or NETWORK.findall(text)
        return f"the package index cannot be reached after {RETRIES} retries ({said[-1].strip()}); is there a network?"
    if HASHES.search(text):
        return "a downloaded wheel is not the one of the lock, its hash differs; ask who changed it, or lock anew"
    match = next((found for pattern in NO_MATCH if (found := pattern.search(text))), None)
    if match:
        return f"{match[1]} {match[2]} has no wheel for {_target(platform, python_version)}; choose another base image"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"the dependencies cannot be installed: {(lines or ['no reason was given'])[-1][:300]}"


def _target(platform: str | None, python_version: str | None) -> str:
    """The target in words: Python, architecture, C library."""
    python = python_version or HERE
    if platform:
        return f"Python {python} on {platform}"
    try:
        library = os.confstr("CS_GNU_LIBC_VERSION") or "an unknown C library"
    except (AttributeError, ValueError, OSError):
        library = "an unknown C library"
    return f"Python {python} on {os.uname().machine} with {library}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Install a function's dependencies, or compile its code.")
    steps = parser.add_subparsers(dest="step", required=True)
    dependencies = steps.add_parser("dependencies", help="install locks into a folder")
    dependencies.add_argument("target", type=Path)
    dependencies.add_argument("--requirement", type=Path, action="append", required=True)
    dependencies.add_argument("--client", type=Path, help="lock of Lambda's runtime client, for where there is none")
    dependencies.add_argument("--entrypoint", type=Path, help="write Lambda's entrypoint there unless / has one")
    dependencies.add_argument("--platform")
    dependencies.add_argument("--python-version")
    others = {"code": "compile our code", "bytecode": "compile installed packages", "normalise": "set times and modes"}
    for step, words in others.items():
        steps.add_parser(step, help=words).add_argument("target", type=Path)
    return parser


STEPS = {"code": install_code, "bytecode": compile_dependencies, "normalise": normalise}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.step in STEPS:
            STEPS[options.step](options.target)
        else:
            locks = [*options.requirement, *([options.client] if options.client and not has_client() else [])]
            install_dependencies(options.target, locks, options.platform, options.python_version)
            if options.entrypoint:
                _write_entrypoint(options.entrypoint)
    except InstallError as error:
        print(f"install: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"install: {error.filename or options.target} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
