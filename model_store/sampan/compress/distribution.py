"""How far each output is off, as a histogram: one outlier and a shift of all values give the same mean error.

Every difference is taken relative to the root mean square of the output's true values over all samples, so that
outputs of different units can be looked at side by side. The bins are the same for all, a quarter of a decade each.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sampan.compress.report import Distribution
from sampan.contract.tensors import Array, Tensors

LOWEST, HIGHEST, PER_DECADE = -9, 2, 4  # log10; what lies outside is counted in the first or the last bin
EDGES = np.linspace(LOWEST, HIGHEST, (HIGHEST - LOWEST) * PER_DECADE + 1)


def distributions(truth: Sequence[Tensors], answers: Sequence[Tensors]) -> list[Distribution]:
    """One distribution for each float output, in graph order; both sequences hold outputs by name, one a sample.

    Values that are equal fall into the first bin. A value that is no longer finite, or an answer of another shape,
    counts as infinitely far off; where the truth itself is not finite nothing is compared.
    """
    names = [name for name, array in truth[0].items() if array.dtype.kind == "f"]
    return [
        _distribution(name, [sample[name] for sample in truth], [sample[name] for sample in answers]) for name in names
    ]


def _distribution(output: str, truth: Sequence[Array], answers: Sequence[Array]) -> Distribution:
    with np.errstate(divide="ignore", over="ignore"):
        off = np.concatenate([_differences(want, got) for want, got in zip(truth, answers, strict=True)])
        off /= np.float32(_root_mean_square(truth) or 1)
        places = np.clip(np.log10(off), LOWEST, HIGHEST)
    counts, _ = np.histogram(places, EDGES)
    p50, p99, worst = np.percentile(off, (50, 99, 100), method="inverted_cdf") if off.size else (0.0, 0.0, 0.0)
    return Distribution(
        output=output,
        edges=[round(float(edge), 2) for edge in EDGES],
        counts=[int(count) for count in counts],
        p50=float(p50),
        p99=float(p99),
        worst=float(worst),
    )


def _differences(want: Array, got: Array) -> NDArray[np.float32]:
    """Absolute differences where the truth is finite, flat."""
    finite = np.isfinite(want)
    if got.shape != want.shape:
        return np.full(np.count_nonzero(finite), np.inf, np.float32)
    off = np.abs(want[finite].astype(np.float64) - got[finite].astype(np.float64))
    return np.where(np.isnan(off), np.inf, off).astype(np.float32)


def _root_mean_square(truth: Sequence[Array]) -> float:
    finite = [array[np.isfinite(array)].astype(np.float64) for array in truth]
    count = sum(array.size for array in finite)
    return float(np.sqrt(sum(float(np.vdot(array, array)) for array in finite) / count)) if count else 0.0
