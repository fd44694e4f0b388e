"""A stage goes from AWS: its stacks, the last one first. Models and release records stay, unless they are named.

Observe · Rollout · Gpu · Api · Serve → gone;   Store → gone only with its bucket, by name
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from sampan.aws.buckets import Content
from sampan.contract.errors import ConflictError, InvalidInputError
from sampan.costs.prices import read_prices
from sampan.rollout.cloud import Cloud, RolloutError
from sampan.stacks.config import Project
from sampan.stacks.names import BUCKET, KEY, STACKS

STORE = "Store"
KEY_DAYS = 30  # until a key is deleted for good
_PAUSE = 5.0  # s between two questions
_BUCKETS = "AWS::S3::Bucket"
_GB = 2**30  # as AWS bills it

Watch = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """What is there to be destroyed: stacks in the order of their end, and the store's bucket and key."""

    stacks: tuple[str, ...]
    bucket: str | None
    key: str | None
    buckets: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What stays, and what it costs a month in USD (None: no price is known for the region).

    Attributes:
        deleted: stacks that are gone now.
        bucket: of the store; None: it is gone, or was never there.
    """

    deleted: tuple[str, ...]
    bucket: str | None = None
    objects: int = 0
    size: int = 0
    usd_month: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """In JSON's types: `sampan destroy -o json`."""
        return asdict(self)


def find_doomed(project: Project, cloud: Cloud) -> Doomed:
    """What a stage has on AWS.

    Raises:
        CloudError: AWS cannot be asked.
    """
    names = project.names
    found = {part: stack for part in reversed(STACKS) if (stack := cloud.stacks.stack(names.stack(part)))}
    outputs = found[STORE].outputs if STORE in found else {}
    return Doomed(
        stacks=tuple(stack.name for stack in found.values()),
        bucket=outputs.get(BUCKET),
        key=outputs.get(KEY),
        buckets=tuple(cloud.stacks.resources(names.stack(STORE), _BUCKETS)),
    )


def destroy(
    project: Project, cloud: Cloud, doomed: Doomed, *, confirmed: str | None = None, watch: Watch = lambda words: None
) -> Left:
    """Delete what was found.

    Args:
        confirmed: name of the store's bucket; it is deleted with all that is in it, and its key. None: the store stays.

    Raises:
        InvalidInputError: that is not the bucket's name; nothing was deleted.
        ConflictError: a stack is being changed.
        RolloutError: a stack cannot be deleted; says why.
        CloudError: AWS refuses, or the connection is lost; a rerun continues.
    """
    if confirmed is not None and confirmed != doomed.bucket:
        raise InvalidInputError(
            f"'{confirmed}' is not the name of the store's bucket, which is {doomed.bucket or 'not there'}; "
            "nothing was deleted"
        )
    store = project.names.stack(STORE)
    stacks = [name for name in doomed.stacks if name != store]
    for name in stacks:
        _delete(cloud, name, watch)
    if confirmed is None:
        return _left(cloud, doomed, tuple(stacks))
    for bucket in doomed.buckets:  # before their stack, which is how a rerun finds them
        _empty(cloud, bucket, watch)
    if doomed.key:
        cloud.buckets.forget_key(doomed.key, KEY_DAYS)
    _delete(cloud, store, watch)
    return Left(deleted=(*stacks, store))


def _delete(cloud: Cloud, name: str, watch: Watch) -> None:
    found = cloud.stacks.stack(name)
    if found is not None and found.busy and found.status != "DELETE_IN_PROGRESS":
        raise ConflictError(f"the stack {name} is in {found.status}; wait until that ends, and run this again")
    if found is None or found.status != "DELETE_IN_PROGRESS":
        cloud.stacks.delete(name)
    while (found := cloud.stacks.stack(name)) is not None:
        if found.status.endswith("_FAILED"):
            failures = cloud.stacks.failures(name)
            reason = f"{failures[0].resource}: {failures[0].reason}" if failures else found.reason
            raise RolloutError(
                f"the stack {name} cannot be deleted ({reason.rstrip('.')}); delete that by hand, and run this again"
            )
        watch(f"deleting {name}: {found.status}")
        cloud.pause(_PAUSE)


def _empty(cloud: Cloud, bucket: str, watch: Watch) -> None:
    if cloud.buckets.content(bucket) is None:
        return
    gone = 0

    def deleted(count: int) -> None:
        nonlocal gone
        gone += count
        watch(f"emptying {bucket}: {gone} objects are gone")

    cloud.buckets.delete(bucket, deleted)


def _left(cloud: Cloud, doomed: Doomed, deleted: tuple[str, ...]) -> Left:
    content = cloud.buckets.content(doomed.bucket) if doomed.bucket else None
    if content is None:
        return Left(deleted=deleted)
    return Left(
        deleted=deleted,
        bucket=doomed.bucket,
        objects=content.objects,
        size=content.size,
        usd_month=_price(cloud.region(), content, doomed.key is not None),
    )


def _price(region: str, content: Content, key: bool) -> float | None:
    """What a bucket and its key cost a month."""
    try:
        here = read_prices(region).here
    except InvalidInputError:
        return None
    if here.storage is None or here.keys is None:
        return None
    return content.size / _GB * here.storage.gb_month + here.keys.key_month * key
