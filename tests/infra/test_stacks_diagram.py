"""The diagram of the stacks: boxes, counts and arrows of what was synthesised."""

from collections.abc import Callable
from pathlib import Path

import pytest
from synthesis import Templates

from conftest import PLAIN
from sampan.contract.errors import InvalidInputError
from sampan.stacks.diagram import diagram, main

pytestmark = pytest.mark.infra

TWO = {"plain": PLAIN, "big": 'model = "big"\nplacement = "sagemaker"\n'}


def test_stacks_hold_boxes_and_arrows_follow_references_and_names(stage: Callable[..., Templates]):
    lines = [line.strip() for line in diagram(stage(TWO, rollout={"kind": "canary"}).folder).splitlines()]
    assert (lines[0], lines[1], lines[-1]) == ("```mermaid", "flowchart LR", "```")
    for stack in ("Store", "Serve", "Api", "Gpu", "Rollout", "Observe"):
        assert f"subgraph {stack}" in lines
    assert 'Serve_Lambdafunction["Lambda function × 2"]' in lines
    assert 'Api_RESTAPI["REST API"]' in lines
    for arrow in (
        "Api_RESTAPI --> Serve_Alias",
        "Api_Usageplan --> Api_APIkey",
        "Serve_Alias --> Serve_Lambdafunction",
        "Serve_Lambdafunction --> Serve_Loggroup",
        "Serve_Lambdafunction --> Gpu_SageMakerendpoint",
        "Store_Sbucket --> Store_KMSkey",
    ):
        assert arrow in lines
    assert "Serve_Lambdafunction --> Api_RESTAPI" not in lines


def test_the_same_templates_give_the_same_text(stage: Callable[..., Templates]):
    folder = stage(TWO).folder
    assert diagram(folder) == diagram(folder)


def test_a_folder_without_templates_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(InvalidInputError, match="holds no templates; run cdk synth"):
        diagram(tmp_path)
    assert main(str(tmp_path)) == 1
    assert capsys.readouterr().err.endswith(f"run cdk synth -q -o {tmp_path}\n")
