"""The same surroundings and local cloud as the other tests have."""

from tests.conftest import clean_surroundings, cloud

__all__ = ["clean_surroundings", "cloud"]
