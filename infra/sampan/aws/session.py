"""A session with AWS: clients that are patient, and errors that are one sentence.

    Session → client(service) → with asked("doing what"): client.call(…) → an answer, or CloudError

Credentials, region, profile and endpoint come from where boto3 looks for them:
https://docs.aws.amazon.com/boto3/latest/guide/configuration.html
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any, Final, Literal

from sampan.contract.errors import SampanError

Kind = Literal[
    "credentials", "expired", "region", "denied", "throttled", "quota", "unreachable", "missing", "conflict", "other"
]

# Several waits, each longer than the last (standard mode); answers that large uploads wait for take a while.
PATIENCE: Final = {
    "connect_timeout": 5,
    "read_timeout": 60,
    "max_pool_connections": 16,
    "retries": {"mode": "standard", "total_max_attempts": 6},
    "user_agent_extra": "sampan",
}

# What the codes mean that AWS's services answer with. Source: "Common errors" of each service's API reference, such as
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
CODES: Final[dict[Kind, str]] = {
    "credentials": (
        "NoCredentials InvalidClientTokenId UnrecognizedClientException InvalidAccessKeyId SignatureDoesNotMatch "
        "AuthFailure InvalidSignatureException MissingAuthenticationToken InvalidToken RequestTimeTooSkewed"
    ),
    "expired": "ExpiredToken ExpiredTokenException RequestExpired TokenRefreshRequired",
    "region": ("NoRegion PermanentRedirect AuthorizationHeaderMalformed IllegalLocationConstraintException 301"),
    "denied": (
        "AccessDenied AccessDeniedException AccessDeniedFault UnauthorizedOperation AuthorizationError "
        "AuthorizationErrorException NotAuthorized Forbidden 403 KMS.AccessDeniedException"
    ),
    "throttled": (
        "Throttling ThrottlingException ThrottledException TooManyRequestsException RequestLimitExceeded SlowDown "
        "RequestThrottled RequestThrottledException PriorRequestNotComplete 503"
    ),
    "quota": (
        "ServiceQuotaExceededException LimitExceededException LimitExceeded ResourceLimitExceeded "
        "CodeStorageExceededException QuotaExceeded TooManyBuckets"
    ),
    "unreachable": "Unreachable",
    "missing": (
        "NoSuchBucket NoSuchKey NoSuchUpload NoSuchVersion 404 NotFound NotFoundException ResourceNotFound "
        "ResourceNotFoundException NoSuchEntity DeploymentDoesNotExistException"
    ),
    "conflict": (
        "PreconditionFailed PreconditionFailedException 412 ConditionalRequestConflict 409 ConflictException "
        "ConditionalCheckFailed ConditionalCheckFailedException ResourceConflictException ResourceInUse "
        "ResourceInUseException OperationAborted"
    ),
}
KINDS: Final[dict[str, Kind]] = {code: kind for kind, codes in CODES.items() for code in codes.split()}

AGAIN = "run `aws sso login` or `aws configure`, or choose a profile with AWS_PROFILE, and try again"
ADVICE: Final[dict[Kind, str]] = {
    "credentials": f"AWS does not accept these credentials ({{said}}); {AGAIN}",
    "expired": f"the AWS credentials have expired; {AGAIN}",
    "region": "that is not in this region ({said}); choose another with AWS_DEFAULT_REGION or the profile's region",
    "denied": "these credentials may not {action} ({said}); grant it, or choose a profile with AWS_PROFILE",
    "throttled": "AWS throttles these requests, after several waits still ({said}); try again in a minute",
    "quota": "a quota of the account is used up ({said}); have it raised in Service Quotas, or delete what is not used",
    "unreachable": "the connection to AWS was lost or never came about ({said}); check network, proxy and region, "
    "and try again",
    "missing": "it is not there ({said}); check the name, the account and the region",
    "conflict": "something else changed it meanwhile, or is changing it ({said}); try again",
    "other": "AWS refused ({said})",
}
# What botocore itself raises before or without an answer, the more special first.
LOCAL: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("UnauthorizedSSOTokenError", "SSOTokenLoadError", "TokenRetrievalError"), "ExpiredToken"),
    (("LoginRefreshRequired", "LoginTokenLoadError", "NoAuthTokenError"), "ExpiredToken"),
    (("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"), "NoCredentials"),
    (("NoRegionError", "InvalidRegionError", "UnknownRegionError"), "NoRegion"),
    (("HTTPClientError", "ConnectionError", "IncompleteReadError"), "Unreachable"),
)


class CloudError(SampanError):
    """Raise when AWS does not do what it was asked.

    Attributes:
        code: AWS's error code, such as `AccessDenied`; `NoCredentials`, `NoRegion` or `Unreachable` where no answer
            came; "" where there is none.
        kind: what the code means, whichever service it came from.
    """

    status = 502

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code

    @property
    def kind(self) -> Kind:
        return KINDS.get(self.code, "other")


class Session:
    """Clients of AWS's services, made when first asked for; for use by several threads.

    Args:
        region: None: where boto3 finds one (AWS_DEFAULT_REGION, the profile).
        profile: None: AWS_PROFILE, else the default one.

    Raises:
        CloudError: boto3 is not installed, or there is no such profile.
    """

    def __init__(self, region: str | None = None, profile: str | None = None) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise CloudError("AWS needs the package boto3; install it with pip install 'sampan[deploy]'") from error
        with asked("reading the AWS configuration"):
            self._boto = boto3.Session(region_name=region, profile_name=profile)
        self._config = Config(**PATIENCE)
        self._clients: dict[str, Any] = {}
        self._lock = RLock()

    def client(self, service: str) -> Any:
        """boto3's client of a service, such as `lambda`; the same one each time.

        Raises:
            CloudError: no region is known, or it is not the name of one.
        """
        with self._lock, asked(f"talking to AWS ({service})"):
            if service not in self._clients:
                self._clients[service] = self._boto.client(service, config=self._config)
            return self._clients[service]

    @property
    def region(self) -> str:
        """The region's name.

        Raises:
            CloudError: none is known.
        """
        if self._boto.region_name is None:
            raise CloudError("no AWS region is chosen; set AWS_DEFAULT_REGION, or a region in the profile", "NoRegion")
        return str(self._boto.region_name)

    def account(self) -> str:
        """The account's twelve digits.

        Raises:
            CloudError: the credentials are not accepted, or AWS cannot be reached.
        """
        with asked("asking AWS whose credentials these are"):
            return str(self.client("sts").get_caller_identity()["Account"])


@contextmanager
def asked(what: str) -> Iterator[None]:
    """Say an error of AWS as one sentence.

    Args:
        what: what is being done to what, such as "moving the alias live of sampan-dev-magika".

    Raises:
        CloudError: for every error of botocore; others pass.
    """
    try:
        yield
    except Exception as error:
        translated = _translated(what, error)
        if translated is None:
            raise
        raise translated from error


def _translated(what: str, error: Exception) -> CloudError | None:
    foreign = sys.modules.get("botocore.exceptions")  # nothing of botocore's is raised before it is loaded
    if foreign is None or not isinstance(error, foreign.BotoCoreError | foreign.ClientError):
        return None
    if isinstance(error, foreign.ClientError):
        answer = error.response.get("Error", {})
        code, said = str(answer.get("Code", "")), str(answer.get("Message") or "no reason given")
        return _sentence(what, code, f"{code}: {said}", error.operation_name)
    return _sentence(what, _local_code(error), str(error), "")


def _local_code(error: Exception) -> str:
    """Our code for what botocore raised on its own; "" for what has none."""
    names = {parent.__name__ for parent in type(error).__mro__}
    return next((code for classes, code in LOCAL if names & set(classes)), "")


def _sentence(what: str, code: str, said: str, operation: str) -> CloudError:
    said = " ".join(said.split()).rstrip(".")
    if code == "NoRegion":
        return CloudError(
            f"{what}: no valid AWS region is chosen ({said}); set AWS_DEFAULT_REGION, e.g. eu-west-1", code
        )
    if code == "NoCredentials":
        return CloudError(f"{what}: there are no AWS credentials ({said}); {AGAIN}", code)
    kind = KINDS.get(code, "other")
    return CloudError(f"{what}: {ADVICE[kind].format(said=said, action=_action(said, operation))}", code)


def _action(said: str, operation: str) -> str:
    """The IAM action that is missing, as AWS's sentence names it, else the operation."""
    named = re.search(r"not authorized to perform:? ([\w-]+:\w+)", said)
    return named[1] if named else operation
