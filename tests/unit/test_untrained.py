"""A model file without training: `rareal export --random`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rareal.errors import ConfigError
from rareal.export.modelfile import Committee
from rareal.records import Frame
from rareal.untrained import write_untrained

METHANOL = Frame(
    np.array([6, 8, 1, 1, 1, 1]),
    np.array([[0, 0, 0], [1.4, 0, 0], [-0.4, 1, 0], [-0.4, -0.5, 0.9], [-0.4, -0.5, -0.9], [1.8, 0.8, 0.3]], float),
)


@pytest.mark.parametrize("model", ["ani", "painn", "schnet"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_members_differ_and_the_seed_tells_which(tmp_path: Path, model: str, dtype: str) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_untrained(tmp_path / name, model, ["C", "O", "H"], 3, dtype, seed)
    a, b, c = (Committee.load(tmp_path / name) for name in "abc")
    assert (a.metadata.members, a.metadata.dtype, a.metadata.elements) == (3, dtype, ("C", "O", "H"))
    energies = a.energies_forces(METHANOL)[0]
    assert len(set(energies.tolist())) == 3
    np.testing.assert_array_equal(energies, b.energies_forces(METHANOL)[0])
    assert not np.allclose(energies, c.energies_forces(METHANOL)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "pain"}, "did you mean 'painn'"),
        ({"dtype": "half"}, "--dtype half"),
        ({"elements": ["C", "Hx"]}, "'Hx' is no chemical element"),
        ({"elements": ["C", "C"]}, "name every element once"),
    ],
)
def test_bad_input(tmp_path: Path, change: dict[str, object], message: str) -> None:
    arguments = {"model": "ani", "elements": ["C", "H"], "members": 2, "dtype": "float32", "seed": 1, **change}
    with pytest.raises(ConfigError, match=message):
        write_untrained(tmp_path / "m.pt", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "m.pt").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        write_untrained(tmp_path / "m.pt", "ani", ["C", "H"], 2, "float32", 1)
    assert (tmp_path / "m.pt").read_text() == "mine"
