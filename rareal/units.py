"""Units: inside the program eV, Å, fs, K and amu; in the YAML numbers may carry a unit.

``Energy``, ``Length`` and the others are pydantic field types: a bare number is taken in the unit of the
program, a string such as ``"1 kcal/mol"`` is converted (pint; one mole is a count of particles here, so that
kcal/mol is an energy).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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


DEFINITIONS = """
atto- = 1e-18 = a-
femto- = 1e-15 = f-
pico- = 1e-12 = p-
nano- = 1e-9 = n-
micro- = 1e-6 = µ- = μ- = u-
milli- = 1e-3 = m-
centi- = 1e-2 = c-
kilo- = 1e3 = k-
mega- = 1e6 = M-
giga- = 1e9 = G-
tera- = 1e12 = T-
kibi- = 1024 = Ki-
mebi- = 1048576 = Mi-
gibi- = 1073741824 = Gi-

meter = [length] = m = metre
second = [time] = s = sec
kilogram = [mass] = kg
kelvin = [temperature]; offset: 0 = K
bit = []
byte = 8 * bit = B
count = []
mole = 6.02214076e23 * count = mol

radian = [] = rad
degree = 0.017453292519943295 * radian = deg

minute = 60 * second = min
hour = 60 * minute = h = hr
day = 24 * hour = d
degree_Celsius = kelvin; offset: 273.15 = °C = celsius = degC

angstrom = 1e-10 * meter = Å = Å = ångström
bohr = 0.529177210903e-10 * meter = a0 = a_0
gram = 1e-3 * kilogram = g
newton = kilogram * meter / second ** 2 = N
pascal = newton / meter ** 2 = Pa
bar = 1e5 * pascal
atmosphere = 101325 * pascal = atm
joule = newton * meter = J
electron_volt = 1.602176634e-19 * joule = eV = electronvolt
calorie = 4.184 * joule = cal
hartree = 4.3597447222071e-18 * joule = Eh = E_h
rydberg = 2.17987236110355e-18 * joule = Ry
"""
"""The units that may be written, as pint reads them: its own list takes a fifth of a second to load."""


@cache
def _registry() -> Any:
    import pint

    registry: Any = pint.UnitRegistry(None, autoconvert_offset_to_baseunit=True)
    registry.load_definitions(DEFINITIONS.splitlines())
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


@dataclass(frozen=True)
class Unit:
    """Marks a field whose number may carry a unit: ``symbol`` is the one that a bare number is in."""

    symbol: str

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [handler(core_schema), {"type": "string", "pattern": QUANTITY}]}


QUANTITY = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*([A-Za-zÅÅµμ%].*)?$"
"""A number with or without a unit, for readers that do not know units (JSON schema)."""


def quantity(unit: str) -> Any:
    """What makes a float field one that takes units: ``Annotated[float, *quantity("eV")]``."""
    return BeforeValidator(lambda value: parse_quantity(value, unit)), Unit(unit)


Energy = Annotated[float, *quantity("eV")]
Length = Annotated[float, *quantity("angstrom")]
Time = Annotated[float, *quantity("fs")]
Temperature = Annotated[float, *quantity("kelvin")]
Velocity = Annotated[float, *quantity("angstrom/fs")]
SpringConstant = Annotated[float, *quantity("eV/angstrom**2")]
Force = Annotated[float, *quantity("eV/angstrom")]
Seconds = Annotated[float, *quantity("s")]
Bytes = Annotated[float, *quantity("byte")]
