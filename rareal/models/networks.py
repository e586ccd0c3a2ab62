"""Networks of a whole committee, evaluated together, with forces in the loss at the price of GEMMs.

A committee's atomic networks of one element are `BatchedNetwork`: weights carry the member as first axis. The
energy's gradient with respect to the descriptors is part of the prediction (it gives the forces), so training needs
the derivative of a derivative. `EnergyGradient` writes it down: with v the adjoint of dE/dx, the parameter gradient
of v·dE/dx is the reverse pass of one forward-mode tangent along v, and the deltas of the first backward pass serve
again. Six matrix products per layer in all, no graph, each activation differentiated once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rareal.plugin import load_ops


def native(tensor: Tensor) -> bool:
    """Whether the native operators for training are made for this tensor."""
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def gelu_derivatives(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """GELU(z) = z Φ(z), its first and its second derivative: Φ + zφ and (2 − z²) φ.

    In single precision on the CPU a native operator makes one pass of it.
    """
    if native(z):
        derivatives: tuple[Tensor, Tensor, Tensor] = torch.ops.rareal.gelu_derivatives(z)
        return derivatives
    cdf = torch.erf(z * math.sqrt(0.5)).add_(1.0).mul_(0.5)
    square = z * z
    pdf = torch.exp(square * -0.5).mul_(1.0 / math.sqrt(2.0 * math.pi))
    return z * cdf, torch.addcmul(cdf, z, pdf), square.neg_().add_(2.0).mul_(pdf)


def through_activation(adjoint: Tensor, slope: Tensor, tangent: Tensor, back: Tensor, curvature: Tensor) -> Tensor:
    """adjoint·slope + tangent·back·curvature; overwrites ``adjoint`` where a native operator makes one pass of it."""
    if native(adjoint):
        result: Tensor = torch.ops.rareal.gelu_adjoint_(adjoint, slope, tangent, back, curvature)
        return result
    return torch.addcmul(adjoint * slope, tangent * back, curvature)


class JacobianProduct(torch.autograd.Function):
    """Cotangents [M, B, R] times the Jacobian [R, K] of each frame: [M, B, K]. The Jacobians are data."""

    @staticmethod
    def forward(ctx: Any, cotangents: Tensor, *jacobians: Tensor) -> Tensor:
        ctx.save_for_backward(*jacobians)
        if native(cotangents):
            result: Tensor = torch.ops.rareal.jacobian_product(cotangents, jacobians)
            return result
        return torch.stack([torch.mm(c, j) for c, j in zip(cotangents.unbind(1), jacobians, strict=True)], 1)

    @staticmethod
    def backward(ctx: Any, *adjoints: Tensor) -> tuple[Tensor | None, ...]:
        jacobians = ctx.saved_tensors
        if native(adjoints[0]):
            result = torch.ops.rareal.jacobian_product_transposed(adjoints[0], jacobians)
        else:
            result = torch.stack([torch.mm(g, j.T) for g, j in zip(adjoints[0].unbind(1), jacobians, strict=True)], 1)
        return (result, *(None for _ in jacobians))


class EnergyGradient(torch.autograd.Function):
    """Output and input gradient of a batched network, differentiable in the weights.

    Forward: ``x`` [n, d], then weights [M, in, out] and biases [M, 1, out] of each layer in turn; returns the output
    [M, n] and its gradient [M, n, d]. ``x`` itself is data and gets no gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        weights, biases = parameters[0::2], parameters[1::2]
        members = weights[0].shape[0]
        activations = [x.expand(members, *x.shape)]
        slopes, curvatures = [], []
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            value, slope, curvature = gelu_derivatives(torch.baddbmm(bias, activations[-1], weight))
            activations.append(value)
            slopes.append(slope)
            curvatures.append(curvature)
        output = torch.baddbmm(biases[-1], activations[-1], weights[-1]).squeeze(2)
        # deltas[k] = dE/dz_k; backs[k] = dE/da_k, before the activation's slope
        back = weights[-1].transpose(1, 2).expand(-1, x.shape[0], -1)
        deltas, backs = [], []
        for k in reversed(range(len(slopes))):
            backs.append(back)
            deltas.append(back * slopes[k])
            back = torch.bmm(deltas[-1], weights[k].transpose(1, 2))
        deltas.reverse()
        backs.reverse()
        ctx.save_for_backward(*weights, *activations, *slopes, *curvatures, *deltas, *backs)
        ctx.depth = len(weights)
        return output, back

    @staticmethod
    def backward(ctx: Any, *adjoints: Tensor) -> tuple[Tensor | None, ...]:
        grad_output, v = adjoints
        saved, depth = ctx.saved_tensors, ctx.depth
        weights, activations = saved[:depth], saved[depth : 2 * depth]
        slopes, curvatures, deltas, backs = (
            saved[2 * depth + k * (depth - 1) : 2 * depth + (k + 1) * (depth - 1)] for k in range(4)
        )
        # the tangent along v: inner[k] = dz_k, tangents[k] = da_k
        tangents, inner = [v], []
        for k in range(depth - 1):
            inner.append(torch.bmm(tangents[-1], weights[k]))
            tangents.append(inner[-1] * slopes[k])
        grad = grad_output.unsqueeze(2)
        gradients: list[Tensor] = [
            grad.sum(1, keepdim=True),
            torch.bmm(activations[-1].transpose(1, 2), grad) + tangents[-1].sum(1).unsqueeze(2),
        ]
        adjoint = grad * weights[-1].transpose(1, 2)
        for k in reversed(range(depth - 1)):
            adjoint = through_activation(adjoint, slopes[k], inner[k], backs[k], curvatures[k])
            gradients.append(adjoint.sum(1, keepdim=True))
            product = torch.bmm(activations[k].transpose(1, 2), adjoint)
            gradients.append(product.baddbmm_(tangents[k].transpose(1, 2), deltas[k]))
            if k > 0:
                adjoint = torch.bmm(adjoint, weights[k].transpose(1, 2))
        return (None, *reversed(gradients))


class BatchedNetwork(nn.Module):
    """The atomic networks of one element for every member: weights [M, in, out], biases [M, 1, out]."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        """``members``: TorchANI ``AtomicNetwork`` modules of one shape, whose weights are copied."""
        super().__init__()
        load_ops()
        layers = [[m for m in member.modules() if isinstance(m, nn.Linear)] for member in members]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for same in zip(*layers, strict=True):
            self.weights.append(nn.Parameter(torch.stack([linear.weight.detach().T for linear in same])))
            self.biases.append(nn.Parameter(torch.stack([linear.bias.detach()[None] for linear in same])))

    def energy_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Atomic energies [M, n] and their gradients [M, n, d] for inputs ``x`` [n, d]."""
        parameters = [p for pair in zip(self.weights, self.biases, strict=True) for p in pair]
        result: tuple[Tensor, Tensor] = EnergyGradient.apply(x, *parameters)  # type: ignore[no-untyped-call]
        return result


def gelu_slope(z: Tensor) -> tuple[Tensor, Tensor]:
    """GELU and its first derivative, for TorchScript."""
    if z.dtype == torch.float32 and z.device.type == "cpu":
        value, slope, _ = torch.ops.rareal.gelu_derivatives(z)
        return value, slope
    return torch.nn.functional.gelu(z), torch.ops.aten.gelu_backward(torch.ones_like(z), z)


class ScriptedNetwork(nn.Module):
    """The same networks for inference: scriptable, energies and gradients written out, nothing to train."""

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        super().__init__()
        self.depth = len(weights)
        self.weights = nn.ParameterList([nn.Parameter(w.detach().clone(), requires_grad=False) for w in weights])
        self.biases = nn.ParameterList([nn.Parameter(b.detach().clone(), requires_grad=False) for b in biases])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Atomic energies [M, n] and gradients [M, n, d] for ``x`` [n, d]."""
        weights: list[Tensor] = []
        slopes: list[Tensor] = []
        for weight in self.weights:
            weights.append(weight)
        value = x.unsqueeze(0).expand(weights[0].size(0), -1, -1)
        k = 0  # TorchScript unrolls this loop and knows no enumerate of parameters
        for bias in self.biases:
            value = torch.baddbmm(bias, value, weights[k])
            k += 1  # noqa: SIM113
            if k < self.depth:
                value, slope = gelu_slope(value)
                slopes.append(slope)
        back = weights[-1].transpose(1, 2).expand(-1, x.size(0), -1)
        for k in range(self.depth - 2, -1, -1):
            back = torch.bmm(back * slopes[k], weights[k].transpose(1, 2))
        return value.squeeze(2), back

    @torch.jit.export
    def packed(self) -> list[Tensor]:
        """Weights and biases in the layout of the native operator ``ani``."""
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for weight in self.weights:
            weights.append(weight)
        for bias in self.biases:
            biases.append(bias)
        packed: list[Tensor] = torch.ops.rareal.ani_pack(weights, biases)
        return packed
