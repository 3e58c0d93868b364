"""Calls that run in functions which have neither this project's packages nor pytest."""

import importlib.metadata
import os
import shutil
import sys


def imported():
    """What a call finds of `SMALL`: what it computes, its files and versions, and the whole path."""
    import markupsafe._speedups
    import toolz
    import yaml

    text = yaml.dump(toolz.keymap(str.upper, {"a": str(markupsafe.escape("<b>"))}), Dumper=yaml.CSafeDumper)
    files = [module.__file__ for module in (markupsafe._speedups, toolz, yaml)]
    versions = {name: importlib.metadata.version(name) for name in ("markupsafe", "pyyaml", "toolz")}
    return text, files, versions, list(sys.path)


def science():
    """A little of each of the libraries that this is for, and where they come from."""
    import dask
    import dask.array
    import joblib
    import numpy as np
    import pandas as pd
    import scipy
    import scipy.linalg
    import sklearn
    from numpy.testing import assert_allclose
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    digits, labels = load_digits(return_X_y=True)
    model = RandomForestClassifier(5, random_state=0).fit(digits[::2], labels[::2])
    assert_allclose(scipy.linalg.inv(np.diag([2.0, 4.0])), np.diag([0.5, 0.25]))
    frame = pd.DataFrame({"group": [1, 1, 2], "value": [1.0, 2.0, 3.0]}).groupby("group").value.mean()
    found = {
        "score": model.score(digits[1::2], labels[1::2]),
        "frame": frame.to_dict(),
        "dask": int(dask.array.arange(10, chunks=5).sum().compute(scheduler="sync")),
        "joblib": joblib.Parallel(n_jobs=1)(joblib.delayed(abs)(-n) for n in range(3)),
    }
    return found, [module.__file__ for module in (np, scipy, sklearn, pd, dask, joblib)]


def process():
    """Which process it is in, and what lies on its disk."""
    return os.getpid(), sorted(name for name in os.listdir(os.path.dirname(folder_of_packages())))


def folder_of_packages():
    """Where an archive was unpacked."""
    [folder] = [os.path.dirname(entry) for entry in sys.path if "/wren-packages-" in entry]
    return folder


def clear_packages():
    """Do what a call may do to the disk."""
    shutil.rmtree(folder_of_packages())
    return os.getpid()


def anything():
    """Needs no packages."""
    return os.getpid()


def meet(folder, others):
    """Wait until as many calls as this are in it at once; each is in a process of its own then."""
    import time

    import toolz

    with open(os.path.join(folder, str(os.getpid())), "w"):
        pass
    deadline = time.monotonic() + 30
    while len(os.listdir(folder)) < others and time.monotonic() < deadline:
        time.sleep(0.01)
    return os.getpid(), toolz.__file__
