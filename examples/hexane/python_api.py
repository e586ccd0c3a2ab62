# %% [markdown]
# # rareal from Python
#
# Every command is a function, and a run folder is an object to look at. The cells run one after the other, in an editor
# that knows `# %%`, or all at once: `python python_api.py`, beside `hexane.yaml`; it takes as long as a run.

# %%
import sys
from pathlib import Path

import numpy as np
from ase.io import read
from ase.optimize import BFGS

from rareal import Run
from rareal.api import evaluate, label, train, validate

config = Path(sys.argv[1] if len(sys.argv) > 1 else "hexane.yaml")

# %% [markdown]
# What will it cost? Nothing is written.

# %%
print(validate(config, limit=1.0).describe())

# %% [markdown]
# Learn the potential. The same line goes on where an earlier one was stopped.

# %%
run = Run.start(config)
print(run)

# %% [markdown]
# The barrier, round by round.

# %%
barriers = run.barriers
for number, labels, energy, error in zip(barriers.round, barriers.labels, barriers.energy, barriers.error, strict=True):
    print(f"round {number:.0f}: {labels:.0f} labels, {energy:.3f} ± {error:.3f} eV")

# %% [markdown]
# What a round saw: its walkers' trajectories, and the energy along the collective variable.

# %%
last = run.rounds[-1]
for walker in last.trajectories:
    print(f"walker {walker.walker}: {len(walker)} frames, CV {walker.cv.min():.2f} to {walker.cv.max():.2f}")
profile = last.profile
print(f"{profile.kind}: barrier {profile.barrier:.3f} eV")

# %% [markdown]
# The data are frames with labels, and where each comes from; other programs read the file.

# %%
frames = run.dataset
origins, counts = np.unique([item.frame.origin for item in frames], return_counts=True)
print(dict(zip(origins.tolist(), counts.tolist(), strict=True)))
run.export("frames.extxyz")

# %% [markdown]
# The committee as an ASE calculator: a relaxed structure, and how sure the committee is of it.

# %%
atoms = read(run.path / "structure.extxyz")
atoms.calc = run.calculator()
BFGS(atoms, logfile=None).run(fmax=0.05, steps=50)
print(f"{atoms.get_potential_energy():.4f} ± {atoms.calc.results['energy_std']:.4f} eV")
print(f"least sure force: {atoms.calc.results['forces_std'].max():.4f} eV/Å")

# %% [markdown]
# Another committee on the same data, smaller and quickly trained; and its errors on all of them.

# %%
small = {"model": {"kind": "ani", "hidden": {"C": [16], "H": [16]}}, "training": {"members": 2, "epochs": 10}}
outcome = train(small, "frames.extxyz", "small.pt", force=True)
print(f"force MAE {evaluate('small.pt', 'frames.extxyz').numbers['forces_mae_kcal_mol_A']:.2f} kcal/mol/Å")

# %% [markdown]
# New labels for geometries in a file.

# %%
atoms.write("relaxed.xyz")
found = label(config, "relaxed.xyz", "relaxed-labelled.extxyz", force=True)
print(found.describe())
