"""Real data out of public wheels, as the examples learn it: nothing is kept in this repository.

* digits: 1,797 handwritten digits of 8 × 8 pixels (scikit-learn's copy of the UCI set "Optical Recognition of
  Handwritten Digits"), enlarged to the size that a model takes. The last 360, by other writers, are for testing.
* co2: weekly CO2 at Mauna Loa in ppm, 1958 to 2001 (statsmodels' copy), cut into 100 weeks and the 100 that follow.
"""

import gzip
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folder import fetch_wheel, member

Floats = NDArray[np.float32]
DIGITS, CO2 = "scikit-learn==1.7.2", "statsmodels==0.15.0"
TEST_DIGITS = 360
WEEKS = 100
LAST_TO_LEARN = 1680  # a window that begins from here on is for testing: the years from 1990
PPM = 5.0  # one unit of the regressor


def digits(wheels: Path, side: int) -> dict[str, Floats]:
    """Pixels [rows, side × side] from 0 to 1, enlarged from 8 × 8, with the digit as `y`."""
    packed = member(fetch_wheel(DIGITS, wheels), "sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(BytesIO(gzip.decompress(packed)), delimiter=",", dtype=np.float32)
    pictures = enlarge(table[:, :64].reshape(-1, 8, 8) / 16, side).reshape(len(table), -1)
    return _parts(pictures, table[:, 64], len(table) - TEST_DIGITS)


def odd_digits(wheels: Path, side: int) -> dict[str, Floats]:
    """The same with `y` 1 for odd digits and 0 for even ones, [rows, 1]."""
    found = digits(wheels, side)
    return found | {key: found[key].reshape(-1, 1) % 2 for key in ("y_train", "y_test")}


def co2(wheels: Path) -> dict[str, Floats]:
    """100 weeks and the next 100, in units of 5 ppm above the last known week; `level` is that week in ppm."""
    lines = member(fetch_wheel(CO2, wheels), "statsmodels/datasets/co2/co2.csv").decode().splitlines()[1:]
    weeks = np.array([float(line.split(",")[1] or "nan") for line in lines])
    known = np.flatnonzero(~np.isnan(weeks))
    weeks = np.interp(np.arange(len(weeks)), known, weeks[known])
    windows = np.lib.stride_tricks.sliding_window_view(weeks, 2 * WEEKS)
    level = windows[:, WEEKS - 1 : WEEKS]
    past, future = (windows[:, :WEEKS] - level) / PPM, (windows[:, WEEKS:] - level) / PPM
    learnt = np.arange(len(windows)) < LAST_TO_LEARN - 2 * WEEKS  # and no week of a test window among them
    tested = np.arange(len(windows)) >= LAST_TO_LEARN
    return {
        "x_train": past[learnt].astype(np.float32),
        "y_train": future[learnt].astype(np.float32),
        "x_test": past[tested].astype(np.float32),
        "y_test": future[tested].astype(np.float32),
        "level": level[tested].astype(np.float32),
    }


def enlarge(pictures: Floats, side: int) -> Floats:
    """Bilinear, corners on corners: [rows, 8, 8] to [rows, side, side]."""
    old = pictures.shape[-1]
    at = np.linspace(0, old - 1, side)
    low = np.minimum(at.astype(int), old - 2)
    weights = np.zeros((side, old), np.float32)
    weights[np.arange(side), low] = 1 - (at - low)
    weights[np.arange(side), low + 1] += at - low
    return np.asarray(weights @ pictures @ weights.T, np.float32)


def _parts(x: Floats, y: Floats, learnt: int) -> dict[str, Floats]:
    return {"x_train": x[:learnt], "y_train": y[:learnt], "x_test": x[learnt:], "y_test": y[learnt:]}
