"""What everything on AWS is called: names follow from project, stage and function, so that nothing is looked up."""

import hashlib
import re
from dataclasses import dataclass

LIVE, CANDIDATE = "live", "candidate"  # aliases of a Lambda function and of a model in the stage's store
STACKS = ("Store", "Serve", "Api", "Gpu", "Rollout", "Observe")
MODELS, RELEASES, ASYNC = "models", "releases", "async"  # prefixes in the store's bucket
# keys of the stacks' outputs
BUCKET, KEY = "Bucket", "Key"  # Store
URL, API_ID = "Url", "ApiId"  # Api
# tags of an endpoint's configurations and models: `Names.endpoint`, and `describe` of what they serve
ENDPOINT_TAG, MODEL_TAG = "sampan:endpoint", "sampan:model"
# keys of a line of the API's access log: JSON, every value a string, "-" where there is none. `time` is in ms since
# 1970, latencies are in ms, `responseLength` in bytes.
ACCESS_LOG = (
    *("requestId", "time", "apiKeyId", "method", "path"),
    *("status", "latency", "functionLatency", "responseLength"),
)

MAX_NAME = 64  # characters of a Lambda function's name


@dataclass(frozen=True, slots=True)
class Names:
    """Names of one stage of one project."""

    project: str
    stage: str

    @property
    def prefix(self) -> str:
        return f"{self.project}-{self.stage}"

    def stack(self, part: str) -> str:
        """Name of a stack; `part` is one of `STACKS`."""
        return f"{self.prefix}-{part}"

    def function(self, name: str) -> str:
        """Name of a Lambda function; also its `service` in logs and metrics."""
        return f"{self.prefix}-{name}"

    def log_group(self, name: str) -> str:
        return f"/aws/lambda/{self.function(name)}"

    def hook(self, name: str) -> str:
        """Name of the Lambda function that replays golden samples while traffic shifts.

        CodeDeploy's own role may invoke only functions whose name begins so:
        https://docs.aws.amazon.com/codedeploy/latest/userguide/getting-started-create-service-role.html
        """
        whole = f"CodeDeployHook_{self.prefix}-{name}"
        return (
            whole
            if len(whole) <= MAX_NAME
            else f"{whole[: MAX_NAME - 9]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
        )

    def api(self) -> str:
        """Name of the API; also the dimension ApiName of a REST API's metrics."""
        return self.prefix

    def access_logs(self) -> str:
        """Log group of the API's access log; its lines have the keys of `ACCESS_LOG`."""
        return f"/aws/apigateway/{self.prefix}"

    def deployment_application(self) -> str:
        """Name of CodeDeploy's application."""
        return self.prefix

    def deployment_group(self, name: str) -> str:
        return name

    def endpoint(self, name: str) -> str:
        """Name of a SageMaker endpoint, and of the inference component of one that scales to zero."""
        return f"{self.prefix}-{name}".replace("_", "-")

    def exported(self, output: str) -> str:
        """What an output of the Store stack is exported as, for stacks that come and go: `BUCKET` or `KEY`."""
        return f"{self.stack('Store')}-{output}"

    def key(self, tenant: str) -> str:
        """Name of a tenant's API key and usage plan."""
        return f"{self.prefix}-{tenant}"

    def dashboard(self) -> str:
        return self.prefix

    def alarm(self, name: str, what: str) -> str:
        """Name of an alarm of a function; `what` is errors, latency or throttles; `rollout-…` stops a rollout."""
        return f"{self.function(name)}-{what}"


def logical(name: str) -> str:
    """A name as CloudFormation's logical ids have it: `ppocr-rec` → `PpocrRec`."""
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[^a-zA-Z0-9]+", name))


def live_parameter(function: str) -> str:
    """The parameter that pins what is live; empty: what is deployed.

    Of the Serve stack: a Lambda version. Of the Gpu stack: an endpoint's configuration (with scale_to_zero: a model).
    """
    return f"Live{logical(function)}"


def candidate_output(function: str) -> str:
    """The output of the Gpu stack with the configuration that was deployed last (with scale_to_zero: the model)."""
    return f"Candidate{logical(function)}"


def describe(ref: str, digest: str) -> str:
    """Description of a Lambda version (or tag of an endpoint's configuration): `magika:2 sha256:…` of the manifest."""
    return f"{ref} {digest}"


def described(text: str) -> tuple[str, str] | None:
    """REF and digest of a description; None where it is of something else."""
    found = re.fullmatch(r"(\S+:\d+) (sha256:[0-9a-f]{64})", text)
    return (found[1], found[2]) if found else None
