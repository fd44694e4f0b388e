"""The request of a hundred tutorials works unchanged."""

import json
from pathlib import Path

import pytest
import requests

from servers import MODES, running


@pytest.mark.parametrize("mode", MODES)
def test_input_data_in_output_data_out(zoo: Path, mode: str):
    with running(zoo, "linear", "--mode", mode) as server:
        data = json.dumps({"input_data": [[0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4]]})
        answer = requests.post(
            server.url + "/predict", data=data, headers={"Content-Type": "application/json"}, timeout=30
        )
        rows = answer.json()["output_data"]
        assert [len(row) for row in rows] == [3, 3]
        same = requests.post(
            server.url + "/v1/models/linear:predict", json={"instances": json.loads(data)["input_data"]}, timeout=30
        )
        assert same.json() == {"predictions": rows}
