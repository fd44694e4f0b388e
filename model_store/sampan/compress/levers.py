"""The levers that a model has: found on its layers and operators, in the order in which they are tried.

What is known of kinds of models decides the order, never the outcome: convolutions gain by static
quantisation, products by dynamic; smoothing helps where activations have outliers; weights of seven bits come
before eight, as they answer alike on every CPU.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sampan.compress.graph import Layer
from sampan.compress.mix import Lever, Mix, Variant, can
from sampan.compress.passes.int4_embedding import SMALLEST as LARGE_TABLE
from sampan.compress.recipes import (
    EMBEDDING,
    EMBEDDING4,
    INT4,
    INT8,
    LSTM,
    MATMUL,
    OPSET21,
    OPTIMIZE,
    UNFOLD,
    UNSKIPPED,
    Step,
    exact,
)

SMALL = 4096  # values in a layer's weight; below, integers gain nothing
SMOOTH = Step("smooth", {"alpha": 0.75})
EQUALISE = Step("equalise")
FULL = {"reduced": False}  # eight bits: may saturate on a CPU without VNNI
MINMAX = {"method": "minmax"}
PRODUCTS = ("MatMul", "Gemm")


@dataclass(frozen=True, slots=True)
class Levers:
    """Names of levers in the order of trying, with their variants."""

    lookups: tuple[Step, ...]
    found: dict[str, list[Variant]]

    @property
    def names(self) -> list[str]:
        return list(self.found)

    def variants(self, name: str) -> list[Variant]:
        return self.found[name]

    @staticmethod
    def exact() -> Iterator[tuple[str, Step, tuple[Step, ...]]]:
        """Ways of rewriting that change no answer: label, how to optimise, steps."""
        yield "exact", OPTIMIZE, exact(OPTIMIZE)
        yield "exact-unskipped", UNSKIPPED, exact(UNSKIPPED)


def find_levers(
    layers: Sequence[Layer],
    operators: Mapping[str, int],
    tables: Sequence[int],
    unfoldable: Sequence[str],
    objective: str,
) -> Levers:
    """The levers of a model; `tables` are the sizes of its embedding tables."""
    compute: dict[str, list[Variant]] = {}
    if unfoldable:
        compute["unfolded-int8"] = _unfolded(unfoldable)
    if _any(layers, PRODUCTS):
        compute["dynamic-int8"] = [Variant(_as_it_is, lever) for lever in dynamic()]
    if _any(layers, ("Conv",)):
        compute["static-int8"] = [Variant(_as_it_is, lever) for lever in static()]
    if operators.get("LSTM"):
        compute["int8-lstm"] = [Variant(_as_it_is, Lever("int8-lstm", LSTM))]
    storage: dict[str, list[Variant]] = {}
    if any(table >= LARGE_TABLE for table in tables):
        storage["int4-embedding"] = [Variant(_small_tables)]
    if objective == "size":
        storage["int4-weights"] = [Variant(_int4)]
    found = {**storage, **compute} if objective == "size" else {**compute, **storage}
    return Levers((EMBEDDING,) if tables else (), found)


def static() -> list[Lever]:
    def lever(name: str, before: tuple[Step, ...], **params: object) -> Lever:
        return Lever(f"static-int8-{name}", Step("static-int8", params), before)

    return [
        lever("minmax", (), **MINMAX),
        lever("smooth-equal", (SMOOTH, EQUALISE), **MINMAX),
        lever("percentile", (), method="percentile"),
        lever("smooth-equal-full", (SMOOTH, EQUALISE), **MINMAX, **FULL),
        lever("entropy", (), method="entropy"),
    ]


def dynamic() -> list[Lever]:
    smooth, less = (Step("smooth", {"alpha": alpha, "operators": list(PRODUCTS)}) for alpha in (0.75, 0.5))
    return [
        Lever("dynamic-int8-smooth", MATMUL, (smooth,)),
        Lever("dynamic-int8", MATMUL),
        Lever("dynamic-int8-less-smooth", MATMUL, (less,)),
        Lever("dynamic-int8-smooth-full", Step("int8-matmul", FULL), (smooth,)),
    ]


def _as_it_is(mix: Mix) -> Mix:
    return mix


def _unfolded(names: Sequence[str]) -> list[Variant]:
    """Convolutions as products; smoothed before they are unfolded, as windows repeat the input for each tap."""

    def variant(lever: Lever, alpha: float | None) -> Variant:
        smooth = () if alpha is None else (Step("smooth", {"alpha": alpha, "only": list(names)}),)
        label = "-unfolded" if alpha is None else f"-smooth{alpha:g}-unfolded"
        return Variant(lambda mix: replace(mix, exact=(*mix.exact, *smooth, UNFOLD), label=mix.label + label), lever)

    product, full = Lever("dynamic-int8", MATMUL), Lever("dynamic-int8-full", Step("int8-matmul", FULL))
    return [variant(product, 0.75), variant(product, None), variant(product, 0.5), variant(full, 0.75)]


def _small_tables(mix: Mix) -> Mix:
    return replace(mix, lookups=(EMBEDDING4, EMBEDDING), tables="int4-embedding")


def _int4(mix: Mix) -> Mix:
    steps = (OPSET21, INT4, INT8)
    return replace(mix, storage=steps, weights="int4-weights")


def _any(layers: Sequence[Layer], operators: tuple[str, ...]) -> bool:
    return any(can(layer, operators) and layer.size >= SMALL for layer in layers)
