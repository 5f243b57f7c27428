"""The tree of errors, and what each tells."""

from __future__ import annotations

import copy
import pickle

import pytest

from z4ai import errors

ALL = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_ours_and_a_value_error(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.Z4Error)
    assert issubclass(kind, ValueError)
    assert kind.__doc__


def test_all_is_what_the_module_defines() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if getattr(value, "__module__", None) == errors.__name__
    }
    assert found == set(errors.__all__)


@pytest.mark.parametrize("kind", [k for k in ALL if issubclass(k, errors.FormatError)])
def test_format_errors_say_where(kind: type[errors.FormatError]) -> None:
    plain = kind("what is wrong")
    assert str(plain) == "what is wrong"
    assert (plain.offset, plain.chunk, plain.tensor) == (None, None, None)
    error = kind("what is wrong", offset=0, chunk=3, tensor="a.b")
    assert (error.message, error.offset, error.chunk, error.tensor) == (
        "what is wrong",
        0,
        3,
        "a.b",
    )
    assert str(error) == "what is wrong (tensor 'a.b', chunk 3, offset 0)"
    error.chunk = 0
    assert str(error) == "what is wrong (tensor 'a.b', chunk 0, offset 0)"


def test_a_limit_error_names_its_option() -> None:
    error = errors.LimitError("content of 5 bytes", option="max_output_nbytes")
    assert error.option == "max_output_nbytes"
    assert str(error) == "content of 5 bytes; raise Limits.max_output_nbytes to allow it"
    assert not isinstance(error, errors.FormatError)


@pytest.mark.parametrize("again", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_errors_survive_copies_and_processes(again: object) -> None:
    """A pool of processes hands errors over by pickle."""
    assert callable(again)
    for kind in ALL:
        if kind is errors.LimitError:
            error: Exception = kind("too much", option="max_table_nbytes")
        elif issubclass(kind, errors.FormatError):
            error = kind("what", offset=1, chunk=2, tensor="t")
        else:
            error = kind("what")
        back = again(error)
        assert type(back) is kind
        assert str(back) == str(error)
        assert vars(back) == vars(error)
