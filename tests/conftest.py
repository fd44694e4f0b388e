"""Fixtures that several folders of tests share."""

import signal
from pathlib import Path

import pytest

from sampan.cli.serve import served_folders
from sampan.serving.settings import Settings
from sampan.store import open_store

# A shell without job control starts what runs in its background with SIGINT ignored, and children inherit that: the
# tests that interrupt a command would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with every kind of tiny model (`serving.build_zoo`)."""
    import serving

    return serving.build_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def served(zoo: Path):
    """Every way to the models of the zoo (`serving.Served`)."""
    import serving

    return serving.Served(served_folders(open_store(str(zoo)), ()), Settings(default="linear"))
