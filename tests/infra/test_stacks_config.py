"""What a project says of its stages, and the sentence for each way to say it wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from synthesis import DIGEST, ROOT, write_project

from sampan.contract.errors import InvalidInputError
from sampan.stacks.config import read_project
from sampan.stacks.names import Names, describe, described, live_parameter, logical

pytestmark = pytest.mark.infra

TWO = {"first": 'model = "a@live"\nmemory = 512\n', "second": 'model = "b:3"\nplacement = "sagemaker"\n'}


def test_a_project_is_its_functions_and_the_options_of_a_stage(tmp_path: Path):
    stages = {"dev": {"functions": {"first": {"memory": 2048}}, "default": "second"}, "small": {"only": ["first"]}}
    project = read_project(write_project(tmp_path, TWO, stages))
    first, second = project.functions
    assert (first.model, first.memory, first.heavy, first.packaged) == ("a", 2048, False, None)
    assert (second.model, second.memory, second.heavy) == ("b", 1769, True)
    assert project.default is second
    small = read_project(tmp_path, "small")
    assert [function.name for function in small.functions] == ["first"]
    assert small.default.memory == 512


def test_a_packaged_function_says_which_version_it_is(packaged: Path):
    functions = {function.name: function for function in read_project(packaged).functions}
    plain = functions["plain"]
    assert plain.packaged is not None
    assert plain.packaged.model == "plain:1"
    assert plain.packaged.arguments.keys() == {"BASE_IMAGE", "SNAPSTART"}
    assert plain.manifest is not None
    assert plain.manifest.ref == "plain:1"


def test_the_repositorys_own_stages_can_be_read():
    dev, prod = read_project(ROOT), read_project(ROOT, "prod")
    assert (dev.names.stage, dev.config.rollout.kind, dev.config.api.waf) == ("dev", "all-at-once", False)
    assert (prod.names.stage, prod.config.rollout.kind, prod.config.api.waf) == ("prod", "canary", True)
    assert prod.config.store.old_days > dev.config.store.old_days


def test_without_a_stage_the_contexts_own_is_taken(tmp_path: Path):
    write_project(tmp_path, TWO, {"dev": {}, "prod": {}})
    content = json.loads((tmp_path / "cdk.json").read_text())
    content["context"]["stage"] = "prod"
    (tmp_path / "cdk.json").write_text(json.dumps(content))
    assert read_project(tmp_path).names.prefix == "sampan-prod"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"colour": "red"}, "stage 'dev': colour: Extra inputs are not permitted"),
        ({"api": {"rate": 0}}, "api.rate: Input should be greater than 0"),
        ({"api": {"log_days": 8}}, "api.log_days: Input should be 1, 3, 5"),
        ({"api": {"kind": "http"}}, "api: a http API has no auth 'key'; it has jwt, iam, none"),
        ({"api": {"auth": "jwt"}}, "api: a rest API has no auth 'jwt'"),
        ({"api": {"auth": "cognito"}}, "api: auth 'cognito' and 'user_pool' go together"),
        ({"api": {"kind": "http", "auth": "jwt"}}, "api: auth 'jwt' and 'jwt' go together"),
        ({"api": {"kind": "http", "auth": "none", "waf": True}}, "api: waf, stream and trace need a rest API"),
        ({"api": {"tenants": [{"name": "a"}, {"name": "a"}]}}, "api: two tenants have one name"),
        ({"api": {"tenants": [{"name": "a-b"}, {"name": "a_b"}]}}, "names that differ by - and _ alone"),
        ({"api": {"max_body": 10_000_000}}, "api.max_body: Input should be less than or equal to 6291556"),
        ({"functions": {"first": {"memory": 64}}}, "functions.first.memory: Input should be greater than or equal"),
        ({"functions": {"first": {"provisioned": 3, "reserved": 2}}}, "3 provisioned instances are more than the 2"),
        ({"account": "12"}, "account: String should match pattern"),
        ({"only": ["third"]}, "names the function 'third'; there are first, second"),
        ({"default": "third"}, "names the function 'third'; there are first, second"),
        ({"functions": {"third": {}}}, "names the function 'third'; there are first, second"),
    ],
)
def test_a_wrong_option_is_said_with_its_place(tmp_path: Path, options: dict[str, Any], words: str):
    with pytest.raises(InvalidInputError) as error:
        read_project(write_project(tmp_path, TWO, {"dev": options}))
    assert f"{tmp_path / 'cdk.json'}" in error.value.message
    assert words in error.value.message
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("functions", "words"),
    [
        ({"a": 'model = "m"\n', "b": 'model = "m:2"\n'}, "'a' and 'b' both serve the model 'm'"),
        ({"a-b": 'model = "m"\n', "a_b": 'model = "n"\n'}, "'a-b' and 'a_b' have one name on AWS; rename one"),
        ({"a": 'model = "m"\nmemory = 1\n'}, "functions/a/function.toml: Expected `int` >= 128"),
        ({"a": 'model = "m"\nsnapstart = true\npython = "3.11"\n'}, "snapstart needs Python 3.12 or newer, not 3.11"),
        ({}, "has no functions to deploy; make one with 'sampan new NAME --model REF'"),
    ],
)
def test_a_wrong_function_is_said_with_its_file(tmp_path: Path, functions: dict[str, str], words: str):
    with pytest.raises(InvalidInputError) as error:
        read_project(write_project(tmp_path, functions))
    assert words in error.value.message


@pytest.mark.parametrize("options", [{"provisioned": 1}, {"storage": 1024}])
def test_snapstart_refuses_what_it_does_not_go_with(tmp_path: Path, options: dict[str, int]):
    functions = {"a": 'model = "m"\nsnapstart = true\n'}
    with pytest.raises(InvalidInputError, match="snapstart goes neither with provisioned instances nor over 512 MB"):
        read_project(write_project(tmp_path, functions, {"dev": {"functions": {"a": options}}}))


def test_a_stage_that_is_not_there(tmp_path: Path):
    with pytest.raises(InvalidInputError, match="no stage 'live' in its context; it has dev, prod"):
        read_project(write_project(tmp_path, TWO, {"dev": {}, "prod": {}}), "live")


def test_a_folder_that_is_no_project(tmp_path: Path):
    with pytest.raises(InvalidInputError, match=r"there is no .*cdk\.json; run this in a project"):
        read_project(tmp_path)
    (tmp_path / "cdk.json").write_text("{")
    with pytest.raises(InvalidInputError, match=r"cdk\.json is not JSON"):
        read_project(tmp_path)


def test_a_record_that_sampan_package_did_not_write(tmp_path: Path):
    write_project(tmp_path, TWO)
    built = tmp_path / "build/functions/first"
    built.mkdir(parents=True)
    (built / "package.json").write_text('{"model": 3}')
    with pytest.raises(InvalidInputError, match=r"is not what `sampan package` writes: .*; run it again"):
        read_project(tmp_path)


def test_names_follow_from_project_stage_and_function():
    names = Names("sampan", "prod")
    assert names.stack("Serve") == "sampan-prod-Serve"
    assert names.function("ppocr-rec") == "sampan-prod-ppocr-rec"
    assert names.endpoint("my_model") == "sampan-prod-my-model"
    assert names.hook("a").startswith("CodeDeployHook_")
    assert (logical("ppocr-rec"), live_parameter("ppocr-rec")) == ("PpocrRec", "LivePpocrRec")


def test_a_version_is_read_back_from_its_description():
    assert described(describe("magika:2", DIGEST)) == ("magika:2", DIGEST)
    assert described("What kind of file is this?") is None
