"""Options without instances: Lambda with an image, with a zip and SnapStart, with provisioned instances; SageMaker
serverless.

Limits: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html and
https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, sqrt
from typing import Literal

import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.contract.function import MAX_MEMORY, MIN_MEMORY, Placement
from sampan.costs.cost import (
    compute_cost,
    endpoint_data_cost,
    gb_seconds,
    provisioned_cost,
    request_cost,
    serverless_cost,
    snapstart_cost,
)
from sampan.costs.energy import watt_hours
from sampan.placement.figures import Figure
from sampan.placement.options import Case, Option, billed_ms, finished
from sampan.placement.profile import Profile
from sampan.placement.simulate import Environments, Run, environments
from sampan.placement.traffic import MONTH, Times, Window

Kind = Literal["lambda", "lambda-zip", "lambda-provisioned"]
NAMES = {"lambda": "Lambda image", "lambda-zip": "zip + SnapStart", "lambda-provisioned": "provisioned concurrency"}
PLACEMENTS: dict[Kind, Placement] = {"lambda": "lambda", "lambda-zip": "lambda-zip", "lambda-provisioned": "lambda"}
ZIP_MB, IMAGE_MB = 250.0, 10_000.0
PAYLOAD_KB, SERVERLESS_PAYLOAD_KB = 4500.0, 4000.0  # of tensors: 6 MB of base64; 4 MB
HEADROOM = 1.1  # of memory, over the peak
SIZES = (1769, 3538, 5307, 7076, MAX_MEMORY)  # MB: one, two, three, four and six vCPUs
SERVERLESS = tuple(range(1024, 6145, 1024))  # MB
SERVERLESS_MOST = 200  # at once


@dataclass(frozen=True, slots=True)
class OnLambda:
    """A function with some memory; `kind` says how it starts. As many are provisioned as the objective needs."""

    kind: Kind
    memory: int

    def run(self, case: Case) -> Option:
        option = Option(
            key=self.kind,
            name=f"{NAMES[self.kind]}, {self.memory:,} MB",
            kind=self.kind,
            placement=PLACEMENTS[self.kind],
            settings={"memory": self.memory} | ({"snapstart": True} if self.kind == "lambda-zip" else {}),
        )
        problem = self._problem(case.profile)
        if problem:
            return replace(option, problem=problem)
        window, runs = case.sample()
        services = case.profile.on_lambda(self.memory, runs)
        rules = Environments(cold=self.cold(case.profile), warm=case.profile.value("warm"), limit=case.limit)
        ran = environments(window, services, rules)
        if self.kind == "lambda-provisioned":
            kept, ran = self._provisioned(case, window, services, rules, ran)
            settings = option.settings | {"provisioned": kept}
            option = replace(option, settings=settings, name=f"{kept} provisioned, {self.memory:,} MB")
        try:
            parts = self._parts(case, window, services, ran, option.settings.get("provisioned", 0))
        except InvalidInputError as error:
            return replace(option, problem=f"no price known: {error.message}")
        wh = watt_hours(case.energy, self.memory, ran.capacity * 1000 * window.weight)
        wh += self._kept_hours(case, option.settings.get("provisioned", 0))
        speed = Figure(float(np.median(services)) * 1000, "ms", "scaled", _scaled(case.profile, self.memory))
        return finished(option, case, ran, parts, wh, speed)

    def cold(self, profile: Profile) -> float:
        """s that a cold start adds."""
        if self.kind == "lambda-zip":
            return profile.value("restore") / 1000
        return (self.init(profile) + profile.value("platform_image")) / 1000

    def init(self, profile: Profile) -> float:
        """ms of the init phase, at a full CPU, which are billed: start, reading and loading the model."""
        read = profile.value("size") / profile.value("read") * 1000
        return profile.value("start") + profile.value("load") + read

    def _problem(self, profile: Profile) -> str:
        need, size = profile.value("memory") * HEADROOM, profile.value("size") + profile.value("dependencies")
        if need > MAX_MEMORY:
            return f"too large: it needs {need:,.0f} MB of memory, a function has {MAX_MEMORY:,} at most"
        if need > self.memory:
            return f"it needs {need:,.0f} MB of memory"
        most = ZIP_MB if self.kind == "lambda-zip" else IMAGE_MB
        if size > most:
            what = "a zip" if self.kind == "lambda-zip" else "an image"
            return f"too large: {size:,.0f} MB with its libraries, {what} may have {most:,.0f} unpacked"
        if profile.value("payload") > PAYLOAD_KB:
            return f"a request has {profile.value('payload') / 1000:.1f} MB of tensors, Lambda takes about 4.5"
        return ""

    def _provisioned(
        self, case: Case, window: Window, services: Times, rules: Environments, plain: Run
    ) -> tuple[int, Run]:
        """The fewest instances that meet the objective: of the mean load, and of some deviations above it."""
        load = case.traffic.peak * float(services.mean())
        tries = {ceil(load + spread * sqrt(load)) for spread in (0, 1, 2, 3, 4)} | {plain.peak}
        kept, found = 1, plain
        for kept in sorted({min(case.limit, max(1, count)) for count in tries}):
            found = environments(window, services, replace(rules, provisioned=kept, limit=case.limit))
            if found.percentile(95) * 1000 <= case.p95_ms:
                break
        return kept, found

    def _parts(self, case: Case, window: Window, services: Times, ran: Run, kept: int) -> dict[str, float]:
        prices, weight = case.prices, window.weight
        served = np.isfinite(ran.latency)
        parts = {"requests": request_cost(prices, len(services) * weight)}
        init = self.init(case.profile) / 1000
        if self.kind == "lambda-provisioned":
            warm = gb_seconds(self.memory, billed_ms(services[served & ~ran.cold]) * weight)
            over = gb_seconds(self.memory, billed_ms(services[served & ran.cold] + init) * weight)
            parts["provisioned"] = provisioned_cost(prices, self.memory, kept, MONTH, warm)
            return parts | {"compute": compute_cost(prices, over)}
        starts = 0.0 if self.kind == "lambda-zip" else init
        used = gb_seconds(self.memory, billed_ms((services + ran.cold * starts)[served]) * weight)
        parts["compute"] = compute_cost(prices, used)
        if self.kind == "lambda-zip":
            parts["snapshot"] = snapstart_cost(prices, self.memory, MONTH, float(ran.cold.sum()) * weight)
        return parts

    def _kept_hours(self, case: Case, kept: int) -> float:
        """Wh of the memory of instances that wait."""
        return kept * self.memory / 1024 * case.energy.memory_watts_gb * case.energy.pue * MONTH / 3600


@dataclass(frozen=True, slots=True)
class Serverless:
    """A serverless endpoint of SageMaker with some memory, asked directly."""

    memory: int

    def run(self, case: Case) -> Option:
        profile = case.profile
        option = Option(
            key="sagemaker-serverless",
            name=f"SageMaker serverless, {self.memory // 1024} GB",
            kind="sagemaker-serverless",
            placement=None,
            settings={"memory": self.memory},
        )
        need = profile.value("memory") * HEADROOM
        if need > self.memory:
            return replace(option, problem=f"too large: it needs {need:,.0f} MB of memory, there are 6,144 at most")
        if profile.value("payload") > SERVERLESS_PAYLOAD_KB:
            return replace(option, problem="a request has more than 4 MB of tensors")
        window, runs = case.sample()
        services = profile.on_lambda(self.memory, runs)
        read = profile.value("size") / profile.value("read") * 1000
        cold = (profile.value("serverless_start") + profile.value("load") + read) / 1000
        ran = environments(window, services, Environments(cold=cold, warm=profile.value("warm"), limit=SERVERLESS_MOST))
        served = np.isfinite(ran.latency)
        moved = profile.value("payload") * 1e3 * int(served.sum()) * window.weight
        try:
            parts = {
                "compute": serverless_cost(case.prices, self.memory, billed_ms(services[served]) * window.weight),
                "data": endpoint_data_cost(case.prices, moved),
            }
        except InvalidInputError as error:
            return replace(option, problem=f"no price known: {error.message}")
        wh = watt_hours(case.energy, self.memory, ran.capacity * 1000 * window.weight)
        speed = Figure(float(np.median(services)) * 1000, "ms", "scaled", _scaled(profile, self.memory))
        return finished(option, case, ran, parts, wh, speed)


def functions(profile: Profile) -> Iterator[list[OnLambda] | list[Serverless]]:
    """Candidates by kind; the sizes of memory in which the model fits, or the largest, which says why not."""
    need = profile.value("memory") * HEADROOM
    fit = max(MIN_MEMORY, ceil(need / 128) * 128)
    sizes = sorted({size for size in (fit, *SIZES) if need <= size <= MAX_MEMORY}) or [MAX_MEMORY]
    for kind in NAMES:
        yield [OnLambda(kind, size) for size in sizes]  # type: ignore[arg-type]
    room = [size for size in SERVERLESS if need <= size] or [SERVERLESS[-1]]
    yield [Serverless(size) for size in dict.fromkeys((room[0], room[len(room) // 2], room[-1]))]


def _scaled(profile: Profile, memory: int) -> str:
    return f"{memory:,} MB: {profile.threads(memory / 1769):.2f} × one vCPU; {profile.figures['latency'].said}"
