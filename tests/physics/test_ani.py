"""The ANI committee against TorchANI, finite differences and symmetries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule
from torchani.aev import AEVComputer, ANIAngular, ANIRadial
from torchani.nn import ANINetworks, AtomicNetwork

from rareal.build import elements_of
from rareal.export.modelfile import Committee, write
from rareal.models import ani
from rareal.models.ani_network import ANI, AEVParameters
from rareal.models.graphs import species_of
from rareal.models.networks import BatchedNetwork, gelu_derivatives
from rareal.neighbours import all_edges
from rareal.plugin import load_ops
from rareal.records import Frame

MEMBERS = 3


def shaken(name: str = "CH3CH2OH", seed: int = 0, amplitude: float = 0.1) -> Frame:
    atoms = molecule(name)
    noise = np.random.default_rng(seed).uniform(-amplitude, amplitude, (len(atoms), 3))
    return Frame(atoms.numbers.astype(np.int64), atoms.positions + noise)


@pytest.fixture(scope="module")
def frame() -> Frame:
    return shaken()


@pytest.fixture(scope="module")
def model(frame: Frame) -> ANI:
    model = ani.build(ani.Config(), elements_of(frame.numbers), range(1, MEMBERS + 1))
    # anything but the trivial standardisation, to see that export folds it in
    model.standardise([model.prepare([shaken(seed=k) for k in range(4)])])
    return model


@pytest.fixture(scope="module")
def committee(model: ANI, frame: Frame, tmp_path_factory: pytest.TempPathFactory) -> Committee:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    write(model, path, [-1.0, -20.0, -3.0], dtype="float64", check=[frame])
    return Committee.load(path)


def test_descriptor_equals_torchani(frame: Frame, model: ANI) -> None:
    computer = AEVComputer(ANIRadial.like_2x(), ANIAngular.like_2x(), num_species=len(model.elements)).double()
    species = species_of(frame, model.elements)
    expected = computer(species[None], torch.from_numpy(frame.positions)[None])[0]
    index, vectors = all_edges(frame, model.cutoff)
    ours = torch.ops.rareal.aev(species, index, vectors, len(species), *model.parameters_aev.arguments())
    # TorchANI stores its shifts in single precision
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


def test_defaults_are_ani2x() -> None:
    radial, angular = ANIRadial.like_2x(), ANIAngular.like_2x()
    ours = AEVParameters.of(ani.Config(), 2)
    assert ours.radial == (pytest.approx(float(radial.eta)), pytest.approx(float(radial.cutoff)))
    assert ours.angular == tuple(pytest.approx(float(x)) for x in (angular.eta, angular.zeta, angular.cutoff))
    for values, theirs in ((ours.shifts_r, radial.shifts), (ours.shifts_a, angular.shifts)):
        np.testing.assert_allclose(values, theirs.numpy(), rtol=1e-6)
    np.testing.assert_allclose(ours.sections, angular.sections.numpy(), rtol=1e-6)


def test_another_descriptor_equals_torchani(frame: Frame) -> None:
    """ANI-1x's angles, which are finer than ANI-2x's."""
    config = ani.Config(
        radial=ani.Radial(cutoff=5.2, eta=16.0, shifts=16),
        angular=ani.Angular(cutoff=3.5, eta=8.0, zeta=32.0, shifts=4, sections=8),
    )
    model = ani.build(config, elements_of(frame.numbers), [1])
    radial = ANIRadial.cover_linearly(start=0.8, cutoff=5.2, eta=16.0, num_shifts=16)
    angular = ANIAngular.cover_linearly(start=0.8, cutoff=3.5, eta=8.0, zeta=32.0, num_shifts=4, num_sections=8)
    computer = AEVComputer(radial, angular, num_species=len(model.elements)).double()
    species = species_of(frame, model.elements)
    expected = computer(species[None], torch.from_numpy(frame.positions)[None])[0]
    index, vectors = all_edges(frame, model.cutoff)
    ours = torch.ops.rareal.aev(species, index, vectors, len(species), *model.parameters_aev.arguments())
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


def test_energies_equal_torchani_with_the_same_weights(frame: Frame, model: ANI, committee: Committee) -> None:
    ours, _ = committee.energies_forces(frame)
    shift = sum(committee.self_energy[int(z)] for z in frame.numbers)
    computer = AEVComputer(ANIRadial.like_2x(), ANIAngular.like_2x(), num_species=len(model.elements)).double()
    species = species_of(frame, model.elements)[None]
    aevs = computer(species, torch.from_numpy(frame.positions)[None])
    for member in range(MEMBERS):
        networks = {}
        for element, network in zip(model.elements, committee.model.networks.children(), strict=True):
            weights = [p[member] for name, p in network.named_parameters() if name.startswith("weights")]
            biases = [p[member, 0] for name, p in network.named_parameters() if name.startswith("biases")]
            theirs = AtomicNetwork((weights[0].shape[0], *(w.shape[1] for w in weights)), "gelu", bias=True).double()
            linears = [m for m in theirs.modules() if isinstance(m, torch.nn.Linear)]
            for linear, weight, bias in zip(linears, weights, biases, strict=True):
                linear.weight.data, linear.bias.data = weight.T.contiguous(), bias
            networks[element] = theirs
        energy = ANINetworks(networks).double()(species, aevs)
        assert energy.item() == pytest.approx(ours[member] - shift, abs=1e-6)


@pytest.mark.parametrize("atom", [0, 3, 8])
def test_forces_are_minus_the_gradient(frame: Frame, committee: Committee, atom: int) -> None:
    step = 1e-4
    _, forces = committee.energies_forces(frame)
    for axis in range(3):
        energies = []
        for sign in (1, -1):
            positions = frame.positions.copy()
            positions[atom, axis] += sign * step
            energies.append(committee.energies_forces(replace(frame, positions=positions))[0])
        slope = (energies[0] - energies[1]) / (2 * step)
        np.testing.assert_allclose(forces[:, atom, axis], -slope, atol=1e-7)


def test_training_model_predicts_what_the_exported_one_does(frame: Frame, model: ANI, committee: Committee) -> None:
    with torch.no_grad():
        energies, forces = model(model.features([frame]))
    expected_energies, expected_forces = committee.energies_forces(frame)
    shift = sum(committee.self_energy[int(z)] for z in frame.numbers)
    np.testing.assert_allclose(energies[:, 0], expected_energies - shift, atol=2e-5)
    np.testing.assert_allclose(forces[:, 0], expected_forces, atol=2e-5)


def test_symmetries(frame: Frame, committee: Committee) -> None:
    energies, forces = committee.energies_forces(frame)
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    permutation = rng.permutation(len(frame.numbers))
    moved = [
        replace(frame, positions=frame.positions @ rotation.T),
        replace(frame, positions=-frame.positions),
        replace(frame, positions=frame.positions + 7.0),
        Frame(frame.numbers[permutation], frame.positions[permutation]),
    ]
    expected = [forces @ rotation.T, -forces, forces, forces[:, permutation]]
    for image, image_forces in zip(moved, expected, strict=True):
        found, found_forces = committee.energies_forces(image)
        np.testing.assert_allclose(found, energies, atol=1e-9)
        np.testing.assert_allclose(found_forces, image_forces, atol=1e-9)


def test_two_distant_molecules_have_twice_the_energy(frame: Frame, committee: Committee) -> None:
    both = Frame(np.tile(frame.numbers, 2), np.vstack([frame.positions, frame.positions + 50.0]))
    np.testing.assert_allclose(committee.energies_forces(both)[0], 2 * committee.energies_forces(frame)[0], atol=1e-9)


def test_smooth_at_the_cutoff(model: ANI) -> None:
    """A cosine cutoff meets zero with zero slope: what is left shrinks with the square of the distance."""

    def descriptor(distance: float) -> float:
        vectors = torch.tensor([[0.0, 0.0, distance], [0.0, 0.0, -distance]], dtype=torch.float64)
        pair = (torch.zeros(2, dtype=torch.long), torch.tensor([[0, 1], [1, 0]]), vectors, 2)
        return float(torch.ops.rareal.aev(*pair, *model.parameters_aev.arguments()).abs().sum())

    assert descriptor(model.cutoff + 1e-9) == 0.0
    near, nearer = descriptor(model.cutoff - 2e-3), descriptor(model.cutoff - 1e-3)
    assert near > 1e-9
    assert near / nearer == pytest.approx(4.0, rel=0.02)


def test_periodic_images_count(committee: Committee) -> None:
    """A crystal's energy per cell does not depend on which cell is chosen, also for a cell smaller than the cutoff."""
    cell = np.eye(3) * 3.0
    small = Frame(np.array([6]), np.zeros((1, 3)), cell, (True, True, True))
    shifts = np.array([[i, j, k] for i in range(2) for j in range(2) for k in range(2)]) * 3.0
    large = Frame(np.full(8, 6), shifts, 2 * cell, (True, True, True))
    np.testing.assert_allclose(committee.energies_forces(large)[0], 8 * committee.energies_forces(small)[0], atol=1e-8)


def test_gelu_derivatives_against_autograd() -> None:
    z = torch.linspace(-5, 5, 101, dtype=torch.float64, requires_grad=True)
    value, slope, curvature = gelu_derivatives(z)
    expected = torch.nn.functional.gelu(z)
    first = torch.autograd.grad(expected.sum(), z, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), z)[0]
    for ours, theirs in ((value, expected), (slope, first), (curvature, second)):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    load_ops()
    for ours, theirs in zip(gelu_derivatives(z.detach().float()), (expected, first, second), strict=True):
        torch.testing.assert_close(ours.double(), theirs.detach(), atol=1e-6, rtol=0)


def test_not_a_number_goes_through_gelu() -> None:
    """Divergence must be seen, whatever the compiler makes of the loop."""
    load_ops()
    for result in gelu_derivatives(torch.tensor([0.0, float("nan"), 1.0] * 20)):
        assert torch.isnan(result).sum() == 20


def test_force_loss_gradient_against_autograd(model: ANI, frame: Frame) -> None:
    """The hand-written derivative of energies and forces equals autograd's through a plain network."""
    network = BatchedNetwork([AtomicNetwork((5, 7, 6, 1), "gelu", bias=True).double() for _ in range(2)]).double()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    by_output = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    by_gradient = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)

    output, gradient = network.energy_gradient(x)
    ((output * by_output).sum() + (gradient * by_gradient).sum()).backward()
    ours = [p.grad.clone() for p in network.parameters()]

    inputs = x.expand(2, 4, 5).clone().requires_grad_()
    value = inputs
    for k, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        value = torch.baddbmm(bias, value, weight)
        if k + 1 < len(network.weights):
            value = torch.nn.functional.gelu(value)
    slope = torch.autograd.grad(value.sum(), inputs, create_graph=True)[0]
    loss = (value.squeeze(2) * by_output).sum() + (slope * by_gradient).sum()
    theirs = torch.autograd.grad(loss, list(network.parameters()))
    torch.testing.assert_close(output, value.squeeze(2), atol=1e-12, rtol=0)
    torch.testing.assert_close(gradient, slope, atol=1e-12, rtol=0)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)
