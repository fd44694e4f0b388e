"""Functions of a project: what a function.toml may say, and the sentence with the line for what it may not."""

from pathlib import Path

import msgspec
import pytest

from sampan.compress.declared import gates_of
from sampan.contract.errors import InvalidInputError, NotFoundError
from sampan.contract.function import FunctionConfig
from sampan.packaging.project import check_name, find_functions, read_function

WHOLE = """
model = "resnet@live"
placement = "lambda-zip"
memory = 1024
pipeline = "own.py"
extras = ["image"]
gates = ["top1_agreement>=0.99"]
snapstart = true
[environment]
LOG_LEVEL = "INFO"
[budgets]
image_mb = 40
"""


def write(project: Path, text: str, name: str = "a") -> Path:
    folder = project / "functions" / name
    folder.mkdir(parents=True)
    (folder / "function.toml").write_text(text)
    return folder


def refusal(project: Path, text: str) -> str:
    """The sentence, without the folder."""
    folder = write(project, text)
    with pytest.raises(InvalidInputError) as caught:
        read_function(project, "a")
    return caught.value.message.replace(f"{folder}/", "")


def test_a_function_is_read_with_its_defaults(tmp_path: Path):
    folder = write(tmp_path, WHOLE)
    (folder / "own.py").write_text("")
    function = read_function(tmp_path, "a")
    assert (function.name, function.folder, function.pipeline) == ("a", folder, folder / "own.py")
    assert (function.config.model, function.config.memory, function.config.timeout) == ("resnet@live", 1024, 29)
    assert (function.config.budgets.image_mb, function.config.budgets.unpacked_mb) == (40, 250)
    assert function.config.variables() == {"LOG_LEVEL": "INFO"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('model = "a"\n\nmemry = 3', "function.toml:3: there is no key 'memry' (did you mean 'memory'?)"),
        ('model = "a"\nfoo = 3', "function.toml:2: there is no key 'foo' (there are model, placement, memory,"),
        ("", 'function.toml:1: model is missing; write model = "REF"'),
        ("model = 1", "function.toml:1: model must be a text in quotes, not empty, got 1"),
        ('model = "a"\nmemory = 64', "function.toml:2: memory must be a whole number from 128 to 10240, got 64"),
        ('model = "a"\ngolden_check = -1', "2: golden_check must be a whole number of 0 or more, got -1"),
        ('model = "a"\nsnapstart = "yes"', '2: snapstart must be true or false, got "yes"'),
        ('model = "a"\nplacement = "ec2"', "2: placement must be one of auto, lambda, lambda-zip, sagemaker,"),
        ('model = "a"\nextras = ["foo"]', "2: extras must be a list in [ ], each one of encrypt, image,"),
        ('model = "a"\npython = "3"', '2: python must be a version in quotes, such as "3.12", got "3"'),
        ('model = "a"\nbudgets = 3', "2: budgets must be a table, got 3"),
        ('model = "a"\n[budgets]\n\nimage_mb = -1', "4: budgets.image_mb must be a number over 0, got -1"),
        ('model = "a"\n[budgets]\np95_ms = nan', "3: budgets.p95_ms must be a number over 0, got nan"),
        ('model = "a"\n[budgets]\nfiles = 1.5', "3: budgets.files must be a whole number over 0, got 1.5"),
        ('model = "a"\n[budgets]\ncold_start = 1', "3: there is no key 'cold_start' in [budgets] (did you mean 'cold_"),
        ('model = "a"\nbudgets = {files = 0}', "2: budgets.files must be a whole number over 0"),
        ('budgets."files" = 0\nmodel = "a"', "1: budgets.files must be a whole number over 0"),
        ('model = "a"\n[endpoint]\nreplicas = 2', "3: there is no key 'replicas' in [endpoint] (there are instance,"),
        ('model = "a"\n[endpoint]\nmax = 0', "3: endpoint.max must be a whole number of 1 or more, got 0"),
        ('model = "a"\n[endpoint]\ninstance = "g5"', "3: endpoint.instance must be a type of SageMaker's instances"),
        ('model = "a"\n[environment]\nA1 = "x"\nB1 = 1', "4: environment.B1 must be a text in quotes, got 1"),
        ('model = "a"\n[[tables]]\nx = 1', "2: there is no key 'tables'"),
        ('model = "a\nmemory = 3', "function.toml:1: this is no TOML: illegal character '\\n'"),
        ('model = "a"\nmodel = "b"', "function.toml:2: this is no TOML: cannot overwrite a value"),
        ('model = "a"\n\nmemory', "function.toml:3: this is no TOML: expected '=' after a key"),
        ('model = "a"\n\nmemory\n\n', "function.toml:3: this is no TOML: expected '=' after a key"),
        (f"x = {'[' * 5000}", "function.toml:1: this is no TOML: maximum recursion"),
        (f"x = {'9' * 5000}", "function.toml:1: this is no TOML: exceeds the limit"),
        ('model = "a"\ndescription = "\u2028"\nmemory = 1', "function.toml:3: memory must be"),
    ],
)
def test_a_wrong_shape_is_said_with_its_line(tmp_path: Path, text: str, words: str):
    assert words in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('\nmodel = "A B"', "function.toml:2: 'A B' is no model name"),
        ('model = "a"\ngates = [\n  "cosine>=0.9",\n  "cosin>=1",\n]', "4: gate 'cosin>=1' names no known metric"),
        ('model = "a"\npython = "3.11"\nsnapstart = true', "3: snapstart needs Python 3.12 or newer"),
        ('model = "a"\nplacement = "sagemaker"\nsnapstart = true', "3: snapstart is Lambda's"),
        ('model = "a"\npython = "3.9"', '2: Sampan needs Python 3.11 or newer, got "3.9"'),
        ('model = "a"\n[environment]\nAWS_REGION = "x"', "3: Lambda sets AWS_REGION itself"),
        ('model = "a"\n[environment]\n_X = "x"', "3: '_X' is no variable of Lambda's"),
        (
            f'model = "a"\n[environment]\nBIG = "{"x" * 4096}"',
            "2: the environment has 4,099 bytes, over Lambda's 4,096",
        ),
        ('model = "a"\npipeline = "own.py"', "2: pipeline 'own.py' is no Python file of"),
        ('model = "a"\npipeline = "../own.py"', "2: pipeline '../own.py' lies outside"),
        ('model = "a"\npipeline = "function.toml"', "2: pipeline 'function.toml' is no Python file"),
    ],
)
def test_what_cannot_be_meant_is_said_with_its_line(tmp_path: Path, text: str, words: str):
    assert words in refusal(tmp_path, text)


def test_all_that_is_wrong_is_said_at_once_in_the_order_of_the_file(tmp_path: Path):
    text = 'python = "3.9"\nmemry = 3\n[budgets]\nfiles = 0'
    found = refusal(tmp_path, text)
    places = [found.index(words) for words in ("Sampan needs", "line 1: model is missing", "line 2: ", "line 4: ")]
    assert places == sorted(places)
    assert found.startswith("function.toml:1: ")
    assert "\n" not in found


def test_no_utf8_names_the_line(tmp_path: Path):
    folder = write(tmp_path, "")
    (folder / "function.toml").write_bytes(b'model = "a"\ndescription = "\xff"')
    with pytest.raises(InvalidInputError, match=r"function.toml:2: this is no UTF-8"):
        read_function(tmp_path, "a")


def test_a_pipeline_behind_a_link_is_refused(tmp_path: Path):
    folder = write(tmp_path, 'model = "a"\npipeline = "own.py"')
    (tmp_path / "own.py").write_text("")
    (folder / "own.py").symlink_to(tmp_path / "own.py")
    with pytest.raises(InvalidInputError, match=r"function.toml:2: pipeline 'own.py' lies outside"):
        read_function(tmp_path, "a")


def test_a_function_behind_a_link_out_of_the_project_is_refused(tmp_path: Path):
    elsewhere = write(tmp_path / "elsewhere", 'model = "a"')
    (tmp_path / "project" / "functions").mkdir(parents=True)
    (tmp_path / "project" / "functions" / "a").symlink_to(elsewhere)
    with pytest.raises(InvalidInputError, match="is a link out of the project"):
        read_function(tmp_path / "project", "a")


def test_functions_are_found_in_order_and_others_are_named(tmp_path: Path):
    assert find_functions(tmp_path) == []
    with pytest.raises(NotFoundError, match=r"no other function in .*functions; `sampan new resnet --model REF`"):
        read_function(tmp_path, "resnet")
    for name in ("resnet", "bert", ".bert.123"):
        write(tmp_path, 'model = "a"', name)
    (tmp_path / "functions" / "empty").mkdir()
    assert find_functions(tmp_path) == ["bert", "resnet"]
    with pytest.raises(NotFoundError, match=r"did you mean 'resnet'"):
        read_function(tmp_path, "resnt")
    with pytest.raises(NotFoundError, match=r"there are bert, resnet"):
        read_function(tmp_path, "x1")


@pytest.mark.parametrize("name", ["a", "resnet50", "my-function", "my_function-2", "0", "a" * 64])
def test_names_that_docker_and_lambda_take(name: str):
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("My Function", "my-function"),
        ("a.b", "a-b"),
        ("a--b", "a-b"),
        ("../a", "a"),
        ("", "my-function"),
        ("ö", "my-function"),
        ("a" * 65, "a" * 64),
        ("-a-", "a"),
    ],
)
def test_other_names_are_answered_with_one_that_would_do(name: str, better: str):
    with pytest.raises(InvalidInputError, match=f"'{better}' would do"):
        check_name(name)
    assert check_name(better) == better


def test_compress_reads_the_same_file_with_the_same_words(tmp_path: Path):
    for number, text in enumerate(('model = "a"\nmemory = = 3', 'model = "a"\ngates = [\n"cosin>=1"]')):
        project = tmp_path / str(number)
        write(project, text)
        with pytest.raises(InvalidInputError) as ours:
            read_function(project, "a")
        with pytest.raises(InvalidInputError) as theirs:
            gates_of(project, "a")
        assert ours.value.message == theirs.value.message


def test_every_key_has_a_default_that_the_checks_take(tmp_path: Path):
    defaults = msgspec.to_builtins(FunctionConfig(model="a"))
    lines = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in defaults.items() if _plain(value)]
    write(tmp_path, "\n".join(lines))
    assert read_function(tmp_path, "a").config == FunctionConfig(model="a")


def _plain(value: object) -> bool:
    return value is not None and not isinstance(value, dict)
