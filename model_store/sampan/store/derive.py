"""A version made of another: its own model file, everything else inherited, with lineage and gates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sampan.contract.manifest import GateEntry, Golden, Needs
from sampan.serving.golden import Sample
from sampan.serving.packed import EXTRA, is_packed
from sampan.serving.session import OnnxSession
from sampan.store.add import Added
from sampan.store.files import copy_file, store_errors, write_file
from sampan.store.onnx_file import copy_model, copy_packed, read_graph
from sampan.store.protocol import GOLDEN_FILE, MODEL_FILE, PACKED_FILE, REPORT_FILE, Facts, Store, Version


def derive(
    store: Store,
    parent: Version,
    model: Path,
    samples: Sequence[Sample],
    *,
    recipe: dict[str, Any],
    gates: Sequence[GateEntry] = (),
    needs: Needs | None = None,
    golden: Golden | None = None,
    report: bytes | None = None,
    safe: str | None = None,
) -> Added:
    """Register a model file as a new version of the parent's model.

    Args:
        model: the new ONNX file, its external data beside it; both are copied. One that Sampan packed
            (`.onnx.zst`) stays packed, and the version needs the extra `zstd` from then on.
        samples: inputs with this model's `outputs` and the source model's `reference`.
        needs: pip extras and session options; None inherits the parent's.
        golden: how the samples came about and their tolerances; None inherits the parent's.
        report: JSON that is kept as `report.json` beside the artefact.
        safe: the CPUs on which its gates hold (`Manifest.safe`).

    Raises:
        ModelError: the file cannot be read or loaded.
        StoreError: the store cannot be written.
    """
    source = parent.manifest
    packed = is_packed(model)
    file = PACKED_FILE if packed else MODEL_FILE
    needs = _needs(needs or source.needs, packed)
    with store.draft(source.name) as draft:
        graph = (copy_packed if packed else copy_model)(model, draft.folder)
        session = OnnxSession(draft.folder / file, config=needs.session)
        copy_companions(parent, draft.folder)
        if report is not None:
            with store_errors(draft.folder, "write to"):
                write_file(draft.folder / REPORT_FILE, report)
        facts = Facts(
            signature=session.signature,
            opset=graph.opset,
            operators=graph.operators,
            model=file,
            golden=_golden(golden or source.golden, len(samples)),
            parent=source.ref,
            recipe=recipe,
            gates=gates,
            task=source.task,
            pipeline=source.pipeline,
            labels=source.labels,
            licence=source.licence,
            needs=needs,
            report=None if report is None else REPORT_FILE,
            safe=safe,
        )
        return Added(draft.register(facts, samples), draft.existed)


def copy_companions(parent: Version, folder: Path) -> list[str]:
    """Copy what a version has beside its model (labels, tokenizer, …) into a folder; gives the paths."""
    model = {parent.manifest.model, *read_graph(parent.model_path).external}
    companions = [path for path in parent.manifest.artefact if path not in model]
    for path in companions:
        copy_file(parent.folder / path, folder / path)
    return companions


def _needs(needs: Needs, packed: bool) -> Needs:
    """The needs, with the extra that unpacks the model if it is packed, and without it if not."""
    others = [extra for extra in needs.extras if extra != EXTRA]
    return Needs(extras=[*others, EXTRA] if packed else others, session=needs.session)


def _golden(like: Golden, count: int) -> Golden:
    return Golden(file=GOLDEN_FILE, count=count, source=like.source, seed=like.seed, rtol=like.rtol, atol=like.atol)
