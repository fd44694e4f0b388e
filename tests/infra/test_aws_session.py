"""What AWS refuses is one sentence: what was done, where, what to try."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
    ResponseStreamingError,
    UnauthorizedSSOTokenError,
)
from moto import mock_aws

from sampan.aws.session import KINDS, CloudError, Session, asked
from sampan.contract.errors import SampanError

pytestmark = pytest.mark.infra


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials, no region, no configuration; and nobody looks for them at 169.254.169.254."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "DEFAULT_REGION", "ENDPOINT_URL"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def credentials(nobody: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with mock_aws():
        yield


def refused(code: str, message: str = "because", operation: str = "UpdateAlias") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def said(error: Exception) -> CloudError:
    with pytest.raises(CloudError) as caught, asked("moving the alias live of f"):
        raise error
    assert str(caught.value).startswith("moving the alias live of f: ")
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("ExpiredToken", "expired", "have expired; run `aws sso login`"),
        ("InvalidClientTokenId", "credentials", "AWS does not accept these credentials .*AWS_PROFILE"),
        ("PermanentRedirect", "region", "not in this region .*AWS_DEFAULT_REGION"),
        ("AccessDeniedException", "denied", "may not UpdateAlias"),
        ("TooManyRequestsException", "throttled", "throttles these requests"),
        ("LimitExceededException", "quota", "quota of the account is used up .*Service Quotas"),
        ("ResourceNotFoundException", "missing", "it is not there"),
        ("PreconditionFailedException", "conflict", "something else changed it"),
        ("Strange", "other", r"AWS refused \(Strange: because\)"),
    ],
)
def test_what_aws_refuses(code: str, kind: str, words: str):
    error = said(refused(code))
    assert (error.code, error.kind, error.status) == (code, kind, 502)
    assert error.message == str(error)
    with pytest.raises(CloudError, match=words):
        raise error


def test_the_action_that_is_missing_is_named():
    text = "User: arn:aws:iam::1:user/a is not authorized to perform: s3:PutObject on resource: arn:aws:s3:::b/k"
    assert "may not s3:PutObject (" in str(said(refused("AccessDenied", text)))


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (NoCredentialsError(), "NoCredentials", "there are no AWS credentials"),
        (UnauthorizedSSOTokenError(), "ExpiredToken", "have expired"),
        (
            EndpointConnectionError(endpoint_url="https://x"),
            "Unreachable",
            'never came about .*"https://x".*check network',
        ),
        (ConnectionClosedError(endpoint_url="https://x"), "Unreachable", "connection to AWS was lost"),
        (ReadTimeoutError(endpoint_url="https://x"), "Unreachable", "connection to AWS was lost"),
        (ResponseStreamingError(error="cut"), "Unreachable", "connection to AWS was lost"),
        (ParamValidationError(report="Bucket:\nno"), "", "AWS refused"),
    ],
)
def test_what_never_reached_aws(error: Exception, code: str, words: str):
    cloud = said(error)
    assert cloud.code == code
    with pytest.raises(CloudError, match=words):
        raise cloud


def test_other_errors_pass():
    for error in (ValueError("x"), SampanError("y"), CloudError("z", "Throttling")):
        with pytest.raises(type(error)) as caught, asked("doing"):
            raise error
        assert caught.value is error


def test_fakes_need_no_botocore():
    assert CloudError("no", "NoSuchKey").kind == "missing"
    assert CloudError("no").kind == "other"
    assert KINDS["412"] == KINDS["PreconditionFailed"] == "conflict"


def test_without_a_region_or_with_none_there_is(credentials: None, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(CloudError, match="no AWS region is chosen; set AWS_DEFAULT_REGION"):
        _ = Session().region
    with pytest.raises(CloudError, match=r"talking to AWS \(lambda\): no valid AWS region"):
        Session().client("lambda")
    with pytest.raises(CloudError, match="no valid AWS region"):
        Session("no region").client("lambda")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert Session().region == "eu-west-1"
    assert Session("eu-central-1").region == "eu-central-1"


def test_a_profile_that_is_not_there():
    with pytest.raises(CloudError, match=r"config profile \(nobody\) could not be found.*AWS_PROFILE"):
        Session(profile="nobody")


def test_no_credentials_at_all():
    with pytest.raises(CloudError, match="asking AWS whose credentials these are: there are no AWS credentials"):
        Session("eu-west-1").account()


def test_clients_are_made_once_and_wait(credentials: None):
    session = Session("eu-west-1")
    client = session.client("sts")
    assert client is session.client("sts")
    assert client.meta.config.retries == {"mode": "standard", "total_max_attempts": 6}
    assert client.meta.region_name == "eu-west-1"
    assert session.account() == "123456789012"


def test_an_endpoint_of_the_environment_is_taken(credentials: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    assert Session("eu-west-1").client("s3").meta.endpoint_url == "http://127.0.0.1:4566"
