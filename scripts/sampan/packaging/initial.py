"""A new project's folder: the shape of this repository, with nothing in it yet."""

import json
import re
from pathlib import Path

from sampan.contract.errors import ConflictError
from sampan.packaging.files import replace_file
from sampan.packaging.requirements import find_shared

CDK = "cdk.json"
MAX_NAME = 20  # characters of a project's name: it begins the names of all its functions, which have 64

_IGNORED = """\
/build/
/model_store/models/
__pycache__/
"""
_README = """\
# {name}

A Sampan project: models become functions behind HTTPS.

    sampan add model.onnx --samples samples.npz        # model_store/models: versions and aliases
    sampan compress model --gate 'top1_agreement>=0.99'
    sampan promote model:2
    sampan serve                                       # try it here, on Lambda's path

    sampan new classify --model model                  # functions/classify/function.toml
    sampan package classify                            # the image that Lambda runs, held against its budgets
    sampan deploy --stage dev                          # to AWS; stages and their options stand in cdk.json
"""


def write_project(folder: Path) -> list[Path]:
    """Write a new project; `cdk.json`, which makes the folder one, comes last.

    Args:
        folder: that is not there yet, or empty.

    Returns:
        Its files.

    Raises:
        ConflictError: there is something in the folder.
        PackagingError: it cannot be written.
    """
    folder = folder.absolute()
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise ConflictError(f"{folder} is there and not empty; name a new folder")
    texts = {
        "functions/.gitkeep": "",
        ".gitignore": _IGNORED,
        "README.md": _README.format(name=folder.name),
        CDK: _cdk(folder, project_name(folder.name)),
    }
    return [replace_file(folder / file, text.encode()) for file, text in texts.items()]


def project_name(folder: str) -> str:
    """A project's name from its folder's: small letters, digits and '-', beginning with a letter."""
    return re.sub(r"[^a-z0-9]+", "-", folder.lower()).lstrip("-0123456789")[:MAX_NAME].strip("-") or "sampan"


def _cdk(folder: Path, name: str) -> str:
    """The CDK's settings as Sampan has them, under the project's own name."""
    content = json.loads(find_shared(folder, CDK).read_bytes())
    content["context"]["project"] = name
    return json.dumps(content, indent=2) + "\n"
