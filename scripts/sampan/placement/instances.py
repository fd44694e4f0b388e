"""Options with instances: SageMaker in real time and asynchronous, Lambda Managed Instances with a GPU.

The placements `sagemaker` and `sagemaker-async` have a CPU function before the endpoint; its time and cost are in them.

Sources: https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling.html and
https://docs.aws.amazon.com/lambda/latest/dg/lambda-managed-instances.html
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.costs.cost import (
    GB,
    compute_cost,
    endpoint_data_cost,
    gb_seconds,
    instance_cost,
    managed_cost,
    request_cost,
)
from sampan.costs.energy import machine_watts, watt_hours
from sampan.costs.machines import PREFIX, Machine, machine, machines
from sampan.costs.prices import Prices
from sampan.placement.options import Case, Option, billed_ms, finished
from sampan.placement.profile import MEGABYTE, Profile
from sampan.placement.simulate import Environments, Run, Scaling, environments, fleet, queue
from sampan.placement.traffic import Window

FRONT_MB = 512  # memory of the function before an endpoint
LOAD = 0.7  # of an instance, that scaling aims at
PATIENCE = 60.0  # s that a real-time endpoint takes at most
BACKLOG = 4  # requests on each instance of an asynchronous endpoint, that scaling aims at
SETTLING = 10  # starts of an instance that a window must have for scaling to settle in it
SPARE_GB = 1.0  # of an instance's and a GPU's memory that the model cannot have
GPU_SHARE = 1.5  # of the model's size, in the GPU's memory
MANAGED = 3  # instances of a capacity provider at least: one in each of three zones


@dataclass(frozen=True, slots=True)
class RealTime:
    """A real-time endpoint; `wide` gives all threads to one request at a time, else each vCPU has its own."""

    instance: str
    wide: bool = False

    def run(self, case: Case) -> Option:
        found = machine(self.instance)
        places = 1 if found.gpu or self.wide else found.vcpus
        option = Option(
            key=f"sagemaker:{self.instance}",
            name=f"{self.instance}, real time",
            kind="sagemaker",
            placement="sagemaker",
            settings={"endpoint.instance": self.instance},
        )
        problem = too_large(case.profile, found) or _unpriced(case.prices, self.instance)
        if problem:
            return replace(option, problem=problem)
        window, runs = case.sample()
        services, speed = case.profile.on_instance(self.instance, runs, found.vcpus if self.wide else 1)
        target = LOAD * places * 60 / float(services.mean())
        most = max(2, ceil(case.traffic.peak * 60 / target) + 1)
        first = min(most, max(1, ceil(case.traffic.mean * 60 / target)))
        rules = Scaling(
            places=places,
            startup=case.profile.value("instance_start"),
            first=first,
            least=1 if case.traffic.shaped else first,
            most=most if case.traffic.shaped else first,
            target=target,
            patience=PATIENCE,
        )
        ran = fleet(window, services, rules)
        whole = behind(case, window, ran)
        count = ran.paid / window.seconds
        settings = option.settings | {
            "memory": FRONT_MB,
            "endpoint.max": rules.most,
            "endpoint.invocations": max(1, int(target)),
        }
        option = replace(option, settings=settings, name=f"{self.instance}{_times(count)}, real time")
        try:
            parts = _endpoint_parts(case, window, self.instance, ran) | _front_parts(case, window, whole)
        except InvalidInputError as error:
            return replace(option, problem=f"no price known: {error.message}")
        waited_ms = float(whole.latency[np.isfinite(whole.latency)].sum()) * 1000
        return finished(option, case, whole, parts, _wh(case, window, found, ran, waited_ms), speed)


@dataclass(frozen=True, slots=True)
class Asynchronous:
    """An asynchronous endpoint that scales to zero; its time goes from the request to the result in S3."""

    instance: str

    def run(self, case: Case) -> Option:
        found = machine(self.instance)
        option = Option(
            key=f"sagemaker-async:{self.instance}",
            name=f"{self.instance}, asynchronous",
            kind="sagemaker-async",
            placement="sagemaker-async",
            settings={"endpoint.instance": self.instance},
        )
        problem = too_large(case.profile, found) or _unpriced(case.prices, self.instance)
        if problem:
            return replace(option, problem=problem)
        window, runs = case.sample()
        services, speed = case.profile.on_instance(self.instance, runs, found.vcpus)
        most = max(2, ceil(case.traffic.peak * float(services.mean())) + 1)
        startup = case.profile.value("instance_start")
        rules = Scaling(
            places=1,
            startup=startup,
            first=ceil(case.traffic.mean * float(services.mean())) if _dense(case, window, startup) else 0,
            least=0,
            most=most,
            target=BACKLOG,
            backlog=True,
        )
        ran = fleet(window, services, rules)
        whole = _later(ran, case.profile.value("queue") / 1000)
        option = replace(option, settings=option.settings | {"endpoint.max": most, "endpoint.max_concurrency": BACKLOG})
        try:
            parts = _endpoint_parts(case, window, self.instance, ran)
        except InvalidInputError as error:
            return replace(option, problem=f"no price known: {error.message}")
        requests, hop_ms = len(services) * window.weight, case.profile.value("hop")
        parts["function before it"] = request_cost(case.prices, requests) + compute_cost(
            case.prices, gb_seconds(FRONT_MB, requests * hop_ms)
        )
        return finished(option, case, whole, parts, _wh(case, window, found, ran, len(services) * hop_ms), speed)


@dataclass(frozen=True, slots=True)
class Managed:
    """Lambda Managed Instances of a type with a GPU, as many as a capacity provider keeps and the load needs."""

    instance: str

    def run(self, case: Case) -> Option:
        found = machine(self.instance)
        option = Option(
            key=f"lambda-managed:{self.instance}",
            name=f"{self.instance}, managed",
            kind="lambda-managed",
            placement=None,
            settings={"instance": self.instance},
        )
        problem = too_large(case.profile, found)
        if problem:
            return replace(option, problem=problem)
        window, runs = case.sample()
        services, speed = case.profile.on_instance(self.instance, runs, 1)
        count = max(MANAGED, ceil(case.traffic.peak * float(services.mean()) / LOAD))
        ran = queue(window, services, 1, count)
        hours = ran.paid * window.weight / 3600
        try:
            cost = managed_cost(case.prices, self.instance, hours, len(services) * window.weight)
        except InvalidInputError as error:
            return replace(option, problem=f"no price known: {error.message}")
        option = replace(option, name=f"{self.instance}{_times(count)}, managed")
        return finished(option, case, ran, {"instances": cost}, _wh(case, window, found, ran, 0.0), speed)


def instances(prices: Prices, only: str | None = None) -> Iterator[list[RealTime] | list[Asynchronous] | list[Managed]]:
    """Candidates: each instance that has a price, in real time; asynchronous and managed ones by kind.

    Args:
        only: an instance type, the one that is asked about.

    Raises:
        InvalidInputError: it is not known.
    """
    if only:
        machine(only)
    types = [only] if only else [f"{PREFIX}{name}" for name in machines()]
    for instance in types:
        wide = [] if machine(instance).gpu else [RealTime(instance, True)]
        yield [RealTime(instance), *wide]
    yield [Asynchronous(instance) for instance in types]
    yield [Managed(one.removeprefix(PREFIX)) for one in types if machine(one).gpu]


def too_large(profile: Profile, found: Machine) -> str:
    """Why a model does not fit an instance; empty where it does."""
    need = profile.value("memory") * 2**20 / GB + SPARE_GB
    if need > found.memory_gb:
        return f"too large: it needs {need:.1f} GB of memory, the instance has {found.memory_gb:g}"
    gpu = profile.value("size") * GPU_SHARE * MEGABYTE / GB + SPARE_GB
    if found.gpu and gpu > found.gpu_memory_gb:
        return f"too large: it needs {gpu:.1f} GB on the GPU, a {found.gpu} has {found.gpu_memory_gb:g}"
    return ""


def behind(case: Case, window: Window, ran: Run) -> Run:
    """What a caller sees of an endpoint behind a function: the hop, and the function's own cold starts."""
    through = ran.latency + case.profile.value("hop") / 1000
    waits = np.where(np.isfinite(through), through, PATIENCE)
    cold = (case.profile.value("start") + case.profile.value("platform_image")) / 1000
    front = environments(window, waits, Environments(cold=cold, warm=case.profile.value("warm"), limit=case.limit))
    latency = np.where(np.isfinite(through), front.latency, np.inf)
    return replace(
        ran, latency=latency, cold=front.cold, refused=float(np.isinf(latency).mean()) if len(latency) else 0.0
    )


def _front_parts(case: Case, window: Window, whole: Run) -> dict[str, float]:
    requests = len(whole.latency) * window.weight
    used = gb_seconds(FRONT_MB, billed_ms(whole.latency) * window.weight)
    return {"function before it": request_cost(case.prices, requests) + compute_cost(case.prices, used)}


def _endpoint_parts(case: Case, window: Window, instance: str, ran: Run) -> dict[str, float]:
    moved = case.profile.value("payload") * 1e3 * len(ran.latency) * window.weight
    return {
        "instances": instance_cost(case.prices, instance, ran.paid * window.weight / 3600),
        "data": endpoint_data_cost(case.prices, moved),
    }


def _unpriced(prices: Prices, instance: str) -> str:
    return "" if instance in prices.here.instances else f"no price known for {prices.region}; --prices takes one"


def _dense(case: Case, window: Window, startup: float) -> bool:
    """Whether requests come so steadily that nothing ever scales to zero; the window then is too short to settle in."""
    return not case.traffic.shaped and window.seconds < SETTLING * startup


def _wh(case: Case, window: Window, found: Machine, ran: Run, front_ms: float) -> float | None:
    """Wh of a month, an estimate; None where the power of the GPU is not known.

    Args:
        front_ms: that the function before the instances runs for, in the window.
    """
    try:
        power = machine_watts(case.energy, found, min(1.0, ran.utilisation))
    except InvalidInputError:
        return None
    front = watt_hours(case.energy, FRONT_MB, front_ms)
    return power * ran.paid * window.weight / 3600 + front * window.weight


def _later(ran: Run, seconds: float) -> Run:
    return replace(ran, latency=ran.latency + seconds)


def _times(count: float) -> str:
    return f" × {count:.3g}" if round(count, 2) != 1 else ""
