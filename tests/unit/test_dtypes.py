"""The table of element types, its aliases, and what is said of unknown ones."""

from __future__ import annotations

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import z4ai
from z4ai import dtypes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format" / "ids.md"


def test_the_table_is_that_of_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (\d) \| [^|]*\| ([^|]+) \|$", text, re.M)
    assert len(rows) == len(dtypes._TABLE)
    for code, name, width, in_array in rows:
        row = dtypes.dtype_of_code(int(code))
        assert row is not None
        assert (row.name, row.width) == (name, int(width))
        assert row.item_nbytes == (0 if in_array == "–" else int(in_array.split()[0]))


@pytest.mark.parametrize("row", dtypes._TABLE, ids=lambda row: row.name)
def test_every_spelling_finds_its_row(row: dtypes.DType) -> None:
    spellings = [row.name] + [a for a, name in dtypes._ALIASES.items() if name == row.name]
    for spelling in spellings:
        for given in (spelling, spelling.upper(), spelling.title()):
            assert dtypes.resolve(given) is row
            assert z4ai.dtype_width(given) == (row.item_nbytes or row.width)
    assert dtypes.resolve(row) is row


@pytest.mark.parametrize(
    "row", [row for row in dtypes._TABLE if row.numpy_name], ids=lambda row: row.name
)
def test_numpy_and_back(row: dtypes.DType) -> None:
    dtype = dtypes.numpy_dtype(row)
    assert dtype.itemsize == row.item_nbytes
    assert dtypes.resolve(dtype) is row
    assert dtypes.resolve(dtype.type) is row
    swapped = dtypes.numpy_dtype(row, big_endian=True)
    assert dtypes.resolve(swapped) is row
    if row.width > 1 and row.name != "bf16":
        assert swapped != dtype


def test_types_of_numpy_python_and_ml_dtypes() -> None:
    for given, name in [
        (np.float32, "fp32"),
        (np.dtype(">u2"), "uint16"),
        (np.longlong, "int64"),
        (np.uintc, "uint32"),
        (float, "fp64"),
        (bool, "bool"),
        (complex, "complex128"),
        (ml_dtypes.bfloat16, "bf16"),
        (ml_dtypes.float8_e4m3fn, "fp8_e4m3"),
        (ml_dtypes.float8_e4m3, "fp8_e4m3_ieee"),
        (ml_dtypes.int4, "int4_unpacked"),
    ]:
        assert dtypes.resolve(given).name == name


def test_types_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for name, wanted in [
        ("bfloat16", "bf16"),
        ("float16", "fp16"),
        ("float32", "fp32"),
        ("float64", "fp64"),
        ("int8", "int8"),
        ("uint8", "uint8"),
        ("int64", "int64"),
        ("bool", "bool"),
        ("complex64", "complex64"),
        ("float8_e4m3fn", "fp8_e4m3"),
        ("float8_e5m2", "fp8_e5m2"),
    ]:
        assert dtypes.resolve(getattr(torch, name)).name == wanted
    with pytest.raises(ValueError, match="quint8"):
        dtypes.resolve(torch.quint8)


def test_none_is_opaque_bytes() -> None:
    assert dtypes.resolve(None) is dtypes.OPAQUE
    assert z4ai.dtype_width(None) == 1


@pytest.mark.parametrize(
    "given", ["", "bf17", "float", "bf16 ", "object", b"bf16", 16, 2.5, object(), "U", [], np.str_]
)
def test_an_unknown_dtype_lists_the_known(given: object) -> None:
    if given == "float":
        assert dtypes.resolve(given).name == "fp32"  # as torch has it; NumPy's type is fp64
        return
    for call in (z4ai.dtype_width, dtypes.resolve, lambda d: z4ai.compress(b"", dtype=d)):
        with pytest.raises(ValueError, match="unknown dtype") as caught:
            call(given)
        for row in dtypes._TABLE:
            assert row.name in str(caught.value)


def test_codes_that_nobody_has() -> None:
    known = {row.code for row in dtypes._TABLE}
    assert len(known) == len(dtypes._TABLE)
    assert all(dtypes.dtype_of_code(code) is None for code in set(range(256)) - known)


def test_a_dtype_without_arrays_has_no_numpy_form() -> None:
    for name in ("opaque", "fp4"):
        with pytest.raises(ValueError, match="no NumPy form"):
            dtypes.numpy_dtype(dtypes.resolve(name))


def test_f4_is_packed_fp4_in_capitals_only() -> None:
    assert dtypes.resolve("F4").name == "fp4"
    with pytest.raises(ValueError, match="unknown dtype 'f4'"):
        dtypes.resolve("f4")
