"""The module that Lambda imports: `sampan.serving.function.handler`. Importing it loads the models."""

import time

_BEGIN = time.perf_counter()  # before the imports, which are a phase of the cold start

from sampan.serving.startup import start  # noqa: E402

handler = start(_BEGIN)
