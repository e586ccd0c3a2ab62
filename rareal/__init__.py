"""Active learning of neural-network potentials for rare events, coupled to LAMMPS."""

__version__ = "0.1.0"
