"""Estimators in a file: pickles of `pickle` and `joblib`, read only with --trust, and skops files, which hold no code.

read → what is inside → its framework's worker
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampan.convert.workers.run import Export, Task

FAMILIES = {"sklearn": "from_sklearn", "xgboost": "from_xgboost", "lightgbm": "from_lightgbm"}
PACKAGES = ("scikit-learn", "xgboost", "lightgbm")
UNREADABLE = (AttributeError, pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, ImportError)


def export(task: Task) -> Export:
    named = Path(task.source).name
    task.say("reading the source")
    model = read_skops(task) if task.format == "skops" else read_pickle(task)
    worker = next((FAMILIES[name] for name in families(model) if name in FAMILIES), None)
    if worker is None:
        kind = f"{type(model).__module__.split('.')[0]}.{type(model).__name__}"
        raise task.refusal(f"{named} holds a {kind}; estimators of {', '.join(PACKAGES)} are taken")
    return task.load(worker).export_object(task, model)  # type: ignore[no-any-return]


def families(model: Any) -> list[str]:
    """Packages of the class and what it derives from, its own first."""
    return [kind.__module__.split(".")[0] for kind in type(model).__mro__]


def read_skops(task: Task) -> Any:
    """A skops file, which says what types it needs; those that are no framework's own need trust."""
    io = task.need(skops__io="skops")
    unknown = io.get_untrusted_types(file=task.source)
    if unknown:
        task.danger(
            f"{Path(task.source).name} holds types that can run code when they are loaded ({', '.join(unknown[:3])})"
        )
    return io.load(task.source, trusted=unknown)


def read_pickle(task: Task) -> Any:
    """joblib reads what it wrote itself and what `pickle` wrote."""
    named = Path(task.source).name
    joblib = task.need(joblib="joblib")
    try:
        return joblib.load(task.source)
    except ModuleNotFoundError as error:
        missing = str(error.name).split(".")[0]
        raise task.refusal(
            f"{named} was pickled with '{missing}', which is not installed; name the environment with --python"
        ) from error
    except UNREADABLE as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise task.refusal(
            f"{named} cannot be unpickled ({reason}); use the versions of Python and libraries that wrote it"
        ) from error
