"""What the README says of the differences from a process pool."""

import os
import subprocess
import sys

import numpy as np
import pytest

from wren_backends import CallExitedError


def test_arguments_are_copies(executor):
    def writes(array):
        array[:] = 1
        return array.sum()

    data = np.zeros(8)
    assert executor.submit(writes, data).result() == 8
    assert not data.any()


def test_folder_variables_and_home_are_lambdas(executor, monkeypatch):
    monkeypatch.setenv("OF_THE_CLIENT", "1")

    def surroundings():
        return os.getcwd(), os.environ.get("OF_THE_CLIENT"), os.environ.get("HOME")

    folder, variable, home = executor.submit(surroundings).result()
    assert folder != os.getcwd()
    assert variable is None
    assert home != os.environ["HOME"]


def test_a_subprocess_prints_to_the_functions_log(executor, capfd):
    def starts():
        subprocess.run([sys.executable, "-c", "print('by a subprocess')"], check=True)
        print("by the call")

    executor.submit(starts).result()
    assert capfd.readouterr().out == "by the call\n"


def test_exit_ends_the_call_alone(executor):
    with pytest.raises(CallExitedError):
        executor.submit(sys.exit, 3).result()
    assert executor.submit(abs, -1).result() == 1
