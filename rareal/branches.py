"""Curves of energy against distance: interpolation along a branch, where two cross, where a barrier has sunk."""

from __future__ import annotations

import math

import numpy as np

from rareal.records import Array

Branch = tuple[Array, Array, Array]
"""Distances [K] Å, energies [K] eV, forces [K] eV/Å (the derivative of the energy by the distance)."""


def hermite(distance: float, distances: Array, energies: Array, forces: Array) -> float:
    """Cubic through energies and slopes; linear outside."""
    if math.isnan(distance) or not len(distances):
        return math.nan
    if distance <= distances[0] or distance >= distances[-1] or len(distances) < 2:
        end = 0 if distance <= distances[0] else -1
        return float(energies[end] + forces[end] * (distance - distances[end]))
    right = int(np.searchsorted(distances, distance))
    left = right - 1
    width = distances[right] - distances[left]
    t = (distance - distances[left]) / width
    return float(
        energies[left] * (1 + 2 * t) * (1 - t) ** 2
        + energies[right] * t * t * (3 - 2 * t)
        + width * (forces[left] * t * (1 - t) ** 2 + forces[right] * t * t * (t - 1))
    )


def meeting_point(intact: Branch, broken: Branch) -> float:
    """Distance at which two branches have the same energy; nan if they do not meet."""

    def gap(distance: float) -> float:
        return hermite(distance, *broken) - hermite(distance, *intact)

    if len(broken[0]) < 2:
        return math.nan
    favourable = [gap(float(distance)) < 0 for distance in broken[0]]
    if all(favourable) or not any(favourable):
        return math.nan
    first = favourable.index(True)
    if first == 0:
        return math.nan
    low, high = float(broken[0][first - 1]), float(broken[0][first])
    while high - low > 1e-7:
        middle = (low + high) / 2
        low, high = (middle, high) if gap(middle) > 0 else (low, middle)
    return low


def sunk_to(residual: float, barriers: list[tuple[float, float, Array]], crossing: float, end: float) -> float:
    """Distance at which a barrier has sunk to ``residual`` eV.

    Parameters
    ----------
    barriers : (distance, height, path) by ascending distance.
    crossing : where the broken molecule becomes favourable; end : where the barrier vanishes.

    Notes
    -----
    Towards the limit of stability a barrier vanishes with the square of the distance left, so its root is linear. A
    molecule whose barrier is low as far back as the broken one exists goes where that becomes favourable.
    """
    if residual == 0:
        return end
    points = [(distance, math.sqrt(max(height, 0.0))) for distance, height, _ in barriers]
    points = [point for point in points if point[0] < end] + [(end, 0.0)]
    above = [point for point in points if point[1] > math.sqrt(residual)]
    if not above:
        return end if math.isnan(crossing) else min(crossing, end)
    distance, root = above[-1]
    next_distance, next_root = points[len(above)]
    return distance + (root - math.sqrt(residual)) / (root - next_root) * (next_distance - distance)


def force_sunk_to(force: float, distances: Array, forces: Array) -> float:
    """Where the force has sunk to ``force``, which the last one has."""
    above = int(np.flatnonzero(forces > force)[-1])
    share = (forces[above] - force) / (forces[above] - forces[above + 1])
    return float(distances[above] + share * (distances[above + 1] - distances[above]))


def largest(distances: Array, forces: Array, end: float) -> float:
    """Largest force up to ``end``: the vertex of a parabola if the maximum lies before, else the force at the end."""
    peak = int(np.argmax(forces))
    # points closer than the pull's own step would make a parabola of noise
    step = float(np.median(np.diff(distances))) if len(distances) > 1 else 0.0
    near = [k for k in range(len(distances)) if abs(distances[k] - distances[peak]) < 2.5 * step]
    if len(near) < 3:
        return float(forces[peak])
    centre = distances[peak]
    curve = np.polyfit(distances[near] - centre, forces[near], 2)
    vertex = centre - curve[1] / (2 * curve[0]) if curve[0] < 0 else math.inf
    return float(np.polyval(curve, min(vertex, end) - centre))
