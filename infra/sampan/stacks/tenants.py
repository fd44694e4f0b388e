"""Who calls: an API key and a usage plan for each tenant. AWS makes the keys' values; no template has them."""

from aws_cdk import aws_apigateway as apigateway

from sampan.stacks.config import Project, Tenant
from sampan.stacks.names import logical


def add_tenants(api: apigateway.RestApi, project: Project) -> None:
    """Give every tenant of the stage a key, a rate and a monthly quota."""
    for tenant in project.config.api.tenants:
        _add(api, tenant, project.names.key(tenant.name))


def _add(api: apigateway.RestApi, tenant: Tenant, name: str) -> None:
    plan = apigateway.UsagePlan(
        api,
        f"Plan{logical(tenant.name)}",
        name=name,
        throttle=apigateway.ThrottleSettings(rate_limit=tenant.rate, burst_limit=tenant.burst),
        quota=tenant.quota and apigateway.QuotaSettings(limit=tenant.quota, period=apigateway.Period.MONTH),
        api_stages=[apigateway.UsagePlanPerApiStage(api=api, stage=api.deployment_stage)],
    )
    plan.add_api_key(apigateway.ApiKey(api, f"Key{logical(tenant.name)}", api_key_name=name))
