"""Gates of a compression: which apply, how each candidate stands to them, how sure that is."""

from collections.abc import Sequence
from math import ceil, isnan

from sampan.compress import own
from sampan.contract.errors import GateError, InvalidInputError
from sampan.contract.manifest import GateEntry, Manifest
from sampan.contract.metrics import METRICS, Gate, Measured, measure, parse_gate
from sampan.contract.tensors import Tensors

LEAST = 10  # samples; a mean of fewer says little
TOLD = ("top1_agreement", "cosine", "cosine_min", "max_abs_error", "mean_abs_error", "relative_error")
EACH_OUTPUT = ("max_abs_error", "relative_error")


def limits(texts: Sequence[str], manifest: Manifest) -> list[Gate]:
    """The gates that were asked for, or the default: agreement for a classifier, cosine for all else.

    Raises:
        InvalidInputError: a gate that cannot be read, or that names an output the model lacks.
    """
    gates = [parse_gate(text) for text in texts or (default(manifest),)]
    outputs = [output.name for output in manifest.outputs]
    for gate in gates:
        if gate.output is not None and gate.output not in outputs:
            raise InvalidInputError(f"gate '{gate}' names no output of {manifest.ref}; it has {outputs}")
    return gates


def default(manifest: Manifest) -> str:
    classifier = manifest.labels is not None or "classif" in (manifest.task or "")
    return "top1_agreement>=0.99" if classifier else "cosine>=0.99"


def check_applicable(gates: Sequence[Gate], truth: Sequence[Tensors]) -> None:
    """Refuse a gate before the work starts that cannot be measured on this model's answers.

    Raises:
        InvalidInputError: the metric makes no sense for these outputs.
        GateError: the source's own answers are no numbers, so that nothing can be compared with them.
    """
    for gate in gates:
        try:
            value = measured(gate, truth, truth).value
        except (ValueError, TypeError) as error:
            raise InvalidInputError(
                f"gate '{gate}' cannot look at outputs of this shape; choose another metric"
            ) from error
        if isnan(value):
            cause = "its function gives NaN" if gate.own else "the source itself answers NaN or infinite values"
            raise GateError(f"gate '{gate}' cannot be measured: {cause}")


def measured(gate: Gate, truth: Sequence[Tensors], answers: Sequence[Tensors]) -> Measured:
    """A gate's metric over samples, its own or the user's.

    Raises:
        InvalidInputError: the metric cannot look at these outputs, or the user's function fails.
    """
    return own.measure(gate, truth, answers) if gate.own else measure(gate.metric, truth, answers, gate.output)


def check(
    gates: Sequence[Gate], truth: Sequence[Tensors], answers: Sequence[Tensors], given: bool = True
) -> list[GateEntry]:
    """Every gate, measured over the samples; `given` says that they are real ones, not generated."""
    entries = []
    for gate in gates:
        found = measured(gate, truth, answers)
        entries.append(
            GateEntry(
                gate=str(gate),
                value=found.value,
                standard_error=found.standard_error,
                samples=found.samples,
                passed=gate.holds(found.value),
                certified=given and found.samples >= needed(gate),
            )
        )
    return entries


def needed(gate: Gate) -> int:
    """Samples that certify a gate: ten, and so many that one wrong answer is not more than the gate allows.

    `top1_agreement>=0.99` allows one in a hundred, so fewer than a hundred cannot tell. A gate that allows
    none is told by any sample.
    """
    metric = METRICS.get(gate.metric)
    if metric is None or not metric.share or gate.at_most or gate.limit >= 1:
        return LEAST
    return max(LEAST, ceil(round(1 / (1 - gate.limit), 6)))


def require_certified(gates: Sequence[Gate], samples: int, given: bool) -> None:
    """Refuse before the work starts what these samples could not certify.

    Raises:
        GateError: says what is missing.
    """
    if not given:
        raise GateError("generated samples certify nothing; give real ones with --samples")
    for gate in gates:
        if samples < needed(gate):
            raise GateError(f"{_too_few(str(gate), samples)}; give more with --samples, or leave out --certify")


def information(truth: Sequence[Tensors], answers: Sequence[Tensors]) -> dict[str, float]:
    """Usual metrics for the report, whatever the gates; errors also for each output, as `metric[output]`."""
    values = {name: measure(name, truth, answers).value for name in TOLD}
    if len(truth[0]) > 1:
        for output in truth[0]:
            for name in EACH_OUTPUT:
                values[f"{name}[{output}]"] = measure(name, truth, answers, output).value
    return values


def miss(entry: GateEntry) -> float:
    """By how much a gate is missed, in its metric's units; 0 when it holds, infinite for NaN."""
    if entry.passed:
        return 0.0
    distance = distance_to_limit(entry)
    return float("inf") if isnan(distance) else distance


def doubts(entries: Sequence[GateEntry]) -> list[str]:
    """Sentences on what the samples are too few to tell."""
    words = []
    for entry in entries:
        if entry.samples < needed(parse_gate(entry.gate)):
            words.append(f"{_too_few(entry.gate, entry.samples)}; give more with --samples to be sure")
        elif entry.standard_error and distance_to_limit(entry) < 2 * entry.standard_error:
            words.append(
                f"{entry.gate} is within chance: {entry.value:.4g} ± {2 * entry.standard_error:.2g} "
                "(two standard errors) crosses the limit; give more samples to be sure"
            )
    return words


def _too_few(gate: str, samples: int) -> str:
    return f"{gate} was measured on {samples} samples only, and {needed(parse_gate(gate))} are needed to certify it"


def distance_to_limit(entry: GateEntry) -> float:
    return abs(entry.value - parse_gate(entry.gate).limit)
