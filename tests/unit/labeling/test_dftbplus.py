"""DFTB+: the contract with the real program where it is on PATH; input and parser on stored ones of real runs.

The files in tests/data/dftbplus are of DFTB+ 25.1 with 3ob-3-1, the folder of whose files is called SK in them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ase.io
import numpy as np
import pytest
from ase.config import cfg

from rareal import cv
from rareal.errors import LabelError
from rareal.labeling import dftbplus, dftbplus_library
from rareal.labeling.dftbplus import Config, Engine, NotConverged, check_output, read_results
from rareal.labeling.dftbplus_input import angular_momentum, hsd, merged
from rareal.labeling.guard import Worker
from rareal.labeling.selfcheck import self_check
from rareal.records import Frame, Walker
from rareal.sampling import steered
from rareal.sampling.reference import EngineSampler
from rareal.schema import Misfit
from rareal.testing.engine_contract import EngineContract, needs_program

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data" / "dftbplus"
CRYSTAL = Frame(np.array([1, 1]), np.array([[0.0, 0, 0], [0.1, 0.2, 0.8]]), np.diag([4.0, 4.2, 4.4]), (True,) * 3)
GAMMA = {"Hamiltonian": {"DFTB": {"KPointsAndWeights": {"SupercellFolding": "\n1 0 0\n0 1 0\n0 0 1\n0 0 0\n"}}}}
METHYL = Frame(np.array([6, 1, 1, 1]), np.array([[0, 0, 0], [1.08, 0, 0], [-0.54, 0.935, 0], [-0.54, -0.935, 0]]))


def find_set() -> Path | None:
    """The 3OB set, where DFTB_PREFIX says."""
    place = Path(os.environ.get("DFTB_PREFIX", "."))
    return place if (place / "C-H.skf").is_file() else None


THREE_OB = find_set()
needs_dftb = needs_program("dftb+", dftbplus.CURE)
needs_set = pytest.mark.skipif(
    THREE_OB is None, reason="DFTB+ not tested: no 3ob-3-1; download it from dftb.org and set DFTB_PREFIX"
)


def library_is_there() -> bool:
    try:
        dftbplus_library.find(None, "dftb+")
    except Misfit:
        return False
    return True


needs_library = pytest.mark.skipif(
    not library_is_there(), reason=f"DFTB+'s library not tested: none found; {dftbplus_library.CURE}"
)


def hexane() -> Frame:
    atoms = ase.io.read(ROOT / "examples" / "hexane" / "hexane.xyz")
    return Frame(atoms.numbers.astype(np.int64), atoms.positions)


@pytest.fixture
def empty_set(tmp_path: Path) -> Path:
    """File names without files: enough for an input."""
    folder = tmp_path / "SK"
    folder.mkdir()
    for first in "CH":
        for second in "CH":
            (folder / f"{first}-{second}.skf").touch()
    return folder


class DftbContract(EngineContract):
    # ASE's own calculator for DFTB+ with the same settings
    known_energy = (-18.242652, 1e-5)
    changes = {
        "method": "DFTB2",
        "charge": 1,
        "multiplicity": {"": 3, "spin_polarisation": True},
        "electronic_temperature": 500.0,
        "scc_tolerance": 1e-6,
        "max_iterations": 50,
        "spin_polarisation": True,
        "initial_spins": {"": {1: 1.0, 2: -1.0}, "spin_polarisation": True},
        "spin_constants": {"H": (-0.1,)},
        "reuse_charges": True,
        "hsd": {"Options": {"RandomSeed": 3}},
    }
    repeats = 1e-7

    def build(self, **settings: Any) -> Engine:
        return Engine(Config(slater_koster=THREE_OB, **settings), ("H",))

    def periodic_frame(self) -> Frame:
        return CRYSTAL


@needs_dftb
@needs_set
class TestFiles(DftbContract):
    hopeless = {"hsd": {"Hamiltonian": {"DFTB": {"Nonsense": 3}}}}
    reason = "DFTB\\+ says: Code halting .*Nonsense"

    def test_the_stress_is_the_derivative_of_the_energy(self) -> None:
        engine = self.build(hsd=GAMMA)
        found = self_check(engine, CRYSTAL, directions=1)
        assert found.stress_deviation is not None
        assert abs(found.stress_deviation) < 1e-4
        assert engine.calculate(CRYSTAL).stress[2] > 0.02


@needs_dftb
@needs_set
@needs_library
class TestLibrary(DftbContract):
    hopeless = {"hsd": {"Hamiltonian": {"DFTB": {"Nonsense": 3}}}}
    reason = "DFTB\\+ says: Code halting .*Nonsense"

    def build(self, **settings: Any) -> Engine:
        return super().build(interface="library", **settings)

    test_the_stress_is_the_derivative_of_the_energy = TestFiles.test_the_stress_is_the_derivative_of_the_energy

    def test_it_says_what_files_say(self) -> None:
        engine, files = self.build(hsd=GAMMA), super().build(hsd=GAMMA)
        for shift in (0.0, 0.1):
            frame = replace(CRYSTAL, positions=CRYSTAL.positions + [[0, 0, 0], [0, 0, shift]])
            one, other = engine.calculate(frame), files.calculate(frame)
            assert one.energy == pytest.approx(other.energy, abs=1e-6)
            assert one.forces == pytest.approx(other.forces, abs=1e-5)
            assert one.stress == pytest.approx(other.stress, abs=1e-6)
        assert engine.hash == files.hash


@needs_dftb
@needs_set
class TestHexane:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def build(self, **settings: Any) -> Engine:
        return dftbplus.build(Config(slater_koster=THREE_OB, **settings), hexane())

    def test_energy_is_that_of_ase_s_calculator(self) -> None:
        from ase.calculators.dftb import Dftb

        atoms = ase.io.read(ROOT / "examples" / "hexane" / "hexane.xyz")
        atoms.calc = Dftb(
            slako_dir=f"{THREE_OB}/",
            ParserOptions_ParserVersion=10,
            Hamiltonian_SCC="Yes",
            Hamiltonian_SCCTolerance=1e-7,
            Hamiltonian_ThirdOrderFull="Yes",
            Hamiltonian_HubbardDerivs_="",
            Hamiltonian_HubbardDerivs_C=-0.1492,
            Hamiltonian_HubbardDerivs_H=-0.1857,
            Hamiltonian_HCorrection_="Damping",
            Hamiltonian_HCorrection_Exponent=4.0,
        )
        result = self.build(electronic_temperature=0.0).calculate(hexane())
        assert result.energy == pytest.approx(atoms.get_potential_energy(), abs=2e-5)
        assert result.forces == pytest.approx(atoms.get_forces(), abs=1e-4)

    @pytest.mark.parametrize("interface", ["files", pytest.param("library", marks=needs_library)])
    def test_hot_electrons_label_with_the_free_energy(self, interface: str) -> None:
        """The end-to-end distance of a molecule about to break; only the free energy has these forces."""
        frame = pulled(0.35)
        found = self_check(self.build(electronic_temperature=8000.0, interface=interface), frame, directions=2)
        assert found.max_deviation < 1e-3
        details = Path("detailed.out").read_text(encoding="utf-8")
        assert abs(energy_of("Total energy", details) - found.energy) > 0.1
        assert energy_of("Total Mermin free energy", details) == pytest.approx(found.energy, abs=2e-4)

    @pytest.mark.parametrize("step", range(1, len(dftbplus.LADDER)))
    def test_every_step_of_the_ladder_leads_to_the_same_energy(
        self, monkeypatch: pytest.MonkeyPatch, step: int
    ) -> None:
        frame = pulled(0.2)
        first = self.build().calculate(frame)
        never = ("never", {"MaxSCCIterations": 1}, 0.0)
        monkeypatch.setattr(dftbplus, "LADDER", (never, dftbplus.LADDER[step]))
        result = self.build().calculate(frame)
        assert result.note == dftbplus.LADDER[1][0]
        assert result.energy == pytest.approx(first.energy, abs=1e-5)

    @pytest.mark.parametrize("interface", ["files", pytest.param("library", marks=needs_library)])
    def test_failure_of_self_consistency(self, interface: str) -> None:
        engine = self.build(interface=interface, max_iterations=3)
        with pytest.raises(
            LabelError, match=r"not reached \(3 iterations, last error of the charges .*\(also with mix"
        ):
            engine.calculate(hexane())

    @needs_library
    def test_the_library_leaves_what_it_cannot_converge_to_the_program(self, monkeypatch: pytest.MonkeyPatch) -> None:
        frame = hexane()
        engine = self.build(interface="library")
        expected = engine.calculate(frame).energy
        assert Path("results.tag").exists(), "the first frame goes through files"
        hopeless = engine.input(frame, {"ConvergentSCCOnly": False, "MaxSCCIterations": 2})
        assert engine._loaded().calculate(frame, hopeless, False) is None
        monkeypatch.setattr(engine._loaded(), "calculate", lambda *_: None)
        result = engine.calculate(frame)
        assert result.note == "mixing 0.05"
        assert result.energy == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("interface", ["files", pytest.param("library", marks=needs_library)])
    def test_charges_of_the_frame_before(self, interface: str) -> None:
        """Along a path that starts whole, guesses change nothing but the number of iterations."""
        path = [pulled(stretch) for stretch in (0.0, 0.005, 0.01, 0.015)]
        energies, iterations = [], []
        for reuse in (False, True):
            engine = self.build(interface=interface, reuse_charges=reuse)
            energies.append([engine.calculate(frame).energy for frame in path])
            iterations.append(last_iterations())
            engine.close()
        assert energies[1] == pytest.approx(energies[0], abs=1e-5)
        assert iterations[1] < iterations[0]

    @needs_library
    def test_two_engines_in_one_process(self) -> None:
        one, other = (self.build(interface="library", reuse_charges=True) for _ in range(2))
        energies = [engine.calculate(hexane()).energy for _ in range(3) for engine in (one, other)]
        assert energies == pytest.approx([energies[0]] * 6, abs=1e-5)

    def test_broken_symmetry(self) -> None:
        """Two methyl radicals far apart: spins that are free to separate lower the energy by far."""
        other = METHYL.positions * [-1, 1, 1] + [0.0, 0.0, 3.5]
        pair = Frame(np.tile(METHYL.numbers, 2), np.concatenate([METHYL.positions, other]))
        spins = {1: 1.0, 5: -1.0}
        closed = self.build().calculate(pair).energy
        open_shell = self.build(spin_polarisation=True, initial_spins=spins).calculate(pair).energy
        assert open_shell < closed - 0.3
        apart = [self.build(multiplicity=2, spin_polarisation=True).calculate(METHYL).energy for _ in range(2)]
        assert open_shell == pytest.approx(sum(apart), abs=0.1)

    def test_elements_it_was_not_set_up_for(self) -> None:
        with pytest.raises(LabelError, match="O: the engine was set up for C, H"):
            self.build().calculate(Frame(np.array([8, 1]), np.array([[0.0, 0, 0], [0, 0, 1.0]])))

    @pytest.mark.parametrize("interface", ["files", pytest.param("library", marks=needs_library)])
    def test_it_drives_lammps(self, tmp_path: Path, interface: str) -> None:
        """Energy is conserved, but for what the spring does and the thermostat takes."""
        start = hexane()
        settings = steered.Config(steps=20, relaxation_steps=5, walkers=1)
        sampler = steered.build(settings, [cv.Distance((0, 5))], start)
        worker = Worker(self.build(interface=interface))
        (pull,) = EngineSampler(sampler, worker).sample(tmp_path / "reference", [Walker(0, 1, start)])
        assert pull.note == ""
        assert len(pull) == 21
        files = {path.name for path in (tmp_path / "reference" / "seed-1").iterdir()}
        assert "dftb_in.hsd" not in files, "the engine's files belong into its own folder"
        assert pull.energy[-1] == pytest.approx(
            self.build().calculate(replace(start, positions=pull.positions[-1])).energy, abs=1e-4
        )


def pulled(stretch: float) -> Frame:
    """Hexane, its carbon chain longer by a share."""
    frame = hexane()
    axis = frame.positions[5] - frame.positions[0]
    axis /= np.linalg.norm(axis)
    return replace(frame, positions=frame.positions + stretch * np.outer(frame.positions @ axis, axis))


def energy_of(name: str, details: str) -> float:
    line = next(line for line in details.splitlines() if line.startswith(f"{name}:"))
    return float(line.split()[-2])


def last_iterations() -> int:
    lines = Path("detailed.out").read_text(encoding="utf-8").splitlines()
    return int(lines[next(k for k, line in enumerate(lines) if "iSCC" in line) + 1].split()[0])


def stored(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "settings", "frame"),
    [
        ("hexane.hsd", {}, None),
        ("methyl.hsd", {"multiplicity": 2, "spin_polarisation": True, "initial_spins": {1: 1.0}}, METHYL),
        ("hydrogen-crystal.hsd", {"hsd": GAMMA}, CRYSTAL),
    ],
)
def test_input_is_the_stored_one(empty_set: Path, name: str, settings: dict[str, Any], frame: Frame | None) -> None:
    engine = Engine(Config(slater_koster=empty_set, **settings), ("C", "H"))
    assert engine.input(frame or hexane()).replace(str(empty_set), "SK") == stored(name)


def test_results_are_the_stored_ones() -> None:
    result = read_results(DATA / "hexane.results.tag", periodic=False)
    assert result.energy == pytest.approx(-424.013777, abs=1e-5)
    assert result.forces.shape == (20, 3)
    assert np.abs(result.forces).max() == pytest.approx(0.154683, abs=1e-5)
    assert result.forces.sum(axis=0) == pytest.approx(np.zeros(3), abs=1e-8)
    assert result.stress is None


def test_results_of_a_crystal_have_the_stress_in_ase_s_sign() -> None:
    result = read_results(DATA / "hydrogen-crystal.results.tag", periodic=True)
    expected = [0.00428925, 0.00360331, 0.02677191, 0.00534742, 0.00260907, 0.00065534]
    assert result.stress == pytest.approx(expected, abs=1e-7)
    assert result.forces[1] == pytest.approx([-0.2519839, -0.5153767, -2.0263216], abs=1e-6)


def test_truncated_results_are_a_failure(tmp_path: Path) -> None:
    (tmp_path / "results.tag").write_text(stored("hexane.results.tag").split("forces ")[0], encoding="utf-8")
    with pytest.raises(LabelError, match="no forces to results.tag"):
        read_results(tmp_path / "results.tag", periodic=False)


def test_a_finished_run_is_no_failure() -> None:
    check_output(stored("hexane.log"), stored("hexane.detailed.out"), 0, True)


def test_reasons_of_failures() -> None:
    with pytest.raises(NotConverged, match=r"not reached \(4 iterations, last error of the charges 1.7e-02\)"):
        check_output(stored("scc-failure.log"), "", 1, False)
    with pytest.raises(LabelError, match="Code halting .*Not known to it: .*Hamiltonian/DFTB/Nonsense"):
        check_output(stored("unknown-key.log"), "", 1, False)
    with pytest.raises(LabelError, match="signal 11 and no results; it said last: DFTB"):
        check_output("...\nDFTB\n\n", "", -11, False)


def test_missing_pair_files_are_named(empty_set: Path) -> None:
    (empty_set / "H-C.skf").unlink()
    (empty_set / "C-C.skf").unlink()
    with pytest.raises(
        Misfit, match=r"SK \(from engine.slater_koster\) lacks C-C.skf, H-C.skf; get the set 3ob-3-1 from"
    ):
        Config(slater_koster=empty_set).check_against(SimpleNamespace(frame=hexane()))


@pytest.fixture
def nobody_names_a_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.delenv("DFTB_PREFIX", raising=False)
    before = dict(cfg.parser["dftb"]) if cfg.parser.has_section("dftb") else None
    cfg.parser.remove_section("dftb")
    yield monkeypatch
    cfg.parser.remove_section("dftb")
    if before is not None:
        cfg.parser["dftb"] = before


def test_where_the_folder_is_named(empty_set: Path, nobody_names_a_folder: pytest.MonkeyPatch) -> None:
    whole = SimpleNamespace(frame=hexane())
    with pytest.raises(Misfit, match="no folder of Slater-Koster files is named; download .*DFTB_PREFIX"):
        Config(command="sh").check_against(whole)
    nobody_names_a_folder.setenv("DFTB_PREFIX", str(empty_set))
    Config(command="sh").check_against(whole)
    nobody_names_a_folder.setenv("DFTB_PREFIX", "/nowhere")
    with pytest.raises(Misfit, match="DFTB_PREFIX names /nowhere, which is no folder"):
        Config(command="sh").check_against(whole)
    cfg.parser["dftb"] = {"skt_path": str(empty_set), "command": "sh"}
    Config().check_against(whole)


def test_missing_program_and_library(empty_set: Path) -> None:
    whole = SimpleNamespace(frame=hexane())
    with pytest.raises(Misfit, match="no program `nowhere`; install it from conda-forge"):
        Config(slater_koster=empty_set, command="nowhere").check_against(whole)
    with pytest.raises(Misfit, match=r"no file /nowhere\.so; install"):
        Config(slater_koster=empty_set, interface="library", library=Path("/nowhere.so")).check_against(whole)


def test_elements_without_parameters(empty_set: Path) -> None:
    gold = SimpleNamespace(frame=Frame(np.array([79, 1]), np.zeros((2, 3)) + [[0], [2]]))
    with pytest.raises(Misfit, match="DFTB3/3OB has no parameters for Au"):
        Config(slater_koster=empty_set).check_against(gold)


def test_settings_that_do_not_go_together() -> None:
    for settings, match in (
        ({"multiplicity": 3}, "multiplicity 3 needs spin_polarisation"),
        ({"initial_spins": {1: 1.0}}, "initial_spins need spin_polarisation"),
        ({"hsd": {"Driver": {}}}, "block Driver is rareal's to write"),
        ({"interface": "library", "hsd": {"Hamiltonian": {"DFTB": {"Filling": {}}}}}, "needs interface: files"),
    ):
        with pytest.raises(ValueError, match=match):
            Config(**settings)


def test_the_hash_is_of_what_is_in_the_files(empty_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dftbplus, "program_version", lambda _: "25.1")
    other = shutil.copytree(empty_set, tmp_path / "elsewhere")

    def hash_of(folder: Path) -> str:
        return Engine(Config(slater_koster=folder), ("C", "H")).hash

    assert hash_of(other) == hash_of(empty_set)
    (other / "C-H.skf").write_text("another set", encoding="utf-8")
    assert hash_of(other) != hash_of(empty_set)


def test_hsd_is_merged_whatever_its_case() -> None:
    tree = {"Filling": {"Fermi": {"Temperature [Kelvin]": 300.0}}, "SCC": True, "Charge": 0}
    changes = {"scc": None, "filling": {"fermi": {"temperature [K]": 10}}, "Solver": {"MAGMA": {}}, "List": [1, 2]}
    expected = "Charge = 0 filling { fermi { temperature [K] = 10 } } Solver { MAGMA { } } List { 1 2 }"
    assert " ".join(hsd(merged(tree, changes)).split()) == expected


def test_angular_momentum_from_the_file(tmp_path: Path) -> None:
    carbon = tmp_path / "C-C.skf"
    carbon.write_text("0.02, 650\n0.0 -0.19 -0.5, -0.04, 0.36 0.36 0.36, 0.0 2.0 2.0\n", encoding="utf-8")
    hydrogen = tmp_path / "H-H.skf"
    hydrogen.write_text("0.02 650\n2*0.0 -0.24 0.0 3*0.42 2*0.0 1.0\n", encoding="utf-8")
    assert (angular_momentum(carbon), angular_momentum(hydrogen)) == ("p", "s")


@needs_set
@pytest.mark.parametrize(("symbol", "shell"), [("H", "s"), ("C", "p"), ("N", "p"), ("O", "p")])
def test_angular_momentum_of_3ob(symbol: str, shell: str) -> None:
    assert THREE_OB is not None
    assert angular_momentum(THREE_OB / f"{symbol}-{symbol}.skf") == shell
