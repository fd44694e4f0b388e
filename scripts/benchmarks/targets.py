"""What the six real models are measured by: their gates, what was found by hand, and what is to be reached."""

from dataclasses import dataclass

SEARCH_LIMIT, FAST_LIMIT = 600.0, 60.0  # seconds that a search may take on two cores


@dataclass(frozen=True, slots=True)
class Target:
    """Size and latency are ratios to the source. `beyond` are limits of the target that are no gates.

    `objective` is what the search is asked for: of two figures it takes the first, with the second as good as it goes.
    """

    name: str
    title: str
    gates: tuple[str, ...]
    hand_size: float
    hand_latency: float
    size: float
    latency: float
    beyond: tuple[str, ...] = ()
    objective: str = "latency"


TARGETS = {
    target.name: target
    for target in (
        Target(
            name="minilm",
            title="all-MiniLM-L6-v2",
            gates=("cosine>=0.995", "cosine_min>=0.97"),
            hand_size=0.255,
            hand_latency=0.41,
            size=0.25,
            latency=0.41,
        ),
        Target("magika", "magika", ("top1_agreement>=0.995",), 0.37, 0.41, 0.28, 0.41),
        Target("ppocr-rec", "PP-OCRv4 recognition", ("exact_match>=0.98",), 0.51, 1.0, 0.35, 0.8),
        Target("ppocr-det", "PP-OCRv4 detection", ("iou>=0.98",), 0.28, 1.0, 0.28, 0.75),
        Target("ppocr-cls", "PP-OCRv4 direction", ("top1_agreement>=0.99",), 0.40, 1.0, 0.40, 1.0),
        Target("silero-vad", "silero VAD", ("top1_agreement>=0.99",), 0.27, 1.0, 0.27, 0.95, objective="size"),
    )
}
