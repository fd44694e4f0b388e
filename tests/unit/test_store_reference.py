import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.contract.errors import InvalidInputError
from sampan.store import Reference, parse_reference
from sampan.store.reference import name_of_stem

names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


@given(names, st.integers(1, 10**9 - 1))
def test_a_reference_reads_back_what_it_says(name: str, number: int):
    for reference in (Reference(name), Reference(name, number), Reference(name, alias="live")):
        assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize("text", ["", ":", "a:", "a:0", "a:-1", "a:1:2", "a@b@c", "a:latest", "a:1\n", "a:١"])
def test_what_is_no_reference_is_told_the_grammar(text: str):
    with pytest.raises(InvalidInputError, match="name, name:3 or name@alias"):
        parse_reference(text)


@pytest.mark.parametrize("text", ["Big", "é", "a b", "../up", "a/b", ".hidden", "-dash", "x" * 64, "a\0b"])
def test_a_bad_name_is_told_the_rule(text: str):
    with pytest.raises(InvalidInputError, match="1 to 63 of a-z, 0-9"):
        parse_reference(text)


def test_a_stem_is_lowered_and_loses_its_spaces():
    assert name_of_stem("ResNet 50 v1.5") == "resnet-50-v1.5"


@pytest.mark.parametrize("stem", ["modèle", "a+b", "", "_x"])
def test_a_stem_that_needs_more_asks_for_a_name(stem: str):
    with pytest.raises(InvalidInputError, match="--name"):
        name_of_stem(stem)
