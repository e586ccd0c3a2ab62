"""Data sets on disk: round trip, immutability, one engine only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from rareal.data import dataset
from rareal.data.augment import Config as NoiseConfig
from rareal.data.augment import noise_copies
from rareal.errors import DatasetError
from rareal.records import Frame, Label, LabeledFrame


def labeled(seed: int, numbers: tuple[int, ...] = (6, 1, 1), engine: str = "a" * 64) -> LabeledFrame:
    rng = np.random.default_rng(seed)
    shape = (len(numbers), 3)
    frame = Frame(
        np.array(numbers), rng.normal(size=shape), np.eye(3) * 9, (True, False, True), "pull", 3, 1, seed, 6.5
    )
    return LabeledFrame(frame, Label(float(rng.normal()), rng.normal(size=shape), engine, 0.5))


def test_round_trip_keeps_order_labels_and_provenance(tmp_path: Path) -> None:
    frames = [labeled(0), labeled(1, (1, 8)), labeled(2), labeled(3, (1, 6, 1))]
    dataset.write(tmp_path / "data.h5", frames)
    found = dataset.read(tmp_path / "data.h5")
    assert dataset.content_hash(found) == dataset.content_hash(frames)
    for a, b in zip(found, frames, strict=True):
        assert (a.frame.origin, a.frame.round, a.frame.walker, a.frame.step, a.frame.cv, a.frame.pbc) == (
            b.frame.origin, b.frame.round, b.frame.walker, b.frame.step, b.frame.cv, b.frame.pbc,
        )  # fmt: skip
        np.testing.assert_array_equal(a.label.forces, b.label.forces)


def test_weights_are_kept_and_are_one_in_older_files(tmp_path: Path) -> None:
    frames = [labeled(0), replace(labeled(1), weight=0.25)]
    dataset.write(tmp_path / "data.h5", frames)
    assert [f.weight for f in dataset.read(tmp_path / "data.h5")] == [1.0, 0.25]
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        del file["H2C1/weight"]
    assert [f.weight for f in dataset.read(tmp_path / "data.h5")] == [1.0, 1.0]


def test_stress_and_note_are_kept_where_there_are_any(tmp_path: Path) -> None:
    stressed = replace(labeled(1).label, stress=np.arange(6.0), note="mixing 0.1")
    frames = [labeled(0), replace(labeled(1), label=stressed), labeled(2, (1, 8))]
    dataset.write(tmp_path / "data.h5", frames)
    found = dataset.read(tmp_path / "data.h5")
    assert [f.label.stress is None for f in found] == [True, False, True]
    np.testing.assert_array_equal(found[1].label.stress, np.arange(6.0))
    assert [f.label.note for f in found] == ["", "mixing 0.1", ""]
    assert dataset.content_hash(found) == dataset.content_hash(frames)
    unstressed = [replace(f, label=replace(f.label, stress=None)) for f in frames]
    assert dataset.content_hash(unstressed) != dataset.content_hash(frames)
    with h5py.File(tmp_path / "data.h5", "r") as file:
        assert "stress" in file["H2C1"]
        assert "stress" not in file["H1O1"]


def test_layout_is_ani_s(tmp_path: Path) -> None:
    dataset.write(tmp_path / "data.h5", [labeled(0), labeled(1)])
    with h5py.File(tmp_path / "data.h5") as file:
        (group,) = file.values()
        assert group.name == "/H2C1"
        assert [s.decode() for s in group["species"]] == ["C", "H", "H"]
        assert group["coordinates"].shape == (2, 3, 3)
        assert group["forces"].attrs["units"] == "eV/angstrom"
        assert group["energies"].shape == (2,)


def test_an_empty_delta_is_a_data_set(tmp_path: Path) -> None:
    dataset.write(tmp_path / "data.h5", [])
    assert dataset.read(tmp_path / "data.h5") == []


def test_an_existing_file_is_never_touched(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    dataset.write(path, [labeled(0)])
    before = path.read_bytes()
    with pytest.raises(DatasetError, match="exists already"):
        dataset.write(path, [labeled(1)])
    assert path.read_bytes() == before


def test_a_crash_while_writing_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "_write_group", crash)
    with pytest.raises(KeyboardInterrupt):
        dataset.write(tmp_path / "data.h5", [labeled(0)])
    assert not (tmp_path / "data.h5").exists()


def test_engines_are_not_mixed(tmp_path: Path) -> None:
    other = labeled(1, engine="b" * 64)
    with pytest.raises(DatasetError, match="2 engines"):
        dataset.write(tmp_path / "data.h5", [labeled(0), other])
    late = LabeledFrame(replace(other.frame, round=7), other.label)
    with pytest.raises(DatasetError, match=r"engine a{12}: rounds 3; engine b{12}: rounds 7"):
        dataset.refuse_mixture([labeled(0), late])


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.h5").write_bytes(b"no HDF5")
    with pytest.raises(DatasetError, match=r"data\.h5 is no readable"):
        dataset.read(tmp_path / "data.h5")


def test_the_hash_sees_every_label() -> None:
    frames = [labeled(0), labeled(1)]
    changed = [
        frames[0],
        LabeledFrame(frames[1].frame, replace(frames[1].label, energy=frames[1].label.energy + 1e-12)),
    ]
    assert dataset.content_hash(frames) != dataset.content_hash(changed)
    assert dataset.content_hash(frames) != dataset.content_hash([frames[0], replace(frames[1], weight=0.5)])


def test_noise_is_uniform_within_its_bounds() -> None:
    frame = labeled(0, (6,) * 400).frame
    copies = noise_copies([frame, frame], NoiseConfig(copies=2, amplitude=0.05), np.random.default_rng(0))
    assert len(copies) == 4
    noise = np.array([c.positions - frame.positions for c in copies])
    assert np.abs(noise).max() <= 0.05
    assert noise.std() == pytest.approx(0.05 / 3**0.5, rel=0.03)
    assert {c.origin for c in copies} == {"noise"}
    assert not np.array_equal(copies[0].positions, copies[1].positions)
