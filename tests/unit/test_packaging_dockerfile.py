"""A Dockerfile is checked without an engine; every wrong line is named."""

from pathlib import Path

import pytest

from sampan.contract.errors import InvalidInputError
from sampan.packaging.dockerfile import check_dockerfile

GOOD = """# a comment
ARG BASE_IMAGE=debian:12
FROM ${BASE_IMAGE} AS first
COPY file.txt folder/ /there/
RUN --mount=type=cache,target=/c \\
    make
FROM ${BASE_IMAGE}
COPY --from=first /there /here
COPY --from=0 /there /here
COPY ["file.txt", "/x"]
ENTRYPOINT ["/lambda-entrypoint.sh"]
CMD ["handler"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "file.txt").touch()
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_a_sound_one_passes(context: Path):
    (context / "Dockerfile").write_text(GOOD)
    check_dockerfile(context)


def test_the_real_one_passes(tmp_path: Path):
    real = Path(__file__).parents[2] / "functions" / "Dockerfile.lambda"
    (tmp_path / "Dockerfile").write_text(real.read_text())
    for name in ("install.py", "requirements.txt", "runtime-client.txt"):
        (tmp_path / name).touch()
    for name in ("code", "model"):
        (tmp_path / name).mkdir()
    check_dockerfile(tmp_path)


@pytest.mark.parametrize(
    ("line", "instead", "words"),
    [
        ("ARG BASE_IMAGE=debian:12", "ARG OTHER=x", r"line 3: FROM uses \$BASE_IMAGE, which no ARG before it declares"),
        ("COPY file.txt folder/", "COPY file.txt nothing/", "line 4: COPY of nothing/: the context has no such file"),
        ("COPY file.txt folder/", "COPY ../file.txt", r"line 4: COPY of \.\./file.txt: it is outside the context"),
        (
            "COPY file.txt folder/",
            "ADD https://example.com/x.tgz",
            "line 4: ADD of https://example.com/x.tgz: nothing is",
        ),
        ("COPY file.txt folder/", "COPY", "line 4: COPY needs a source and a target"),
        ("--from=first", "--from=second", "line 8: COPY --from=second: there is no such stage before; there are first"),
        ("--from=0", "--from=1", "line 9: COPY --from=1: there is no such stage"),
        ('CMD ["handler"]', "CMD handler", "line 12: CMD must have the exec form"),
        ('CMD ["handler"]', 'CMD ["a"]\nCMD ["b"]', "line 13: a second CMD in one stage"),
        ('CMD ["handler"]', "", "its last stage has no CMD"),
        ("    make", "    make API_TOKEN=abc", "line 5: RUN holds what looks like a secret"),
        ('CMD ["handler"]', 'ENV AWS_SECRET_ACCESS_KEY=abc\nCMD ["h"]', "line 12: ENV holds what looks like a secret"),
        ("RUN --mount", "RUNN --mount", "line 5: there is no instruction RUNN"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(line: str, instead: str, words: str, context: Path):
    assert line in GOOD
    (context / "Dockerfile").write_text(GOOD.replace(line, instead))
    with pytest.raises(InvalidInputError, match=words):
        check_dockerfile(context)


def test_all_that_is_wrong_is_said_at_once(context: Path):
    (context / "Dockerfile").write_text(GOOD.replace("file.txt", "nothing").replace('["handler"]', "handler"))
    with pytest.raises(InvalidInputError, match=r"line 4: .*; line 10: .*; line 12: "):
        check_dockerfile(context)


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_one_has_no_stage(text: str, context: Path):
    (context / "Dockerfile").write_text(text)
    with pytest.raises(InvalidInputError, match="it has no FROM"):
        check_dockerfile(context)
