"""The stage's store: one bucket for models and release records, encrypted under a key of its own.

Bucket and key outlive the stack: what was released stays, until somebody deletes it by name.
"""

from typing import Any

from aws_cdk import CfnOutput, Duration, RemovalPolicy, Stack
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from sampan.stacks.config import Project
from sampan.stacks.names import ASYNC, BUCKET, KEY

ANSWER_DAYS = 30  # days that requests and answers of asynchronous endpoints are kept
LOG_DAYS = 90  # days that the bucket's access log is kept


class StoreStack(Stack):
    """Bucket, key, and the bucket's access log."""

    def __init__(self, scope: Construct, project: Project, **options: Any) -> None:
        super().__init__(scope, project.names.stack("Store"), description="Models and release records", **options)
        key = kms.Key(
            self,
            "StoreKey",
            description=f"Models of {project.names.prefix}",
            enable_key_rotation=True,
            removal_policy=RemovalPolicy.RETAIN,
        )
        days = project.config.store
        bucket = _bucket(
            self,
            "Models",
            encryption=s3.BucketEncryption.KMS,
            encryption_key=key,
            bucket_key_enabled=True,
            server_access_logs_bucket=_access_logs(self),
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="old",
                    noncurrent_version_expiration=Duration.days(days.old_days),
                    expired_object_delete_marker=True,
                ),
                s3.LifecycleRule(id="answers", prefix=f"{ASYNC}/", expiration=Duration.days(ANSWER_DAYS)),
                s3.LifecycleRule(id="uploads", abort_incomplete_multipart_upload_after=Duration.days(days.upload_days)),
            ],
        )
        for output, value in ((BUCKET, bucket.bucket_name), (KEY, key.key_arn)):
            CfnOutput(self, output, value=value, export_name=project.names.exported(output))


def _access_logs(scope: Construct) -> s3.Bucket:
    """S3 delivers access logs only to buckets under its own key."""
    rule = s3.LifecycleRule(
        id="old",
        expiration=Duration.days(LOG_DAYS),
        noncurrent_version_expiration=Duration.days(1),
        abort_incomplete_multipart_upload_after=Duration.days(1),
    )
    return _bucket(scope, "AccessLogs", encryption=s3.BucketEncryption.S3_MANAGED, lifecycle_rules=[rule])


def _bucket(scope: Construct, id: str, **options: Any) -> s3.Bucket:
    """A bucket that is private, versioned, spoken to over TLS alone, and kept when its stack goes."""
    return s3.Bucket(
        scope,
        id,
        versioned=True,
        enforce_ssl=True,
        minimum_tls_version=1.2,
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        removal_policy=RemovalPolicy.RETAIN,
        **options,
    )
