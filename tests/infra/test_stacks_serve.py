"""The Serve stack: what a function is, what it may do, and which version its aliases are."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from synthesis import DIGEST, Templates, package_zip, synthesise, text, words, write_project

from conftest import PLAIN
from sampan.contract.errors import InvalidInputError
from sampan.contract.manifest import Sealed, decode_manifest, encode_manifest
from sampan.stacks.config import read_project

pytestmark = pytest.mark.infra

HEAVY = 'model = "big"\nplacement = "sagemaker"\n'
LOGS = "arn:<AWS::Partition>:logs:<AWS::Region>:<AWS::AccountId>:log-group:/aws/lambda/sampan-dev-{}:log-stream:*"


def granted(templates: Templates, part: str = "Serve") -> dict[str, set[str]]:
    """Actions by resource."""
    found: dict[str, set[str]] = {}
    for statement in templates.statements(part):
        assert statement["Effect"] == "Allow"
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        for resource in resources:
            found.setdefault(text(resource), set()).update(words(statement["Action"]))
    return found


def test_an_image_function_is_what_function_toml_says(templates: Templates):
    function = templates.one("Serve", "Lambda::Function", FunctionName="sampan-dev-plain")
    assert function["PackageType"] == "Image"
    assert (function["MemorySize"], function["Timeout"], function["Architectures"]) == (1769, 29, ["x86_64"])
    assert function["EphemeralStorage"] == {"Size": 512}
    assert function["Description"] == "Numbers to numbers"
    assert "TracingConfig" not in function
    assert "ReservedConcurrentExecutions" not in function


def test_the_image_is_built_from_what_was_packaged(packaged: Path, templates: Templates):
    assets = json.loads((templates.folder / "sampan-dev-Serve.assets.json").read_bytes())["dockerImages"]
    (asset,) = assets.values()
    record = json.loads((packaged / "build/functions/plain/package.json").read_bytes())
    assert asset["source"]["dockerBuildArgs"] == record["arguments"]
    assert asset["source"]["platform"] == "linux/amd64"
    staged = templates.folder / asset["source"]["directory"]
    context = packaged / "build/functions/plain/context"
    assert (staged / "Dockerfile").read_bytes() == (context / "Dockerfile").read_bytes()
    assert {path.relative_to(staged) for path in staged.rglob("*")} == {
        path.relative_to(context) for path in context.rglob("*")
    }


def test_a_zip_function_has_code_and_a_layer(packaged: Path, templates: Templates):
    function = templates.one("Serve", "Lambda::Function", FunctionName="sampan-dev-archive")
    assert (function["Runtime"], function["Handler"]) == ("python3.13", "sampan.serving.function.handler")
    assert (function["MemorySize"], "PackageType" in function) == (512, False)
    (layer,) = templates.resources("Serve", "Lambda::LayerVersion")
    assert function["Layers"] == [{"Ref": layer}]
    content = templates.one("Serve", "Lambda::LayerVersion")
    assert content["CompatibleRuntimes"] == ["python3.13"]
    for key, file in ((function["Code"]["S3Key"], "function.zip"), (content["Content"]["S3Key"], "layer.zip")):
        staged = templates.folder / f"asset.{key}"
        assert staged.read_bytes() == (packaged / "build/functions/archive" / file).read_bytes()


def test_the_function_knows_its_name_and_what_it_must_find(packaged: Path, templates: Templates):
    record = json.loads((packaged / "build/functions/plain/package.json").read_bytes())
    function = templates.one("Serve", "Lambda::Function", FunctionName="sampan-dev-plain")
    assert function["Environment"]["Variables"] == {
        "POWERTOOLS_SERVICE_NAME": "sampan-dev-plain",
        "SAMPAN_MANIFEST_DIGEST": record["manifest"],
    }


def test_options_of_function_toml_reach_the_environment(stage: Callable[..., Templates]):
    functions = {"plain": f"{PLAIN}golden_check = 2\n[environment]\nCOLOUR = 'blue'\n"}
    function = stage(functions, api={"max_body": 1000}).one("Serve", "Lambda::Function")
    assert function["Environment"]["Variables"] == {
        "POWERTOOLS_SERVICE_NAME": "sampan-dev-plain",
        "SAMPAN_GOLDEN_CHECK": "2",
        "SAMPAN_MAX_PAYLOAD": "1000",
        "COLOUR": "blue",
    }


def test_a_version_says_what_it_serves(templates: Templates):
    descriptions = {version["Description"] for version in templates.all("Serve", "Lambda::Version")}
    assert f"archive:1 {DIGEST}" in descriptions
    assert any(text.startswith("plain:1 sha256:") for text in descriptions)
    assert {version["DeletionPolicy"] for version in templates.resources("Serve", "Lambda::Version").values()} == {
        "Retain"
    }


def test_a_deployment_brings_a_candidate_and_moves_no_traffic(templates: Templates):
    template = templates.of("Serve")
    aliases = [
        alias for alias in templates.all("Serve", "Lambda::Alias") if text(alias["FunctionName"]).startswith("<Plain")
    ]
    versions = {alias["Name"]: alias["FunctionVersion"] for alias in aliases}
    assert versions.keys() == {"live", "candidate"}
    deployed = versions["candidate"]
    assert deployed["Fn::GetAtt"][0].startswith("PlainFunctionCurrentVersion")
    assert versions["live"] == {"Fn::If": ["LivePlainFollows", deployed, {"Ref": "LivePlain"}]}
    assert template["Parameters"]["LivePlain"]["Default"] == ""
    assert template["Conditions"]["LivePlainFollows"] == {"Fn::Equals": [{"Ref": "LivePlain"}, ""]}


def test_a_function_may_write_its_own_log_and_nothing_else(templates: Templates):
    log = {"logs:CreateLogStream", "logs:PutLogEvents"}
    assert granted(templates) == {LOGS.format("plain"): log, LOGS.format("archive"): log}


def test_the_log_group_is_there_before_the_function_with_the_stages_days(stage: Callable[..., Templates]):
    templates = stage(observe={"log_days": 3})
    log = templates.one("Serve", "Logs::LogGroup")
    assert (log["LogGroupName"], log["RetentionInDays"]) == ("/aws/lambda/sampan-dev-plain", 3)
    (id,) = templates.resources("Serve", "Logs::LogGroup")
    assert templates.one("Serve", "Lambda::Function")["LoggingConfig"] == {"LogGroup": {"Ref": id}}


def test_tracing_may_send_traces(stage: Callable[..., Templates]):
    templates = stage({"plain": f"{PLAIN}trace = true\n"})
    function = templates.one("Serve", "Lambda::Function")
    assert function["TracingConfig"] == {"Mode": "Active"}
    assert function["Environment"]["Variables"]["SAMPAN_TRACE"] == "1"
    assert granted(templates)["*"] == {"xray:PutTelemetryRecords", "xray:PutTraceSegments"}


def test_a_heavy_models_function_invokes_its_own_endpoint(stage: Callable[..., Templates]):
    allowed = granted(stage({"plain": PLAIN, "big": HEAVY}))
    endpoint = "arn:<AWS::Partition>:sagemaker:<AWS::Region>:<AWS::AccountId>:endpoint/sampan-dev-big"
    assert allowed[endpoint] == {"sagemaker:InvokeEndpoint"}
    assert [resource for resource in allowed if "sagemaker" in resource] == [endpoint]


def test_a_heavy_models_function_is_told_its_endpoint(stage: Callable[..., Templates]):
    templates = stage({"plain": PLAIN, "big": HEAVY})
    told = {
        each["FunctionName"]: each["Environment"]["Variables"] for each in templates.all("Serve", "Lambda::Function")
    }
    assert told["sampan-dev-big"]["SAMPAN_ENDPOINT"] == "sampan-dev-big"
    assert "SAMPAN_COMPONENT" not in told["sampan-dev-big"]
    assert "SAMPAN_ENDPOINT" not in told["sampan-dev-plain"]


def test_one_from_zero_asks_its_inference_component(stage: Callable[..., Templates]):
    templates = stage({"big": f"{HEAVY}[endpoint]\nscale_to_zero = true\n"})
    (function,) = templates.all("Serve", "Lambda::Function")
    assert function["Environment"]["Variables"]["SAMPAN_COMPONENT"] == "sampan-dev-big"
    arn = "arn:<AWS::Partition>:sagemaker:<AWS::Region>:<AWS::AccountId>:{}/sampan-dev-big"
    allowed = granted(templates)
    assert allowed[arn.format("endpoint")] == allowed[arn.format("inference-component")] == {"sagemaker:InvokeEndpoint"}


def test_a_sealed_model_is_opened_by_its_key_alone(packaged: Path, tmp_path: Path):
    key = "arn:aws:kms:eu-west-1:123456789012:key/1234"
    shutil.copytree(packaged, tmp_path / "sealed")
    file = tmp_path / "sealed/build/functions/plain/context/model/var/task/models/plain/manifest.json"
    manifest = decode_manifest(file.read_bytes(), str(file))
    sealed = Sealed(kind="aes-256-gcm", file="model.sealed", key=f"kms:{key}", wrapped="")
    file.write_bytes(encode_manifest(msgspec.structs.replace(manifest, sealed=sealed)))
    templates = synthesise(tmp_path / "sealed", tmp_path / "out")
    assert granted(templates)[key] == {"kms:Decrypt"}
    (statement,) = [one for one in templates.statements("Serve") if one["Action"] == "kms:Decrypt"]
    assert statement["Condition"] == {"StringEquals": {"kms:EncryptionContext:sampan:model": "plain"}}


def test_a_stage_reserves_instances_and_keeps_some_ready_on_the_live_alias(tmp_path: Path):
    options = {"memory": 3008, "storage": 1024, "reserved": 5, "provisioned": 2}
    write_project(tmp_path, {"plain": PLAIN}, {"dev": {"functions": {"plain": options}}})
    templates = synthesise(tmp_path, tmp_path / "out")
    function = templates.one("Serve", "Lambda::Function")
    assert (function["MemorySize"], function["EphemeralStorage"]) == (3008, {"Size": 1024})
    assert function["ReservedConcurrentExecutions"] == 5
    live = templates.one("Serve", "Lambda::Alias", Name="live")
    assert live["ProvisionedConcurrencyConfig"] == {"ProvisionedConcurrentExecutions": 2}
    assert "ProvisionedConcurrencyConfig" not in templates.one("Serve", "Lambda::Alias", Name="candidate")


def test_snapshots_are_taken_of_published_versions(stage: Callable[..., Templates]):
    templates = stage({"plain": f'{PLAIN}snapstart = true\npython = "3.13"\n'})
    assert templates.one("Serve", "Lambda::Function")["SnapStart"] == {"ApplyOn": "PublishedVersions"}


def test_arm_is_an_option(stage: Callable[..., Templates]):
    templates = stage({"plain": f'{PLAIN}architecture = "arm64"\n'})
    assert templates.one("Serve", "Lambda::Function")["Architectures"] == ["arm64"]
    assets = json.loads((templates.folder / "sampan-dev-Serve.assets.json").read_bytes())["dockerImages"]
    assert {asset["source"]["platform"] for asset in assets.values()} == {"linux/arm64"}


@pytest.mark.parametrize("placement", ["lambda", "lambda-zip"])
def test_what_is_not_packaged_synthesises_and_refuses_to_be_deployed(stage: Callable[..., Templates], placement: str):
    templates = stage({"plain": f'{PLAIN}placement = "{placement}"\n'})
    assert templates.of("Serve")["Rules"]["PlainIsPackaged"] == {
        "Assertions": [
            {
                "Assert": {"Fn::Equals": ["packaged", "not packaged"]},
                "AssertDescription": "plain is not packaged; run: sampan package plain",
            }
        ]
    }


def test_what_is_packaged_has_no_such_rule(templates: Templates):
    assert [rule for rule in templates.of("Serve").get("Rules", {}) if rule.endswith("IsPackaged")] == []


def test_a_package_that_is_gone_is_said(tmp_path: Path):
    folder = write_project(tmp_path, {"archive": 'model = "archive"\nplacement = "lambda-zip"\n'})
    package_zip(folder, "archive")
    (folder / "build/functions/archive/layer.zip").unlink()
    assert read_project(folder).functions[0].packaged is not None
    with pytest.raises(InvalidInputError, match=r"there is no .*layer\.zip; run: sampan package archive"):
        synthesise(folder, tmp_path / "out")
