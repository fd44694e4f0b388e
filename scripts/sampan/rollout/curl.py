"""The request that shows a deployed API, as a line for a shell. It names a key, and never holds its value."""

import shlex

from sampan.stacks.config import Project


def curl_line(project: Project, url: str) -> str:
    """`curl …` that asks what the default function's model is."""
    words = ["curl", "-s", *_authorization(project), shlex.quote(f"{url}v2/models/{project.default.model}")]
    return " ".join(words)


def _authorization(project: Project) -> list[str]:
    api, region = project.config.api, project.config.region
    if api.auth == "key" and api.tenants:
        name = project.names.key(api.tenants[0].name)
        where = f" --region {region}" if region else ""
        query = f"--name-query {name} --include-values --query \"items[?name=='{name}'].value | [0]\" --output text"
        return ["-H", f'"x-api-key: $(aws apigateway get-api-keys{where} {query})"']
    if api.auth in ("jwt", "cognito"):
        return ["-H", '"Authorization: Bearer $TOKEN"']
    if api.auth == "iam":
        return ["--aws-sigv4", f"aws:amz:{region or '$AWS_DEFAULT_REGION'}:execute-api", "--user", '"$KEY_ID:$SECRET"']
    return []
