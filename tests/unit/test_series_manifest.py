"""The manifest of a series: what is written is read, and nothing else gets through."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from z4ai._fast.hashing import xxh3_128
from z4ai._wire import FORMAT_VERSION
from z4ai.errors import ChecksumError, CorruptError, FormatError, UnsupportedVersionError, Z4Error
from z4ai.series import manifest as wire
from z4ai.series.manifest import Manifest, Step

DIGEST = "0123456789abcdef" * 2


def row(name: str, base: str | None = None, /, **changes: Any) -> dict[str, Any]:
    """One step as the file holds it."""
    number = xxh3_128(name.encode()) & (2**64 - 1)
    return {
        "name": name,
        "stream": "weights",
        "step": 3,
        "file": f"x.{number:016x}.{'zstn' if base is None else 'z4dm'}",
        "base": base,
        "original_nbytes": 10,
        "encoded_nbytes": 5,
        "digest": DIGEST,
    } | changes


def raw(steps: Any, **changes: Any) -> bytes:
    """A manifest with a checksum that fits."""
    fields = {
        "format": "z4ai series",
        "version": FORMAT_VERSION,
        "max_depth": 8,
        "effort": "balanced",
        "steps": steps,
    } | changes
    return sealed(json.dumps(fields)[1:])


def sealed(body: str) -> bytes:
    data = body.encode(errors="surrogatepass")
    return b'{"checksum":"%032x",\n' % xxh3_128(data) + data


names = st.text(
    st.characters(exclude_characters="/\\:", exclude_categories=["Cc", "Cs"]), min_size=1
).filter(lambda s: s[0] not in ".-" and len(s.encode()) <= 200)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    steps: list[Step] = []
    count = st.integers(0, 2**63 - 1)
    for k, name in enumerate(draw(st.lists(names, max_size=6, unique=True))):
        base = draw(st.sampled_from([None, *steps]))
        steps.append(
            Step(
                name,
                draw(names),
                draw(st.none() | count),
                f"{'a' * (k + 1)}.{k:016x}.{'zstn' if base is None else 'z4dm'}",
                None if base is None else base.name,
                0 if base is None else base.depth + 1,
                draw(count),
                draw(count),
                draw(st.text("0123456789abcdef", min_size=32, max_size=32)),
            )
        )
    effort = draw(st.sampled_from(["fast", "balanced", "max"]))
    return Manifest(draw(st.integers(0, wire.DEPTH_CAP)), effort, tuple(steps))


@given(manifests())
def test_what_is_written_is_read(manifest: Manifest) -> None:
    data = wire.write(manifest)
    assert wire.parse(data) == manifest
    assert json.loads(data)["version"] == FORMAT_VERSION
    assert manifest.with_steps(manifest.steps) == manifest


def test_the_helpers_make_what_is_legal() -> None:
    found = wire.parse(raw([row("a"), row("b", "a"), row("c", "b")]))
    assert [step.depth for step in found.steps] == [0, 1, 2]
    assert [step.name for step in found.chain(found.steps[2])] == ["c", "b", "a"]
    assert [step.name for step in found.dependents("a")] == ["b"]


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../x.0000000000000000.zstn"},
        {"file": "/etc/x.0000000000000000.zstn"},
        {"file": "a/b.0000000000000000.zstn"},
        {"file": "a\\b.0000000000000000.zstn"},
        {"file": "..0000000000000000.zstn"},
        {"file": ".0000000000000000.zstn"},
        {"file": "x.0000000000000000.zstn\n"},
        {"file": "x.0000000000000000.zstn\0"},
        {"file": "series.json"},
        {"file": ".lock"},
        {"file": "x.0000000000000000.z4dm"},
        {"file": "x.000000000000000A.zstn"},
        {"file": "x.٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠.zstn"},
        {"file": "x" * 65 + ".0000000000000000.zstn"},
        {"file": 7},
        {"file": None},
        {"file": ["x.0000000000000000.zstn"]},
        {"base": "a"},
        {"base": "b"},
        {"base": "missing"},
        {"base": 0},
        {"base": ["a"]},
        {"base": {}},
        {"name": ""},
        {"name": "../a"},
        {"name": ".a"},
        {"name": "-a"},
        {"name": "a/b"},
        {"name": "a\nb"},
        {"name": "a\x85b"},
        {"name": "\ud800"},
        {"name": "x" * 201},
        {"name": 1},
        {"name": None},
        {"stream": ""},
        {"stream": None},
        {"step": -1},
        {"step": 2**63},
        {"step": 10**400},
        {"step": 1.0},
        {"step": True},
        {"step": "1"},
        {"original_nbytes": -1},
        {"original_nbytes": 2**63},
        {"original_nbytes": None},
        {"encoded_nbytes": 1.5},
        {"encoded_nbytes": False},
        {"digest": DIGEST.upper()},
        {"digest": DIGEST[:-1]},
        {"digest": DIGEST + "\n"},
        {"digest": 5},
        {"surplus": 1},
    ],
    ids=str,
)
def test_a_step_that_breaks_a_rule_is_refused(change: dict[str, Any]) -> None:
    # A base may be of a cycle: "a" stands behind what names it.
    behind = [row("a", "b")] if "base" in change else []
    with pytest.raises(CorruptError, match="manifest of the series"):
        wire.parse(raw([row("b", **change), *behind]))


@pytest.mark.parametrize("key", sorted(row("a")))
def test_a_step_that_lacks_a_key_is_refused(key: str) -> None:
    fields = row("a")
    del fields[key]
    with pytest.raises(CorruptError, match=f"lacks the key '{key}'"):
        wire.parse(raw([fields]))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"format": "other"}, CorruptError),
        ({"version": 15}, UnsupportedVersionError),
        ({"version": 17}, UnsupportedVersionError),
        ({"version": "16"}, CorruptError),
        ({"version": True}, CorruptError),
        ({"max_depth": -1}, CorruptError),
        ({"max_depth": 41}, CorruptError),
        ({"max_depth": None}, CorruptError),
        ({"effort": "default"}, CorruptError),
        ({"effort": ["fast"]}, CorruptError),
        ({"effort": None}, CorruptError),
        ({"steps": {}}, CorruptError),
        ({"steps": None}, CorruptError),
        ({"steps": [[]]}, CorruptError),
        ({"steps": ["a"]}, CorruptError),
        ({"other": 1}, CorruptError),
    ],
    ids=str,
)
def test_a_manifest_that_breaks_a_rule_is_refused(
    change: dict[str, Any], kind: type[FormatError]
) -> None:
    with pytest.raises(kind):
        wire.parse(raw(change.pop("steps", []), **change))


def test_names_and_files_are_those_of_one_step() -> None:
    with pytest.raises(CorruptError, match="two steps have the name"):
        wire.parse(raw([row("a"), row("a", file="y.0000000000000000.zstn")]))
    with pytest.raises(CorruptError, match="two steps have the file"):
        wire.parse(raw([row("a"), row("b", file=row("a")["file"])]))


def test_a_chain_has_an_end() -> None:
    def chain(n: int) -> list[dict[str, Any]]:
        return [row("0"), *(row(str(k), str(k - 1)) for k in range(1, n))]

    assert wire.parse(raw(chain(41))).steps[-1].depth == 40
    with pytest.raises(CorruptError, match="lies deeper than 40"):
        wire.parse(raw(chain(42)))


def test_too_many_steps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_MAX_STEPS", 2)
    assert len(wire.parse(raw([row("a"), row("b")])).steps) == 2
    with pytest.raises(CorruptError, match="no list of at most 2"):
        wire.parse(raw([row("a"), row("b"), row("c")]))
    # Nor are they written: nobody could open the series any more.
    steps = tuple(wire.parse(raw([row("a"), row("b")])).steps)
    with pytest.raises(ValueError, match="3 steps, a series holds at most 2"):
        wire.write(Manifest(8, "balanced", (*steps, steps[0]._replace(name="c"))))


@pytest.mark.parametrize(
    "body",
    [
        '"steps": []}',
        "}",
        "",
        '"steps": [],,}',
        '"steps": NaN}',
        '"steps": [], "steps": []}',
        '"steps": ' + "[" * 200_000 + "]" * 200_000 + "}",
        '"checksum": "twice"}',
        '"\ud800": 1}',
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_manifest_is_refused(body: str) -> None:
    with pytest.raises(FormatError):
        wire.parse(sealed(body))


def test_every_prefix_and_every_flipped_bit_is_an_error() -> None:
    data = raw([row("a"), row("b", "a")])
    for n in range(len(data)):
        with pytest.raises(FormatError):
            wire.parse(data[:n])
    for bit in range(8 * len(data)):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            wire.parse(bytes(broken))
    with pytest.raises(ChecksumError):
        wire.parse(data + b" ")


@given(st.binary(max_size=100))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        wire.parse(data)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_any_value_of_a_key_is_read_or_refused(value: Any) -> None:
    for key in row("a"):
        try:
            found = wire.parse(raw([row("a", **{key: value})]))
        except Z4Error:
            continue
        assert getattr(found.steps[0], key) == value
