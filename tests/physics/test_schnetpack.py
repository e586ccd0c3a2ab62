"""PaiNN and SchNet are SchNetPack's, weight for weight; PaiNN's native message is its formula, both derivatives too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import read
from schnetpack_models import energy_forces, theirs

from rareal.models import painn, schnet
from rareal.models.radial import Radial
from rareal.plugin import load_ops
from rareal.records import Frame

HEXANE = Path(__file__).parent.parent.parent / "examples" / "hexane" / "hexane.xyz"


def hexane() -> Frame:
    atoms = read(HEXANE)
    rng = np.random.default_rng(0)
    return Frame(atoms.numbers, atoms.positions + rng.normal(0, 0.1, atoms.positions.shape))


def crystal() -> Frame:
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    rng = np.random.default_rng(1)
    positions = atoms.positions + rng.normal(0, 0.1, atoms.positions.shape)
    return Frame(atoms.numbers, positions, np.array(atoms.cell), (True, True, True))


@pytest.mark.parametrize(
    "config",
    [
        painn.Config(features=32),
        painn.Config(features=64, layers=2, basis="gaussian", basis_functions=15, cutoff=4.0),
        schnet.Config(),
    ],
    ids=["painn", "painn-gaussian", "schnet"],
)
@pytest.mark.parametrize(
    ("frame", "elements"), [(hexane(), ("C", "H")), (crystal(), ("Si", "C"))], ids=["C6H14", "SiC"]
)
def test_equal_to_schnetpack_with_the_same_weights(
    config: painn.Config | schnet.Config, frame: Frame, elements: tuple[str, ...]
) -> None:
    numbers = {"C": 6, "H": 1, "Si": 14}
    module = painn if isinstance(config, painn.Config) else schnet
    model = module.build(config, elements, [1, 2])
    with torch.no_grad():
        # biases begin as zeros, which would hide their mistakes
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
        energies, forces = model(model.features([frame]))
    for member in range(2):
        energy, force = energy_forces(
            theirs(config, model, member, [numbers[e] for e in elements]), frame, config.cutoff
        )
        scale = max(1.0, np.abs(force).max())
        assert float(energies[member, 0]) == pytest.approx(energy, rel=1e-5, abs=1e-5)
        np.testing.assert_allclose(forces[member, 0].numpy(), force, atol=1e-5 * scale)
    assert np.abs(force).max() > 1e-2


def message_inputs(members: int, nodes: int, edges: int, features: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    index = torch.randint(0, nodes, (2, edges), generator=generator)
    index = index[:, index[0].argsort(stable=True)]
    return (
        normal(members, nodes, 3 * features),
        normal(members, nodes, 3, features),
        normal(members, edges, 3 * features),
        normal(members, edges, 3),
        index,
        normal(members, nodes, features),
        normal(members, nodes, 3, features),
    )


def test_message_derivatives_against_finite_differences() -> None:
    load_ops()
    x, v, w, unit, edges, _, _ = message_inputs(2, 4, 7, 3)
    inputs = tuple(t.requires_grad_(True) for t in (x, v, w, unit))

    def message(*arguments: torch.Tensor) -> torch.Tensor:
        return torch.ops.rareal.painn_message(*arguments, edges)

    assert torch.autograd.gradcheck(message, inputs)
    assert torch.autograd.gradgradcheck(message, inputs)


@pytest.mark.parametrize("features", [3, 64, 70])
def test_message_without_native_kernel_is_the_same(features: int) -> None:
    """What other devices run, made of PyTorch's operators, against the CPU's kernels."""
    load_ops()
    x, v, w, unit, edges, a, b = message_inputs(3, 5, 11, features)
    changes = tuple(torch.flip(t, (0,)) for t in (x, v, w, unit))
    ops = torch.ops.rareal
    for op, arguments in (
        (ops.painn_message, (x, v, w, unit, edges)),
        (ops.painn_message_backward, (x, v, w, unit, edges, a, b)),
        (ops.painn_message_double_backward, (x, v, w, unit, edges, a, b, *changes)),
    ):
        plain = op.default._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *arguments)
        for one, other in zip(op(*arguments), plain, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("basis", ["bessel", "gaussian"])
@pytest.mark.parametrize("damped", [True, False])
def test_radial_slopes_and_the_cutoff(basis: str, damped: bool) -> None:
    radial = Radial(basis, 7, 4.0, damped)
    distances = torch.linspace(0.6, 3.99, 50, dtype=torch.float64)

    def at(r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, slope, unit, distance = radial(torch.stack([0 * r, 0 * r, r], 1))
        torch.testing.assert_close(distance, r)
        torch.testing.assert_close(unit[:, 2], torch.ones_like(r))
        return value, slope

    step = 1e-5
    numeric = (at(distances + step)[0] - at(distances - step)[0]) / (2 * step)
    torch.testing.assert_close(at(distances)[1], numeric, atol=1e-7, rtol=1e-6)
    value, slope = at(torch.tensor([4.0 - 1e-6, 4.0, 4.5], dtype=torch.float64))
    columns = slice(None) if damped else slice(-1, None)
    assert value[:, columns].abs().max() < 1e-10
    assert slope[:, columns].abs().max() < 1e-5


def test_a_batch_of_jacobians_times_cotangents() -> None:
    load_ops()
    generator = torch.Generator().manual_seed(0)
    for members, columns in ((1, 16), (4, 64), (7, 80), (9, 144)):
        jacobians = [torch.randn(50, columns, generator=generator) for _ in range(3)]
        cotangents = torch.randn(members, 3, 50, generator=generator)
        adjoints = torch.randn(members, 3, columns, generator=generator)
        stacked = torch.stack(jacobians)
        torch.testing.assert_close(
            torch.ops.rareal.jacobian_product(cotangents, jacobians),
            torch.einsum("mbr,brk->mbk", cotangents, stacked), atol=1e-4, rtol=1e-4,
        )  # fmt: skip
        torch.testing.assert_close(
            torch.ops.rareal.jacobian_product_transposed(adjoints, jacobians),
            torch.einsum("mbk,brk->mbr", adjoints, stacked), atol=1e-4, rtol=1e-4,
        )  # fmt: skip
