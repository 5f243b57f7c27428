"""The manifest of a series: what belongs to it. Specification: docs/format/series.md."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from z4ai._fast.hashing import Xxh3
from z4ai._wire import FORMAT_VERSION
from z4ai.errors import ChecksumError, CorruptError, FormatError, UnsupportedVersionError
from z4ai.options import EFFORTS

__all__ = [
    "DEPTH_CAP",
    "FILE_NAME",
    "MAX_NBYTES",
    "NAME",
    "Manifest",
    "Step",
    "check_name",
    "digest_text",
    "parse",
    "write",
]

NAME = "series.json"
FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\.[0-9a-f]{16}\.(?:zstn|z4dm)", re.ASCII)
MAX_NBYTES = 1 << 25
# Each step of a chain takes some calls inside calls to be read.
DEPTH_CAP = 40
_MAX_STEPS = 1 << 16
_MAX_NUMBER = 2**63 - 1
_FORMAT = "z4ai series"
_MAX_NAME_NBYTES = 200
_NAME = re.compile(r"[^.\-/\\:\x00-\x1f\x7f-\x9f][^/\\:\x00-\x1f\x7f-\x9f]*")
_DIGEST = re.compile(r"[0-9a-f]{32}", re.ASCII)
_FIRST_LINE = re.compile(rb'\{"checksum":"([0-9a-f]{32})",\n')
_FIRST_NBYTES = 48
_STEP_KEYS = frozenset(
    ("name", "stream", "step", "file", "base", "original_nbytes", "encoded_nbytes", "digest")
)
_KEYS = frozenset(("checksum", "format", "version", "max_depth", "effort", "steps"))


class Step(NamedTuple):
    """One step of a series.

    Attributes
    ----------
    name : str
        Its name.
    stream : str
        The stream it belongs to: weights, their bf16 copies, an optimizer's state, …
    step : int or None
        Its number in the run, if that is known.
    file : str
        Name of its file in the folder.
    base : str or None
        The step it is stored against; None for a keyframe.
    depth : int
        How many steps have to be read beside it.
    original_nbytes, encoded_nbytes : int
        Sizes of the `.safetensors` file and of the file in the folder.
    digest : str
        XXH3-128 of the `.safetensors` file.
    """

    name: str
    stream: str
    step: int | None
    file: str
    base: str | None
    depth: int
    original_nbytes: int
    encoded_nbytes: int
    digest: str

    @property
    def is_keyframe(self) -> bool:
        """Whether it is stored without a base."""
        return self.base is None


class Manifest(NamedTuple):
    """What a series holds, and how steps are added to it.

    Attributes
    ----------
    max_depth : int
        Depth that no chain exceeds, of those added from now on.
    effort : str
        Tier for what is added.
    steps : tuple of Step
        A base stands before what depends on it; else in the order in which they were added.
    """

    max_depth: int
    effort: str
    steps: tuple[Step, ...] = ()

    def find(self, name: str) -> Step | None:
        """Return the step of a name."""
        return next((step for step in self.steps if step.name == name), None)

    def chain(self, step: Step) -> list[Step]:
        """Return a step and what it depends on, down to the keyframe."""
        by_name = {found.name: found for found in self.steps}
        chain = [step]
        while chain[-1].base is not None:
            chain.append(by_name[chain[-1].base])
        return chain

    def dependents(self, name: str) -> list[Step]:
        """Return the steps whose base is `name`."""
        return [step for step in self.steps if step.base == name]

    def with_steps(self, steps: Sequence[Step]) -> Manifest:
        """Return the manifest with other steps, and their depths as they follow."""
        depths: dict[str | None, int] = {None: -1}
        counted = []
        for step in steps:
            depths[step.name] = depths[step.base] + 1
            counted.append(step._replace(depth=depths[step.name]))
        return self._replace(steps=tuple(counted))


def check_name(name: Any, what: str = "name") -> str:
    """Check a name of a step or a stream.

    Raises
    ------
    TypeError, ValueError
    """
    if not isinstance(name, str):
        msg = f"{what} is {name!r:.100}, expected a string"
        raise TypeError(msg)
    reason = None
    try:
        nbytes = len(name.encode())
    except UnicodeEncodeError:
        reason = "holds a lone surrogate"
    else:
        if not 1 <= nbytes <= _MAX_NAME_NBYTES:
            reason = f"has {nbytes} bytes of UTF-8, expected 1 to {_MAX_NAME_NBYTES}"
        elif _NAME.fullmatch(name) is None:
            reason = "begins with '.' or '-', or holds '/', '\\', ':' or a control character"
    if reason is not None:
        msg = f"{what} {name!r:.100} {reason}"
        raise ValueError(msg)
    return name


def digest_text(state: Xxh3) -> str:
    """Return a digest as the manifest holds it."""
    return f"{state.digest128():032x}"


# --- On the wire ----------------------------------------------------------------------------------


def write(manifest: Manifest) -> bytes:
    """Put a manifest on the wire, a line for each step.

    Raises
    ------
    ValueError
        If there are too many.
    """
    if len(manifest.steps) > _MAX_STEPS:
        msg = f"{len(manifest.steps)} steps, a series holds at most {_MAX_STEPS}"
        raise ValueError(msg)
    head = {
        "format": _FORMAT,
        "version": FORMAT_VERSION,
        "max_depth": manifest.max_depth,
        "effort": manifest.effort,
    }
    lines = []
    for step in manifest.steps:
        fields = step._asdict()
        del fields["depth"]
        lines.append("\n" + json.dumps(fields, ensure_ascii=False))
    text = f'{json.dumps(head)[1:-1]},\n"steps": [{",".join(lines)}]}}\n'
    body = text.encode()
    state = Xxh3()
    state.update(body)
    return b'{"checksum":"' + digest_text(state).encode() + b'",\n' + body


def parse(data: bytes) -> Manifest:
    """Check a manifest.

    Raises
    ------
    FormatError
        If it is damaged, or breaks a rule.
    """
    first = _FIRST_LINE.fullmatch(data[:_FIRST_NBYTES])
    if first is None:
        msg = f"not the manifest of a series: begins with {data[:_FIRST_NBYTES]!r}"
        raise FormatError(msg, offset=0)
    state = Xxh3()
    state.update(data[_FIRST_NBYTES:])
    if digest_text(state).encode() != first[1]:
        msg = f"manifest has checksum {digest_text(state)}, its first line says {first[1].decode()}"
        raise ChecksumError(msg, offset=0)
    fields = _load(data)
    if fields.get("format") != _FORMAT:
        raise _broken(f"format is {fields.get('format')!r:.100}, expected {_FORMAT!r}")
    version = _integer(fields, "version", _MAX_NUMBER)
    if version != FORMAT_VERSION:
        msg = f"manifest has format version {version}, this release reads {FORMAT_VERSION}"
        raise UnsupportedVersionError(msg)
    _check_keys(fields, _KEYS, "manifest")
    effort = fields["effort"]
    if effort not in EFFORTS:
        raise _broken(f"effort is {effort!r:.100}, expected one of {', '.join(EFFORTS)}")
    return Manifest(
        _integer(fields, "max_depth", DEPTH_CAP), str(effort), _parse_steps(fields["steps"])
    )


def _parse_steps(rows: Any) -> tuple[Step, ...]:
    if type(rows) is not list or len(rows) > _MAX_STEPS:
        raise _broken(f"steps are no list of at most {_MAX_STEPS}")
    depths: dict[str, int] = {}
    files: set[str] = set()
    steps = []
    for row in rows:
        step = _parse_step(row)
        if step.base is None:
            depth = 0
        elif step.base in depths:
            depth = depths[step.base] + 1
        else:
            raise _broken(f"step {step.name!r} has a base {step.base!r:.100} that is not before it")
        if depth > DEPTH_CAP:
            raise _broken(f"step {step.name!r} lies deeper than {DEPTH_CAP} steps")
        if step.name in depths:
            raise _broken(f"two steps have the name {step.name!r}")
        if step.file in files:
            raise _broken(f"two steps have the file {step.file!r}")
        depths[step.name] = depth
        files.add(step.file)
        steps.append(step._replace(depth=depth))
    return tuple(steps)


def _parse_step(row: Any) -> Step:
    if type(row) is not dict:
        raise _broken(f"a step is {row!r:.100}, expected an object")
    _check_keys(row, _STEP_KEYS, "step")
    for key in ("name", "stream"):
        try:
            check_name(row[key], key)
        except (TypeError, ValueError) as error:
            raise _broken(str(error)) from None
    base, number, file, digest = row["base"], row["step"], row["file"], row["digest"]
    if base is not None and type(base) is not str:
        raise _broken(f"base is {base!r:.100}, expected a name or null")
    if number is not None:
        _integer(row, "step", _MAX_NUMBER)
    # The only path that comes out of a manifest: one that cannot lead out of the folder.
    if type(file) is not str or FILE_NAME.fullmatch(file) is None:
        raise _broken(f"file is {file!r:.100}, which is no name of a step's file")
    suffix = ".zstn" if base is None else ".z4dm"
    if not file.endswith(suffix):
        raise _broken(f"file is {file!r}, expected one that ends in {suffix}")
    if type(digest) is not str or _DIGEST.fullmatch(digest) is None:
        raise _broken(f"digest is {digest!r:.100}, expected 32 hexadecimal digits")
    original = _integer(row, "original_nbytes", _MAX_NUMBER)
    encoded = _integer(row, "encoded_nbytes", _MAX_NUMBER)
    return Step(row["name"], row["stream"], number, file, base, 0, original, encoded, digest)


def _check_keys(fields: dict[str, Any], expected: frozenset[str], what: str) -> None:
    for key in sorted(expected ^ fields.keys(), key=repr):
        missing = "lacks the" if key in expected else "has an unknown"
        raise _broken(f"{what} {missing} key {key!r:.100}")


def _integer(fields: dict[str, Any], key: str, most: int) -> int:
    value = fields.get(key)
    # bool is an int to Python, not to JSON.
    if type(value) is not int or not 0 <= value <= most:
        raise _broken(f"{key} is {value!r:.100}, expected an integer from 0 to {most}")
    return value


def _load(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(
            data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant
        )
    except FormatError:
        raise
    except RecursionError:
        raise _broken("nested too deeply") from None
    except ValueError as error:
        raise _broken(f"cannot be parsed: {error}") from None
    if type(fields) is not dict:  # pragma: no cover - it begins with a brace
        raise _broken("no object")
    return fields


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _broken("an object has a key twice")
    return found


def _refuse_constant(constant: str) -> NoReturn:
    raise _broken(f"holds {constant}, which is not JSON")


def _broken(reason: str) -> CorruptError:
    return CorruptError(f"manifest of the series: {reason}")
