"""Contract tests of a model as it is trained: `rareal.protocols.Model`."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rareal.protocols import Targets
from rareal.testing.modelbase import SEEDS, Build, ModelBase
from rareal.testing.systems import cluster, shaken
from rareal.training.trainer import reproducible, threads


class TrainedContract(ModelBase):
    """Gradients, members, features and scales."""

    def test_forces_in_training_are_the_derivative(self, model: Any) -> None:
        """Along random directions, every member."""
        frame = self.frame()
        _, forces = self.train_forward(model, [frame])
        step, tolerance = (1e-4, 1e-5) if self.training_dtype == torch.float64 else (1e-2, 3e-2)
        for direction in np.random.default_rng(2).normal(size=(4, *frame.positions.shape)):
            direction /= np.linalg.norm(direction)
            images = [replace(frame, positions=frame.positions + s * direction) for s in (step, -step)]
            (ahead, behind) = self.train_forward(model, images)[0].T
            found = -(forces[:, 0] * direction).sum((1, 2))
            np.testing.assert_allclose(
                found, (ahead - behind) / (2 * step), rtol=0, atol=tolerance * np.abs(forces).max()
            )

    def test_training_follows_the_gradient_of_the_loss(self, build: Build) -> None:
        """The derivative of a loss of energies and forces along a random direction of each parameter."""
        model = build(self.elements, SEEDS).to(self.training_dtype)
        frames = shaken(self.frame(), 3)
        targets = self.targets(frames)
        (features,) = model.standardise([model.prepare(frames)], [targets])

        def loss() -> Tensor:
            energies, forces = model(features.batch(torch.tensor([0, 2])))
            misfit = (energies - targets.energies[[0, 2]]) ** 2
            total: Tensor = misfit.sum() + ((forces - targets.forces[[0, 2]]) ** 2).sum()
            return total

        parameters = [p for p in model.parameters() if p.requires_grad]
        loss().backward()
        double = self.training_dtype == torch.float64
        generator = torch.Generator().manual_seed(4)
        pairs = []
        for parameter in parameters:
            direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
            direction *= (1e-5 if double else 1e-3) / direction.norm()
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            with torch.no_grad():
                parameter += direction
                ahead = loss()
                parameter -= 2 * direction
                behind = loss()
                parameter += direction
            pairs.append([2 * float((gradient * direction).sum()), float(ahead - behind)])
        found, expected = np.array(pairs).T
        assert np.abs(expected).max() > 0
        # along some directions hardly anything changes; rounding of the loss itself is left there
        floor = (1e-12 if double else 1e-5) * float(loss().detach())
        np.testing.assert_allclose(found, expected, rtol=1e-5 if double else 0.1, atol=floor)

    def test_gradients_are_the_same_every_time_with_two_threads(self, build: Build) -> None:
        """To the last bit, features included: a seed gives the same weights. Large enough for torch to share out."""
        large = cluster(self.elements, 20, seed=7)
        targets = self.targets([large])
        found = []
        with threads(2), reproducible(torch.device("cpu")):
            for _ in range(4):
                model = build(self.elements, SEEDS).to(self.training_dtype)
                energies, forces = model(
                    model.standardise([model.prepare([large])], [targets])[0].batch(torch.tensor([0]))
                )
                ((energies - targets.energies).square().sum() + (forces - targets.forces).square().sum()).backward()
                found.append([p.grad for p in model.parameters() if p.grad is not None])
        assert found[0]
        assert all(torch.equal(a, b) for again in found[1:] for a, b in zip(found[0], again, strict=True))

    def test_export_leaves_the_model_alone(self, build: Build) -> None:
        """Training goes on after an export."""
        model = build(self.elements, SEEDS)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        trainable = [p.requires_grad for p in model.parameters()]
        model.export(torch.float64)
        after = model.state_dict()
        assert all(
            torch.equal(value, after[name]) and value.dtype == after[name].dtype for name, value in before.items()
        )
        assert [p.requires_grad for p in model.parameters()] == trainable
        assert any(trainable)

    def test_members_depend_on_their_own_seed(self, build: Build) -> None:
        """The same seed gives the same member, in any committee and whatever the global random state is."""
        torch.manual_seed(1)
        first = build(self.elements, (11, 12))
        state = torch.random.get_rng_state()
        second = build(self.elements, (12, 11))
        assert torch.equal(state, torch.random.get_rng_state()), "building a model changes the global random state"
        for a, b in ((0, 1), (1, 0)):
            views = first.member_parameters(a), second.member_parameters(b)
            assert all(torch.equal(x, y) for x, y in zip(*views, strict=True))
        energies = [self.train_forward(m, [self.frame()])[0][:, 0] for m in (first, second)]
        np.testing.assert_allclose(energies[0], energies[1][::-1], rtol=1e-4)
        assert abs(energies[0][0] - energies[0][1]) > 1e-3 * abs(energies[0][0])

    def test_members_have_weights_of_their_own(self, build: Build) -> None:
        """`member_parameters` are views that divide all weights among the members; a change concerns one alone."""
        model = build(self.elements, SEEDS).to(self.training_dtype)
        views = [model.member_parameters(m) for m in range(len(SEEDS))]
        assert len({tuple(v.shape for v in view) for view in views}) == 1
        parameters = [p for p in model.parameters() if p.requires_grad]
        assert sum(v.numel() for view in views for v in view) == sum(p.numel() for p in parameters)
        before = self.train_forward(model, [self.frame()])
        kept = copy.deepcopy(model.state_dict())
        with torch.no_grad():
            for view in views[1]:
                view += 0.05 * torch.randn(view.shape, generator=torch.Generator().manual_seed(6)).to(view)
        for a, b in zip(before, self.train_forward(model, [self.frame()]), strict=True):
            assert np.array_equal(a[[0, 2]], b[[0, 2]])
            assert not np.array_equal(a[1], b[1])
        model.load_state_dict(kept)
        assert np.array_equal(self.train_forward(model, [self.frame()])[0], before[0])

    def test_members_learn_alone(self, build: Build) -> None:
        """The loss of one member has no gradient in the weights of the others."""
        model = build(self.elements, SEEDS).to(self.training_dtype)
        energies, forces = model(model.features([self.frame()]))
        (energies[0].sum() + (forces[0] ** 2).sum()).backward()
        parameters = {p.untyped_storage().data_ptr(): p for p in model.parameters() if p.requires_grad}

        def gradients(member: int) -> list[Tensor]:
            found = []
            for view in model.member_parameters(member):
                parameter = parameters[view.untyped_storage().data_ptr()]
                if parameter.grad is not None:
                    offset = view.storage_offset() - parameter.storage_offset()
                    found.append(parameter.grad.contiguous().as_strided(view.shape, view.stride(), offset))
            return found

        assert any(g.any() for g in gradients(0))
        assert not any(g.any() for m in (1, 2) for g in gradients(m))

    def test_batches(self, build: Build) -> None:
        """Frames give the same in any batch, in any order, and one by one."""
        frames = shaken(self.frame(), 4)
        scaled = build(self.elements, SEEDS).to(self.training_dtype)
        features = scaled.prepare(frames)
        assert len(features) == 4
        assert features.nbytes > 0
        (features,) = scaled.standardise([features], [self.targets(frames)])
        tolerance = 1e-10 if self.training_dtype == torch.float64 else 1e-4
        with torch.no_grad():
            energies, forces = scaled(features.to("cpu").batch(torch.tensor([2, 0, 2])))
        for row, k in enumerate((2, 0, 2)):
            energy, force = self.train_forward(scaled, [frames[k]])
            scale = max(1.0, float(np.abs(force).max()))
            np.testing.assert_allclose(energies[:, row], energy[:, 0], rtol=0, atol=tolerance * scale)
            np.testing.assert_allclose(forces[:, row], force[:, 0], rtol=0, atol=tolerance * scale)

    def test_standardise_keeps_the_function(self, build: Build) -> None:
        """Scales of inputs and outputs are another way to write the same function."""
        model = build(self.elements, SEEDS).to(self.training_dtype)
        frames = shaken(self.frame(), 5)
        before = self.train_forward(model, frames)
        tolerance = 1e-9 if self.training_dtype == torch.float64 else self.single_precision
        for _ in range(2):
            (features,) = model.standardise([model.prepare(frames)], [self.targets(frames)])
            with torch.no_grad():
                prepared = [t.double().numpy() for t in model(features.batch(torch.arange(5)))]
            for after in (prepared, self.train_forward(model, frames)):
                for a, b in zip(after, before, strict=True):
                    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max()))
        exported = self.predict(model.export(torch.float64), frames[0], model)
        np.testing.assert_allclose(
            exported.forces, before[1][:, 0], rtol=0, atol=tolerance * max(1.0, np.abs(before[1]).max())
        )

    def test_frames_of_little_weight_set_no_scale(self, build: Build) -> None:
        """A broken molecule among the training frames changes nothing for the others."""
        models = [build(self.elements, SEEDS).to(self.training_dtype) for _ in range(2)]
        good = shaken(self.frame(), 4)
        targets = self.targets(good)
        broken = replace(good[0], positions=1.7 * good[0].positions)
        wild = Targets(
            energies=torch.cat([targets.energies, torch.tensor([1e3], dtype=self.training_dtype)]),
            forces=torch.cat([targets.forces, 1e3 * torch.ones_like(targets.forces[:1])]),
            weights=torch.cat([targets.weights, torch.tensor([0.1], dtype=self.training_dtype)]),
        )
        models[0].standardise([models[0].prepare(good)], [targets])
        models[1].standardise([models[1].prepare([*good, broken])], [wild])
        for a, b in zip(models[0].state_dict().values(), models[1].state_dict().values(), strict=True):
            torch.testing.assert_close(a, b)

    def test_a_limit_on_memory_changes_no_number(self, build: Build) -> None:
        """What does not fit is computed again when it is needed."""
        frames = shaken(self.frame(), 3)
        index = torch.tensor([1, 2, 0])
        for fraction in (0.0, 0.5):
            scaled = [build(self.elements, SEEDS).to(self.training_dtype) for _ in range(2)]
            memory = int(fraction * scaled[0].prepare(frames).nbytes)
            prepared = [m.prepare(frames, memory=limit) for m, limit in zip(scaled, (None, memory), strict=True)]
            assert prepared[1].nbytes <= prepared[0].nbytes
            with torch.no_grad():
                outputs = [
                    m(m.standardise([features], [self.targets(frames)])[0].batch(index))
                    for m, features in zip(scaled, prepared, strict=True)
                ]
            for a, b in zip(*outputs, strict=True):
                torch.testing.assert_close(a, b)
