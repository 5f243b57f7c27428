"""Any two models, of any dtypes and shapes: align comes to an end, and what it says is legal."""

from __future__ import annotations

import numpy as np
from align_models import weights
from hypothesis import given
from hypothesis import strategies as st

from z4ai.align import ByName, FileTensors, align, check_alignment, reference_of
from z4ai.align.elements import item_nbytes
from z4ai.container.source import source_of_buffer
from z4ai.container.st_header import Header, Tensor, known_codes, tensor_nbytes

SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 16, 17, 40, 64, 130]), max_size=4).map(tuple)
DTYPES = st.sampled_from(known_codes())
# All bytes come out of one place, so that parts of them are found in many tensors.
BYTES = weights((1 << 16,), 1).view(np.uint8)


@st.composite
def models(draw: st.DrawFn) -> FileTensors:
    tensors, parts, pos = [], [], 0
    for name in draw(st.sets(st.sampled_from(["a", "a.b", "b", "c.b", "d", "e.b"]), max_size=5)):
        dtype, shape = draw(DTYPES | st.sampled_from(["F32", "BF16"])), draw(SHAPES)
        if not shape or len(shape) == 4 or np.prod(shape) > 20_000:
            shape = shape[:2]
        bits = int(np.prod(shape, dtype=np.int64)) * (tensor_nbytes(dtype, (8,)) or 0)
        if bits % 8:
            continue
        nbytes = bits // 8
        at = draw(st.sampled_from([0, 0, 64, 4096])) if nbytes <= 1 << 17 else 0
        content = np.resize(BYTES[at:], nbytes).copy()
        if nbytes and draw(st.booleans()):
            content[:: draw(st.sampled_from([4, 100, 1000]))] ^= draw(st.integers(0, 255))
        if draw(st.integers(0, 5)) == 0:
            content[:] = draw(st.integers(0, 255))
        tensors.append(Tensor(name, dtype, shape, pos, pos + nbytes))
        parts.append(content)
        pos += nbytes
    data = np.concatenate(parts) if parts else np.empty(0, np.uint8)
    return FileTensors(source_of_buffer(data), 0, Header(tensors, None))


@given(models(), models())
def test_what_is_found_is_legal_and_can_be_read(target: FileTensors, base: FileTensors) -> None:
    found = align(target, base)
    assert len(found) == len(target.tensors)
    source = ByName(base)
    for tensor, alignment in zip(target.tensors, found, strict=True):
        if alignment is None:
            continue
        check_alignment(alignment, tensor, source.tensors)
        assert any(piece.source >= 0 for piece in alignment.pieces)
        for piece in alignment.pieces:
            if piece.source >= 0:
                got = reference_of(piece, source, tensor.dtype, 0, alignment.outer)
                assert len(got) == alignment.outer * piece.width * item_nbytes(tensor.dtype)


@given(models())
def test_a_model_is_found_in_itself(model: FileTensors) -> None:
    source = ByName(model)
    for k, alignment in enumerate(align(model, model)):
        tensor = model.tensors[k]
        if tensor.nbytes:
            assert alignment is not None
            assert source.tensors[alignment.pieces[0].source] == tensor
