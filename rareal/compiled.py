"""From a TorchScript model file to an AOTInductor package of the same committee."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rareal.errors import ConfigError, ModelFileError
from rareal.export.archive import EXTRA
from rareal.export.modelfile import DTYPES, Committee, WithRepulsion
from rareal.export.package import Package, compile_package, compiled_for
from rareal.models.restored import RESTORED, core, member, restore

TOLERANCE = {"float32": 2e-5, "float64": 1e-9}
"""Largest difference between a package and the file it was made from, of the largest gradient or energy."""


def compile_file(source: Path, target: Path, device: str = "cpu") -> None:
    """Compile the committee in ``source`` (``.pt``) to the package ``target`` (``.pt2``), compare both, and release it.

    Raises
    ------
    ConfigError
        If ``target`` exists or ``device`` is neither cpu nor cuda.
    ModelFileError
        If ``source`` cannot be compiled, or the package does not reproduce it.
    InstallationError
        If there is no C++ compiler, or no GPU where one is needed.
    """
    if target.exists():
        raise ConfigError(f"{target} exists already; nothing was written")
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"--device {device}: use cpu or cuda")
    committee = Committee.load(source)
    metadata = committee.metadata
    if metadata.compiled:
        raise ModelFileError(f"{source} is a package already; compile the .pt file that it was made from")
    if metadata.architecture not in RESTORED:
        raise ModelFileError(
            f"{source} holds '{metadata.architecture}' models, which cannot be compiled ahead of time: torch.export "
            f"needs their Python code, and a TorchScript file has none. It can for {', '.join(RESTORED)}"
        )
    described = replace(metadata, compiled=compiled_for(device))
    temporary = target.with_name(target.name + ".part.pt2")
    try:
        compile_package(
            module_of(committee), temporary, json.dumps(asdict(described), indent=1), DTYPES[metadata.dtype], device
        )
        if device == "cpu":
            _check(committee, Package.load(temporary, described.compiled, metadata.cutoff))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_member(source: Path, target: Path, number: int) -> None:
    """Write member ``number``, from 1, of the committee in ``source`` as a model file of its own.

    Raises
    ------
    ConfigError
        If ``target`` exists or there is no such member.
    ModelFileError
        If ``source`` cannot be taken apart, or what comes out is not that member.
    """
    if target.exists():
        raise ConfigError(f"{target} exists already; nothing was written")
    committee = Committee.load(source)
    metadata = committee.metadata
    if metadata.compiled:
        raise ModelFileError(f"{source} is a package, which cannot be taken apart; name the .pt file it was made from")
    if not 1 <= number <= metadata.members:
        raise ConfigError(f"--member {number}: {source} has the members 1 to {metadata.members}")
    script = committee.model
    if metadata.repulsion is None:
        alone = member(metadata.architecture, script, number - 1)
    else:
        alone = WithRepulsion(member(metadata.architecture, script.committee, number - 1), script.core).eval()
    described = replace(metadata, members=1, best_member=0)
    temporary = target.with_name(target.name + ".part")
    try:
        extra = {EXTRA: json.dumps(asdict(described), indent=1)}
        torch.jit.script(alone).save(str(temporary), _extra_files=extra)
        written = Committee.load(temporary)
        for arguments in _graphs(committee):
            with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
                whole = committee.model(*arguments)
                _compare(written.model(*arguments), tuple(part[number - 1 : number] for part in whole), metadata.dtype)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def module_of(committee: Committee) -> nn.Module:
    """What the TorchScript of a committee was made from."""
    metadata, script = committee.metadata, committee.model
    if metadata.repulsion is None:
        return restore(metadata.architecture, script)
    return WithRepulsion(
        restore(metadata.architecture, script.committee),
        core(metadata.repulsion, metadata.elements, committee.dtype),
    )


def _check(committee: Committee, package: Package) -> None:
    """Compare a package with the committee it was made from."""
    for arguments in _graphs(committee):
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            expected: tuple[Tensor, ...] = committee.model(*arguments)
        _compare(package(*arguments), expected, committee.metadata.dtype)


def _graphs(committee: Committee) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Random graphs of several sizes, the smallest ones among them, and one with ghost atoms."""
    metadata = committee.metadata
    generator = torch.Generator().manual_seed(0)
    for atoms, local, edges in ((1, 1, 0), (2, 2, 1), (9, 9, 40), (30, 11, 200)):
        centre = torch.sort(torch.randint(atoms, (edges,), generator=generator)).values
        neighbour = torch.randint(atoms, (edges,), generator=generator)
        direction = torch.nn.functional.normalize(torch.randn(edges, 3, generator=generator))
        length = metadata.cutoff * (0.2 + 0.85 * torch.rand(edges, 1, generator=generator))
        species = torch.randint(len(metadata.elements), (atoms,), generator=generator)
        yield species, torch.stack([centre, neighbour]), (length * direction).to(committee.dtype), local


def _compare(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], dtype: str) -> None:
    for a, b in zip(found, expected, strict=True):
        error: Any = (a.double() - b.detach().double()).abs().max() if b.numel() else torch.zeros(())
        largest: Any = b.detach().abs().max() if b.numel() else torch.zeros(())
        if a.shape != b.shape or not float(error) <= TOLERANCE[dtype] * (1.0 + float(largest)):
            raise ModelFileError(
                f"what was made differs from the committee it was made of by {float(error):.2e}; it was not released. "
                "This is a bug in PyTorch's compiler, or in what rareal gives it"
            )
