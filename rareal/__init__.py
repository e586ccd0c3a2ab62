"""Active learning of neural-network potentials for rare events, coupled to LAMMPS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rareal.api import Run

__version__ = "0.1.0"
__all__ = ["Run", "__version__"]


def __getattr__(name: str) -> Any:
    # the command line must not wait for what only scripts use
    if name == "Run":
        from rareal.api import Run

        return Run
    raise AttributeError(f"module 'rareal' has no attribute '{name}'")
