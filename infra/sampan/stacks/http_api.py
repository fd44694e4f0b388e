"""An HTTP API: cheaper than REST, with JWT or IAM in place of keys.

    path → JWT | IAM → throttle → function:live

What it refuses itself it says in words of its own, `{"message": …}`: an HTTP API cannot be told others.
"""

from aws_cdk import Stack
from aws_cdk import aws_apigatewayv2 as apigateway
from constructs import Construct

from sampan.stacks.access import access_format
from sampan.stacks.config import Deployable, Domain, Project
from sampan.stacks.logs import Logs
from sampan.stacks.nag import accept
from sampan.stacks.names import logical
from sampan.stacks.permissions import allow_api
from sampan.stacks.routes import HEADERS, METHODS, routes

MAX_WAIT = 30_000  # ms that an HTTP API waits for an answer
STAGE = "$default"
_KINDS = {"jwt": "JWT", "iam": "AWS_IAM", "none": "NONE"}


class ModelHttpApi(Construct):
    """The API, its routes, and who may call them."""

    def __init__(self, scope: Construct, project: Project, log: Logs) -> None:
        super().__init__(scope, "Http")
        self._project, self._config = project, project.config.api
        self._api = apigateway.CfnApi(
            self,
            "Api",
            name=project.names.api(),
            protocol_type="HTTP",
            cors_configuration=self._cors(),
            disable_execute_api_endpoint=self._config.domain is not None,
        )
        self._stage = self._default_stage(log)
        self._authorizer = self._jwt_authorizer() if self._config.auth == "jwt" else None
        self._routes()
        if self._config.domain:
            self._domain(self._config.domain)

    @property
    def url(self) -> str:
        domain = self._config.domain
        return f"https://{domain.name}/" if domain else f"{self._api.attr_api_endpoint}/"

    @property
    def api_id(self) -> str:
        return str(self._api.ref)

    def _cors(self) -> apigateway.CfnApi.CorsProperty | None:
        if not self._config.cors:
            return None
        return apigateway.CfnApi.CorsProperty(
            allow_origins=list(self._config.cors),
            allow_methods=list(METHODS),
            allow_headers=list(HEADERS),
            expose_headers=["inference-header-content-length"],
            max_age=3600,
        )

    def _default_stage(self, log: Logs) -> apigateway.CfnStage:
        return apigateway.CfnStage(
            self,
            "Stage",
            api_id=self.api_id,
            stage_name=STAGE,
            auto_deploy=True,
            access_log_settings=apigateway.CfnStage.AccessLogSettingsProperty(
                destination_arn=log.destination,
                format=access_format("http"),
            ),
            default_route_settings=apigateway.CfnStage.RouteSettingsProperty(
                throttling_rate_limit=self._config.rate,
                throttling_burst_limit=self._config.burst,
                detailed_metrics_enabled=True,
            ),
        )

    def _jwt_authorizer(self) -> apigateway.CfnAuthorizer:
        jwt = self._config.jwt
        return apigateway.CfnAuthorizer(
            self,
            "Authorizer",
            api_id=self.api_id,
            authorizer_type="JWT",
            name="jwt",
            identity_source=["$request.header.Authorization"],
            jwt_configuration=jwt
            and apigateway.CfnAuthorizer.JWTConfigurationProperty(issuer=jwt.issuer, audience=list(jwt.audience)),
        )

    def _routes(self) -> None:
        targets = {function.name: self._integration(function) for function in self._project.functions}
        for path, function in routes(self._project):
            for method in METHODS:
                self._route(f"{method} {path}", targets[function.name])

    def _route(self, key: str, target: apigateway.CfnIntegration) -> None:
        """One method of a path: `ANY` would ask for a token when a browser asks whether it may ask."""
        route = apigateway.CfnRoute(
            self,
            key,
            api_id=self.api_id,
            route_key=key,
            target=f"integrations/{target.ref}",
            authorization_type=_KINDS[self._config.auth],
            authorizer_id=self._authorizer and self._authorizer.ref,
        )
        if self._config.auth == "none":
            accept(route, "AwsSolutions-APIG4", "the stage chose that everybody may call")

    def _integration(self, function: Deployable) -> apigateway.CfnIntegration:
        """Proxy to the function's live alias, which only this API may invoke."""
        source = Stack.of(self).format_arn(service="execute-api", resource=self.api_id, resource_name="*/*")
        return apigateway.CfnIntegration(
            self,
            f"To{logical(function.name)}",
            api_id=self.api_id,
            integration_type="AWS_PROXY",
            integration_uri=allow_api(self, self._project, function, source),
            payload_format_version="2.0",
            timeout_in_millis=min(function.config.timeout * 1000, MAX_WAIT),
        )

    def _domain(self, domain: Domain) -> None:
        name = apigateway.CfnDomainName(
            self,
            "Domain",
            domain_name=domain.name,
            domain_name_configurations=[
                apigateway.CfnDomainName.DomainNameConfigurationProperty(
                    certificate_arn=domain.certificate, endpoint_type="REGIONAL", security_policy="TLS_1_2"
                )
            ],
        )
        apigateway.CfnApiMapping(self, "Mapping", api_id=self.api_id, domain_name=name.ref, stage=self._stage.ref)
