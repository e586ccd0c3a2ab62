"""Make the data that train-ani.yaml and train-painn.yaml are for: hexane at 500 K, labelled with GFN2-xTB.

    python examples/hexane/dynamics.py        # about ten minutes

Writes ``hexane-500K.h5`` (2000 frames, 25 fs apart) and ``hexane-500K-test.h5`` (500 frames of another trajectory),
in the ANI layout. The structure and the engine are those of hexane.yaml.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.progress import Progress

from rareal.build import make
from rareal.config import load
from rareal.data import dataset
from rareal.sampling.initial import Config, MolecularDynamics

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write the two files")
    parser.add_argument("--frames", type=int, default=2000, help="frames to learn from")
    parser.add_argument("--test-frames", type=int, default=500, help="frames of the other trajectory")
    options = parser.parse_args()
    config = load(HERE / "hexane.yaml")
    engine = make(config, "engine", start=config.frame)
    parts = (("hexane-500K.h5", options.frames, 1), ("hexane-500K-test.h5", options.test_frames, 2))
    with Progress() as progress:
        for name, frames, seed in parts:
            settings = Config(frames=frames, temperature=500.0, timestep=0.5, interval=50, equilibration=2000)
            task = progress.add_task(name, total=frames)
            data = MolecularDynamics(settings).run(
                engine, config.frame, seed, lambda done, _, task=task: progress.update(task, completed=done)
            )
            dataset.write(options.folder / name, data.frames)


if __name__ == "__main__":
    main()
