"""A firewall before a REST API: AWS's rules for the web, a rate an address, a limit of bodies.

Sources: https://docs.aws.amazon.com/waf/latest/developerguide/aws-managed-rule-groups-baseline.html and
https://docs.aws.amazon.com/waf/latest/developerguide/waf-oversize-request-components.html
"""

from aws_cdk import aws_wafv2 as waf
from constructs import Construct

from sampan.stacks.config import ApiOptions
from sampan.stacks.logs import Logs

# Bodies are tensors or a model's input and are never interpreted; these rules would find patterns in them by chance.
_OF_BODIES = (
    *("SizeRestrictions_BODY", "CrossSiteScripting_BODY", "GenericLFI_BODY", "GenericRFI_BODY"),
    "EC2MetaDataSSRF_BODY",
)
_WINDOW = 300  # s over which a rate is counted
_SECRET_HEADERS = ("x-api-key", "authorization")


class Firewall(Construct):
    """A web ACL, its log, and its place before a stage."""

    def __init__(self, scope: Construct, config: ApiOptions, name: str, stage_arn: str) -> None:
        super().__init__(scope, "Firewall")
        acl = waf.CfnWebACL(
            self,
            "Acl",
            name=name,
            scope="REGIONAL",
            default_action=waf.CfnWebACL.DefaultActionProperty(allow={}),
            visibility_config=_visible(name),
            rules=[
                _managed(0, "AWSManagedRulesCommonRuleSet", _OF_BODIES),
                _managed(1, "AWSManagedRulesKnownBadInputsRuleSet"),
                _managed(2, "AWSManagedRulesAmazonIpReputationList"),
                _rule(3, "RateOfAnAddress", _rate(config.rate)),
                _rule(4, "SizeOfABody", _size(config.max_body)),
            ],
        )
        waf.CfnWebACLAssociation(self, "Association", resource_arn=stage_arn, web_acl_arn=acl.attr_arn)
        # WAF writes only to groups whose names begin so
        log = Logs(self, "Log", name=f"aws-waf-logs-{name}", days=config.log_days)
        waf.CfnLoggingConfiguration(
            self,
            "Logging",
            resource_arn=acl.attr_arn,
            log_destination_configs=[log.destination],
            redacted_fields=[{"singleHeader": {"Name": header}} for header in _SECRET_HEADERS],
        )


def _managed(priority: int, group: str, counted: tuple[str, ...] = ()) -> waf.CfnWebACL.RuleProperty:
    """A group of AWS's rules; those in `counted` are counted and refuse nothing."""
    count = waf.CfnWebACL.RuleActionProperty(count={})
    statement = waf.CfnWebACL.ManagedRuleGroupStatementProperty(
        vendor_name="AWS",
        name=group,
        rule_action_overrides=[
            waf.CfnWebACL.RuleActionOverrideProperty(name=name, action_to_use=count) for name in counted
        ],
    )
    return waf.CfnWebACL.RuleProperty(
        name=group,
        priority=priority,
        statement=waf.CfnWebACL.StatementProperty(managed_rule_group_statement=statement),
        override_action=waf.CfnWebACL.OverrideActionProperty(none={}),
        visibility_config=_visible(group),
    )


def _rule(priority: int, name: str, statement: waf.CfnWebACL.StatementProperty) -> waf.CfnWebACL.RuleProperty:
    return waf.CfnWebACL.RuleProperty(
        name=name,
        priority=priority,
        statement=statement,
        action=waf.CfnWebACL.RuleActionProperty(block={}),
        visibility_config=_visible(name),
    )


def _rate(rate: float) -> waf.CfnWebACL.StatementProperty:
    """One address may take as much as the whole API gives in a second, and no more."""
    limit = max(10, round(rate * _WINDOW))
    return waf.CfnWebACL.StatementProperty(
        rate_based_statement=waf.CfnWebACL.RateBasedStatementProperty(
            aggregate_key_type="IP", limit=limit, evaluation_window_sec=_WINDOW
        )
    )


def _size(max_body: int) -> waf.CfnWebACL.StatementProperty:
    """Refuse a Content-Length with more digits than the limit has.

    WAF sees the first 16 kB of a body and compares lengths alone; the handler holds the limit to the byte.
    """
    return waf.CfnWebACL.StatementProperty(
        size_constraint_statement=waf.CfnWebACL.SizeConstraintStatementProperty(
            field_to_match=waf.CfnWebACL.FieldToMatchProperty(single_header={"Name": "content-length"}),
            comparison_operator="GT",
            size=len(str(max_body)),
            text_transformations=[waf.CfnWebACL.TextTransformationProperty(priority=0, type="NONE")],
        )
    )


def _visible(name: str) -> waf.CfnWebACL.VisibilityConfigProperty:
    """Counted, without samples of requests, which would show their headers."""
    return waf.CfnWebACL.VisibilityConfigProperty(
        cloud_watch_metrics_enabled=True, metric_name=name, sampled_requests_enabled=False
    )
