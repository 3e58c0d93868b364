"""Registers the backend "wren" in the scripts that joblib's tests start, which cannot import it by themselves."""

import os

_suite = os.environ.get("CONFORMANCE_SUITE", "")
if _suite.startswith("joblib"):
    from joblib import parallel

    import wren_backends.joblib

    if _suite == "joblib-as-loky":
        parallel.BACKENDS["loky"] = wren_backends.joblib.WrenBackend
