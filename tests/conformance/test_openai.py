"""Embeddings as OpenAI's SDK asks for them: by the SDK where it is installed, else by the bytes that it sends."""

import base64
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from servers import MODES, Server, running

TEXTS = ["red fish", "blue"]


@pytest.fixture(scope="module", params=MODES)
def server(request: pytest.FixtureRequest, zoo: Path) -> Iterator[Server]:
    with running(zoo, "--mode", request.param) as server:
        yield server


def floats(url: str) -> list[list[float]]:
    answer = requests.post(url + "/v1/embeddings", json={"model": "words", "input": TEXTS}, timeout=30).json()
    return [row["embedding"] for row in answer["data"]]


def test_base64_holds_the_same_little_endian_floats(server: Server):
    body = {"model": "words", "input": TEXTS, "encoding_format": "base64"}
    answer = requests.post(server.url + "/v1/embeddings", json=body, timeout=30).json()
    assert answer["object"] == "list"
    assert answer["model"] == "words"
    assert set(answer["usage"]) == {"prompt_tokens", "total_tokens"}
    assert [row["index"] for row in answer["data"]] == [0, 1]
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in answer["data"]]
    np.testing.assert_array_equal(rows, np.array(floats(server.url), np.float32))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="the package openai is not installed")
def test_the_sdk(server: Server):
    import openai

    with openai.OpenAI(base_url=server.url + "/v1", api_key="none") as client:
        answer = client.embeddings.create(model="words", input=TEXTS)
        np.testing.assert_allclose([row.embedding for row in answer.data], floats(server.url), rtol=1e-6)
        assert "words" in [model.id for model in client.models.list().data]
        with pytest.raises(openai.NotFoundError) as raised:
            client.embeddings.create(model="nope", input=TEXTS)
        assert str(raised.value.body).startswith("model 'nope' is not here")
