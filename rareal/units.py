"""Units: inside the program eV, Å, fs, K and amu; in the YAML numbers may carry a unit.

``Energy``, ``Length`` and the others are pydantic field types: a bare number is taken in the unit of the
program, a string such as ``"1 kcal/mol"`` is converted (pint; one mole is a count of particles here, so that
kcal/mol is an energy).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator

KCAL_MOL = 0.043364104241800934
"""One kcal/mol in eV (exact in the 2019 SI: 4184 J / N_A / e)."""

# force conversion a = F/m: 1 eV/Å/amu in Å/fs²
ACCELERATION = 0.009648533215665327
"""One eV/(Å amu) in Å/fs² (CODATA 2018)."""

HARTREE = 27.211386245988
"""Hartree in eV (CODATA 2018)."""

BOHR = 0.529177210903
"""Bohr radius in Å (CODATA 2018)."""

KB = 8.617333262145e-5
"""Boltzmann's constant in eV/K (exact in the 2019 SI)."""

HBAR = 0.6582119569509066
"""Planck's constant over 2π in eV fs (exact in the 2019 SI)."""

LIGHT = 2.99792458e-5
"""Speed of light in cm/fs (exact)."""


_NUMBER_WITH_UNIT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*([^\W\d].*)?$")


@cache
def _registry() -> Any:
    import pint

    registry: Any = pint.UnitRegistry(autoconvert_offset_to_baseunit=True)
    return registry


def parse_quantity(value: Any, unit: str) -> Any:
    """Return ``value`` as a float in ``unit``; bare numbers pass through, strings may carry a unit.

    Raises
    ------
    ValueError
        If the string is no number with a unit, or the unit has another dimension.
    """
    if not isinstance(value, str):
        return value
    import pint

    text = value.strip().replace("Å", "angstrom").replace("Å", "angstrom").replace("^", "**")
    text = re.sub(r"(?<=[a-z])2\b", "**2", text)
    registry = _registry()
    try:
        if not _NUMBER_WITH_UNIT.match(text):  # pint would take "1 2" for a product
            raise ValueError(text)
        quantity = registry.Quantity(text)
        if quantity.dimensionality.get("[substance]") == -1:
            quantity = quantity / registry.avogadro_constant
        return float(quantity.magnitude) if quantity.unitless else float(quantity.to(unit).magnitude)
    except (
        pint.errors.PintError,
        TypeError,
        ValueError,
        AssertionError,
        AttributeError,
        SyntaxError,
        ArithmeticError,
    ) as error:
        raise ValueError(f"'{value}' is not a number with a unit that converts to {unit}") from error


def _quantity(unit: str) -> Any:
    return BeforeValidator(lambda value: parse_quantity(value, unit))


Energy = Annotated[float, _quantity("eV")]
Length = Annotated[float, _quantity("angstrom")]
Time = Annotated[float, _quantity("fs")]
Temperature = Annotated[float, _quantity("kelvin")]
Velocity = Annotated[float, _quantity("angstrom/fs")]
SpringConstant = Annotated[float, _quantity("eV/angstrom**2")]
Force = Annotated[float, _quantity("eV/angstrom")]
