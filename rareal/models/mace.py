"""MACE (Batatia et al., NeurIPS 2022) as a model of one's own: ``module: rareal.models.mace:build`` with kind script.

Needs the extra ``mace``. The networks are those of the package ``mace-torch``; `Member` feeds them edge vectors in
place of positions and cell, which is all it takes to run them on local atoms and ghosts in LAMMPS. A trained MACE of
one's own becomes a member by ``torch.jit.save(torch.jit.script(Member(mace, elements)), "member.pt")``.
"""

# no postponed annotations: TorchScript reads those of the class as they are
import importlib
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from ase.data import atomic_numbers
from torch import Tensor, nn

from rareal.errors import InstallationError


def package() -> Any:
    """``mace.modules``, which cannot be imported without care.

    Raises
    ------
    InstallationError
        If the package is missing.
    """
    variable = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    try:
        # e3nn's table of constants holds slices; mace would let torch unpickle anything from then on instead
        with torch.serialization.safe_globals([slice]):
            importlib.import_module("e3nn.o3")
        modules = importlib.import_module("mace.modules")
    except ImportError as error:
        raise InstallationError(f"MACE is missing ({error}): pip install mace-torch") from error
    finally:
        if before is None:
            os.environ.pop(variable, None)
    return modules


@contextmanager
def quiet() -> Iterator[None]:
    """Without the remarks of TorchScript on how mace-torch has been written."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*doesn't support instance-level annotations")
        yield


class Member(nn.Module):
    """A ``mace.modules.MACE`` or ``ScaleShiftMACE`` in the signature of `rareal.models.script`.

    Parameters
    ----------
    mace : with atomic numbers among which the ``elements`` are. It is compiled in place, and its energies of isolated
        atoms are set to zero: rareal has self-energies of its own, which would drown the others in float32.
    elements : chemical symbols in the order of rareal's species.
    """

    column: Tensor

    def __init__(self, mace: Any, elements: Sequence[str]) -> None:
        super().__init__()
        jit = importlib.import_module("e3nn.util.jit")
        table = mace.atomic_numbers.tolist()
        mace.atomic_energies_fn.atomic_energies.zero_()
        # e3nn knows which of its modules TorchScript can only trace
        with quiet():
            self.mace = jit.compile(mace)
        self.numbers = len(table)
        self.register_buffer("column", torch.tensor([table.index(atomic_numbers[element]) for element in elements]))

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> Tensor:
        """Atomic energies [n_local], eV, without the isolated atoms'."""
        nodes = species.size(0)
        # for MACE an edge runs from the neighbour to the centre, and its vector is all that is known of positions
        nowhere = torch.zeros((nodes, 3), dtype=edge_vec.dtype, device=edge_vec.device)
        kinds = nn.functional.one_hot(self.column[species], self.numbers).to(edge_vec.dtype)
        data = {
            "positions": nowhere,
            "node_attrs": kinds,
            "edge_index": edge_index.flip(0),
            "shifts": -edge_vec,
            "unit_shifts": torch.zeros_like(edge_vec),
            "cell": torch.zeros((3, 3), dtype=edge_vec.dtype, device=edge_vec.device),
            "batch": torch.zeros_like(species),
            "ptr": torch.tensor([0, nodes], device=species.device),
        }
        energies = self.mace(data, compute_force=False)["node_energy"]
        assert energies is not None
        # in float32 MACE adds up in float64
        result: Tensor = energies[:n_local].to(edge_vec.dtype)
        return result


def build(elements: Sequence[str], seed: int, cutoff: float, layers: int, **options: Any) -> Member:
    """An untrained member with ``layers`` interactions; ``options`` are those of `network`."""
    return Member(network(elements, cutoff, layers, **options), elements)


def network(
    elements: Sequence[str],
    cutoff: float,
    layers: int,
    *,
    channels: int = 64,
    max_L: int = 1,
    max_ell: int = 3,
    correlation: int = 3,
    num_bessel: int = 8,
    num_polynomial_cutoff: int = 5,
    avg_num_neighbors: float = 12.0,
    scale: float = 1.0,
) -> Any:
    """An untrained ``ScaleShiftMACE``; the names are those of mace-torch's command line, which has their meaning.

    ``channels`` features of each order up to ``max_L``; ``scale`` multiplies the energies, eV.
    """
    modules, o3 = package(), importlib.import_module("e3nn.o3")
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    with quiet():
        return modules.ScaleShiftMACE(
            atomic_inter_scale=scale,
            atomic_inter_shift=0.0,
            r_max=cutoff,
            num_bessel=num_bessel,
            num_polynomial_cutoff=num_polynomial_cutoff,
            max_ell=max_ell,
            interaction_cls=block,
            interaction_cls_first=block,
            num_interactions=layers,
            num_elements=len(elements),
            hidden_irreps=o3.Irreps("+".join(f"{channels}x{k}{'eo'[k % 2]}" for k in range(max_L + 1))),
            MLP_irreps=o3.Irreps("16x0e"),
            gate=nn.functional.silu,
            atomic_energies=torch.zeros(len(elements)).numpy(),
            avg_num_neighbors=avg_num_neighbors,
            atomic_numbers=sorted(atomic_numbers[element] for element in elements),
            correlation=correlation,
        )
