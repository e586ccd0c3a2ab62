"""Muon: orthogonal updates, member by member."""

from __future__ import annotations

import io

import torch

from rareal.training.muon import Muon, orthogonalise


def test_orthogonalisation_brings_singular_values_to_one_member_by_member() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 20, 12), (3, 12, 20)):
        matrices = torch.randn(shape, generator=generator) * torch.tensor([1e-6, 1.0, 1e6]).view(3, 1, 1)
        values = torch.linalg.svdvals(orthogonalise(matrices))
        assert values.min() > 0.5
        assert values.max() < 1.4


def test_muon_minimises_a_quadratic_of_matrices() -> None:
    generator = torch.Generator().manual_seed(1)
    target = torch.randn((2, 6, 4), generator=generator)
    weights = torch.nn.Parameter(torch.zeros(2, 6, 4))
    bias = torch.nn.Parameter(torch.full((2, 1, 4), 3.0))
    optimizer = Muon([weights, bias], lr=0.1)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        optimizer.zero_grad()
        ((weights - target).square().sum() + bias.square().sum()).backward()
        optimizer.step()
    assert (weights - target).abs().max() < 0.05
    assert bias.abs().max() < 0.05


def test_parameters_of_separate_members_step_as_those_of_a_batch_do() -> None:
    """Matrices [M, a, b] and M matrices [a, b]; biases [M, 1, b] and [b]; what is of another shape goes Adam's way."""
    generator = torch.Generator().manual_seed(2)
    batched = [torch.randn(shape, generator=generator) for shape in ((2, 6, 4), (2, 1, 4), (2, 6, 1), (2, 3, 2, 5))]
    separate = [t[m].clone() for t in batched for m in range(2)]
    gradients = [torch.randn(t.shape, generator=generator) for t in batched]
    start = batched[3].clone()
    separate_gradients = [g[m].clone() for g in gradients for m in range(2)]
    for parameters, grads in ((batched, gradients), (separate, separate_gradients)):
        optimizer = Muon(parameters, lr=0.1)
        for parameter, gradient in zip(parameters, grads, strict=True):
            parameter.grad = gradient
        for _ in range(3):
            optimizer.step()
    for k, parameter in enumerate(batched[:3]):
        for m in range(2):
            torch.testing.assert_close(parameter[m], separate[2 * k + m])
    # Adam's steps are as long as the learning rate where the gradient stays
    torch.testing.assert_close(batched[3], start - 0.3 * gradients[3].sign(), atol=1e-5, rtol=1e-5)


def test_state_survives_saving() -> None:
    """A step after reloading is the step that would have been."""
    generator = torch.Generator().manual_seed(3)
    first = [torch.randn((2, 4, 3), generator=generator), torch.randn((2, 1, 3), generator=generator)]
    gradients = [torch.randn(t.shape, generator=generator) for t in first]
    optimizer = Muon(first, lr=0.1)
    for parameter, gradient in zip(first, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    second = [p.clone() for p in first]
    again = Muon(second, lr=0.1)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    for parameter, gradient in zip(second, gradients, strict=True):
        parameter.grad = -gradient
    for parameter, gradient in zip(first, gradients, strict=True):
        parameter.grad = -gradient
    optimizer.step()
    again.step()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
