"""The garbage collector's thresholds are put back as they were, whoever else sets them."""

import gc

import pytest

from wren_backends import collector


@pytest.fixture(autouse=True)
def thresholds():
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_the_first_relaxes_and_the_last_restores():
    collector.relax()
    collector.relax()
    assert gc.get_threshold() == (10_000, 10, 10)
    collector.restore()
    assert gc.get_threshold() == (10_000, 10, 10)
    collector.restore()
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("own", [(0, 10, 10), (50_000, 20, 20)])
def test_a_collector_that_is_off_or_seldom_is_left_alone(own):
    gc.set_threshold(*own)
    collector.relax()
    assert gc.get_threshold() == own
    collector.restore()
    assert gc.get_threshold() == own


def test_what_the_user_sets_meanwhile_stays():
    collector.relax()
    gc.set_threshold(500, 5, 5)
    collector.restore()
    assert gc.get_threshold() == (500, 5, 5)
