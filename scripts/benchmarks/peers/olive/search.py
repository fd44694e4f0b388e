"""Olive's search over quantisation, under the gates: python search.py MODEL OUT SAMPLES SECONDS OBJECTIVE GATE…

    passes      OnnxPeepholeOptimizer → OrtTransformersOptimization (a text model) → OnnxQuantization
    searched    all that the last one offers: dynamic or static, signed or not, per channel, reduced range,
                pre-processed, MinMax, Entropy or Percentile, QDQ or QOperator
    judged by   the gates' metrics on the samples (goals), size on disk, Olive's own latency
    sampler     TPE with a seed, until SECONDS are over

Source: https://microsoft.github.io/Olive/how-to/configure-workflows/engine-configuration.html.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import onnx
from olive import run

from sampan.contract.metrics import METRICS, parse_gate

HERE = Path(__file__).resolve().parent
SEARCHED = ("quant_mode", "precision", "per_channel", "reduce_range", "calibrate_method", "quant_format")


def main(model: str, out: str, samples: str, seconds: str, objective: str, *gates: str) -> None:
    done = run(config(model, samples, int(seconds), objective, list(gates), Path(out).with_name("olive")))
    tried = [node for node in done.footprint.nodes.values() if node.metrics and node.parent_model_id]
    if not tried:
        raise SystemExit("its search could judge no model")
    good = [node for node in tried if meets(node, gates)]
    first = ("size", "bytes") if objective == "size" else ("latency", "avg")
    best = min(good or tried, key=lambda node: node.metrics.value.get_value(*first))
    for file in Path(best.model_config["config"]["model_path"]).parent.iterdir():
        shutil.copy(file, Path(out).parent)
    chosen = best.pass_run_config
    words = [f"{name} {chosen[name]}" for name in SEARCHED if isinstance(chosen.get(name), str | bool)]
    note = f"{len(tried)} models tried, {len(good)} met the gates; chosen: {', '.join(words)}"
    Path(out).with_name("note.txt").write_text(note)


def meets(node: Any, gates: tuple[str, ...]) -> bool:
    """Asked here, because Olive ranks the front of its search without looking at the goals again."""
    parsed = [parse_gate(gate) for gate in gates]
    return all(gate.holds(node.metrics.value.get_value("gates", gate.metric)) for gate in parsed)


def config(model: str, samples: str, seconds: int, objective: str, gates: list[str], place: Path) -> dict[str, Any]:
    """The workflow, as `olive run --config` reads it."""
    script = str(HERE / "agreement.py")
    data = {"name": "samples", "user_script": script, "load_dataset_config": {"type": "samples", "folder": samples}}
    data["dataloader_config"] = {"type": "no_auto_batch_dataloader"}
    return {
        "input_model": {"type": "OnnxModel", "model_path": model},
        "data_configs": [data],
        "passes": passes(model),
        "evaluators": {"judge": {"metrics": metrics(model, samples, objective, gates, script)}},
        "evaluator": "judge",
        "search_strategy": {"execution_order": "joint", "sampler": "tpe", "seed": 0, "max_time": seconds},
        "output_dir": str(place),
        "cache_dir": str(place.with_name("cache")),
        "log_severity_level": 2,
        "no_artifacts": True,
    }


def passes(model: str) -> dict[str, Any]:
    chosen: dict[str, Any] = {"peephole": {"type": "OnnxPeepholeOptimizer"}}
    inputs = {given.name for given in onnx.load(model, load_external_data=False).graph.input}
    if {"input_ids", "attention_mask"} <= inputs:  # Olive cannot tell from the file what it is
        chosen["transformer"] = {"type": "OrtTransformersOptimization", "model_type": "bert", "opt_level": 0}
    chosen["quantization"] = {"type": "OnnxQuantization", "data_config": "samples"}
    return chosen


def metrics(model: str, samples: str, objective: str, gates: list[str], script: str) -> list[dict[str, Any]]:
    """The objective first, the other of size and latency second, the gates as goals."""
    parsed = [parse_gate(gate) for gate in gates]
    goals = [
        {
            "name": gate.metric,
            "priority": 3 + index,
            "higher_is_better": METRICS[gate.metric].better > 0,
            "goal": {"type": "threshold", "value": gate.limit},
        }
        for index, gate in enumerate(parsed)
    ]
    told = {"source": model, "folder": samples, "gates": gates}
    user = {"user_script": script, "evaluate_func": "agreement", "evaluate_func_kwargs": told}
    size, latency = (1, 2) if objective == "size" else (2, 1)
    return [
        {"name": "gates", "type": "custom", "sub_types": goals, "user_config": user},
        {"name": "size", "type": "size_on_disk", "sub_types": [{"name": "bytes", "priority": size}]},
        {
            "name": "latency",
            "type": "latency",
            "data_config": "samples",
            "sub_types": [{"name": "avg", "priority": latency}],
            "user_config": {"inference_settings": {"onnx": {"session_options": {"intra_op_num_threads": 1}}}},
        },
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
