"""Free energies from biased sampling, in NumPy alone: grids, the bias of hills, reweighting, surfaces, errors."""
