"""Why a deployment was refused, in one sentence that says what to try.

Stacks are asked first (`check_stacks`, `failed_stack`); of the CDK's words only those are read for which there is
nothing to ask.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from sampan.aws.formation import Stacks
from sampan.aws.session import AGAIN, CloudError
from sampan.contract.errors import ConflictError
from sampan.rollout.cloud import RolloutError
from sampan.stacks.names import Names

# what the command says → what it means and what to try; `{said}` is the line
_WORDS: tuple[tuple[str, str], ...] = (
    (r"is not packaged; run: sampan package \S+", "{said}"),
    (r"there is no .*; run: sampan package \S+", "{said}"),
    (
        r"has not been bootstrapped|Has the environment been bootstrapped|cdk-bootstrap/\S+ not found|"
        r"toolkit stack must be deployed|bootstrap stack version",
        "this account and region are not prepared for the CDK ({said}); run `cdk bootstrap {where}` once, and "
        "try again",
    ),
    (
        r"Cannot connect to the Docker daemon|docker: (command )?not found|spawn docker ENOENT|"
        r"docker daemon is not running",
        "the image cannot be built, for no Docker engine answers ({said}); start it, and try again",
    ),
    (r"run-sampan-package-first", "a function is not packaged; run `sampan package`, and try again"),
    (r"docker (login|push|build)\b.* exited with error code", "an image could not be built or sent ({said})"),
    (
        r"Unable to resolve AWS account|Need to perform AWS calls for account|could not load credentials|"
        r"InvalidClientTokenId|UnrecognizedClientException|CredentialsProviderError",
        f"the CDK has no AWS credentials that count ({{said}}); {AGAIN}",
    ),
    (r"ExpiredToken|security token included in the request is expired|token has expired|session has expired",
     f"the AWS credentials have expired ({{said}}); {AGAIN}"),
    (r"Unable to (resolve|determine) .*region|Region is missing|Invalid region",
     "no valid AWS region is chosen ({said}); set AWS_DEFAULT_REGION, or the stage's region in cdk.json"),
    (r"AccessDenied|is not authorized to perform", "these credentials may not do that ({said}); grant it, or choose "
     "another profile with AWS_PROFILE"),
    (r"Throttling|Rate exceeded|TooManyRequests", "AWS throttles these requests ({said}); run it again in a minute, it "
     "continues"),
    (
        r"ENOTFOUND|ECONNRESET|ECONNREFUSED|ETIMEDOUT|EAI_AGAIN|socket hang up|getaddrinfo|NetworkingError|"
        r"TimeoutError",
        "the connection to AWS was lost ({said}); what was begun goes on there: run it again, it continues",
    ),
    (
        r"LimitExceeded|[Qq]uota|[Ll]imit (was )?exceeded|maximum number of|minimum value of \[10\]",
        "a quota of the account is used up ({said}); have it raised in Service Quotas, and try again",
    ),
)  # fmt: skip
_ENDS = ("ROLLBACK_COMPLETE", "_FAILED")  # of a stack's status when its deployment failed
_NOISE = re.compile(r"^(\s*at |\[?warning|WARN|node:|\s*$|Error: *$)", re.IGNORECASE)


def explain(verb: str, log: str, file: Path) -> str:
    """One sentence for a command of the CDK that failed.

    Args:
        verb: `synth` or `deploy`.
        log: everything that it printed.
        file: where that is kept.
    """
    meant = _meaning(log)
    if meant:
        return f"cdk {verb}: {meant}"
    lines = [line.strip() for line in log.splitlines() if not _NOISE.match(line)]
    said = next((line for line in lines if re.search(r"\b(failed|error)\b", line, re.IGNORECASE)), "")
    return f"cdk {verb} failed: {_short(said or (lines[-1] if lines else 'no reason was given'))}; see {file}"


def _meaning(text: str) -> str | None:
    """What a text says that is known, and what to try; None where nothing of it is."""
    lines = [line.strip() for line in text.splitlines() if not _NOISE.match(line)]
    place = re.search(r"aws://\d{12}/[\w-]+", text)
    where = place[0] if place else "aws://ACCOUNT/REGION"
    for pattern, words in _WORDS:
        for line in lines:
            if re.search(pattern, line):
                return words.format(said=_short(line), where=where)
    return None


def check_stacks(stacks: Stacks, names: Names, stack_names: Iterable[str]) -> None:
    """Refuse to deploy over a stack that cannot be updated.

    Raises:
        ConflictError: a stack is being changed, or must be deleted or repaired first; says how.
    """
    for name in stack_names:
        stack = stacks.stack(name)
        if stack is None:
            continue
        if stack.busy:
            raise ConflictError(
                f"the stack {name} is in {stack.status}: a deployment is under way; wait until it ends "
                f"(`sampan status --stage {names.stage}`), and run this again"
            )
        if stack.status in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"):
            raise ConflictError(
                f"the stack {name} is in {stack.status}, from which nothing can be deployed{_because(stacks, name)}; "
                f"delete it with `aws cloudformation delete-stack --stack-name {name}` (or all with "
                f"`sampan destroy --stage {names.stage}`), and run this again"
            )
        if stack.status == "UPDATE_ROLLBACK_FAILED":
            raise ConflictError(
                f"the stack {name} is in {stack.status}{_because(stacks, name)}; mend that, run `aws cloudformation "
                f"continue-update-rollback --stack-name {name}`, and then this again"
            )


def failed_stack(stacks: Stacks, stack_names: Iterable[str], error: RolloutError) -> RolloutError:
    """The error of a deployment with what CloudFormation says of it, where it can be asked and says something."""
    try:
        found = [stack for name in stack_names if (stack := stacks.stack(name)) and stack.status.endswith(_ENDS)]
        failures = [(stack, failed[0]) for stack in found if (failed := stacks.failures(stack.name))]
    except CloudError:
        return error
    if not failures:
        return error
    stack, first = failures[0]
    meant = _meaning(first.reason)
    advice = meant or f"{_short(first.reason, 500)}; mend that, and try again"
    return RolloutError(
        f"the stack {stack.name} could not be deployed and is in {stack.status}: "
        f"{first.kind} {first.resource}: {advice}"
    )


def _because(stacks: Stacks, name: str) -> str:
    failures = stacks.failures(name)
    return f" ({failures[0].resource}: {_short(failures[0].reason)})" if failures else ""


def _short(text: str, size: int = 300) -> str:
    return " ".join(text.split())[:size].rstrip(".;")
