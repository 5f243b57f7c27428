# cython: language_level=3
# cython: freethreading_compatible=True
"""Predict matrices by low-rank factors, and find such factors.

Format: docs/format/codecs/lowrank.md.
"""

from __future__ import annotations

import numpy as np

from libc.stdint cimport int64_t, uint8_t
from libc.math cimport ldexp

from z4ai._fast cimport _dispatch
from z4ai._fast import _dispatch as _dispatch_py

cdef extern from "z4_lowrank.h":
    enum:
        Z4_LOWRANK_VARIANTS
    ctypedef struct z4_lowrank_product:
        size_t columns
        size_t rank
        const double *high
        const double *low
        const double *right
        double scale
        int rounds
    ctypedef void (*z4_predict_fn)(
        const z4_lowrank_product *product, const uint8_t *base, size_t rows, uint8_t *dst
    ) noexcept nogil
    ctypedef struct z4_lowrank_impl:
        const char *name
        int isa
        z4_predict_fn *predict
    const z4_lowrank_impl *Z4_LOWRANK
    const z4_lowrank_impl *z4_lowrank_pick(int isa) noexcept nogil

# Numbers of the kinds of floats, as in z4_lowrank.h, and their widths.
KINDS = {"fp16": 0, "bf16": 1, "fp32": 2, "fp64": 3}
_WIDTHS = (2, 2, 4, 8)


def variants() -> tuple[str, ...]:
    """Return the names of the compiled variants that this machine can run, worst first."""
    names = [Z4_LOWRANK[k].name.decode() for k in range(Z4_LOWRANK_VARIANTS)]
    return tuple([name for name in names if name in _dispatch_py.runnable()])


cdef const z4_lowrank_impl *_pick(object isa) except NULL:
    return z4_lowrank_pick(_dispatch.isa if isa is None else _dispatch_py.isa_code(isa))


def picked(isa: str | None = None) -> str:
    """Return the name of the variant that an instruction set gets."""
    return _pick(isa).name.decode()


def predict(
    const uint8_t[::1] base,
    kind: int,
    const double[:, ::1] low,
    const double[:, ::1] right,
    exponent: int,
    uint8_t[::1] out,
    *,
    high: object = None,
    rounds: bool = False,
    isa: str | None = None,
) -> None:
    """Add a product of integers to rows of a matrix.

    Parameters
    ----------
    base : ndarray of uint8
        Content of the rows.
    kind : int
        One of `KINDS`.
    low, high : ndarray of float64
        Left factors of the rows, rows x rank: integers, 4096 high + low where `high` is given.
    right : ndarray of float64
        Rank x columns, integers. All sums of products must be below 2**53 in magnitude.
    exponent : int
        The product is multiplied by 2**exponent, -900 to 400.
    out : ndarray of uint8
        Takes the prediction; as large as `base`, which it must not overlap.
    rounds : bool
        Whether the product is rounded before it is added.
    isa : str, optional
        Run the variant of this instruction set (for tests).
    """
    cdef const z4_lowrank_impl *impl = _pick(isa)
    cdef z4_lowrank_product product
    cdef const double[:, ::1] high_view
    cdef size_t rows = low.shape[0]
    cdef int code = kind
    if not 0 <= code < 4 or not -900 <= exponent <= 400:
        raise ValueError(f"kind {kind} or exponent {exponent} is out of range")
    if low.shape[1] != right.shape[0]:
        raise ValueError(f"left has rank {low.shape[1]}, right {right.shape[0]}")
    nbytes = low.shape[0] * right.shape[1] * _WIDTHS[code]
    if base.shape[0] != nbytes or out.shape[0] != nbytes:
        raise ValueError(f"base has {base.shape[0]} bytes, out {out.shape[0]}, expected {nbytes}")
    if nbytes == 0:
        return
    if low.shape[1] == 0:
        raise ValueError("no components")
    product.high = NULL
    if high is not None:
        high_view = high
        if high_view.shape[0] != low.shape[0] or high_view.shape[1] != low.shape[1]:
            raise ValueError("high and low differ in shape")
        product.high = &high_view[0, 0]
    product.columns = right.shape[1]
    product.rank = right.shape[0]
    product.low = &low[0, 0]
    product.right = &right[0, 0]
    product.scale = ldexp(1.0, exponent)
    product.rounds = rounds
    cdef const uint8_t *src = &base[0]
    cdef uint8_t *dst = &out[0]
    with nogil:
        impl.predict[code](&product, src, rows, dst)
