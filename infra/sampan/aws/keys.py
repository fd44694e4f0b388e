"""API keys of API Gateway: what they are called, never what they are."""

from collections.abc import Iterator
from dataclasses import dataclass

from sampan.aws.session import Session, asked


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The id is what requests and logs carry; the value stays with AWS."""

    id: str
    name: str
    enabled: bool


def api_keys(session: Session, prefix: str = "") -> Iterator[ApiKey]:
    """The account's keys in this region whose names begin with `prefix`.

    Raises:
        CloudError: AWS does not say.
    """
    request = {"includeValues": False, "limit": 500, **({"nameQuery": prefix} if prefix else {})}
    with asked(f"listing the API keys {prefix}*"):
        client = session.client("apigateway")
        while True:
            answer = client.get_api_keys(**request)
            yield from (ApiKey(key["id"], key.get("name", ""), key.get("enabled", True)) for key in answer["items"])
            if not answer.get("position"):
                return
            request["position"] = answer["position"]
