"""What a finished training leaves in its folder, as the loop reads it: without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rareal.files import read_json
from rareal.records import Trained

MODEL, SUMMARY, SPLIT = "model.pt", "training.json", "split.npz"


def load(folder: Path) -> Trained:
    """What a finished training left in ``folder``."""
    summary = read_json(folder / SUMMARY)
    with np.load(folder / SPLIT) as archive:
        mask = archive["train"]
    return Trained(
        folder / MODEL,
        mask,
        summary["best"],
        tuple(summary["energy_mae_eV"]),
        tuple(summary["force_mae_eV_A"]),
        tuple(summary["notes"]),
    )
