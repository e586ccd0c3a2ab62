"""Shapes of what rareal's native operators return: all that compiling a model ahead of time needs to know of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from rareal.plugin import load_ops


def _dimension(elements: int, shifts_r: Sequence[float], shifts_a: Sequence[float], sections: Sequence[float]) -> int:
    return elements * len(shifts_r) + elements * (elements + 1) // 2 * len(shifts_a) * len(sections)


def _aev(
    species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int, elements: int, radial: Any,
    shifts_r: Sequence[float], angular: Any, shifts_a: Sequence[float], sections: Sequence[float],
) -> Tensor:  # fmt: skip
    return edge_vec.new_empty([n_local, _dimension(elements, shifts_r, shifts_a, sections)])


def _aev_vjp(cotangents: Tensor, species: Tensor, edge_index: Tensor, edge_vec: Tensor, *parameters: Any) -> Tensor:
    return edge_vec.new_empty([cotangents.shape[0], edge_vec.shape[0], 3])


def _ani(
    species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int, elements: int, radial: Any, shifts_r: Any,
    angular: Any, shifts_a: Any, sections: Any, networks: Sequence[Tensor], counts: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    members = networks[0].shape[0]
    return edge_vec.new_empty([members, n_local]), edge_vec.new_empty([members, edge_vec.shape[0], 3])


def _gelu_derivatives(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # contiguous whatever z is, as the operator makes them
    return z.new_empty(z.shape), z.new_empty(z.shape), z.new_empty(z.shape)


def _painn_message(x: Tensor, v: Tensor, w: Tensor, unit: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty([x.shape[0], x.shape[1], v.shape[3]]), x.new_empty(v.shape)


def _painn_message_backward(
    x: Tensor, v: Tensor, w: Tensor, unit: Tensor, edges: Tensor, a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(v.shape), x.new_empty(w.shape), x.new_empty(unit.shape)


@cache
def register() -> None:
    """Make them known to PyTorch, once per process."""
    load_ops()
    operators: dict[str, Callable[..., Any]] = {
        "ani": _ani,
        "aev": _aev,
        "aev_vjp": _aev_vjp,
        "gelu_derivatives": _gelu_derivatives,
        "painn_message": _painn_message,
        "painn_message_backward": _painn_message_backward,
    }
    for name, shapes in operators.items():
        torch.library.register_fake(f"rareal::{name}", shapes)
