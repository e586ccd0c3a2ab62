"""Writing labelled frames as extended XYZ, with all digits and all that is known of them.

Energy, forces and stress are where ASE and everybody else look for them; ``weight`` is written where it is not 1. What
rareal knows of a frame beyond that is one JSON object under the key ``rareal``: the hash and the settings of the label
engine, the time it took and its note, and where the frame comes from. Files may be joined with ``cat``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
from ase.data import chemical_symbols
from ase.io.extxyz import key_val_dict_to_str
from ase.stress import voigt_6_to_full_3x3_stress

from rareal.data.dataset import Settings
from rareal.files import write_atomically
from rareal.records import Array, Frame, LabeledFrame

KEY = "rareal"
PLAIN = "".join(chr(code) for code in range(32, 127) if chr(code) not in '%"\\')
"""Characters that stay as they are within a word: the format has no way to escape quotes within quotes."""


def write(path: Path, frames: Sequence[LabeledFrame], settings: Settings) -> Path:
    """Write ``frames`` to ``path`` atomically; ``settings`` are those of the engines, by hash, as far as known."""

    def fill(stream: Any) -> None:
        for labeled in frames:
            stream.write(_text(labeled, settings.get(labeled.label.engine, {})).encode())

    return write_atomically(path, fill)


def _text(labeled: LabeledFrame, settings: Mapping[str, Any]) -> str:
    frame, label = labeled.frame, labeled.label
    head: dict[str, Any] = {}
    if frame.cell.any() or any(frame.pbc):
        head["Lattice"] = frame.cell.T.reshape(3, 3)
    head |= {"Properties": "species:S:1:pos:R:3:forces:R:3", "energy": label.energy}
    if label.stress is not None:
        head["stress"] = voigt_6_to_full_3x3_stress(label.stress)
    if labeled.weight != 1.0:
        head["weight"] = labeled.weight
    head |= {"pbc": np.array(frame.pbc), KEY: provenance(labeled, settings)}
    rows = (
        f"{chemical_symbols[z]:<2} {_digits(position)} {_digits(force)}\n"
        for z, position, force in zip(frame.numbers, frame.positions, label.forces, strict=True)
    )
    return f"{len(frame.numbers)}\n{key_val_dict_to_str(head)}\n{''.join(rows)}"


def _digits(vector: Array) -> str:
    """The shortest text that is read as the same numbers."""
    return " ".join(f"{float(x)!r:>23}" for x in vector)


def provenance(labeled: LabeledFrame, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What stands under the key ``rareal``, see `known`; quotes and the like in words are %-encoded."""
    frame, label = labeled.frame, labeled.label
    known = {
        "engine": label.engine,
        "settings": dict(settings),
        "origin": frame.origin,
        "round": frame.round,
        "walker": frame.walker,
        "step": frame.step,
        "cv": None if math.isnan(frame.cv) else frame.cv,
        "seconds": label.seconds,
        "note": label.note,
        "replaces": labeled.replaces,
    }
    told = {key: value for key, value in known.items() if value not in ("", None, {})}
    return _spelled(told, lambda text: quote(text, safe=PLAIN))  # type: ignore[no-any-return]


def known(info: Mapping[str, Any]) -> dict[str, Any]:
    """What `provenance` has left in the ``info`` of ASE's atoms; empty in a file of somebody else's."""
    found = info.get(KEY, {})
    return _spelled(found, unquote) if isinstance(found, dict) else {}


def _spelled(value: Any, spell: Callable[[str], str]) -> Any:
    """``value`` with every word in it spelled anew."""
    if isinstance(value, Mapping):
        return {key: _spelled(item, spell) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(item, spell) for item in value]
    return spell(value) if isinstance(value, str) else value


def restored(frame: Frame, known: Mapping[str, Any]) -> Frame:
    """``frame`` with the origin that `provenance` has recorded."""
    if not known:
        return frame
    return replace(
        frame,
        origin=str(known.get("origin", "")),
        round=int(known.get("round", -1)),
        walker=int(known.get("walker", -1)),
        step=int(known.get("step", -1)),
        cv=float(known.get("cv", math.nan)),
    )
