"""Shapes of hostile input: any JSON, and good JSON that was changed in one place."""

import copy

from hypothesis import strategies as st

HOSTILE_TEXT = [
    "",
    ".",
    "..",
    "../x",
    "a/../b",
    "//",
    "/x",
    "a//b",
    "a\0b",
    "a\nb",
    "\ud800",
    "\udcff",
    "ä",
    "%2e%2e",
    "x" * 5000,
    "jobs/j-1/outcomes/000000000000",
]
HOSTILE_NUMBERS = [-1, 2**31, 2**63, 2**64, 10**12, 10**400, -(10**400), 0.5, float("inf"), float("-inf"), float("nan")]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(HOSTILE_TEXT)
    | st.sampled_from(HOSTILE_NUMBERS)
)

ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def places(value, path=()):
    """Where something could be put into a JSON value, itself included."""
    yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


def put(value, path, new):
    """A copy of `value` with `new` in one place; `Ellipsis` takes away what is there."""
    if not path:
        return None if new is ... else new
    changed = copy.deepcopy(value)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return changed


def changed(good, times=2):
    """Copies of a good JSON value, each changed in up to so many places."""

    @st.composite
    def draw_one(draw):
        value = good
        for _ in range(draw(st.integers(1, times))):
            value = put(value, draw(st.sampled_from(list(places(value)))), draw(ANY_JSON | st.just(...)))
        return value

    return draw_one()
