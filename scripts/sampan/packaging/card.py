"""The model card of a bill of materials: what the model takes and gives, what was measured of it, where it holds."""

from typing import Any

from sampan.contract.manifest import GateEntry, Manifest, TensorEntry
from sampan.contract.metrics import parse_gate
from sampan.contract.tensors import shape_text

_Z = 1.96  # of a two-sided 95 % interval of a mean


def model_card(manifest: Manifest) -> dict[str, Any]:
    """CycloneDX's `modelCard`.

    Source: https://cyclonedx.org/docs/1.6/json/#components_items_modelCard
    """
    parameters: dict[str, Any] = {"task": manifest.task} if manifest.task else {}
    parameters["inputs"] = [_format(tensor) for tensor in manifest.inputs]
    parameters["outputs"] = [_format(tensor) for tensor in manifest.outputs]
    card: dict[str, Any] = {"modelParameters": parameters}
    if metrics := [*_gates(manifest), *_differences(manifest)]:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    if considerations := _considerations(manifest):
        card["considerations"] = considerations
    return card


def _format(tensor: TensorEntry) -> dict[str, str]:
    return {"format": f"{tensor.name}: {tensor.datatype} {shape_text(tuple(tensor.shape))}"}


def _gates(manifest: Manifest) -> list[dict[str, Any]]:
    return [_metric(entry, manifest.parent) for entry in manifest.gates]


def _metric(entry: GateEntry, parent: str | None) -> dict[str, Any]:
    against = f" against {parent}" if parent else ""
    gate = parse_gate(entry.gate)
    metric: dict[str, Any] = {
        "type": f"{gate.metric}[{gate.output}]" if gate.output else gate.metric,
        "value": repr(entry.value),
        "slice": f"{entry.samples} samples{against}; gate {entry.gate} {'held' if entry.passed else 'not held'}",
    }
    if entry.standard_error is not None:
        low, high = entry.value - _Z * entry.standard_error, entry.value + _Z * entry.standard_error
        metric["confidenceInterval"] = {"lowerBound": repr(low), "upperBound": repr(high)}
    return metric


def _differences(manifest: Manifest) -> list[dict[str, Any]]:
    if manifest.conversion is None:
        return []
    where = f"{manifest.conversion.samples} samples against {manifest.conversion.source}"
    return [
        {"type": f"relative_error[{entry.output}]", "value": repr(entry.relative_error), "slice": where}
        for entry in manifest.conversion.differences
    ]


def _considerations(manifest: Manifest) -> dict[str, Any]:
    limits = [f"gates hold on: {manifest.safe}"] if manifest.safe else []
    limits += [f"too few samples to prove {entry.gate}" for entry in manifest.gates if entry.certified is False]
    recipe = (manifest.recipe or {}).get("name")
    found = {"technicalLimitations": limits, "performanceTradeoffs": [f"compressed by {recipe}"] if recipe else []}
    return {key: value for key, value in found.items() if value}
