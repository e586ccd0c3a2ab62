"""MACE, the proof that a foreign model becomes a committee; needs the extra ``mace``."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from rareal.errors import InstallationError
from rareal.models import mace, script
from rareal.testing.models import Build, ModelContract
from rareal.testing.systems import Graph, crystal

OPTIONS = {"channels": 8, "max_L": 1, "max_ell": 2, "correlation": 2}

try:
    modules = mace.package()
except InstallationError as error:
    pytest.skip(str(error), allow_module_level=True)


class TestMACE(ModelContract):
    @pytest.fixture
    def build(self) -> Build:
        config = script.Config(module="rareal.models.mace:build", cutoff=4.0, layers=2, options=OPTIONS)
        return lambda elements, seeds: script.build(config, elements, seeds)


def test_energies_and_forces_are_those_of_mace() -> None:
    """The same weights called as mace-torch calls them: positions, cell and shifts."""
    from ase import Atoms
    from mace.data import AtomicData, config_from_atoms
    from mace.tools import AtomicNumberTable
    from mace.tools.torch_geometric import Batch

    elements = ("C", "O", "H")
    config = script.Config(module="rareal.models.mace:build", cutoff=4.0, layers=2, options=OPTIONS)
    committee = script.build(config, elements, [1, 2]).double()
    frame = crystal(elements)
    with torch.no_grad():
        energies, forces = committee(committee.features([frame]))
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=True)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        data = AtomicData.from_config(config_from_atoms(atoms), z_table=AtomicNumberTable([1, 6, 8]), cutoff=4.0)
    finally:
        torch.set_default_dtype(default)
    batch = {k: v for k, v in Batch.from_data_list([data]).to_dict().items() if isinstance(v, torch.Tensor)}
    for k, member in enumerate(committee.networks):
        expected = member.member.mace(dict(batch))
        assert float(energies[k, 0]) == pytest.approx(float(expected["energy"].detach()), abs=1e-9)
        np.testing.assert_allclose(forces[k, 0], expected["forces"].detach(), rtol=0, atol=1e-9)
    assert len(Graph.of(frame, elements, 4.0).vectors) == batch["edge_index"].shape[1]


def test_isolated_atoms_have_no_say() -> None:
    """The self-energies of a MACE from elsewhere stay out: rareal has its own."""
    elements = ("C", "O", "H")
    network = mace.network(elements, 4.0, 2, **OPTIONS)
    network.atomic_energies_fn.atomic_energies.add_(torch.tensor([-13.0, -1000.0, -2000.0]))
    member = mace.Member(network, elements).double()
    graph = Graph.of(crystal(elements), elements, 4.0)
    energies = member(graph.species, graph.edges, graph.vectors, graph.n_local)
    assert energies.abs().max() < 10.0


def test_mace_does_not_change_how_torch_loads() -> None:
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
