"""The deployed stage as one who calls it sees it, and what AWS's own APIs say of it."""

import http.client
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import tritonclient.http as httpclient
from tritonclient.utils import np_to_triton_dtype

from sampan.aws.session import Session
from sampan.emulation.requests import Ask
from sampan.serving.golden import Sample
from sampan.stacks.names import API_ID, BUCKET, LIVE, Names

TIMEOUT = 60  # s
CROWD = 12  # calls at once that are too many for the tenant 'slow'
Answer = tuple[int, bytes]


def check(holds: bool, words: str) -> None:
    """Stop the rehearsal where something does not hold."""
    if not holds:
        raise SystemExit(f"rehearse: {words}")


@dataclass(frozen=True)
class Deployed:
    """A stage's API with two keys, its bucket, and the emulator's log.

    Attributes:
        base: URL of the API's stage.
        keys: values by tenant.
        statuses: of all answers so far.
    """

    base: str
    keys: dict[str, str]
    bucket: str
    names: Names
    log: Path
    statuses: list[int] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """Requests that a function has answered."""
        return self.statuses.count(200)

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """One request as it is, without a key unless the headers have one."""
        place = urlsplit(self.base)
        connection = http.client.HTTPConnection(place.netloc, timeout=TIMEOUT)
        try:
            connection.request(method, place.path + path, body, headers or {})
            response = connection.getresponse()
            self.statuses.append(response.status)
            return response.status, response.read()
        finally:
            connection.close()

    def with_key(self, ask: Ask, tenant: str = "acme") -> Answer:
        request = ask.request
        headers = request.header_map() | {"x-api-key": self.keys[tenant]}
        return self.ask(request.method, request.path, request.body, headers)

    def compare(self, asks: list[Ask], local: list[Answer]) -> int:
        """Every answer must be the handler's own; gives how many were compared."""
        for ask, wanted in zip(asks, local, strict=True):
            got = self.with_key(ask)
            check(got == wanted, f"{ask.form} request of sample {ask.sample}: {wanted[:1]} here, {got[:1]} deployed")
        return len(asks)

    def triton(self, model: str, sample: Sample) -> None:
        """NVIDIA's client gets the golden outputs, in the binary form."""
        place = urlsplit(self.base)
        with httpclient.InferenceServerClient(f"{place.netloc}{place.path}") as client:
            inputs = []
            for name, array in sample.inputs.items():
                tensor = httpclient.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
                inputs.append(tensor.set_data_from_numpy(array))
            result = client.infer(model, inputs, headers={"x-api-key": self.keys["acme"], "Accept": "*/*"})
        self.statuses.append(200)
        for name, wanted in sample.outputs.items():
            same = np.allclose(result.as_numpy(name), wanted, rtol=1e-3, atol=1e-4)
            check(same, f"tritonclient gets another {name} than the golden one")

    def refused(self, path: str) -> None:
        """Without a key: 403, as a sentence."""
        status, body = self.ask("GET", path)
        check(status == 403, f"{path} answers {status} without a key, not 403: {body[:200]!r}")

    def throttled(self, path: str) -> None:
        """More calls at once than the tenant may make: some are answered, some are told 429."""
        statuses: list[int] = []

        def call() -> None:
            statuses.append(self.ask("GET", path, headers={"x-api-key": self.keys["slow"]})[0])

        threads = [threading.Thread(target=call) for _ in range(CROWD)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check(set(statuses) == {200, 429}, f"{CROWD} calls at once were answered {sorted(statuses)}")

    def version(self, model: str) -> str:
        """The version that answers."""
        status, body = self.ask("GET", f"/v2/models/{model}", headers={"x-api-key": self.keys["acme"]})
        found = re.search(rb'"versions":\["(\d+)"', body)
        check(status == 200 and found is not None, f"the metadata of {model} are {status} {body[:200]!r}")
        assert found is not None
        return found[1].decode()

    def moves(self, function: str) -> int:
        """How often the live alias was updated, by the emulator's log."""
        line = f"PUT /2015-03-31/functions/{self.names.function(function)}/aliases/{LIVE}"
        return self.log.read_text("utf-8", "replace").count(line)

    def stacks(self) -> list[str]:
        """Names of the stage's stacks that are there."""
        listed: Any = Session().client("cloudformation").describe_stacks()["Stacks"]
        return [stack["StackName"] for stack in listed if stack["StackName"].startswith(f"{self.names.prefix}-")]

    def has_bucket(self) -> bool:
        return self.bucket in [bucket["Name"] for bucket in Session().client("s3").list_buckets()["Buckets"]]


def find(names: Names, address: str, log: Path) -> Deployed:
    """The deployed stage; `address` takes an API's id."""
    formation = Session().client("cloudformation")

    def output(part: str, key: str) -> str:
        outputs = formation.describe_stacks(StackName=names.stack(part))["Stacks"][0]["Outputs"]
        return next(str(entry["OutputValue"]) for entry in outputs if entry["OutputKey"] == key)

    listed = Session().client("apigateway").get_api_keys(includeValues=True)["items"]
    keys = {entry["name"].removeprefix(f"{names.prefix}-"): entry["value"] for entry in listed}
    return Deployed(address.format(output("Api", API_ID)), keys, output("Store", BUCKET), names, log)
