"""An estimate of the energy of Lambda functions, and of its CO2e: coefficients times use, no measurement.

Method: watts of a vCPU between idle and full load at a fixed utilisation, plus watts of the memory, times the data
centre's overhead; CO2e by the grid of the region, operation alone, without what making the machines took.
Source: Cloud Carbon Footprint, https://www.cloudcarbonfootprint.org/docs/methodology/
"""

from sampan.contract.errors import InvalidInputError
from sampan.costs.cost import MB_OF_A_GB
from sampan.costs.prices import Energy

MB_OF_A_VCPU = 1769  # https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html


def watts(energy: Energy, memory: float) -> float:
    """Estimated W of a function with `memory` MB while it runs."""
    vcpu = energy.min_watts + energy.utilisation * (energy.max_watts - energy.min_watts)
    return (memory / MB_OF_A_VCPU * vcpu + memory / MB_OF_A_GB * energy.memory_watts_gb) * energy.pue


def watt_hours(energy: Energy, memory: float, milliseconds: float) -> float:
    """Estimated Wh of that many billed milliseconds."""
    return watts(energy, memory) * milliseconds / 3_600_000


def co2e_grams(energy: Energy, wh: float, region: str) -> float:
    """Estimated g CO2e of some Wh (a kg a kWh is a g a Wh).

    Raises:
        InvalidInputError: the grid of the region is not known.
    """
    if region not in energy.grid:
        raise InvalidInputError(f"[energy.grid] has no factor for '{region}'; add it, in kg CO2e a kWh, with --prices")
    return wh * energy.grid[region]
