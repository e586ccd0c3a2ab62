"""The event locator: which bond goes, and when."""

from __future__ import annotations

import numpy as np

from rareal.event import bond_orders, find_event, reaction_progress

NUMBERS = np.array([6, 6, 1, 8])


def transfer(rows: int = 400, at: int = 200, width: float = 8.0) -> np.ndarray:
    """A proton (atom 2) hops from carbon 1 to oxygen 3 within some rows; the carbons stay bonded."""
    t = np.arange(rows)
    hop = 0.5 * (1.0 + np.tanh((t - at) / (2.0 * width)))
    positions = np.zeros((rows, 4, 3))
    positions[:, 1, 0] = 1.5
    positions[:, 2, 0] = 1.5 + 1.09 + 0.55 * hop
    positions[:, 3, 0] = 1.5 + 1.09 + 0.55 + 0.97
    positions[:, 1, 1] = 0.02 * np.sin(t / 3)
    return positions


def test_a_hop_is_an_event_though_no_bond_count_changes() -> None:
    event = find_event(NUMBERS, transfer())
    assert event is not None
    assert event.pair in {(1, 2), (2, 3)}
    assert event.onset <= event.peak <= event.end
    assert abs(event.peak - 200) < 25
    assert 10 < event.end - event.onset < 120


def test_progress_counts_bonds_gone_and_come() -> None:
    progress = reaction_progress(NUMBERS, transfer())
    assert progress[0] == 0.0
    assert 1.2 < progress[-1] < 2.2


def test_the_window_moves_with_the_event_and_knows_no_time_scale() -> None:
    early, late = find_event(NUMBERS, transfer(at=100)), find_event(NUMBERS, transfer(at=300))
    slow = find_event(NUMBERS, transfer(width=16.0))
    fast = find_event(NUMBERS, transfer(width=4.0))
    assert early is not None and late is not None and slow is not None and fast is not None  # noqa: PT018
    assert late.peak - early.peak == 200
    assert slow.end - slow.onset > 2 * (fast.end - fast.onset)


def test_vibration_is_no_event() -> None:
    assert find_event(NUMBERS, transfer(at=10_000)) is None
    assert find_event(NUMBERS, transfer()[:2]) is None


def test_only_bonds_of_the_ends_are_looked_at() -> None:
    orders, pairs = bond_orders(NUMBERS, transfer())
    assert {tuple(pair) for pair in pairs} == {(0, 1), (1, 2), (2, 3)}
    assert orders.shape == (400, 3)
    assert (orders[:, 0] > 0.9).all()


def test_the_first_of_two_bonds_decides() -> None:
    """Bond 0-1 goes at row 100, bond 2-3 (far away) at row 300."""
    t = np.arange(400)
    positions = np.zeros((400, 4, 3))
    positions[:, 1, 0] = 1.5 + 2.5 / (1 + np.exp(-(t - 100) / 6))
    positions[:, 2, 1] = 20.0
    positions[:, 3, 1] = 20.0 + 1.5 + 2.5 / (1 + np.exp(-(t - 300) / 6))
    event = find_event(np.full(4, 6), positions)
    assert event is not None
    assert event.pair == (0, 1)
    assert event.end < 200
