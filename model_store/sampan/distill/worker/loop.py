"""Training: epochs over equal global batches, early stopping on the validation rows, the best weights kept.

Every process sees the same order of rows and takes every N-th of a batch; rows that only fill it up weigh
nothing. The gradients are summed, so that N processes take the step that one takes, but for rounding.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from losses import finished, penalty, row_agreements, row_losses
from students import UsageError
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

Tell = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Place:
    """Which process this is, of how many."""

    rank: int
    world: int

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values


@dataclass(frozen=True)
class Rows:
    """Inputs and the teacher's answers, each [rows, …]."""

    inputs: Sequence[Tensor]
    targets: Sequence[Tensor]

    def __len__(self) -> int:
        return len(self.inputs[0])

    def take(self, index: Tensor) -> "Rows":
        return Rows([x[index] for x in self.inputs], [y[index] for y in self.targets])


class Teaching:
    """Costs and agreement of a student on rows, for the outputs of a task."""

    def __init__(self, task: dict[str, Any], train: Rows) -> None:
        self.outputs = task["outputs"]
        scales = [_scale(output["head"], target) for output, target in zip(self.outputs, train.targets, strict=True)]
        self.shifts, self.scales = [shift for shift, _ in scales], [scale for _, scale in scales]

    def cost(self, raw: Sequence[Tensor], rows: Rows) -> Tensor:
        parts = zip(self.outputs, raw, rows.targets, self.shifts, self.scales, strict=True)
        return torch.stack([row_losses(*part) for part in parts]).sum(0)

    def answers(self, raw: Sequence[Tensor]) -> list[Tensor]:
        parts = zip(raw, (output["head"] for output in self.outputs), self.shifts, self.scales, strict=True)
        return [finished(*part) for part in parts]

    def agreement(self, raw: Sequence[Tensor], rows: Rows) -> Tensor:
        return row_agreements(self.outputs[0], self.answers(raw)[0], rows.targets[0])


def train(
    task: dict[str, Any], student: nn.Module, teaching: Teaching, learn: Rows, check: Rows, place: Place, tell: Tell
) -> dict[str, Any]:
    """Train a student in place; it ends with its best weights.

    Raises:
        UsageError: the loss is no longer a finite number.
    """
    model = DistributedDataParallel(student) if place.world > 1 else student
    optimiser = _optimiser(task, student)
    schedule = _schedule(task, optimiser)
    best, best_epoch, kept = math.inf, 0, copy.deepcopy(student.state_dict())
    epoch = 0
    for epoch in range(1, task["epochs"] + 1):
        rate = optimiser.param_groups[0]["lr"]
        student.train()
        loss = _epoch(task, model, teaching, optimiser, learn, place, epoch)
        student.eval()
        validation, agreement = evaluate(task, student, teaching, check, place)
        if not math.isfinite(loss) or not math.isfinite(validation):
            raise UsageError(f"the loss is not a finite number in epoch {epoch}; lower the rate with --lr")
        tell(epoch, {"loss": loss, "validation_loss": validation, "agreement": agreement, "lr": rate})
        if validation < best:
            best, best_epoch, kept = validation, epoch, copy.deepcopy(student.state_dict())
        if task["patience"] and epoch - best_epoch >= task["patience"]:
            break
        if schedule is not None:
            schedule.step(*([validation] if task["schedule"] == "plateau" else []))
    student.load_state_dict(kept)
    return {"epochs": epoch, "best_epoch": best_epoch, "early": epoch < task["epochs"]}


def evaluate(
    task: dict[str, Any], student: nn.Module, teaching: Teaching, rows: Rows, place: Place
) -> tuple[float, float]:
    """Mean loss and mean agreement over rows; every process looks at its share and gets the same figures."""
    sums = torch.zeros(2, dtype=torch.float64)
    mine = torch.arange(len(rows))[place.rank :: place.world]
    with torch.no_grad():
        for index in mine.split(task["batch"]):
            part = rows.take(index)
            raw = as_tuple(student(*part.inputs))
            sums += torch.stack([teaching.cost(raw, part).sum(), teaching.agreement(raw, part).sum()]).double()
    loss, agreement = (place.total(sums) / len(rows)).tolist()
    return loss, agreement


def as_tuple(raw: Any) -> tuple[Tensor, ...]:
    return (raw,) if isinstance(raw, Tensor) else tuple(raw)


def _epoch(
    task: dict[str, Any], model: nn.Module, teaching: Teaching, optimiser: Any, rows: Rows, place: Place, epoch: int
) -> float:
    """One pass over the rows; gives the mean loss of a row, penalties left out."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(task["seed"] * 100_003 + epoch))
    lost = torch.zeros((), dtype=torch.float64)
    for batch in order.split(task["batch"]):
        mine, weights = share(batch, place)
        part = rows.take(mine)
        optimiser.zero_grad()
        cost = (teaching.cost(as_tuple(model(*part.inputs)), part) * weights).sum()
        # DDP takes the mean of the gradients, so each process brings its part of the sum, `world` times over
        (cost * place.world / len(batch) + penalty(model.parameters(), task["l1"], task["l2"])).backward()
        optimiser.step()
        lost += cost.detach().double()
    return float(place.total(lost) / len(rows))


def share(batch: Tensor, place: Place) -> tuple[Tensor, Tensor]:
    """The rows of a batch that this process takes, and their weights; every process gets as many."""
    mine = batch[place.rank :: place.world]
    fill = -(-len(batch) // place.world) - len(mine)
    weights = torch.cat([torch.ones(len(mine)), torch.zeros(fill)])
    return torch.cat([mine, batch[:fill]]), weights


def _scale(head: str, target: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the rows for a linear head, else nothing to do."""
    if head != "linear":
        return torch.zeros(()), torch.ones(())
    spread = target.double().std(0, correction=0)
    return target.double().mean(0).float(), torch.where(spread > 1e-6, spread, 1.0).float()


def _optimiser(task: dict[str, Any], student: nn.Module) -> Any:
    parameters, rate = student.parameters(), task["lr"]
    if task["optimiser"] == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=task["momentum"])
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[task["optimiser"]](parameters, rate)


def _schedule(task: dict[str, Any], optimiser: Any) -> Any:
    kinds = torch.optim.lr_scheduler
    if task["schedule"] == "cosine":
        return kinds.CosineAnnealingLR(optimiser, T_max=task["epochs"])
    if task["schedule"] == "step":
        return kinds.StepLR(optimiser, step_size=max(1, task["epochs"] // 3), gamma=0.1)
    if task["schedule"] == "plateau":
        return kinds.ReduceLROnPlateau(optimiser, factor=0.5, patience=max(1, task["patience"] // 2))
    return None
