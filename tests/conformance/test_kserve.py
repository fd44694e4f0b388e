"""KServe's own client, in the environment that `scripts/peers` makes, against `sampan serve` in both modes."""

import os
import subprocess
from pathlib import Path

import pytest

from servers import MODES, running

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / "build" / "peers" / "kserve" / "bin" / "python"


@pytest.mark.peer
@pytest.mark.parametrize("mode", MODES)
def test_kserves_client(zoo: Path, mode: str):
    if not PYTHON.exists() and os.environ.get("REQUIRE_PEERS") != "1":
        pytest.skip("build/peers/kserve is not there; scripts/peers makes it")
    with running(zoo, "--mode", mode) as server:
        command = [str(PYTHON), str(HERE / "kserve_client.py"), server.url]
        result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout == "kserve's client is content\n"
