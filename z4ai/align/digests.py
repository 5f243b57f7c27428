"""Digests of tensors and of models: by them a model is known as the base of a delta."""

from __future__ import annotations

from typing import TYPE_CHECKING

from z4ai._fast.hashing import Xxh3
from z4ai._wire import U64

if TYPE_CHECKING:
    from collections.abc import Sequence

    from z4ai.align.source import TensorSource
    from z4ai.container.st_header import Tensor

__all__ = ["DIGEST_NBYTES", "digest_bytes", "model_digest", "tensor_digest", "tensor_digests"]

DIGEST_NBYTES = 16
_RUN_NBYTES = 4 << 20


def digest_bytes(state: Xxh3) -> bytes:
    """Put the 128-bit hash of a state on the wire: its low half, then its high half."""
    return state.digest128().to_bytes(DIGEST_NBYTES, "little")


def tensor_digest(model: TensorSource, k: int) -> bytes:
    """Compute the digest of the bytes of tensor `k`, in runs of a few MiB."""
    state = Xxh3()
    nbytes = model.tensors[k].nbytes
    for at in range(0, nbytes, _RUN_NBYTES):
        state.update(model.read(k, at, min(at + _RUN_NBYTES, nbytes)))
    return digest_bytes(state)


def tensor_digests(model: TensorSource) -> list[bytes]:
    """Compute the digest of each tensor of a model, in the order of `model.tensors`."""
    return [tensor_digest(model, k) for k in range(len(model.tensors))]


def model_digest(tensors: Sequence[Tensor], digests: Sequence[bytes]) -> bytes:
    """Compute the digest of a model: of names, dtypes, shapes and bytes, in order of the names.

    As in `docs/format/model_delta.md`.

    Parameters
    ----------
    tensors : sequence of Tensor
        In any order.
    digests : sequence of bytes
        The digest of each one's bytes.

    Returns
    -------
    bytes
        16 of them.

    Examples
    --------
    >>> from z4ai.align import model_digest
    >>> from z4ai.container.st_header import Tensor
    >>> one, other = Tensor("a", "U8", (1,), 0, 1), Tensor("b", "U8", (1,), 1, 2)
    >>> x, y = bytes(16), bytes([1] * 16)
    >>> model_digest([one, other], [x, y]) == model_digest([other, one], [y, x])
    True
    >>> model_digest([one, other], [x, y]) == model_digest([one, other], [y, x])
    False
    """
    state = Xxh3()
    pairs = zip(tensors, digests, strict=True)
    for tensor, digest in sorted(pairs, key=lambda pair: pair[0].name):
        for text in (tensor.name.encode(), tensor.dtype.encode()):
            state.update(U64.pack(len(text)) + text)
        for number in (len(tensor.shape), *tensor.shape, tensor.nbytes):
            state.update(U64.pack(number))
        state.update(digest)
    return digest_bytes(state)
