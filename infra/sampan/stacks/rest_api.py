"""A REST API: keys and usage plans, WAF, streaming; every body travels as bytes.

    path → key | IAM | Cognito → throttle and quota → function:live

API Gateway refuses bodies over 10 MB, the handler those over the stage's `max_body`.
"""

from aws_cdk import Annotations, ArnFormat, Duration, RemovalPolicy, Stack
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_cognito as cognito
from constructs import Construct

from sampan.stacks.access import access_format
from sampan.stacks.answers import add_answers
from sampan.stacks.config import Deployable, Domain, Project
from sampan.stacks.logs import Logs
from sampan.stacks.nag import ACCESS_LOGS_SUFFICE, HANDLER_VALIDATES, ROLE_OF_THE_ACCOUNT, accept, accept_managed
from sampan.stacks.names import LIVE
from sampan.stacks.permissions import allow_api
from sampan.stacks.routes import HEADERS, METHODS, routes
from sampan.stacks.tenants import add_tenants
from sampan.stacks.waf import Firewall

BINARY = "*/*"  # tensors come through as bytes, whatever the client says of them
TLS = "SecurityPolicy_TLS13_1_2_PFS_PQ_2025_09"  # 1.2 with forward secrecy, and 1.3
MAX_WAIT, MAX_STREAM = 29, 900  # s that API Gateway waits for an answer, and for the end of a streamed one
# https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html
STREAMS = "api.stream needs functions whose runtime client streams, which Lambda's own for Python does not"
_INVOCATIONS = {False: ("2015-03-31", "invocations"), True: ("2021-11-15", "response-streaming-invocations")}


class ModelRestApi(Construct):
    """The API, its routes, and who may call them."""

    def __init__(self, scope: Construct, project: Project, log: Logs) -> None:
        super().__init__(scope, "Rest")
        self._project, self._config = project, project.config.api
        if self._config.stream:
            Annotations.of(self).add_warning_v2("sampan:stream", STREAMS)
        self._api = self._rest_api(log)
        self._authorized = self._authorization()
        self._routes()
        add_answers(self._api, self._config)
        if self._config.auth == "key":
            add_tenants(self._api, project)
        if self._config.waf:
            Firewall(self, self._config, project.names.prefix, self._api.deployment_stage.stage_arn)
        self._accept()

    @property
    def url(self) -> str:
        domain = self._config.domain
        return f"https://{domain.name}/" if domain else str(self._api.url)

    @property
    def api_id(self) -> str:
        return str(self._api.rest_api_id)

    def _rest_api(self, log: Logs) -> apigateway.RestApi:
        config, names = self._config, self._project.names
        api = apigateway.RestApi(
            self,
            "Api",
            rest_api_name=names.api(),
            endpoint_types=[apigateway.EndpointType.REGIONAL],
            binary_media_types=[BINARY],
            cloud_watch_role=config.log_role,
            cloud_watch_role_removal_policy=RemovalPolicy.RETAIN if config.log_role else None,
            domain_name=_domain(self, config.domain) if config.domain else None,
            disable_execute_api_endpoint=config.domain is not None,
            deploy_options=apigateway.StageOptions(
                stage_name=LIVE,
                throttling_rate_limit=config.rate,
                throttling_burst_limit=config.burst,
                tracing_enabled=config.trace,
                access_log_destination=apigateway.LogGroupLogDestination(log),
                access_log_format=apigateway.AccessLogFormat.custom(access_format("rest")),
            ),
        )
        api.node.try_remove_child("Endpoint")  # an output of the construct's own, beside the stack's
        api.node.default_child.add_property_override("SecurityPolicy", TLS)
        api.node.default_child.add_property_override("EndpointAccessMode", "BASIC")
        return api

    def _authorization(self) -> dict[str, object]:
        """What a method asks of its caller."""
        auth = self._config.auth
        if auth == "cognito":
            pool = cognito.UserPool.from_user_pool_arn(self, "Users", self._config.user_pool)
            authorizer = apigateway.CognitoUserPoolsAuthorizer(self, "Authorizer", cognito_user_pools=[pool])
            return {"authorizer": authorizer, "authorization_type": apigateway.AuthorizationType.COGNITO}
        if auth == "iam":
            return {"authorization_type": apigateway.AuthorizationType.IAM}
        return {"authorization_type": apigateway.AuthorizationType.NONE, "api_key_required": auth == "key"}

    def _routes(self) -> None:
        integrations = {function.name: self._integration(function) for function in self._project.functions}
        for path, function in routes(self._project):
            resource = self._api.root.resource_for_path(path)
            resource.add_method("ANY", integrations[function.name], **self._authorized)
            if self._config.cors:
                self._allow_origins(resource)

    def _integration(self, function: Deployable) -> apigateway.Integration:
        """Proxy to the function's live alias, which only this API may invoke."""
        config, stack = self._config, Stack.of(self)
        arn = allow_api(self, self._project, function, self._api.arn_for_execute_api("*", "/*", LIVE))
        date, action = _INVOCATIONS[config.stream]
        uri = stack.format_arn(
            service="apigateway",
            account="lambda",
            resource="path",
            resource_name=f"{date}/functions/{arn}/{action}",
            arn_format=ArnFormat.SLASH_RESOURCE_NAME,
        )
        return apigateway.Integration(
            type=apigateway.IntegrationType.AWS_PROXY,
            integration_http_method="POST",
            uri=uri,
            options=apigateway.IntegrationOptions(
                timeout=Duration.seconds(min(function.config.timeout, MAX_STREAM if config.stream else MAX_WAIT)),
                response_transfer_mode=apigateway.ResponseTransferMode.STREAM if config.stream else None,
            ),
        )

    def _allow_origins(self, resource: apigateway.IResource) -> None:
        """A preflight answer; with binary types it is one only when its body is turned into text."""
        method = resource.add_cors_preflight(
            allow_origins=list(self._config.cors),
            allow_methods=list(METHODS),
            allow_headers=list(HEADERS),
            max_age=Duration.hours(1),
        )
        method.node.default_child.add_property_override("Integration.ContentHandling", "CONVERT_TO_TEXT")

    def _accept(self) -> None:
        accept(self._api, "AwsSolutions-APIG2", HANDLER_VALIDATES)
        accept(self._api, "AwsSolutions-APIG6", ACCESS_LOGS_SUFFICE)
        accept_managed(self._api, "service-role/AmazonAPIGatewayPushToCloudWatchLogs", ROLE_OF_THE_ACCOUNT)
        for rule in ("AwsSolutions-APIG4", "AwsSolutions-COG4"):
            accept(self._api, rule, f"the stage chose auth '{self._config.auth}' for its callers, not Cognito")
        if not self._config.waf:
            accept(self._api, "AwsSolutions-APIG3", "the stage chose no firewall; `waf = true` makes one")


def _domain(scope: Construct, domain: Domain) -> apigateway.DomainNameOptions:
    return apigateway.DomainNameOptions(
        domain_name=domain.name,
        certificate=acm.Certificate.from_certificate_arn(scope, "Certificate", domain.certificate),
        endpoint_type=apigateway.EndpointType.REGIONAL,
        security_policy=apigateway.SecurityPolicy.TLS_1_2,
    )
