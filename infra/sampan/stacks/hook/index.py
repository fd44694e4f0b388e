"""CodeDeploy's hook: asks the version that is to take traffic its golden samples, and says whether it may.

    event → deployment → version → each sample asked → answers compared → Succeeded | Failed

Runs in Lambda's managed Python with boto3 alone, before and after traffic. `golden.json`, which `sampan package`
writes, comes as a layer. Whatever happens, CodeDeploy is told: it would wait for an hour.

Source: https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-hooks.html
"""

import base64
import json
import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

GOLDEN = Path("/opt/golden.json")
ROLLED_BACK = "codeDeployRollback"  # creator of a deployment that takes another one back
FLOATS = ("FP16", "FP32", "FP64")  # compared within the tolerance; everything else must be equal
MARGIN = 15  # seconds that are left for telling CodeDeploy
ATTEMPTS, LONGEST = 3, 600  # of one call, and its seconds with all of them


class Unfit(Exception):
    """The version must not take traffic; says why."""


class Answer(NamedTuple):
    """What the function answered over HTTP, and which of its versions did."""

    status: int
    document: Any
    version: str


class Hook:
    """Judges deployments of one function.

    Args:
        function, alias: the function, and its alias that takes traffic.
        golden: content of golden.json.
        patience: seconds that one call may take, with its repetitions.
        functions, deployments: clients of Lambda and CodeDeploy.
    """

    def __init__(
        self, function: str, alias: str, golden: dict[str, Any], patience: float, functions: Any, deployments: Any
    ) -> None:
        self.function, self.alias, self.golden, self.patience = function, alias, golden, patience
        self.functions, self.deployments = functions, deployments
        self._end = 0.0

    def __call__(self, event: dict[str, Any], context: Any) -> str:
        """Judge, tell CodeDeploy, write one line; gives the status."""
        start = time.monotonic()
        self._end = start + context.get_remaining_time_in_millis() / 1000 - MARGIN
        line: dict[str, Any] = {"function": self.function, "deployment": event.get("DeploymentId")}
        try:
            line |= self._judge(event["DeploymentId"])
            status = "Succeeded"
        except Exception as error:
            line["reason"] = str(error) if isinstance(error, Unfit) else f"{type(error).__name__}: {error}"
            status = "Failed"
        print(json.dumps({"status": status, **line, "milliseconds": round(1000 * (time.monotonic() - start))}))
        self.deployments.put_lifecycle_event_hook_execution_status(
            deploymentId=event["DeploymentId"],
            lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
            status=status,
        )
        return status

    def _judge(self, deployment: str) -> dict[str, Any]:
        """What was asked of which version.

        Raises:
            Unfit: it is not ready, is another model, or answers otherwise than recorded.
        """
        info = self.deployments.get_deployment(deploymentId=deployment)["deploymentInfo"]
        target = _target(info["revision"], self.function, self.alias)
        qualifier = self._qualifier(target)
        line = {"version": target, "asked": qualifier, "samples": 0}
        _ok(self._ask("GET", "/v2/health/ready", qualifier), "readiness")
        if info.get("creator") == ROLLED_BACK:
            return {**line, "reason": "CodeDeploy goes back, to a version whose samples are not here; it is ready"}
        model, recorded = self.golden["model"], str(self.golden["version"])
        served = self._served(model, qualifier)
        line["model"] = f"{model}:{served}"
        if served != recorded:
            raise Unfit(f"version {target} serves {model}:{served}, the golden samples are of {model}:{recorded}")
        if not self.golden["samples"]:
            return {**line, "reason": "nothing to replay: JSON carries no golden sample of the model"}
        for number, sample in enumerate(self.golden["samples"]):
            self._replay(number, sample, qualifier)
        return {**line, "samples": len(self.golden["samples"])}

    def _qualifier(self, target: str) -> str:
        """The alias once the target answers there, which is after traffic; before, the target's number."""
        with suppress(Exception):  # the version that has the traffic may be what the deployment replaces
            if self._ask("GET", "/v2/health/live", self.alias).version == target:
                return self.alias
        return target

    def _served(self, model: str, qualifier: str) -> str:
        """The version of the model that is there."""
        versions = _ok(self._ask("GET", f"/v2/models/{model}", qualifier), "metadata")["versions"]
        return str(versions[-1])

    def _replay(self, number: int, sample: dict[str, Any], qualifier: str) -> None:
        path = f"/v2/models/{self.golden['model']}/infer"
        document = _ok(self._ask("POST", path, qualifier, sample["body"]), f"golden sample {number}")
        got = {output["name"]: output for output in document["outputs"]}
        for want in sample["outputs"]:
            words = difference(want, got.get(want["name"]), self.golden["rtol"], self.golden["atol"])
            if words:
                raise Unfit(f"golden sample {number}: output '{want['name']}' {words}")

    def _ask(self, method: str, path: str, qualifier: str, body: Any = None) -> Answer:
        """Invoke the function as a REST API does."""
        if time.monotonic() + self.patience > self._end:
            raise Unfit(f"no time is left for {method} {path}, which may take {self.patience:.0f} s")
        event = {
            "resource": "/{proxy+}",
            "path": path,
            "httpMethod": method,
            "headers": {"accept": "*/*", "content-type": "application/json"},
            "requestContext": {"httpMethod": method, "path": path, "stage": "hook"},
            "body": None if body is None else json.dumps(body),
            "isBase64Encoded": False,
        }
        reply = self.functions.invoke(FunctionName=self.function, Qualifier=qualifier, Payload=json.dumps(event))
        result = json.loads(reply["Payload"].read())
        if reply.get("FunctionError"):
            raise Unfit(f"{self.function}:{qualifier} stopped at {method} {path}: {str(result)[:500]}")
        text = base64.b64decode(result["body"]) if result.get("isBase64Encoded") else result["body"]
        return Answer(result["statusCode"], json.loads(text), reply.get("ExecutedVersion", qualifier))


def difference(want: dict[str, Any], got: dict[str, Any] | None, rtol: float, atol: float) -> str:
    """How an output of V2 differs from the recorded one, as a phrase; empty when it does not.

    Floats agree as in `numpy.allclose`, with `atol` in units of the output's largest magnitude; null (NaN or infinity)
    is equal to null alone. Integers, booleans and strings must be equal.
    """
    if got is None:
        return "is gone"
    for key in ("datatype", "shape"):
        if got[key] != want[key]:
            return f"has {key} {got[key]}, was {want[key]}"
    pairs = list(zip(want["data"], got["data"], strict=True))
    if want["datatype"] not in FLOATS:
        wrong = sum(a != b for a, b in pairs)
        return f"differs in {wrong} of {len(pairs)} elements" if wrong else ""
    scale = max((abs(value) for value in want["data"] if value is not None), default=1.0)
    apart = [abs(a - b) for a, b in pairs if a is not None and b is not None]
    wrong = sum(not _close(a, b, rtol, atol * scale) for a, b in pairs)
    return f"differs in {wrong} of {len(pairs)} elements, by up to {max(apart, default=0.0):.3g}" if wrong else ""


def _close(want: float | None, got: float | None, rtol: float, atol: float) -> bool:
    if want is None or got is None:
        return want is got
    return abs(want - got) <= atol + rtol * abs(want)


def _ok(answer: Answer, what: str) -> Any:
    if answer.status != 200:
        raise Unfit(f"{what}: version {answer.version} answered {answer.status}: {str(answer.document)[:500]}")
    return answer.document


def _target(revision: dict[str, Any], function: str, alias: str) -> str:
    """The version that the deployment's AppSpec moves the alias to."""
    content = (revision.get("appSpecContent") or revision.get("string") or {}).get("content", "")
    for entry in json.loads(content)["Resources"]:
        for resource in entry.values():
            properties = resource["Properties"]
            if properties["Name"].split(":")[-1] == function and properties["Alias"] == alias:
                return str(properties["TargetVersion"])
    raise Unfit(f"the deployment does not move the alias {alias} of {function}")


@cache
def _hook() -> Hook:
    import boto3
    from botocore.config import Config

    patience = float(os.environ["PATIENCE"])
    attempts = max(1, min(ATTEMPTS, int(LONGEST // patience)))
    retries = {"mode": "standard", "total_max_attempts": attempts}
    config = Config(read_timeout=patience, connect_timeout=5, retries=retries)
    golden = json.loads(GOLDEN.read_bytes())
    return Hook(
        os.environ["FUNCTION"],
        os.environ["ALIAS"],
        golden,
        patience * attempts,
        boto3.client("lambda", config=config),
        boto3.client("codedeploy"),
    )


def handler(event: dict[str, Any], context: Any) -> str:
    return _hook()(event, context)
