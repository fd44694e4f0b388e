"""What an endpoint may do: pull its image, read its model, write its log and metrics, and no more.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html#sagemaker-roles-createmodel-perms
"""

from collections.abc import Sequence

from aws_cdk import Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from constructs import Construct

from sampan.stacks.logs import Logs
from sampan.stacks.nag import accept_wildcard
from sampan.stacks.names import MODELS

STREAMS = "SageMaker names the log streams of the endpoint's own log group at run time"
NO_RESOURCES = (
    "ECR's authorisation token and CloudWatch's metrics know no resources; metrics are bound to SageMaker's namespaces"
)
OBJECTS = "the names of the objects under the endpoint's own prefix come with them"
_PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
_NAMESPACES = ["AWS/SageMaker", "/aws/sagemaker/Endpoints", "/aws/sagemaker/InferenceComponents"]


class EndpointRole(iam.Role):
    """The execution role of one endpoint; its policy stands in the role, so that it is there before it is used."""

    def __init__(self, scope: Construct, endpoint: str, log: Logs) -> None:
        self._own = iam.PolicyDocument()
        super().__init__(
            scope,
            "Role",
            assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"),
            description=f"What the endpoint {endpoint} may do",
            inline_policies={"own": self._own},
        )
        self._allow([log.log_group_arn], "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents")
        self._allow(["*"], "cloudwatch:PutMetricData", StringEquals={"cloudwatch:namespace": _NAMESPACES})
        accept_wildcard(self, log.log_group_arn, STREAMS)
        accept_wildcard(self, "*", NO_RESOURCES)

    def pull(self, repository: ecr.IRepository) -> None:
        """Pull images of a repository."""
        self._allow([repository.repository_arn], *_PULL)
        self._allow(["*"], "ecr:GetAuthorizationToken")

    def read_model(self, bucket: s3.IBucket, key: kms.IKey, model: str) -> None:
        """Read the versions of one model in the stage's store."""
        prefix = f"{MODELS}/{model}/"
        self._objects(bucket, prefix, "s3:GetObject")
        self._allow([bucket.bucket_arn], "s3:ListBucket", StringLike={"s3:prefix": [f"{prefix}*"]})
        self._allow([key.key_arn], "kms:Decrypt", StringEquals=self._through("s3"))

    def exchange(self, bucket: s3.IBucket, key: kms.IKey, prefix: str, topics: Sequence[sns.ITopic]) -> None:
        """Take asynchronous requests from a prefix of the bucket, put answers there, and say so."""
        self._objects(bucket, f"{prefix}/in/", "s3:GetObject")
        for folder in ("out", "failed"):
            self._objects(bucket, f"{prefix}/{folder}/", "s3:PutObject", "s3:AbortMultipartUpload")
        self._allow([topic.topic_arn for topic in topics], "sns:Publish")
        self._allow([key.key_arn], "kms:GenerateDataKey", StringEquals=self._through("s3"))
        self._allow([key.key_arn], "kms:GenerateDataKey", "kms:Decrypt", StringEquals=self._through("sns"))

    def use_volumes(self, key: kms.IKey) -> None:
        """Let SageMaker encrypt the instances' volumes under a key."""
        self._allow([key.key_arn], "kms:CreateGrant", Bool={"kms:GrantIsForAWSResource": "true"})

    def _objects(self, bucket: s3.IBucket, prefix: str, *actions: str) -> None:
        objects = bucket.arn_for_objects(f"{prefix}*")
        self._allow([objects], *actions)
        accept_wildcard(self, objects, OBJECTS)

    def _allow(self, resources: Sequence[str], *actions: str, **conditions: object) -> None:
        statement = iam.PolicyStatement(actions=list(actions), resources=list(resources), conditions=conditions)
        self._own.add_statements(statement)

    def _through(self, service: str) -> dict[str, str]:
        return {"kms:ViaService": f"{service}.{Stack.of(self).region}.amazonaws.com"}
