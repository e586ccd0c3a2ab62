"""Muon for committees: momentum, orthogonalised member by member.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024). The update of a weight matrix is its
momentum with all singular values brought near 1, by five steps of a quintic Newton–Schulz iteration; every direction of
the matrix learns at the same rate, where Adam leaves the weak ones behind. Weights here are [M, in, out] and each
member's matrix is orthogonalised by itself, all in one batched product. Biases, the last layer and whatever else is no
matrix take Adam's update.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration: steepest at zero, settling within 0.7–1.2 (Jordan et al.)."""

NEWTON_SCHULZ_STEPS = 5


def iteration_dtype(matrices: Tensor) -> torch.dtype:
    """Half precision where the processor multiplies in it: the iteration does not care, and takes half the time."""
    if matrices.dtype != torch.float32:
        return matrices.dtype
    fast = matrices.is_cuda or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, approximately: singular values of [M, a, b] brought to about 1."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = (x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-12)).to(iteration_dtype(matrices)).contiguous()
    a, b, c = QUINTIC
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = torch.bmm(x, x.transpose(1, 2))
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.to(matrices.dtype)
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for matrices, Adam for the rest.

    Parameters
    ----------
    parameters : matrices [M, in, out], one per member, or [in, out]; of any other shape, or one row or column, are
        biases and the like.
    lr : step of Adam, and the root-mean-square of a matrix's update in the same units (times ``matrix_scale``).
    weight_decay : decoupled, in units of the learning rate.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.999),
        matrix_scale: float = 0.2,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "betas": betas,
            "matrix_scale": matrix_scale,
        }
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if group["weight_decay"]:
                    parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                if parameter.dim() in (2, 3) and min(parameter.shape[-2:]) > 1:
                    self._step_matrix(parameter, group)
                else:
                    self._step_vector(parameter, group)

    def _step_matrix(self, parameter: Tensor, group: dict[str, float]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        gradient = _gradient(parameter)
        state["momentum"].lerp_(gradient, 1.0 - group["momentum"])
        nesterov = torch.lerp(gradient, state["momentum"], group["momentum"])
        # an orthogonal a×b matrix has entries of rms 1/sqrt(max(a, b)); the factor makes the rms the learning rate's
        scale = group["matrix_scale"] * max(parameter.shape[-2:]) ** 0.5
        update = orthogonalise(nesterov.view(-1, *parameter.shape[-2:])).view_as(parameter)
        parameter.add_(update, alpha=-group["lr"] * scale)

    def _step_vector(self, parameter: Tensor, group: dict[str, tuple[float, float]]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(steps=0, first=torch.zeros_like(parameter), second=torch.zeros_like(parameter))
        state["steps"] += 1
        beta1, beta2 = group["betas"]
        gradient = _gradient(parameter)
        state["first"].lerp_(gradient, 1.0 - beta1)
        state["second"].lerp_(gradient.square(), 1.0 - beta2)
        second = (state["second"] / (1.0 - beta2 ** state["steps"])).sqrt_().add_(1e-8)
        parameter.addcdiv_(state["first"], second, value=-group["lr"] / (1.0 - beta1 ** state["steps"]))  # type: ignore[operator]


def _gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        raise ValueError("parameter has no gradient")
    return parameter.grad
