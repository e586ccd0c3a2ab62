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


def at(row: LabeledFrame, round_number: int, **label: str) -> LabeledFrame:
    return replace(row, frame=replace(row.frame, round=round_number), label=replace(row.label, **label))


def test_a_mixture_is_refused_and_told_by_round() -> None:
    mine = [at(labeled(k), k - 1) for k in (0, 1, 2, 6)]
    other = [at(labeled(9), 7, engine="b" * 64), at(labeled(8), 7, engine="b" * 64)]
    with pytest.raises(DatasetError) as caught:
        dataset.refuse_mixture([*mine, *other])
    assert str(caught.value).splitlines() == [
        "labels of 2 engines, or of one with different settings, cannot be mixed:",
        "  engine aaaaaaaaaaaa (settings not known): 4 frames, of the initial data and of rounds 0-1, 5",
        "  engine bbbbbbbbbbbb (settings not known): 2 frames, of round 7",
        "Bring them to one level with `rareal relabel DATASET --mixed --config CONFIG -o NEW`",
    ]
    dataset.refuse_mixture(mine)
    dataset.refuse_mixture([])


def test_a_mixture_is_told_by_what_differs_in_the_settings() -> None:
    known = {
        "a" * 64: {"kind": "tblite", "method": "GFN2-xTB", "version": "0.8.0", "charge": 0},
        "b" * 64: {"kind": "tblite", "method": "GFN2-xTB", "version": "0.9.1", "charge": 0},
    }
    with pytest.raises(DatasetError) as caught:
        dataset.refuse_mixture([at(labeled(0), 0), at(labeled(1), 3, engine="b" * 64)], known)
    assert "(kind tblite, method GFN2-xTB, version 0.8.0): 1 frame, of round 0\n" in str(caught.value)
    assert "(kind tblite, method GFN2-xTB, version 0.9.1): 1 frame, of round 3\n" in str(caught.value)
    assert "charge" not in str(caught.value)


def test_a_mixture_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="labels of 2 engines"):
        dataset.write(tmp_path / "data.h5", [labeled(0), labeled(1, engine="b" * 64)])
    assert list(tmp_path.iterdir()) == []


def test_settings_and_what_a_label_replaces_are_kept(tmp_path: Path) -> None:
    known = {"a" * 64: {"kind": "tblite", "version": "0.8.0", "temperature": 300.0}, "b" * 64: {"kind": "gpaw"}}
    dataset.write(tmp_path / "data.h5", [labeled(0), replace(labeled(1), replaces="c" * 64)], known)
    assert dataset.settings(tmp_path / "data.h5") == {"a" * 64: known["a" * 64]}
    assert [row.replaces for row in dataset.read(tmp_path / "data.h5")] == ["", "c" * 64]
    dataset.write(tmp_path / "older.h5", [labeled(0)])
    assert dataset.settings(tmp_path / "older.h5") == {}


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
