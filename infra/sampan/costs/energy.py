"""An estimate of the energy of Lambda functions and instances, and of its CO2e: coefficients times use, no measurement.

Method: watts of a vCPU between idle and full load at a fixed utilisation, plus watts of the memory, times the data
centre's overhead; CO2e by the grid of the region, operation alone, without what making the machines took.
Source: Cloud Carbon Footprint, https://www.cloudcarbonfootprint.org/docs/methodology/
"""

from sampan.contract.errors import InvalidInputError
from sampan.costs.cost import MB_OF_A_GB
from sampan.costs.machines import Machine
from sampan.costs.prices import Energy

GPU_IDLE = 0.1  # of its power limit; assumed
MB_OF_A_VCPU = 1769  # https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html


def watts(energy: Energy, memory: float) -> float:
    """Estimated W of a function with `memory` MB while it runs."""
    vcpu = _vcpu_watts(energy, energy.utilisation)
    return (memory / MB_OF_A_VCPU * vcpu + memory / MB_OF_A_GB * energy.memory_watts_gb) * energy.pue


def machine_watts(energy: Energy, machine: Machine, utilisation: float) -> float:
    """Estimated W of an instance that is up, at a share of its load; a GPU draws between 10 % of its limit and all.

    Raises:
        InvalidInputError: the GPU's power limit is not known.
    """
    gpu = 0.0
    if machine.gpu is not None:
        if machine.gpu not in energy.gpu_watts:
            raise InvalidInputError(f"[energy.gpu_watts] has no '{machine.gpu}'; add its W, with --prices")
        gpu = energy.gpu_watts[machine.gpu] * (GPU_IDLE + (1 - GPU_IDLE) * utilisation)
    cpu = machine.vcpus * _vcpu_watts(energy, utilisation)
    return (cpu + machine.memory_gb * energy.memory_watts_gb + gpu) * energy.pue


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


def _vcpu_watts(energy: Energy, utilisation: float) -> float:
    return energy.min_watts + utilisation * (energy.max_watts - energy.min_watts)
