"""The planner through its doors: the choice and its reasons, `sampan plan`, placement `auto`."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from sampan.cli.main import main
from sampan.contract.errors import InvalidInputError, ModelError
from sampan.costs.prices import FILE, read_energy, read_prices
from sampan.placement.figures import Figure
from sampan.placement.functions import OnLambda
from sampan.placement.instances import RealTime
from sampan.placement.options import Case
from sampan.placement.plan import PlanError, break_even, decide, rate_text, reason
from sampan.placement.profile import ASSUMED, Measured, Profile, profile, read_measured
from sampan.placement.traffic import Traffic, parse_burst, parse_rate
from sampan.stacks.config import read_project
from sampan.store import open_store

LATENCY = ("--latency-ms", "5", "--cold-ms", "900", "--memory-mb", "150")


def made(latency: float = 5.0, size: float = 2.0, memory: float = 150.0) -> Profile:
    figures = ASSUMED | {
        "latency": Figure(latency, "ms", "given"),
        "load": Figure(50, "ms", "given"),
        "size": Figure(size, "MB", "given"),
        "memory": Figure(memory, "MB", "given"),
        "payload": Figure(10, "kB", "given"),
    }
    return Profile("made:1", np.array([latency]), figures)


def case(model: Profile, rate: str = "5/s", p95: float = 200.0, **changes) -> Case:
    plain = Case(
        profile=model,
        traffic=Traffic(rate=parse_rate(rate)),
        prices=read_prices("us-east-1"),
        energy=read_energy(),
        p95_ms=p95,
        requests=1500,
    )
    return replace(plain, **changes)


class TestChoice:
    def test_a_small_model_that_is_asked_often_goes_to_lambda(self):
        plan = decide(case(made()))
        assert plan.choice.placement == "lambda"
        assert plan.runner_up is not None
        assert plan.runner_up.cost >= plan.choice.cost
        assert "dearer by $" in plan.reasons["sagemaker:ml.c5.large"]
        assert plan.choice.cost == pytest.approx(sum(plan.choice.parts.values()))

    def test_one_that_is_asked_now_and_then_needs_a_snapshot(self):
        plan = decide(case(made(), "5/h", 600))
        assert plan.choice.placement == "lambda-zip"
        assert "of the requests start cold" in plan.reasons["lambda"]

    def test_a_large_one_needs_a_gpu(self):
        plan = decide(case(made(490, 2000, 2300), "2/s", 100))
        assert plan.choice.key == "sagemaker:ml.g4dn.xlarge"
        assert plan.reasons["lambda-zip"].startswith("too large: 2,085 MB")
        assert "the model takes" in plan.reasons["lambda"]

    def test_one_that_may_take_minutes_waits_in_a_queue(self):
        model = made(60_000, 9_000, 12_000)  # too large for a function
        plan = decide(case(model, "4/day", 900_000))
        assert plan.choice.placement == "sagemaker-async"
        assert plan.reasons["lambda"].startswith("too large: it needs 13,200 MB")

    def test_a_queue_that_never_empties_does_not_start_from_zero(self):
        plan = decide(case(made(9.0, 93, 280), "60/s", 150))
        queued = next(option for option in plan.options if option.key == "sagemaker-async:ml.c5.large")
        assert plan.reasons[queued.key].endswith("requests and answers go through S3")
        assert 200 < queued.p95 < 1000
        assert queued.utilisation > 0.2
        direct = next(option for option in plan.options if option.key == "sagemaker:ml.c5.large")
        assert queued.kwh < direct.kwh  # the function before it does not wait

    def test_a_tight_objective_buys_provisioned_instances(self):
        plan = decide(case(made(), "5/h", 60))
        assert plan.choice.kind == "lambda-provisioned"
        assert plan.choice.settings["provisioned"] >= 1
        assert plan.choice.placement == "lambda"

    def test_bursts_over_the_quota_are_refused_and_said(self):
        traffic = Traffic(bursts=(parse_burst("300x60s/h"),))
        asked = case(made(200), p95=1000, traffic=traffic, limit=20)
        option = OnLambda("lambda", 1769).run(asked)
        assert reason(asked, option, option).startswith("refuses")
        assert "more than 20 at once" in reason(asked, option, option)
        assert OnLambda("lambda-provisioned", 1769).run(asked).settings["provisioned"] == 20

    def test_the_same_seed_gives_the_same_plan(self):
        assert decide(case(made())).options == decide(case(made())).options


class TestRefusals:
    @pytest.mark.parametrize("budget", [0.0, -3.0])
    def test_a_budget_of_nothing(self, budget: float):
        with pytest.raises(InvalidInputError, match=r"a budget of \$-?\d buys nothing"):
            decide(case(made(), budget=budget))

    def test_a_budget_that_is_too_small_names_the_cheapest(self):
        with pytest.raises(
            PlanError, match=r"within \$0.50 a month: the cheapest that does, Lambda image.*raise --budget"
        ):
            decide(case(made(), budget=0.5))

    def test_an_objective_that_nothing_meets_names_the_fastest(self):
        with pytest.raises(PlanError, match=r"nothing answers 95 % of made:1's requests within 0.5 ms: the fastest, "):
            decide(case(made(), p95=0.5))

    def test_a_model_larger_than_any_instance(self):
        with pytest.raises(InvalidInputError, match=r"made:1 needs 200,000 MB .* more than any instance .*64 GB"):
            decide(case(made(memory=200_000)))

    def test_an_unknown_instance_type(self):
        with pytest.raises(InvalidInputError, match=r"no instance type 'ml.zz.large' is known"):
            decide(case(made()), only="ml.zz.large")

    def test_what_has_no_price_says_so_and_the_rest_is_planned(self):
        plan = decide(case(made(), prices=read_prices("eu-central-1")))
        assert plan.choice.placement == "lambda"
        assert plan.reasons["sagemaker:ml.c5.large"].startswith("no price known for eu-central-1")
        assert "no price known" in plan.reasons["lambda-zip"]


class TestProfile:
    def test_a_number_says_where_it_is_from(self, zoo: Path):
        found = profile(open_store(str(zoo)).find("linear"), seconds=0.01, scale=2.0)
        assert found.figures["latency"].origin == "scaled"
        assert "2 × a thread here; measured here" in found.figures["latency"].how
        assert found.figures["load"].origin == "scaled"
        assert found.figures["size"].origin == "measured here"
        assert found.figures["restore"].origin == "assumed"
        assert found.value("memory") > 30

    def test_less_memory_is_a_share_of_a_vcpu(self):
        model = made(100)
        one, half = (model.on_lambda(memory, np.array([100.0])) for memory in (1769, 1769 / 2))
        assert half == pytest.approx(2 * one)
        assert 1 < model.threads(4) < 4
        assert made(1).threads(4) == 1

    def test_what_the_package_measured_is_taken_for_that_version_alone(self, zoo: Path, tmp_path: Path):
        version = open_store(str(zoo)).find("linear")
        budgets = [{"budget": "cold_start_ms", "value": 321.0}, {"budget": "memory_mb", "value": 111.0}]
        content = {"model": version.ref, "measured": {"level": "image"}, "budgets": budgets}
        (tmp_path / "waterfall.json").write_text(json.dumps(content))
        found = profile(version, built=tmp_path, seconds=0.01)
        assert found.figures["load"] == Figure(321.0, "ms", "measured in the package", "level image")
        assert found.value("start") == 0
        assert found.value("memory") == 111
        (tmp_path / "waterfall.json").write_text(json.dumps(content | {"model": "linear:99"}))
        assert profile(version, built=tmp_path, seconds=0.01).figures["load"].origin == "measured here"

    def test_what_was_measured_on_the_target_replaces_factors(self, zoo: Path, tmp_path: Path):
        file = tmp_path / "measured.json"
        file.write_text('{"latency_ms": [4, 6], "cold_ms": 700, "memory_mb": 99, "instances": {"ml.g5.xlarge": 1.5}}')
        found = profile(open_store(str(zoo)).find("linear"), measured=read_measured(file))
        assert found.value("latency") == 5
        assert OnLambda("lambda", 1769).cold(found) == pytest.approx(0.7)
        seconds, speed = found.on_instance("ml.g5.xlarge", np.array([5.0]), 1)
        assert (float(seconds[0]), speed.origin) == (0.0015, "given")

    @pytest.mark.parametrize("text", ["", "[]", '{"latency_ms": -1}', '{"speed": 3}', '{"latency_ms": []}'])
    def test_measurements_that_are_none(self, tmp_path: Path, text: str):
        file = tmp_path / "measured.json"
        file.write_text(text)
        with pytest.raises(InvalidInputError, match="is no file of measurements"):
            read_measured(file)

    def test_a_model_that_does_not_run_here(self, zoo: Path, tmp_path: Path):
        version = replace(open_store(str(zoo)).find("linear"), place=tmp_path)
        with pytest.raises(ModelError, match=r"cannot be measured here: .*; give --latency-ms"):
            profile(version, measured=Measured(latency_ms=3))


def test_break_even_is_where_both_cost_the_same():
    asked = case(made(100), "1/s", 1000)
    one, other = OnLambda("lambda", 1769), RealTime("ml.c5.large")
    rate = break_even(asked, one, OnLambda("lambda-provisioned", 1769))
    assert rate is not None
    costs = [candidate.run(asked.at(rate, 2000)).cost for candidate in (one, OnLambda("lambda-provisioned", 1769))]
    assert costs[0] == pytest.approx(costs[1], rel=0.05)
    assert one.run(asked).cost < other.run(asked).cost


def test_rates_read_well():
    assert [rate_text(rate) for rate in (5, 0.5, 0.01, 1 / 86400)] == ["5/s", "30/min", "36/h", "1/day"]


class TestVerb:
    def plan(self, zoo: Path, project: Path, *arguments: object) -> Result:
        command = ["--store", str(zoo), "--project-dir", str(project), "plan", *map(str, arguments)]
        return CliRunner().invoke(main, command)

    def test_json_has_choice_and_options(self, zoo: Path, tmp_path: Path):
        result = self.plan(zoo, tmp_path, "linear", "--rate", "5", "--p95", "200", "-o", "json", *LATENCY)
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found["choice"] == "lambda"
        kinds = {option["kind"] for option in found["options"]}
        assert kinds == {
            *("lambda", "lambda-zip", "lambda-provisioned", "sagemaker-serverless"),
            *("sagemaker", "sagemaker-async", "lambda-managed"),
        }
        assert found["profile"]["latency"] == {
            "value": 5.0,
            "unit": "ms",
            "origin": "given",
            "how": "1 on one vCPU of the target",
        }
        assert all(option["reason"] for option in found["options"] if option["key"] != found["option"])

    def test_a_table_for_people_and_a_picture(self, zoo: Path, tmp_path: Path):
        picture = tmp_path / "cost.png"
        arguments = ("--rate", "100/day", "--curve", "day", "--p95", "2000", "--budget", "20", "--plot", picture)
        result = self.plan(zoo, tmp_path, "linear", *arguments, "--instance", "ml.c5.large", *LATENCY)
        assert result.exit_code == 0, result.output
        assert "choice: Lambda image" in result.stdout
        assert "runner-up: " in result.stdout
        assert "assumed" in result.stderr
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert [path.name for path in tmp_path.iterdir()] == ["cost.png"]

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("nosuch", "--rate", "5", "--p95", "9"), "'nosuch' is no function of"),
            (("linear", "--rate", "0", "--p95", "9"), "a rate of 0 has nothing to plan for"),
            (("linear", "--rate", "5", "--p95", "0"), "a p95 of 0 ms cannot be met"),
            (("linear", "--rate", "5", "--p95", "99", "--budget", "0"), "a budget of $0 buys nothing"),
            (("linear", "--rate", "5", "--p95", "0.1", "--instance", "ml.c5.large"), "nothing answers 95 %"),
            (("linear", "--rate", "5", "--p95", "99", "--region", "mars-1"), "no prices for the region 'mars-1'"),
            (("linear", "--rate", "5", "--p95", "99", "--instance", "ml.x"), "no instance type 'ml.x' is known"),
            (("linear", "--rate", "5", "--p95", "99", "--plot", "a.gif"), "name a .png or .svg file"),
            (("linear", "--rate", "5", "--p95", "99", "--scale", "0"), "--scale 0 is no measurement"),
            (("linear", "--rate", "5", "--p95", "99", "--memory-mb", "200000"), "more than any instance"),
        ],
    )
    def test_bad_input_is_one_sentence(self, zoo: Path, tmp_path: Path, arguments: tuple[str, ...], sentence: str):
        result = self.plan(zoo, tmp_path, *LATENCY, *arguments)
        assert result.exit_code == 1
        assert sentence in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert result.stdout == ""

    @pytest.mark.parametrize(
        "arguments",
        [(), ("linear",), ("linear", "--p95", "9"), ("linear", "--curve", "day", "--burst", "1x1s/h", "--p95", "9")],
    )
    def test_wrong_usage_exits_with_2(self, zoo: Path, tmp_path: Path, arguments: tuple[str, ...]):
        assert self.plan(zoo, tmp_path, *arguments).exit_code == 2

    def test_a_file_of_prices_with_a_hole(self, zoo: Path, tmp_path: Path):
        file = tmp_path / "prices.toml"
        file.write_text(FILE.read_text().replace("requests_million = 0.20", ""))
        result = self.plan(zoo, tmp_path, "linear", "--rate", "5", "--p95", "99", "--prices", file, *LATENCY)
        assert result.exit_code == 1
        assert "has a hole or a mistake: Object missing required field `requests_million`" in result.stderr


class TestAuto:
    WORKLOAD = '[workload]\nrate = "5/s"\np95_ms = 500\n'

    def project(self, zoo: Path, folder: Path, workload: str) -> Path:
        new = ["--store", str(zoo), "--project-dir", str(folder), "new", "line", "--model", "linear"]
        assert CliRunner().invoke(main, [*new, "--placement", "auto"]).exit_code == 0
        file = folder / "functions" / "line" / "function.toml"
        file.write_text(file.read_text() + "\n" + workload)
        return folder

    def test_a_function_is_planned_by_its_own_workload(self, zoo: Path, tmp_path: Path):
        project = self.project(zoo, tmp_path, self.WORKLOAD)
        command = ["--store", str(zoo), "--project-dir", str(project), "plan", "line", "-o", "json", *LATENCY]
        found = json.loads(CliRunner().invoke(main, command).stdout)
        assert found["objective"]["p95_ms"] == 500
        assert found["traffic"]["rate"] == 5

    def test_packaging_settles_it(self, zoo: Path, tmp_path: Path):
        project = self.project(zoo, tmp_path, self.WORKLOAD)
        command = ["--store", str(zoo), "--project-dir", str(project), "package", "line", "--no-docker", "--no-measure"]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.stderr
        assert "line: placement auto is lambda, Lambda image" in result.stderr
        record = json.loads((project / "build/functions/line/package.json").read_bytes())
        assert record["settled"]["placement"] == "lambda"
        assert record["settled"]["memory"] < 1769
        (project / "cdk.json").write_text('{"context": {"stages": {"dev": {}}}}')
        (deployable,) = read_project(project).functions
        assert (deployable.config.placement, deployable.memory) == ("lambda", record["settled"]["memory"])

    def test_without_a_workload_it_says_what_to_write(self, zoo: Path, tmp_path: Path):
        project = self.project(zoo, tmp_path, "")
        command = ["--store", str(zoo), "--project-dir", str(project), "package", "line", "--no-docker", "--no-measure"]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 1
        assert 'placement "auto" needs a table [workload] with rate and p95_ms' in result.stderr
