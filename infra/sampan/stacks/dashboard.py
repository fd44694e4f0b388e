"""The stage's dashboard: the API and who calls it, then a section a model.

    traffic · errors · latency │ cold starts · memory · confidence │ cost · energy · callers

Cost and energy are estimates from what Lambda says it ran, by the prices and coefficients of `sampan.costs`; the text
above them says of when and whence. Queries of the logs run when somebody looks.
"""

from collections.abc import Sequence

from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from sampan.contract.errors import InvalidInputError
from sampan.costs.cost import MILLION, api_cost, compute_cost, gb_seconds, request_cost
from sampan.costs.energy import co2e_grams, watt_hours
from sampan.costs.prices import DEFAULT_REGION, Prices, read_energy, read_prices
from sampan.stacks.config import Deployable, Project
from sampan.stacks.signals import Signals

WIDTH, THIRD, QUARTER, HEIGHT = 24, 8, 6, 6  # of the grid, of widgets
BAND = 2  # standard deviations around what CloudWatch expects of the confidence
PERCENTILES = ("p50", "p95", "p99")


def add_dashboard(scope: Construct, project: Project, alarms: Sequence[cloudwatch.IAlarm]) -> None:
    """Draw the dashboard of a stage."""
    dashboard = cloudwatch.Dashboard(
        scope,
        "Dashboard",
        dashboard_name=project.names.dashboard(),
        period_override=cloudwatch.PeriodOverride.AUTO,
    )
    prices = _prices(project)
    dashboard.add_widgets(_text(_head(project, prices), 3))
    dashboard.add_widgets(cloudwatch.AlarmStatusWidget(alarms=alarms, title="Alarms", width=WIDTH, height=2))
    dashboard.add_widgets(*_api(project))
    for deployable in project.functions:
        signals = Signals(project.names, deployable)
        dashboard.add_widgets(_text(_section(deployable, prices), 2))
        dashboard.add_widgets(*_answers(deployable, signals))
        dashboard.add_widgets(*_instances(deployable, signals))
        dashboard.add_widgets(*_costs(project, deployable, signals, prices))
        if deployable.heavy:
            dashboard.add_widgets(*_endpoint(signals))


def _prices(project: Project) -> Prices:
    """Of the stage's region; of the default one where that is not known, which the dashboard says."""
    region = project.config.region or DEFAULT_REGION
    try:
        return read_prices(region)
    except InvalidInputError:
        return read_prices(DEFAULT_REGION)


def _head(project: Project, prices: Prices) -> str:
    energy = read_energy()
    return (
        f"# {project.names.project} · {project.names.stage}\n"
        f"Costs are **estimates**: list prices of {prices.region}, {prices.date} "
        f"([Lambda]({prices.sources['lambda']}), [API Gateway]({prices.sources['api']})), without free tiers, logs and "
        "the init of cold starts; `sampan usage` counts them all.\n"
        f"Energy and CO2e are **estimates**: [coefficients]({energy.source}) of Cloud Carbon Footprint, times use."
    )


def _section(deployable: Deployable, prices: Prices) -> str:
    config, model = deployable.config, deployable.packaged.model if deployable.packaged else deployable.config.model
    words = f"## {deployable.name}\n`{model}` · {deployable.memory} MB · {config.architecture} · {config.placement}"
    if not deployable.heavy:
        return words
    instance = config.endpoint.instance
    hour = prices.here.instances.get(instance)
    return f"{words} on {instance}" + (f" (about {hour:g} USD an hour, beside the costs below)" if hour else "")


def _api(project: Project) -> list[cloudwatch.IWidget]:
    """Every request by its key, those too that reach no function: refused, or over a quota."""
    log = [project.names.access_logs()]
    asked = ["fields apiKeyId, status, latency, responseLength"]
    by_key = "stats count(*) as calls, sum(responseLength) as bytes_out, pct(latency, 95) as p95_ms by apiKeyId, status"
    return [
        _query("Requests by status", log, [*asked, "stats count(*) as requests by status"], THIRD),
        _query("Requests by API key", log, [*asked, by_key, "sort calls desc"], 2 * THIRD),
    ]


def _answers(deployable: Deployable, signals: Signals) -> list[cloudwatch.IWidget]:
    budget = deployable.config.budgets.p95_ms
    lines = [cloudwatch.HorizontalAnnotation(value=budget, label="budget of p95")] if budget else []
    times = [signals.function("Duration", statistic, statistic) for statistic in PERCENTILES]
    handler = [signals.own("Latency", statistic, f"handler {statistic}") for statistic in PERCENTILES]
    model = [signals.model("ModelLatency", statistic, f"model {statistic}") for statistic in PERCENTILES]
    failures = [
        signals.own("Errors", "Sum", "answered with 5xx"),
        signals.function("Errors", "Sum", "crashed or out of time"),
        signals.function("Throttles", "Sum", "throttled"),
    ]
    return [
        _graph("Invocations", [signals.function("Invocations", "Sum", "invocations")], QUARTER),
        _graph("Errors", failures, QUARTER),
        _graph("Duration, ms", times, QUARTER, lines),
        _graph("Handler and model, ms", [*handler, *model], QUARTER),
    ]


def _instances(deployable: Deployable, signals: Signals) -> list[cloudwatch.IWidget]:
    log, report = [signals.log_group], 'filter @type = "REPORT"'
    # Logs Insights counts a MB of memory as 1,000,000 bytes
    memory = "stats max(@maxMemoryUsed) / 1000000 as used_mb, max(@memorySize) / 1000000 as memory_mb by bin(1h)"
    cold = "stats count(@initDuration) as cold_starts, pct(@initDuration, 50) as p50_ms, max(@initDuration) as max_ms"
    starts = signals.own("ColdStarts", "Sum", "cold starts")
    return [
        _graph("Cold starts", [starts], QUARTER),
        _query("Init", log, [report, f"{cold} by bin(1d)"], QUARTER),
        _query("Memory, MB", log, [report, memory], QUARTER, cloudwatch.LogQueryVisualizationType.LINE),
        _drift(deployable, signals),
    ]


def _drift(deployable: Deployable, signals: Signals) -> cloudwatch.IWidget:
    """How sure the model is of its labels, against what CloudWatch expects from the days before."""
    if not _has_scores(deployable):
        return _text("Confidence: the model's pipeline gives no labels with scores.", HEIGHT, QUARTER)
    sure = signals.model("Confidence", "Average", "confidence")
    band = cloudwatch.MathExpression(
        expression=f"ANOMALY_DETECTION_BAND(sure, {BAND})", using_metrics={"sure": sure}, label="expected"
    )
    return _graph("Confidence (drift)", [sure, band], QUARTER)


def _has_scores(deployable: Deployable) -> bool:
    manifest = deployable.manifest
    return manifest is None or (manifest.pipeline or {}).get("output", {}).get("kind") == "labels"


def _costs(project: Project, deployable: Deployable, signals: Signals, prices: Prices) -> list[cloudwatch.IWidget]:
    used = {"ms": signals.function("Duration", "Sum"), "calls": signals.function("Invocations", "Sum")}
    second, call = unit_costs(project, deployable, prices)
    cost = _math(f"ms / 1000 * {second:.12f} + calls * {call:.12f}", used, "USD")
    a_thousand = _math(f"1000 * (ms / 1000 * {second:.12f} / calls + {call:.12f})", used, "USD per 1,000 calls")
    wh = watt_hours(read_energy(), deployable.memory, 1000)
    energy = _math(f"ms / 1000 * {wh:.12f}", {"ms": used["ms"]}, "Wh")
    carbon = _carbon(project.config.region or DEFAULT_REGION, wh, used["ms"])
    callers = (
        "stats count(*) as calls, sum(ModelLatency) / 1000 as model_s, sum(bytes_in) as received, "
        "sum(bytes_out) as sent by caller"
    )
    return [
        _graph("Cost (estimate)", [cost], QUARTER),
        _graph("Cost of 1,000 calls (estimate)", [a_thousand], QUARTER),
        _graph("Energy and CO2e (estimate)", [energy, *carbon], QUARTER),
        _query(
            "Use by caller", [signals.log_group], ['filter message = "request"', callers, "sort calls desc"], QUARTER
        ),
    ]


def unit_costs(project: Project, deployable: Deployable, prices: Prices) -> tuple[float, float]:
    """USD of a second of a function, and of a call beside it: Lambda's and the API's, in their first tiers."""
    second = compute_cost(prices, gb_seconds(deployable.memory, 1000), deployable.config.architecture)
    return second, request_cost(prices, 1) + api_cost(prices, project.config.api.kind, MILLION) / MILLION


def _carbon(region: str, wh: float, ms: cloudwatch.IMetric) -> list[cloudwatch.IMetric]:
    try:
        grams = co2e_grams(read_energy(), wh, region)
    except InvalidInputError:  # no factor of this grid: no guess
        return []
    return [_math(f"ms / 1000 * {grams:.12f}", {"ms": ms}, "g CO2e")]


def _endpoint(signals: Signals) -> list[cloudwatch.IWidget]:
    """SageMaker says latencies in µs."""
    waiting = [signals.endpoint("OverheadLatency", "p95", "overhead p95, µs")]
    answered = [signals.endpoint("ModelLatency", statistic, f"model {statistic}, µs") for statistic in PERCENTILES]
    errors = [signals.endpoint(f"Invocation{kind}Errors", "Sum", kind) for kind in ("4XX", "5XX")]
    return [
        _graph("Endpoint: invocations", [signals.endpoint("Invocations", "Sum", "invocations")]),
        _graph("Endpoint: errors", errors),
        _graph("Endpoint: latency", [*answered, *waiting]),
    ]


def _math(expression: str, metrics: dict[str, cloudwatch.IMetric], label: str) -> cloudwatch.MathExpression:
    return cloudwatch.MathExpression(expression=expression, using_metrics=metrics, label=label)


def _graph(
    title: str,
    metrics: Sequence[cloudwatch.IMetric],
    width: int = THIRD,
    lines: Sequence[cloudwatch.HorizontalAnnotation] = (),
) -> cloudwatch.IWidget:
    return cloudwatch.GraphWidget(
        title=title,
        left=list(metrics),
        left_annotations=list(lines),
        left_y_axis=cloudwatch.YAxisProps(min=0, show_units=False),
        width=width,
        height=HEIGHT,
    )


def _query(
    title: str,
    log_groups: Sequence[str],
    lines: Sequence[str],
    width: int,
    view: cloudwatch.LogQueryVisualizationType = cloudwatch.LogQueryVisualizationType.TABLE,
) -> cloudwatch.IWidget:
    return cloudwatch.LogQueryWidget(
        title=title, log_group_names=list(log_groups), query_lines=list(lines), view=view, width=width, height=HEIGHT
    )


def _text(markdown: str, height: int, width: int = WIDTH) -> cloudwatch.IWidget:
    return cloudwatch.TextWidget(markdown=markdown, width=width, height=height)
