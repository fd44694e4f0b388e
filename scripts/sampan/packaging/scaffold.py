"""A new function's folder: `function.toml` with its comments and, when asked, a `pipeline.py`; all or nothing."""

import json
import os
from pathlib import Path

from sampan.contract.errors import ConflictError
from sampan.contract.function import FunctionConfig
from sampan.packaging.files import new_folder
from sampan.packaging.pipeline_file import pipeline_text
from sampan.packaging.project import FILE, FUNCTIONS, check_name
from sampan.store import Version

PIPELINE = "pipeline.py"
SCHEMA = Path("docs") / "function.schema.json"  # of this repository; editors that know it complete and check

_TEXT = """\
{schema}# {name}: `sampan package {name}` builds it, `sampan emulate {name}` runs it as Lambda would.
# What stands behind a # is the default.

model = {model}
placement = {placement} # lambda (image), lambda-zip, sagemaker, sagemaker-async, auto
memory = {memory} # MB; 1,769 MB are one vCPU
python = {python}
{pipeline}{gates}
# description = "one line for people"
# timeout = {default.timeout} # seconds
# architecture = "{default.architecture}" # or "arm64"
# extras = [] # beside those that the model needs: text, image, zstd, trace, encrypt
# snapstart = false # restore from a snapshot instead of a cold start
# golden_check = {default.golden_check} # golden samples to reproduce at every cold start
# trace = false # X-Ray

# [environment] # no secrets
# LOG_LEVEL = "INFO"

# [budgets] # over one of these `sampan package` fails
# image_mb = {budgets.image_mb:g} # compressed, on top of the base image
# unpacked_mb = {budgets.unpacked_mb:g}
# files = {budgets.files}
# cold_start_ms = {budgets.cold_start_ms:g} # process start to first answer
# memory_mb = {memory} # peak; default: the function's memory
# p95_ms = 100 # of warm invocations; default: not limited
# payload_mb = {budgets.payload_mb:g}

# [endpoint] # of the placements sagemaker and sagemaker-async
# instance = "{endpoint.instance}"
# min = 1 # instances; default: 0 where it scales to zero, as an asynchronous one does
# max = {endpoint.max}
# scale_to_zero = false # real time: who asks first then gets 503 for the minutes that an instance takes
# invocations = {endpoint.invocations} # requests a minute for each instance (real time)
# max_concurrency = {endpoint.max_concurrency} # requests at once on an instance (asynchronous)
# startup = {endpoint.startup} # seconds until a container is ready
# memory = {endpoint.memory} # MB for a copy of the model (with scale_to_zero)
# accelerators = {endpoint.accelerators} # GPUs for a copy of the model (with scale_to_zero)
# engine = "{endpoint.engine}" # or "triton"
# batch = {endpoint.batch} # most rows that requests which come together are run as; 1: each by itself
# batch_delay_ms = {endpoint.batch_delay_ms:g} # most that a request waits for others
# sessions = {endpoint.sessions} # sessions of the model on an instance
# tensorrt = false # on GPUs, where the container has it
# fallback = "" # REF of a smaller version, which the function runs itself while the endpoint does not answer

# [workload] # what `sampan plan {name}` plans for; the placement auto needs it
# rate = "2000/day" # requests in the mean: 5 (a second), 30/min, 200/h
# p95_ms = 500 # 95 % are answered within this, cold starts and all
# budget = 20 # USD a month; default: not limited
# curve = "day" # or a CSV of 24 weights; default: the same all day
# bursts = ["50x10s/h"] # default: none
"""


def write_function(project: Path, name: str, version: Version, config: FunctionConfig) -> Path:
    """Write a new function, by one rename.

    Args:
        project: the folder that has, or gets, `functions/`.
        version: of the model that `config.model` names; its gates go into the file, and a pipeline is made for it.
        config: where it has a pipeline, that file is written too.

    Returns:
        The function's folder.

    Raises:
        InvalidInputError: a name that Docker or Lambda refuses.
        ConflictError: there is such a function already.
    """
    folder = project / FUNCTIONS / check_name(name)
    if folder.exists() or folder.is_symlink():
        raise ConflictError(f"{folder} is there already; edit its {FILE}, or take another name")
    with new_folder(folder) as draft:
        draft.mkdir()
        (draft / FILE).write_text(function_text(project, name, version, config), "utf-8")
        if config.pipeline:
            (draft / config.pipeline).write_text(pipeline_text(version.manifest, version.folder), "utf-8")
    return folder


def function_text(project: Path, name: str, version: Version, config: FunctionConfig) -> str:
    """The text of `function.toml`."""
    default = FunctionConfig(model=config.model)
    gates = json.dumps([entry.gate for entry in version.manifest.gates])
    above = os.path.relpath(project / SCHEMA, project / FUNCTIONS / name)
    return _TEXT.format(
        schema=f"#:schema {Path(above).as_posix()}\n" if (project / SCHEMA).is_file() else "",
        name=name,
        model=_quoted(config.model),
        placement=_quoted(config.placement),
        python=_quoted(config.python),
        memory=config.memory,
        pipeline=f"pipeline = {_quoted(config.pipeline)}\n" if config.pipeline else "",
        gates=f"gates = {gates} # what `sampan compress` must hold\n" if version.manifest.gates else "",
        default=default,
        budgets=default.budgets,
        endpoint=default.endpoint,
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
