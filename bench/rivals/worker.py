"""One codec in a process of its own, driven over stdin and stdout by JSON lines.

Run by the interpreter of the environment where the codec is installed; imports the standard
library, `adapters`, `deltas` and `smallest` beside it, and what the adapter imports. Times are
taken here, around the one call, so that pipes and checks are outside. Every result is compared
with the input, untimed.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))  # last, so that it shadows nothing

import adapters
import deltas
import smallest

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt if resource else 0


def same(result: Any, raw: bytes) -> bool:
    if not isinstance(result, (bytes, bytearray)):
        result = bytes(result)
    return result == raw


class Server:
    def __init__(self, adapter: adapters.Adapter) -> None:
        self.adapter = adapter
        self.raw = b""
        self.out = bytearray()
        self.blob: Any = None

    def timed(self, function: Any, *args: Any) -> tuple[Any, dict[str, Any]]:
        before = faults()
        cpu = time.process_time()
        start = time.perf_counter()
        result = function(*args)
        seconds = time.perf_counter() - start
        cpu = time.process_time() - cpu
        return result, {"seconds": seconds, "cpu_seconds": cpu, "faults": faults() - before}

    def load(self, path: str, dtype: str) -> dict[str, Any]:
        self.blob = None
        self.raw = Path(path).read_bytes()
        self.out = bytearray()
        self.adapter.open(dtype)
        self.blob = self.adapter.keep(self.adapter.encode(self.adapter.fresh(self.raw)))
        return {"encoded_nbytes": len(self.blob)}

    def encode(self) -> dict[str, Any]:
        given = self.adapter.fresh(self.raw)
        blob, sample = self.timed(self.adapter.encode, given)
        sample["encoded_nbytes"] = len(blob)
        del blob, given
        return sample

    def decode(self) -> dict[str, Any]:
        result, sample = self.timed(self.adapter.decode, self.blob)
        sample["same"] = same(result, self.raw)
        del result
        return sample

    def decode_into(self) -> dict[str, Any]:
        if not self.out:
            self.out = bytearray(self.raw)  # mapped and touched
        self.out[:: 1 << 12] = bytes(len(range(0, len(self.out), 1 << 12)))  # spoil each page
        _, sample = self.timed(self.adapter.decode_into, self.blob, self.out)
        sample["same"] = self.out == self.raw
        return sample

    def encode_file(self, src: str, dst: str) -> dict[str, Any]:
        _, sample = self.timed(self.adapter.encode_file, src, dst)
        sample["encoded_nbytes"] = Path(dst).stat().st_size
        return sample

    def decode_file(self, src: str, dst: str) -> dict[str, Any]:
        return self.timed(self.adapter.decode_file, src, dst)[1]

    def load_pair(self, target: str, base: str) -> dict[str, Any]:
        self.raw = Path(target).read_bytes()
        self.adapter.open_pair(target, base)
        return {}

    def encode_delta(self) -> dict[str, Any]:
        given = self.adapter.fresh_delta()
        result, sample = self.timed(self.adapter.encode_delta, given)
        sample["encoded_nbytes"] = self.adapter.delta_nbytes(result)
        return sample

    def decode_delta(self) -> dict[str, Any]:
        result, sample = self.timed(self.adapter.decode_delta)
        sample["same"] = same(self.adapter.restored(result), self.raw)
        return sample

    def smallest(self, path: str) -> dict[str, Any]:
        return smallest.smallest(self.adapter.name, path)

    def smallest_delta(self, target: str, base: str) -> dict[str, Any]:
        return deltas.smallest_delta(self.adapter.name, target, base)


def main() -> None:
    # Codecs that print must not break the protocol: they get stderr, replies get the real stdout.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, options = sys.argv[1], json.loads(sys.argv[2])
    try:
        server = Server(adapters.make(name, **options))
        hello: dict[str, Any] = {"version": server.adapter.version, "ops": server.adapter.ops()}
    except Exception as error:
        hello = {"error": f"{type(error).__name__}: {error}"}
    replies.write(json.dumps(hello) + "\n")
    replies.flush()
    if "error" in hello:
        return
    gc.disable()
    for line in sys.stdin:
        request = json.loads(line)
        op = request.pop("op")
        try:
            reply = getattr(server, op)(**request)
        except Exception as error:  # the other side raises it, with the codec's name
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
