"""The label cache: exact, never wrong, whoever writes, dies or runs out of disk."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rareal import cli
from rareal.labeling.cache import Cache, key, open_cache, user_folder
from rareal.records import Frame, Label

ENGINE = "e" * 64


def frame(seed: int = 0, atoms: int = 5) -> Frame:
    rng = np.random.default_rng(seed)
    return Frame(rng.integers(1, 9, atoms), rng.normal(size=(atoms, 3)), 9 * np.eye(3), (True, False, True), "pull", 2)


def label(of: Frame, stress: bool = True) -> Label:
    """Numbers with all their digits that follow from the geometry, so that a mix-up shows."""
    forces = -of.positions / 3.0
    return Label(
        float(np.sum(of.positions**2)) / 7.0, forces, ENGINE, 0.125, forces[:2].ravel() if stress else None, "2 tries"
    )


def entry(cache: Cache) -> Path:
    (path,) = cache.folder.glob("engine-*/??/*.json")
    return path


def assert_same(found: Label | None, expected: Label) -> None:
    assert found is not None
    assert (found.energy, found.engine, found.seconds, found.note) == (
        expected.energy, expected.engine, expected.seconds, expected.note,
    )  # fmt: skip
    np.testing.assert_array_equal(found.forces, expected.forces, strict=True)
    if expected.stress is None:
        assert found.stress is None
    else:
        np.testing.assert_array_equal(found.stress, expected.stress, strict=True)


@pytest.mark.parametrize("stress", [True, False])
def test_a_label_comes_back_to_the_last_bit(tmp_path: Path, stress: bool) -> None:
    cache, one = Cache(tmp_path / "not" / "there" / "yet"), frame()
    assert cache.get(ENGINE, one) is None
    assert not cache.folder.parent.exists()  # asking writes nothing
    cache.put(ENGINE, one, label(one, stress))
    assert_same(Cache(cache.folder).get(ENGINE, one), label(one, stress))


def test_provenance_is_not_geometry_and_all_of_the_geometry_counts(tmp_path: Path) -> None:
    cache, one = Cache(tmp_path), frame()
    cache.put(ENGINE, one, label(one))
    assert cache.get(ENGINE, replace(one, origin="noise", round=7, walker=1, step=3, cv=2.0)) is not None
    least = one.positions.copy()
    least[4, 2] = np.nextafter(least[4, 2], 9)
    cell = one.cell.copy()
    cell[0, 1] = 1e-300
    numbers = one.numbers.copy()
    numbers[0] += 1
    for other in (
        replace(one, positions=least),
        replace(one, cell=cell),
        replace(one, numbers=numbers),
        replace(one, pbc=(True, True, True)),
        replace(one, numbers=one.numbers[::-1].copy(), positions=one.positions[::-1].copy()),
    ):
        assert cache.get(ENGINE, other) is None
    assert cache.get("f" * 64, one) is None


def test_the_key_knows_no_layout_in_memory() -> None:
    one = frame()
    other = replace(one, numbers=one.numbers.astype(">i4"), positions=np.asfortranarray(one.positions).astype(">f8"))
    assert key(ENGINE, other) == key(ENGINE, one)
    # fixed for good: another key would lose what users have paid for
    pair = Frame(np.array([6, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.09]]))
    assert key("engine", pair) == "a8591629b89274eb85517c5d7500aaa335bd0f946c5253125d78ff76eb73e146"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy": float("nan")}, "not finite"),
        ({"forces": np.full((5, 3), np.inf)}, "not finite"),
        ({"forces": np.zeros((4, 3))}, "5 atoms"),
        ({"stress": np.zeros((3, 3))}, "5 atoms"),
        ({"engine": "f" * 64}, "of engine ffffffffffff"),
    ],
)
def test_what_must_not_come_back_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cache(tmp_path).put(ENGINE, frame(), replace(label(frame()), **change))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def torn(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zeroed(content: bytes) -> bytes:
    """What file systems leave of a file whose name reached the disk before its content."""
    return bytes(len(content))


def flipped(content: bytes) -> bytes:
    place = content.index(b'"energy": ') + 14
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def signed(content: bytes) -> bytes:
    """A good checksum over something else."""
    body = json.dumps({"energy": 1.0}).encode()
    return content.split(b" ")[0] + f" label 1 {hashlib.sha256(body).hexdigest()}\n".encode() + body


@pytest.mark.parametrize("damage", [torn, zeroed, flipped, signed, lambda _: b"", lambda _: b"\xff\xfe\n{}"])
def test_a_damaged_entry_is_none_and_is_overwritten(tmp_path: Path, damage: object) -> None:
    cache, one = Cache(tmp_path), frame()
    cache.put(ENGINE, one, label(one))
    path = entry(cache)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert cache.get(ENGINE, one) is None
    cache.put(ENGINE, one, label(one))
    assert_same(cache.get(ENGINE, one), label(one))


def test_the_entry_of_another_frame_is_none(tmp_path: Path) -> None:
    cache, one = Cache(tmp_path), frame()
    cache.put(ENGINE, one, label(one))
    stray = entry(cache)
    cache.put(ENGINE, frame(1), label(frame(1)))
    (other,) = (path for path in cache.folder.glob("engine-*/??/*.json") if path != stray)
    other.write_bytes(stray.read_bytes())
    assert cache.get(ENGINE, frame(1)) is None


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process with this module's names."""
    head = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_cache import *\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


WRITE = """
cache, found, frames = Cache(Path(sys.argv[1])), 0, [frame(k, 100) for k in range(25)]
for turn in range(4):
    for one in frames:
        known = cache.get(ENGINE, one)
        if known is not None:
            assert_same(known, label(one))
            found += 1
        cache.put(ENGINE, one, label(one))
print(found)
"""


def test_many_writers_of_the_same_frames(tmp_path: Path) -> None:
    writers = [python(WRITE, tmp_path) for _ in range(4)]
    for writer in writers:
        out, error = writer.communicate(timeout=120)
        assert writer.returncode == 0, error
        assert int(out) >= 75  # all but the first turn
        assert error == ""
    cache = Cache(tmp_path)
    assert [level.entries for level in cache.levels()] == [25]
    for k in range(25):
        assert_same(cache.get(ENGINE, frame(k, 100)), label(frame(k, 100)))
    assert list(tmp_path.rglob("*.tmp")) == []


def test_clearing_disturbs_no_writer(tmp_path: Path) -> None:
    writer, cache = python(WRITE, tmp_path), Cache(tmp_path)
    cleared = 0
    while writer.poll() is None:
        cleared += cache.clear()
        time.sleep(0.002)
    error = writer.communicate()[1]
    assert (writer.returncode, error) == (0, "")
    assert cleared > 0


DIE = """
import os, signal
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "rename":
    os.replace = die
else:
    whole = Path.write_bytes
    def half(self, content):
        whole(self, content[: len(content) // 2])
        die()
    Path.write_bytes = half
Cache(Path(sys.argv[1])).put(ENGINE, frame(), label(frame()))
"""


@pytest.mark.parametrize("moment", ["write", "rename"])
def test_a_writer_killed_in_the_middle_leaves_no_entry(tmp_path: Path, moment: str) -> None:
    writer = python(DIE, tmp_path, moment)
    assert writer.wait(60) == -9
    cache = Cache(tmp_path)
    assert len(list(tmp_path.rglob("*.tmp"))) == 1
    assert cache.get(ENGINE, frame()) is None
    cache.put(ENGINE, frame(), label(frame()))
    assert_same(cache.get(ENGINE, frame()), label(frame()))
    assert [level.entries for level in cache.levels()] == [1]
    cache.clear()
    assert list(tmp_path.iterdir()) == []  # what the killed one left goes with the rest


FULL = """
import resource
cache = Cache(Path(sys.argv[1]))
cache.put(ENGINE, frame(), label(frame()))
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))  # the write fails after 500 bytes
for k in (1, 2):
    cache.put(ENGINE, frame(k), label(frame(k)))
    assert cache.get(ENGINE, frame(k)) is None
assert_same(cache.get(ENGINE, frame()), label(frame()))
"""


def test_a_full_disk_costs_a_warning_and_nothing_else(tmp_path: Path) -> None:
    writer = python(FULL, tmp_path)
    error = writer.communicate(timeout=60)[1]
    assert writer.returncode == 0, error
    assert error.count("the label cache cannot be written") == 1
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".json"]


def test_a_folder_that_is_none_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file")
    with pytest.warns(RuntimeWarning, match="label cache cannot be read"):
        assert cache.get(ENGINE, frame()) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put(ENGINE, frame(), label(frame()))  # said once


def test_what_it_holds_and_clearing_by_engine(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    cache = Cache(tmp_path)
    cache.describe(ENGINE, {"kind": "tblite", "version": "0.8.0"})
    for k in range(3):
        cache.put(ENGINE, frame(k), label(frame(k)))
    cache.put("../odd", frame(), replace(label(frame()), engine="../odd"))
    first, second = cache.levels()
    assert (first.engine, first.settings["version"], first.entries) == (ENGINE, "0.8.0", 3)
    assert (second.engine, second.settings, second.entries) == ("../odd", {}, 1)
    assert first.size == sum(path.stat().st_size for path in first.folder.glob("??/*.json"))
    assert cache.clear("eee") == 3
    assert [level.engine for level in cache.levels()] == ["../odd"]
    assert cache.clear() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAREAL_CACHE", str(tmp_path / "mine"))
    assert user_folder() == tmp_path / "mine"
    monkeypatch.delenv("RAREAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_folder() == tmp_path / "rareal" / "labels"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_folder() == Path.home() / ".cache" / "rareal" / "labels"
    assert open_cache("none") is None
    assert open_cache("user") == Cache(user_folder())
    assert open_cache("~/labels") == Cache(Path.home() / "labels")


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["rareal", "cache", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert not caught.value.code
        return capsys.readouterr().out

    monkeypatch.setenv("RAREAL_CACHE", str(tmp_path / "mine"))
    assert said("info") == f"0 labels, 0.0 MB in {tmp_path / 'mine'}\n"
    cache = Cache(tmp_path / "mine")
    cache.describe(ENGINE, {"kind": "tblite", "version": "0.8.0"})
    cache.put(ENGINE, frame(), label(frame()))
    assert said("info").startswith("engine eeeeeeeeeeee: 1 labels, 0.0 MB; kind tblite, version 0.8.0\n1 labels")
    assert said("clear", "--engine", "f").startswith("0 labels removed")
    assert said("clear", "--dir", str(tmp_path / "mine")).startswith("1 labels removed")
    assert cache.levels() == []
