"""Registers the backend "wren" in the scripts that joblib's tests start, which cannot import it by themselves."""

import os

if os.environ.get("CONFORMANCE_SUITE") == "joblib":
    import wren_backends  # noqa: F401
