"""What a CloudFormation template says, in lines that a person can compare: routes, permissions, resources."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

Template = Mapping[str, Any]

_PART, _METHOD, _ROUTE = "AWS::ApiGateway::Resource", "AWS::ApiGateway::Method", "AWS::ApiGatewayV2::Route"
_POLICIES = {  # type → property that holds a policy document
    "AWS::IAM::Policy": "PolicyDocument",
    "AWS::IAM::ManagedPolicy": "PolicyDocument",
    "AWS::S3::BucketPolicy": "PolicyDocument",
    "AWS::KMS::Key": "KeyPolicy",
    "AWS::SNS::TopicPolicy": "PolicyDocument",
}
_ELSEWHERE = frozenset((_PART, _METHOD, _ROUTE, "AWS::IAM::Policy", "AWS::CDK::Metadata"))


def equal(one: Template, other: Template) -> bool:
    """Whether two templates are the same; CloudFormation gives back `?` for what is not ASCII."""
    return _plain(one) == _plain(other)


def resources(template: Template) -> dict[str, dict[str, Any]]:
    """Resources by logical id."""
    found: dict[str, dict[str, Any]] = template.get("Resources", {})
    return found


def properties(template: Template, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Logical id and properties of every resource of a type."""
    for name, resource in resources(template).items():
        if resource["Type"] == kind:
            yield name, resource.get("Properties", {})


def lambda_function(template: Template, name: str) -> dict[str, Any]:
    """Properties of the Lambda function of a physical name; empty where there is none."""
    return next((each for _, each in _functions(template, name)), {})


def lambda_version(template: Template, name: str) -> str | None:
    """Logical id of the version of a Lambda function, which is another one for each state of the function."""
    functions = {logical for logical, _ in _functions(template, name)}
    for logical, each in properties(template, "AWS::Lambda::Version"):
        if isinstance(each.get("FunctionName"), dict) and each["FunctionName"].get("Ref") in functions:
            return logical
    return None


def routes(template: Template) -> set[str]:
    """`METHOD /path` of every route of the template's APIs."""
    parts = dict(properties(template, _PART))
    methods = (each for _, each in properties(template, _METHOD))
    rest = {f"{each.get('HttpMethod')} {_path(each.get('ResourceId'), parts)}" for each in methods}
    http = {each.get("RouteKey", "") for _, each in properties(template, _ROUTE)}
    return rest | http


def statements(template: Template) -> set[str]:
    """Every statement of every policy as one line, beginning with the resource that holds it."""
    lines = set()
    for kind, key in _POLICIES.items():
        for name, each in properties(template, kind):
            lines |= set(_lines(name, each.get(key, {})))
    for name, role in properties(template, "AWS::IAM::Role"):
        for policy in role.get("Policies", ()):
            lines |= set(_lines(name, policy.get("PolicyDocument", {})))
        lines |= {f"{name}: managed policy {_text(arn)}" for arn in role.get("ManagedPolicyArns", ())}
    for name, each in properties(template, "AWS::Lambda::Permission"):
        lines.add(f"{name}: Allow {each.get('Principal')} {each.get('Action')} on {_text(each.get('FunctionName'))}")
    return lines


def changes(old: Template, new: Template) -> dict[str, Counter[str]]:
    """How many resources are `added`, `changed` and `removed`, by type; but for routes and permissions."""
    before, after = resources(old), resources(new)
    found: dict[str, Counter[str]] = {}
    for name in sorted(before.keys() | after.keys()):
        kind = (after.get(name) or before[name])["Type"]
        what = "added" if name not in before else "removed" if name not in after else "changed"
        same = what == "changed" and equal(before[name], after[name])
        if kind not in _ELSEWHERE and not same:
            found.setdefault(kind, Counter())[what] += 1
    return found


def _functions(template: Template, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for logical, each in properties(template, "AWS::Lambda::Function"):
        if each.get("FunctionName") == name:
            yield logical, each


def _path(node: Any, parts: Mapping[str, dict[str, Any]]) -> str:
    part = parts.get(node.get("Ref", "")) if isinstance(node, dict) else None
    if part is None:
        return "/"
    above = _path(part.get("ParentId"), parts)
    return f"{above.rstrip('/')}/{part.get('PathPart')}"


def _lines(holder: str, document: Mapping[str, Any]) -> Iterator[str]:
    for statement in _list(document.get("Statement", ())):
        actions = ", ".join(map(_text, _list(statement.get("Action", statement.get("NotAction", "")))))
        targets = ", ".join(map(_text, _list(statement.get("Resource", "*"))))
        who = f" to {_text(statement['Principal'])}" if "Principal" in statement else ""
        where = f" if {_text(statement['Condition'])}" if "Condition" in statement else ""
        yield f"{holder}: {statement.get('Effect', 'Allow')} {actions} on {targets}{who}{where}"


def _list(node: Any) -> list[Any]:
    return list(node) if isinstance(node, list | tuple) else [node]


def _text(node: Any) -> str:
    """A value, with CloudFormation's functions in short: `${Bucket.Arn}/models/*`."""
    short = _short(node)
    return short if isinstance(short, str) else json.dumps(short, sort_keys=True)


def _short(node: Any) -> Any:
    if isinstance(node, list):
        return [_short(item) for item in node]
    if not isinstance(node, dict):
        return str(node)
    match node:
        case {"Ref": name}:
            return f"${{{name}}}"
        case {"Fn::GetAtt": [name, attribute]}:
            return f"${{{name}.{attribute}}}"
        case {"Fn::Join": [between, list() as items]}:
            return str(between).join(map(_text, items))
        case {"Fn::Sub": str(text)}:
            return text
    return {key: _short(value) for key, value in node.items()}


def _plain(node: Any) -> str:
    text = json.dumps(node, sort_keys=True, ensure_ascii=False)
    return "".join(letter if letter.isascii() else "?" for letter in text)
