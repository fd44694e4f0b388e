"""Versions and aliases by the store's own doors: drafts, references, moves, damage."""

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest

import models
from sampan.contract.errors import ConflictError, InvalidInputError, ModelError, NotFoundError, StoreError
from sampan.contract.manifest import GateEntry, Needs
from sampan.serving.golden import Sample
from sampan.store import LocalStore, open_store
from sampan.store.add import add_model
from sampan.store.derive import derive
from sampan.store.history import AliasMoved, Registered, history
from sampan.store.moves import promote, rollback
from sampan.store.proof import open_session
from sampan.store.verify import verify


def ticking() -> Callable[[], str]:
    """A clock that shows another second each time it is read."""
    seconds = count()
    return lambda: f"2026-01-01T00:00:{next(seconds):02}Z"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Three versions of the model 'm'."""
    store = LocalStore(tmp_path / "store", clock=ticking(), who=lambda: "ada@host")
    for seed in range(3):
        add_model(store, models.save(models.linear(seed=seed), tmp_path / "m.onnx"))
    return store


def damage(path: Path) -> None:
    """Flip one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_name_means_the_newest_until_it_has_a_live_version(store: LocalStore):
    assert store.find("m").ref == "m:3"
    promote(store, "m:2")
    assert store.find("m").ref == "m:2"
    assert store.find("m@live").ref == "m:2"
    assert store.find("m:1").ref == "m:1"


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("n", "did you mean 'm'|it has 'm'"),
        ("m:9", "no version 9; it has 1, 2, 3"),
        ("m@beta", "no alias 'beta'; it has none .*sampan promote m:1 --alias beta"),
    ],
)
def test_what_is_missing_says_what_there_is(store: LocalStore, ref: str, words: str):
    with pytest.raises(NotFoundError, match=words):
        store.find(ref)


def test_an_empty_store_says_how_to_add(tmp_path: Path):
    store = open_store(tmp_path / "none")
    assert store.names() == []
    assert verify(store).sound
    with pytest.raises(NotFoundError, match="is empty; add one with `sampan add"):
        store.find("m")
    assert not (tmp_path / "none").exists()


def test_other_kinds_of_store_are_said_clearly():
    assert open_store("s3://bucket/prefix/").location == "s3://bucket/prefix"
    with pytest.raises(StoreError, match="neither a folder nor s3://bucket/prefix"):
        open_store("https://example.com")


def test_the_package_is_light():
    code = "import sampan.store.history, sys; sys.exit(bool({'onnx', 'onnxruntime'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_draft_left_without_registration_leaves_nothing(store: LocalStore):
    with store.draft("other") as draft:
        (draft.folder / "model.onnx").write_bytes(b"half")
    assert "other" not in store.names()
    assert not draft.folder.exists()


def test_two_drafts_at_once_get_their_own_numbers(store: LocalStore, tmp_path: Path):
    facts_of = add_model(store, tmp_path / "m.onnx").version
    with store.draft("m") as one, store.draft("m") as two:
        registered = []
        for draft, content in ((two, b"two"), (one, b"one")):
            (draft.folder / "model.onnx").write_bytes(content)
            registered.append(draft.register(facts(facts_of), facts_of.golden()).ref)
    assert registered == ["m:4", "m:5"]


def facts(version):
    from sampan.store import Facts

    manifest = version.manifest
    return Facts(
        signature=manifest.signature, opset=manifest.opset, operators=manifest.operators, golden=manifest.golden
    )


def test_a_move_says_who_when_from_to_and_why(store: LocalStore):
    promote(store, "m:1", why="first")
    promote(store, "m:3", why="better")
    trail = json.loads((store.root / "m/aliases/live.json").read_text())
    assert trail["version"] == 3
    assert [(move["from"], move["to"], move["why"], move["who"]) for move in trail["moves"]] == [
        (None, 1, "first", "ada@host"),
        (1, 3, "better", "ada@host"),
    ]
    assert trail["moves"][0]["when"] < trail["moves"][1]["when"]


def test_promotes_push_and_rollbacks_pop(store: LocalStore):
    for number in (1, 2, 3):
        promote(store, f"m:{number}")
    assert rollback(store, "m").version.ref == "m:2"
    assert rollback(store, "m").version.ref == "m:1"
    with pytest.raises(ConflictError, match="nothing to roll back to: m:1 is the first"):
        rollback(store, "m")
    promote(store, "m:3")
    assert rollback(store, "m").version.ref == "m:1"


def test_a_promote_to_where_it_points_is_no_move(store: LocalStore):
    promote(store, "m:1")
    assert promote(store, "m:1").move is None
    assert len(store.aliases("m")["live"].moves) == 1


def test_a_rollback_without_an_alias_or_a_model_is_told(store: LocalStore):
    with pytest.raises(NotFoundError, match="no alias 'live'"):
        rollback(store, "m")
    with pytest.raises(NotFoundError, match="no model 'other'"):
        rollback(store, "other")


@pytest.mark.parametrize("file", ["model.onnx", "golden.npz"])
def test_a_rollback_to_a_damaged_version_is_refused_and_the_alias_stays(store: LocalStore, file: str):
    promote(store, "m:1")
    promote(store, "m:2")
    damage(store.find("m:1").folder / file)
    with pytest.raises(ModelError, match=f"m:1 does not prove itself.*{file}.*SHA-256 differs"):
        rollback(store, "m")
    assert store.find("m@live").ref == "m:2"
    assert len(store.aliases("m")["live"].moves) == 2


def test_a_version_that_answers_otherwise_is_refused_unless_told(store: LocalStore):
    version = store.find("m:3")
    samples = [Sample(sample.inputs, {"y": sample.outputs["y"] + 1}) for sample in version.golden()]
    with store.draft("m") as draft:
        (draft.folder / "model.onnx").write_bytes(version.model_path.read_bytes())
        (draft.folder / "other.txt").write_bytes(b"other")
        draft.register(facts(version), samples)
    with pytest.raises(ModelError, match="0 of 32 golden samples agree; output 'y' differs by up to 1"):
        promote(store, "m:4")
    assert store.aliases("m") == {}
    assert promote(store, "m:4", proof=False).version.ref == "m:4"


def test_compare_and_swap(store: LocalStore):
    promote(store, "m:1", expected=None)
    with pytest.raises(ConflictError, match="points at 1 by now, not at 2"):
        promote(store, "m:3", expected=2)
    with pytest.raises(ConflictError, match="points at 1 by now, not at nothing"):
        promote(store, "m:1", expected=None)
    assert promote(store, "m:3", expected=1).version.ref == "m:3"


def test_an_alias_needs_a_good_name_and_a_version(store: LocalStore):
    with pytest.raises(InvalidInputError, match="no alias"):
        promote(store, "m:1", "../up")
    with pytest.raises(NotFoundError, match="no version 9"):
        store.move("m", "live", 9)


def test_history_is_in_the_order_of_time(store: LocalStore):
    promote(store, "m:1")
    promote(store, "m:2", "candidate")
    kinds = [event.alias if isinstance(event, AliasMoved) else "version" for event in history(store, "m")]
    assert kinds == ["version", "version", "version", "live", "candidate"]
    assert isinstance(history(store, "m")[0], Registered)


@pytest.mark.parametrize("file", ["model.onnx", "golden.npz"])
def test_verify_names_a_damaged_file(store: LocalStore, file: str):
    damage(store.find("m:2").folder / file)
    for quick in (True, False):
        verdict = verify(store, quick=quick)
        assert verdict.checked == 3
        assert [problem.ref for problem in verdict.problems] == ["m:2"]
        assert file in verdict.problems[0].problem
    assert verify(store, "m:1").sound
    assert not verify(store, "m:2").sound


def test_verify_names_missing_and_foreign_files(store: LocalStore):
    (store.find("m:1").folder / "golden.npz").unlink()
    (store.find("m:2").folder / "extra.txt").write_text("x")
    words = [problem.problem for problem in verify(store).problems]
    assert words == ["golden.npz is missing", "extra.txt is not of this version"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema": 99}', b'{"name": 3}', b"[" * 100_000])
def test_a_damaged_manifest_is_one_clear_sentence(store: LocalStore, content: bytes):
    (store.root / "m/versions/2/manifest.json").write_bytes(content)
    with pytest.raises(StoreError, match="m:2 is damaged"):
        store.find("m:2")
    assert store.find("m:1").ref == "m:1"
    assert [problem.ref for problem in verify(store).problems] == ["m:2"]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("licence", "MIT", "manifest.json was changed: its digest"),
        ("model", "../1/model.onnx", "names files outside"),
        ("version", 1, "of another version"),
    ],
)
def test_an_edited_manifest_is_found(store: LocalStore, key: str, value: object, words: str):
    path = store.root / "m/versions/2/manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert [words in problem.problem for problem in verify(store).problems] == [True]


@pytest.mark.parametrize("content", ['{"version": 9, "moves": []}', '{"version": 1, "moves": []}', "{", ""])
def test_a_damaged_alias_is_found(store: LocalStore, content: str):
    promote(store, "m:1")
    (store.root / "m/aliases/live.json").write_text(content)
    assert len(verify(store).problems) == 1


def test_adding_again_heals_a_damaged_version(store: LocalStore, tmp_path: Path):
    damage(store.find("m:3").model_path)
    added = add_model(store, models.save(models.linear(seed=2), tmp_path / "m.onnx"))
    assert not added.existed
    assert added.version.ref == "m:4"


def test_a_store_that_is_a_file_is_one_clear_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    store = open_store(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match="a part of that path is a file"):
        add_model(store, models.save(models.linear(), tmp_path / "m.onnx"))
    with pytest.raises(StoreError, match="a part of that path is a file"):
        open_store(tmp_path / "file").names()


def test_a_derived_version_inherits_and_keeps_its_lineage(tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    for name, text in (("labels.txt", "a\nb\nc\n"), ("tokenizer.json", "{}")):
        (tmp_path / name).write_text(text)
    parent = add_model(
        store,
        models.save_with_external_data(models.linear(), tmp_path / "m.onnx"),
        labels=tmp_path / "labels.txt",
        extras=[tmp_path / "tokenizer.json"],
        licence="MIT",
    ).version
    session = open_session(parent)
    samples = [Sample(s.inputs, session.run(s.inputs), reference=s.truth) for s in parent.golden()]
    gate = GateEntry(gate="cosine>=0.99", value=1.0, standard_error=0.0, samples=len(samples), passed=True)
    child = derive(
        store,
        parent,
        models.save(models.linear(), tmp_path / "small.onnx"),
        samples,
        recipe={"passes": ["inline"]},
        gates=[gate],
        needs=Needs(session={"session.set_denormal_as_zero": "1"}),
        report=b"{}",
    ).version
    assert child.ref == "m:2"
    assert child.manifest.parent == "m:1"
    assert set(child.manifest.artefact) == {"model.onnx", "labels.txt", "tokenizer.json"}
    assert (child.folder / "report.json").read_bytes() == b"{}"
    assert child.manifest.gates == [gate]
    assert child.manifest.licence == "MIT"
    assert np.array_equal(child.golden()[0].reference["y"], samples[0].reference["y"])
    assert verify(store).sound
    promote(store, "m:2")
