"""Golden samples replayed on a deployed Lambda version, by the requests that clients send.

golden samples → V2 requests → Invoke function:version → outputs → compared as everywhere
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from sampan.aws.functions import FAILED, Functions
from sampan.aws.session import CloudError
from sampan.contract.errors import ModelError
from sampan.contract.manifest import Manifest
from sampan.contract.tensors import Array, Signature, Tensors
from sampan.emulation.requests import infer_request
from sampan.local.requests import rest_event
from sampan.rollout.answers import outputs_of
from sampan.serving.golden import Replay, Sample, replay
from sampan.serving.settings import LAMBDA_PAYLOAD
from sampan.store.protocol import Version

SAMPLES = 16  # golden samples that are replayed


class DeployedSession:
    """A version of a Lambda function (or an alias) as a session; `watch` hears of every answer.

    Args:
        passes: the function passes on what an endpoint answers, or a fallback, so that the version counts too.
    """

    def __init__(
        self,
        functions: Functions,
        function: str,
        qualifier: str,
        manifest: Manifest,
        watch: Callable[[], None],
        passes: bool = False,
    ) -> None:
        self.signature: Signature = manifest.signature
        self._functions, self._function, self._qualifier = functions, function, qualifier
        self._manifest = manifest
        self._watch = watch
        self._version = str(manifest.version) if passes else ""

    def run(self, inputs: Tensors, outputs: list[str] | None = None) -> dict[str, Array]:
        """Invoke the function.

        Raises:
            ModelError: it fails, or does not answer with tensors.
            UnavailableError: it says "later".
            CloudError: it cannot be invoked.
        """
        try:
            result = self._functions.invoke(self._function, self._qualifier, _event(inputs, self._manifest))
        except CloudError as error:
            if error.code != FAILED:
                raise
            raise ModelError(error.message) from error
        self._watch()
        answered = outputs_of(result, f"{self._function}:{self._qualifier}", self._version)
        return {name: answered[name] for name in outputs} if outputs else answered


def verify(
    functions: Functions,
    function: str,
    qualifier: str,
    version: Version,
    watch: Callable[[str], None] = lambda words: None,
    *,
    passes: bool = False,
) -> Replay:
    """Prove that a deployed Lambda version answers as its model version did when it was registered.

    Args:
        qualifier: number of the Lambda version.
        version: the model version that it serves.
        watch: hears what is being done.
        passes: as `DeployedSession` has it.

    Raises:
        ModelError: it does not reproduce the golden samples, or none of them fits into a request.
        UnavailableError: it says "later".
        CloudError: it cannot be invoked.
    """
    samples = [sample for sample in version.golden() if _fits(sample, version.manifest)][:SAMPLES]
    if not samples:
        raise ModelError(
            f"no golden sample of {version.ref} fits into a request of {LAMBDA_PAYLOAD:,} bytes, so {function} "
            "cannot be proven; add the model again with smaller --samples"
        )
    done = 0

    def answered() -> None:
        nonlocal done
        done += 1
        watch(f"{version.ref}: golden sample {done} of {len(samples)}")

    session = DeployedSession(functions, function, qualifier, version.manifest, answered, passes)
    found = replay(session, samples, version.manifest)
    if not found.passed:
        raise ModelError(
            f"{function}:{qualifier} reproduces {found.agreed} of {found.samples} golden samples of {version.ref}: "
            f"{found.difference}; nothing was moved, package and deploy it again"
        )
    return found


def _event(inputs: Tensors, manifest: Manifest) -> Mapping[str, Any]:
    return rest_event(infer_request(inputs, manifest))


def _fits(sample: Sample, manifest: Manifest) -> bool:
    return len(json.dumps(_event(sample.inputs, manifest))) <= LAMBDA_PAYLOAD
