"""Bring your own model: any module that TorchScript understands becomes the members of a committee.

A member is a ``torch.nn.Module`` with ::

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> Tensor

species : int64 [N], index of each atom's element in the order of the structure's elements (by atomic number, hydrogen
last); edge_index : int64 [2, P], centre and neighbour, grouped by ascending centre; edge_vec : [P, 3], neighbour minus
centre, Å, in the precision to compute in; n_local : the first atoms, whose energies are wanted, the others are ghosts.
It returns the atomic energies [n_local] in eV, without self-energies. Forces and virial come from the derivative with
respect to ``edge_vec``, by autograd, so everything must be differentiable twice, and smooth at the cutoff.

Either ``module: package.module:function`` names a function that returns an untrained member, and is called once per
member with the elements, that member's seed, and whatever of ``cutoff``, ``layers`` and the ``options`` it has
arguments for; or ``files`` lists one file per member, written with ``torch.jit.save``, to be trained further.
`rareal.testing.morse` is a small example, `rareal.models.mace` a large one; `rareal.testing.models.ModelContract`
tests yours.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from rareal.errors import ConfigError
from rareal.schema import Section
from rareal.units import Length

if TYPE_CHECKING:
    from torch import nn

    from rareal.models.script_network import ScriptCommittee


class Config(Section):
    """A module of your own, by dotted path or as TorchScript files."""

    kind: Literal["script"] = "script"
    module: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="package.module:function; called with (elements, seed) it returns a torch.nn.Module.",
    )
    files: tuple[Path, ...] = Field((), description="TorchScript files, one per member.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further arguments of the function.")
    cutoff: Length = Field(5.0, gt=0, description="Longest edge vector that the module is given, Å.")
    layers: int = Field(
        1, ge=0, description="How many cutoffs far an atom's energy reaches; 0 or 1 without message passing."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Config:
        if (self.module is None) == (not self.files):
            raise ValueError("give either `module` (package.module:function) or `files` (one per member)")
        if self.files and self.options:
            raise ValueError("`options` are arguments of the function that `module` names; files take none")
        return self


def build(config: Config, elements: Sequence[str], seeds: Sequence[int]) -> ScriptCommittee:
    """A committee with one member per seed.

    Raises
    ------
    ConfigError
        If the module or a file cannot be had, is not scriptable, or does not do what a member must.
    """
    from rareal.models.script_network import ScriptCommittee, check_member, load_member, seeded

    if config.module is None:
        if len(config.files) != len(seeds):
            raise ConfigError(f"model.files: {len(config.files)} files cannot make a committee of {len(seeds)} members")
        members = [(str(path), load_member(path)) for path in config.files]
    else:
        name, function, arguments = config.module, *_function(config)
        members = [(name, _call(name, function, seeded(seed), elements, seed, arguments)) for seed in seeds]
    for name, member in members:
        check_member(name, member, len(elements), config.cutoff)
    return ScriptCommittee([member for _, member in members], elements, config.cutoff, config.layers)


def _function(config: Config) -> tuple[Any, dict[str, Any]]:
    """The function that ``config.module`` names, and its arguments by name."""
    assert config.module is not None
    module, _, attribute = config.module.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"model.module: {config.module} cannot be imported: {error}") from error
    wanted = inspect.signature(function).parameters
    free = any(p.kind is p.VAR_KEYWORD for p in wanted.values())
    offered = {"cutoff": config.cutoff, "layers": config.layers}
    unknown = [name for name in config.options if name not in wanted and not free]
    if unknown:
        known = ", ".join(list(wanted)[2:]) or "none"
        raise ConfigError(f"model.options: {config.module} knows no {', '.join(unknown)}; it knows {known}")
    return function, {**{name: value for name, value in offered.items() if name in wanted}, **config.options}


def _call(name: str, function: Any, context: Any, elements: Sequence[str], seed: int, arguments: Any) -> nn.Module:
    from torch import nn

    with context:
        try:
            member = function(tuple(elements), seed, **arguments)
        except TypeError as error:
            raise ConfigError(f"model.module: {name} cannot be called with (elements, seed): {error}") from error
    if not isinstance(member, nn.Module):
        raise ConfigError(f"model.module: {name} returned {type(member).__name__}, not a torch.nn.Module")
    return member
