"""Every error survives pickling, is found at the top level and stands where the drawn tree says."""

import concurrent.futures
import inspect
import pickle
import re

import pytest

import wren_backends
from wren_backends import errors

ALL = [
    found
    for found in vars(errors).values()
    if inspect.isclass(found) and issubclass(found, Exception) and found.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_pickles(kind):
    made = kind("call 3 (m.f): something. Do this")
    made.add_note("a note")
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is kind
    assert again.args == made.args
    assert again.__notes__ == ["a note"]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_is_exported_at_the_top_level(kind):
    assert kind.__name__ in wren_backends.__all__
    assert getattr(wren_backends, kind.__name__) is kind


def test_tree_is_as_drawn():
    drawn = []
    above = []
    for line in re.findall(r"^ {4}(\S.*)$", errors.__doc__, re.MULTILINE):
        found = re.match(r"((?:\|   )*)(?:\+-- )?(\w+)", line)
        depth = len(found[1]) // 4 + ("+--" in line)
        above[depth:] = [found[2]]
        drawn.append((found[2], above[depth - 1] if depth else "Exception"))
    assert sorted(drawn) == sorted((kind.__name__, kind.__bases__[0].__name__) for kind in ALL)


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        (errors.ConfigError, ValueError),
        (errors.SerializationError, pickle.PicklingError),
        (errors.BrokenWrenExecutor, concurrent.futures.BrokenExecutor),
    ],
)
def test_is_also_what_others_catch(kind, also):
    assert issubclass(kind, also)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = wren_backends.no_such_name


def test_every_exported_name_is_there():
    assert {one for one in dir(wren_backends) if not one.startswith("__")} == set(wren_backends.__all__)
    for name in wren_backends.__all__:
        assert getattr(wren_backends, name).__name__ == name
