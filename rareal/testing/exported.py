"""Contract tests of a model as it is exported: the model file, in Python and in LAMMPS."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from rareal.export import modelfile
from rareal.records import Frame
from rareal.testing.lammps import Lammps
from rareal.testing.modelbase import SEEDS, Build, ModelBase
from rareal.testing.systems import (
    Graph,
    chain,
    cluster,
    crystal,
    joined,
    predict,
    random_rotation,
    repeated,
    strained,
    with_ghosts,
)


class ExportedContract(ModelBase):
    """Derivatives, symmetries, locality, precision and LAMMPS."""

    def test_description(self, model: Any) -> None:
        """The attributes that export and LAMMPS need."""
        assert isinstance(model.architecture, str)
        assert tuple(model.elements) == self.elements
        assert model.members == len(SEEDS)
        assert model.cutoff > 1.0
        assert model.layers >= 0

    @pytest.mark.parametrize("system", ["cluster", "crystal"])
    def test_forces_are_the_derivative_of_the_energy(self, script: Any, model: Any, system: str) -> None:
        """Along random directions, every member, also where atoms see their own images."""
        frame = self.frame() if system == "cluster" else crystal(self.elements)
        forces = self.predict(script, frame, model).forces
        largest = np.abs(forces).max()
        assert largest > 1e-6, "the energy does not depend on the positions"
        np.testing.assert_allclose(forces.sum(1), 0.0, atol=1e-10 * max(1.0, largest))
        rng = np.random.default_rng(1)
        for _ in range(6):
            direction = rng.normal(size=frame.positions.shape)
            direction /= np.linalg.norm(direction)
            ahead, behind = (
                self.predict(script, replace(frame, positions=frame.positions + step * direction), model).energies
                for step in (1e-4, -1e-4)
            )
            slope = (ahead - behind) / 2e-4
            np.testing.assert_allclose(-(forces * direction).sum((1, 2)), slope, rtol=0, atol=1e-5 * largest)

    def test_virial_is_the_derivative_by_strain(self, script: Any, model: Any) -> None:
        """All nine components; the virial of an energy that rotation leaves alone is symmetric."""
        frame = crystal(self.elements)
        virials = self.predict(script, frame, model).virials
        largest = np.abs(virials).max()
        np.testing.assert_allclose(virials, virials.transpose(0, 2, 1), rtol=0, atol=1e-9 * max(1.0, largest))
        for a in range(3):
            for b in range(3):
                strain = np.zeros((3, 3))
                strain[a, b] = 1e-4
                ahead, behind = (self.predict(script, strained(frame, s), model).energies for s in (strain, -strain))
                np.testing.assert_allclose(-virials[:, a, b], (ahead - behind) / 2e-4, rtol=0, atol=1e-5 * largest)

    def test_export_is_the_trained_model(self, script: Any, model: Any) -> None:
        """Energies and forces of the export equal those of training."""
        tolerance = 1e-9 if self.training_dtype == torch.float64 else self.single_precision
        for frame in (self.frame(), crystal(self.elements), chain(self.elements)):
            found = self.predict(script, frame, model)
            energies, forces = self.train_forward(model, [frame])
            scale = max(1.0, float(np.abs(forces).max()))
            np.testing.assert_allclose(found.energies, energies[:, 0], rtol=0, atol=tolerance * scale)
            np.testing.assert_allclose(found.forces, forces[:, 0], rtol=0, atol=tolerance * scale)

    def test_saved_and_loaded(self, script: Any, model: Any) -> None:
        """The archive gives the same numbers, bit for bit, and the same ones every time."""
        file = io.BytesIO()
        torch.jit.save(script, file)
        file.seek(0)
        loaded = torch.jit.load(file)
        first = self.predict(script, self.frame(), model)
        for _ in range(3):
            second = self.predict(loaded, self.frame(), model)
            assert np.array_equal(first.atomic, second.atomic)
            assert np.array_equal(first.gradients, second.gradients)

    def test_single_precision(self, script: Any, model: Any) -> None:
        """float32 is float64 to seven digits, less what cancels."""
        single = model.export(torch.float32)
        for frame in (self.frame(), crystal(self.elements)):
            graph = Graph.of(frame, self.elements, float(model.cutoff))
            expected, found = predict(script, graph), predict(single, graph, torch.float32)
            for a, b in ((found.energies, expected.energies), (found.forces, expected.forces)):
                np.testing.assert_allclose(a, b, rtol=0, atol=self.single_precision * max(1.0, np.abs(b).max()))

    def test_rotation_inversion_translation(self, script: Any, model: Any) -> None:
        """Energies stay, forces turn with the atoms."""
        frame, rotation = self.frame(), random_rotation()
        before = self.predict(script, frame, model)
        for positions, expected in (
            (frame.positions @ rotation.T, before.forces @ rotation.T),
            (-frame.positions, -before.forces),
            (frame.positions + [7.0, -3.0, 11.0], before.forces),
        ):
            after = self.predict(script, replace(frame, positions=positions), model)
            scale = max(1.0, float(np.abs(expected).max()))
            np.testing.assert_allclose(after.energies, before.energies, rtol=0, atol=1e-9 * scale)
            np.testing.assert_allclose(after.forces, expected, rtol=0, atol=1e-9 * scale)

    def test_permutation_of_atoms(self, script: Any, model: Any) -> None:
        """The order of the atoms does not matter, nor which of two atoms of an element is where."""
        frame = self.frame()
        before = self.predict(script, frame, model)
        order = np.random.default_rng(3).permutation(len(frame.numbers))
        mixed = self.predict(script, Frame(frame.numbers[order], frame.positions[order]), model)
        np.testing.assert_allclose(mixed.atomic, before.atomic[:, order], rtol=0, atol=1e-9)
        np.testing.assert_allclose(mixed.forces, before.forces[:, order], rtol=0, atol=1e-9)
        alike = np.flatnonzero(frame.numbers == frame.numbers[0])[:2]
        swapped = frame.positions.copy()
        swapped[alike] = swapped[alike[::-1]]
        for energies in (
            self.predict(script, replace(frame, positions=swapped), model).energies,
            self.train_forward(model, [replace(frame, positions=swapped)])[0][:, 0],
        ):
            tolerance = 1e-9 if self.training_dtype == torch.float64 else self.single_precision
            np.testing.assert_allclose(
                energies, before.energies, rtol=0, atol=tolerance * max(1.0, np.abs(energies).max())
            )

    def test_order_of_neighbours(self, script: Any, model: Any) -> None:
        """Edges are grouped by their centre; within a group their order does not matter."""
        graph = Graph.of(crystal(self.elements), self.elements, float(model.cutoff))
        rng = np.random.default_rng(4)
        order = torch.from_numpy(np.lexsort((rng.random(graph.edges.shape[1]), graph.edges[0].numpy())))
        before = predict(script, graph)
        after = predict(script, replace(graph, edges=graph.edges[:, order], vectors=graph.vectors[order]))
        np.testing.assert_allclose(after.atomic, before.atomic, rtol=0, atol=1e-9)
        np.testing.assert_allclose(after.gradients, before.gradients[:, order.numpy()], rtol=0, atol=1e-9)

    def test_distant_molecules_do_not_feel_each_other(self, script: Any, model: Any) -> None:
        """Energies add up, atom by atom."""
        first, second = cluster(self.elements), cluster(self.elements, 5, seed=8)
        apart = max(1, model.layers) * float(model.cutoff) + 30.0
        both = self.predict(script, joined(first, second, apart), model)
        parts = [self.predict(script, part, model) for part in (first, second)]
        np.testing.assert_allclose(both.atomic, np.hstack([p.atomic for p in parts]), rtol=0, atol=1e-9)
        np.testing.assert_allclose(both.forces, np.hstack([p.forces for p in parts]), rtol=0, atol=1e-9)

    def test_a_crystal_has_no_size(self, script: Any, model: Any) -> None:
        """Eight cells described as one have eight times the energy and the same forces."""
        frame = crystal(self.elements)
        one, eight = (self.predict(script, f, model) for f in (frame, repeated(frame)))
        np.testing.assert_allclose(eight.energies, 8 * one.energies, rtol=1e-10, atol=1e-9)
        np.testing.assert_allclose(eight.forces, np.tile(one.forces, (1, 8, 1)), rtol=0, atol=1e-9)

    def test_smooth_at_the_cutoff(self, script: Any, model: Any) -> None:
        """As an atom leaves, what it adds to the energy goes to zero faster than linearly, and its force to zero."""
        host = cluster(self.elements, 4)
        host = replace(host, positions=host.positions - host.positions.max(0))
        edge = host.positions[np.argmax(host.positions[:, 0])]

        def visitor(distance: float) -> Any:
            places = np.vstack([host.positions, edge + [distance, 0, 0]])
            return self.predict(script, Frame(np.append(host.numbers, host.numbers[0]), places), model)

        cutoff = float(model.cutoff)
        outside = visitor(cutoff + 1e-9)
        assert not outside.forces[:, -1].any()
        depths = (1e-1, 1e-2, 1e-3)
        inside = [visitor(cutoff - depth) for depth in depths]
        forces = [np.abs(p.forces[:, -1]).max() for p in inside]
        energies = [np.abs(p.energies - outside.energies).max() for p in inside]
        assert np.abs(visitor(0.5 * cutoff).forces[:, -1]).max() > 0
        rounding = 1e-13 * (1.0 + np.abs(outside.energies).max())
        # at least linear in the depth, the force; at least quadratic, the energy
        assert forces[1] <= 0.2 * forces[0] + rounding
        assert forces[2] <= 0.2 * forces[1] + rounding
        assert energies[1] <= 0.04 * energies[0] + rounding
        assert energies[2] <= 0.04 * energies[1] + rounding

    def test_ghost_atoms(self, script: Any, model: Any) -> None:
        """Periodic images as atoms of their own, as LAMMPS has them: the same energies, and forces once sent home."""
        frame = chain(self.elements)
        graph, home = with_ghosts(frame, self.elements, float(model.cutoff), model.layers)
        assert len(home) > len(frame.numbers)
        found, expected = predict(script, graph), self.predict(script, frame, model)
        np.testing.assert_allclose(found.atomic, expected.atomic, rtol=0, atol=1e-9)
        forces = np.zeros_like(expected.forces)
        for member, ghosts in zip(forces, found.forces, strict=True):
            np.add.at(member, home, ghosts)
        np.testing.assert_allclose(forces, expected.forces, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.virials, expected.virials, rtol=0, atol=1e-8)

    def test_atoms_without_neighbours(self, script: Any, model: Any) -> None:
        """A lone atom has an energy and no force, and adds to others; a rank may even have no atom at all."""
        alone = Frame(self.frame().numbers[:1], np.zeros((1, 3)))
        lonely = self.predict(script, alone, model)
        assert np.isfinite(lonely.energies).all()
        assert not lonely.forces.any()
        energies, forces = self.train_forward(model, [alone])
        np.testing.assert_allclose(energies[:, 0], lonely.energies, rtol=0, atol=1e-6)
        assert not forces.any()
        both = self.predict(script, joined(self.frame(), alone, 100.0), model)
        expected = self.predict(script, self.frame(), model).energies + lonely.energies
        np.testing.assert_allclose(both.energies, expected, rtol=0, atol=1e-9)
        assert np.isfinite(both.forces).all()
        nothing = Graph(torch.zeros(0, dtype=torch.long), torch.zeros(2, 0, dtype=torch.long), torch.zeros(0, 3), 0)
        assert predict(script, nothing).atomic.shape == (len(SEEDS), 0)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_equal_members_do_not_disagree(self, build: Build, dtype: torch.dtype) -> None:
        """Equal seeds, equal numbers: no uncertainty may come from how they are computed."""
        model = build(self.elements, (5, 5, 5))
        found = predict(model.export(dtype), Graph.of(self.frame(), self.elements, float(model.cutoff)), dtype)
        allowed = self.rounding[dtype == torch.float64] * max(1.0, float(np.abs(found.forces).max()))
        assert np.ptp(found.energies) <= allowed
        assert np.ptp(found.forces, axis=0).max() <= allowed

    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    @pytest.mark.parametrize("ranks", [1, 2])
    @pytest.mark.parametrize("system", ["cluster", "crystal"])
    def test_lammps(
        self, model: Any, lammps: Lammps, paths: dict[str, Path], dtype: str, ranks: int, system: str
    ) -> None:
        """Energy, forces, virial and spread of the pair style are those of Python."""
        frame = self.frame() if system == "cluster" else crystal(self.elements)
        periodic = any(frame.pbc)
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell if periodic else [30, 30, 30], pbc=periodic)
        if not periodic:
            atoms.center()
        path = paths[dtype]
        found = lammps.single_point(atoms, path, ranks=ranks)
        energies, forces = modelfile.Committee.load(path).energies_forces(frame)
        graph = Graph.of(frame, self.elements, float(model.cutoff))
        script = torch.jit.load(str(path))
        virials = predict(script, graph, modelfile.DTYPES[dtype]).virials
        tolerance = (1e-9 if dtype == "float64" else self.single_precision) * max(1.0, float(np.abs(forces).max()))
        assert found.energy == pytest.approx(energies.mean(), abs=tolerance)
        np.testing.assert_allclose(found.forces, forces.mean(0), rtol=0, atol=tolerance)
        virial = virials.mean(0)[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]
        # LAMMPS prints it as a pressure, with the digits of its own unit of it
        np.testing.assert_allclose(found.virial, virial, rtol=2e-6, atol=1e-6 + 10 * tolerance)
        spread = np.sqrt(forces.var(0).sum(1))
        expected = [energies.std(), spread.max(), spread.mean()]
        np.testing.assert_allclose(found.spread, expected, rtol=0, atol=tolerance)
        assert found.spread[0] > 0
