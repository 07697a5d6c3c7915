"""Random numbers by counting: a hash of (seed, epoch, index) needs no state, so any part of a run can be drawn again alone.

The mixing function is the finaliser of splitmix64 (Steele, Lea, Flood 2014; constants by Stafford and Vigna), chained:

    state ← f(state ⊕ v) for every v, starting from 0;    result = state >> 1

On tensors the same arithmetic wraps in int64, which is why CPU, GPU and plain Python agree in every bit.
"""

from __future__ import annotations

from torch import Tensor

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB

ORDER, VIEW, SPLIT, LIMIT, STEP, STUDENT, METHODS, MIXING, DRAWS = range(1, 10)
"""What a number is drawn for; goes into every hash, so that no two parts of a run share their draws."""


def mix(*values: int) -> int:
    """A hash of these integers (each taken modulo 2⁶⁴, order matters): an integer in [0, 2⁶³), good as a seed."""
    return _chain(values) >> 1


def hash_index(index: Tensor, *prefix: int) -> Tensor:
    """`mix(*prefix, i)` for every i of an int64 tensor: an int64 tensor of the same shape with values in [0, 2⁶³)."""
    x = index ^ _signed(_chain(prefix))
    x = x + _signed(_STEP)
    x = (x ^ _shifted(x, 30)) * _signed(_FIRST)
    x = (x ^ _shifted(x, 27)) * _signed(_SECOND)
    return _shifted(x ^ _shifted(x, 31), 1)


def _chain(values: tuple[int, ...]) -> int:
    state = 0
    for value in values:
        x = ((state ^ (value & _MASK)) + _STEP) & _MASK
        x = ((x ^ (x >> 30)) * _FIRST) & _MASK
        x = ((x ^ (x >> 27)) * _SECOND) & _MASK
        state = x ^ (x >> 31)
    return state


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A shift to the right that fills with zeros; that of int64 tensors fills with the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """The same 64 bits as a signed number, which is what int64 tensors take."""
    return value - (1 << 64) if value >> 63 else value
