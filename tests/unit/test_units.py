"""Numbers with units."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from rareal.units import (
    ACCELERATION,
    KB,
    KCAL_MOL,
    Energy,
    Length,
    SpringConstant,
    Temperature,
    Velocity,
    parse_quantity,
)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("1 eV", "eV", 1.0),
        ("1 kcal/mol", "eV", 0.0433641),
        ("1 kcal/mol/angstrom", "eV/angstrom", 0.0433641),
        ("96.48533 kJ/mol", "eV", 1.0),
        ("1 hartree", "eV", 27.211386),
        ("1 nm", "angstrom", 10.0),
        ("0.05 Å", "angstrom", 0.05),
        ("1 bohr", "angstrom", 0.529177),
        ("0.5 fs", "fs", 0.5),
        ("2 ps", "fs", 2000.0),
        ("1 Å/ps", "angstrom/fs", 1e-3),
        ("10 eV/angstrom^2", "eV/angstrom**2", 10.0),
        ("10 eV/Å2", "eV/angstrom**2", 10.0),
        ("300 K", "kelvin", 300.0),
        ("0 degC", "kelvin", 273.15),
        ("1 mRy/bohr", "eV/Å", 0.0257110),
        ("1 nN", "eV/Å", 0.6241509),
        ("2 kilocalories / mole / Å", "eV/Å", 0.0867282),
        ("10 electron_volts", "eV", 10.0),
        ("1 µs", "fs", 1e9),
        ("2 min", "s", 120.0),
        ("180 degree", "radian", 3.14159265),
        ("1 atm", "bar", 1.01325),
        ("1 GPa", "bar", 1e4),
        ("100 cm^-1", "cm**-1", 100.0),
        ("3 hours", "s", 10800.0),
        ("4 GB", "byte", 4e9),
        ("2 MiB", "byte", 2**21),
        ("0.5", "fs", 0.5),
        ("  1e-3 ps ", "fs", 1.0),
        (3, "fs", 3),
        (2.5, "eV", 2.5),
    ],
)
def test_conversion(text: object, unit: str, value: float) -> None:
    assert parse_quantity(text, unit) == pytest.approx(value, rel=2e-6)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("1 Å", "fs"),
        ("1 kcal", "angstrom"),
        ("1 mol", "eV"),
        ("fast", "fs"),
        ("", "fs"),
        ("1 2", "fs"),
        ("1 florp", "eV"),
        ("__import__('os')", "eV"),
        ("1/0 eV", "eV"),
        ("nan eV x", "eV"),
        ("[1] eV", "eV"),
    ],
)
def test_nonsense_is_refused_with_the_unit(text: str, unit: str) -> None:
    with pytest.raises(ValueError, match="is not a number with a unit that converts to"):
        parse_quantity(text, unit)


class Quantities(BaseModel):
    energy: Energy = 0.0
    length: Length = 0.0
    velocity: Velocity = 0.0
    spring: SpringConstant = 0.0
    temperature: Temperature = 0.0


def test_field_types() -> None:
    read = Quantities.model_validate(
        {"energy": "2 kcal/mol", "length": "1 nm", "velocity": "1 angstrom/ps", "spring": "10 eV/angstrom**2"}
    )
    assert read.energy == pytest.approx(2 * KCAL_MOL)
    assert read.length == pytest.approx(10)
    assert read.velocity == pytest.approx(1e-3)
    assert read.spring == pytest.approx(10)
    with pytest.raises(ValidationError, match="converts to kelvin"):
        Quantities.model_validate({"temperature": "1 fs"})


def test_constants_against_ase() -> None:
    """ASE has its own CODATA numbers."""
    from ase import units

    assert pytest.approx(units.kcal / units.mol, rel=1e-6) == KCAL_MOL
    assert pytest.approx(units.kB, rel=1e-6) == KB
    # ASE's time unit is Å sqrt(amu/eV): a force of 1 eV/Å on 1 amu gives 1 Å in that unit squared
    assert pytest.approx(units.fs**2, rel=1e-6) == ACCELERATION
