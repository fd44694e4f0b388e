"""The Store stack: a bucket that is encrypted, versioned, private and kept."""

from collections.abc import Callable

import pytest
from synthesis import Templates, text

pytestmark = pytest.mark.infra


def bucket(templates: Templates, id: str) -> dict[str, object]:
    (found,) = [
        resource for name, resource in templates.resources("Store", "S3::Bucket").items() if name.startswith(id)
    ]
    return found


def test_the_bucket_is_encrypted_under_a_key_that_rotates(templates: Templates):
    key = templates.one("Store", "KMS::Key")
    assert key["EnableKeyRotation"] is True
    (rule,) = bucket(templates, "Models")["Properties"]["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    (id,) = templates.resources("Store", "KMS::Key")
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert text(rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"]) == f"<{id}.Arn>"
    assert rule["BucketKeyEnabled"] is True


@pytest.mark.parametrize("id", ["Models", "AccessLogs"])
def test_a_bucket_is_private_and_versioned(templates: Templates, id: str):
    properties = bucket(templates, id)["Properties"]
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert properties["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}


def test_buckets_are_spoken_to_over_tls_alone(templates: Templates):
    policies = templates.all("Store", "S3::BucketPolicy")
    assert len(policies) == 2
    for policy in policies:
        denied = [
            statement["Condition"]
            for statement in policy["PolicyDocument"]["Statement"]
            if statement["Effect"] == "Deny"
            and statement["Action"] == "s3:*"
            and statement["Principal"] == {"AWS": "*"}
        ]
        assert {"Bool": {"aws:SecureTransport": "false"}} in denied
        assert {"NumericLessThan": {"s3:TlsVersion": 1.2}} in denied


def test_bucket_and_key_outlive_the_stack(templates: Templates):
    kept = templates.resources("Store", "S3::Bucket") | templates.resources("Store", "KMS::Key")
    assert {resource["DeletionPolicy"] for resource in kept.values()} == {"Retain"}
    assert len(kept) == 3


def test_what_was_replaced_and_what_stopped_goes_after_the_stages_days(stage: Callable[..., Templates]):
    properties = bucket(stage(store={"old_days": 11, "upload_days": 2}), "Models")["Properties"]
    rules = {rule["Id"]: rule for rule in properties["LifecycleConfiguration"]["Rules"]}
    assert rules["old"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 11}
    assert rules["uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 2}
    assert "ExpirationInDays" not in rules["old"]  # what is current stays


def test_who_reads_the_bucket_is_logged(templates: Templates):
    logging = bucket(templates, "Models")["Properties"]["LoggingConfiguration"]
    assert text(logging["DestinationBucketName"]).startswith("<AccessLogs")


def test_others_find_bucket_and_key_in_the_outputs(templates: Templates):
    outputs = templates.of("Store")["Outputs"]
    assert outputs.keys() == {"Bucket", "Key"}
    assert text(outputs["Bucket"]["Value"]).startswith("<Models")
