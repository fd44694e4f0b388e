"""`python -m sampan.compress.emulated MODEL SESSION SAMPLES FOLDER`: what a model answers, one file a sample.

Runs under an emulator, which is slow and may be stopped at any time: an answer is whole when it appears.
"""

import json
import sys
from pathlib import Path

from sampan.serving.golden import Sample, read_golden, write_golden
from sampan.serving.session import OnnxSession


def main(model: str, session: str, samples: str, folder: str) -> None:
    """`session` is JSON: the session options."""
    opened = OnnxSession(Path(model), threads=1, config=json.loads(session))
    for index, sample in enumerate(read_golden(Path(samples))):
        answer = Path(folder) / f"{index:06d}.npz"
        unfinished = answer.with_suffix(".tmp")
        with unfinished.open("wb") as file:
            write_golden(file, [Sample({}, opened.run(sample.inputs))])
        unfinished.replace(answer)


if __name__ == "__main__":
    main(*sys.argv[1:5])
