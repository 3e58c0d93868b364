"""The user's own modules are there in a call, wherever they lie and however they are installed, as they are now."""

import platform
import subprocess
import sys
import sysconfig
import textwrap

import pytest
from as_on_aws import deploy_function


@pytest.fixture
def lay(tmp_path):
    """Lay out files, given as {path: text}, below the script's folder."""

    def lay(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return tmp_path

    return lay


def said(done):
    """What a script printed; it has to have ended well."""
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


CALL = """
from wren_backends import WrenExecutor

def call(function, *arguments):
    with WrenExecutor(1) as executor:
        return executor.submit(function, *arguments).result()
"""


def test_what_a_function_of_the_script_imports_when_it_runs(lay, run_script):
    lay(
        {
            "helper.py": "import deeper\ndef area(): return deeper.SIDE ** 2\n",
            "deeper.py": "SIDE = 3\n",
            "pack/__init__.py": "",
            "pack/lazy.py": "def name():\n    from beside import NAME\n    return NAME\n",
            "beside.py": "NAME = 'beside'\n",
            "space/part.py": "WHERE = 'space'\n",
        }
    )
    script = (
        CALL
        + """
def lazily():
    import helper
    import pack.lazy
    from space import part
    return helper.area(), pack.lazy.name(), part.WHERE

print(*call(lazily))
print(*call(lambda: __import__("json").dumps(1)))
"""
    )
    assert said(run_script(script)) == ["9", "beside", "space", "1"]


def test_files_that_are_no_modules_of_the_call_stay(lay, run_script):
    lay({"unrelated_to_it.py": "raise SystemExit('never imported')", "plain_data/x.bin": "x", "used.py": "VALUE = 6"})
    script = (
        CALL
        + """
import os, sys
def sees(plain_data, names):
    import used
    there = [one for folder in sys.path if "wren-modules" in folder for one in os.listdir(folder)]
    return used.VALUE, *(one in there for one in names)
print(*call(sees, {"unrelated_to_it": 1}, ["used.py", "unrelated_to_it.py", "plain_data"]))
"""
    )
    assert said(run_script(script)) == ["6", "True", "False", "False"]


FINDER = """
import sys
from importlib.util import spec_from_file_location
from pathlib import Path

HERE = Path(__file__).resolve().parent
MAPPING = {"demo": HERE / "elsewhere/source", "demo.extra": HERE / "aside", "single": HERE / "elsewhere/single.py"}

class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        place = MAPPING.get(name)
        if place is None:
            return None
        if place.is_dir():
            return spec_from_file_location(name, place / "__init__.py", submodule_search_locations=[str(place)])
        return spec_from_file_location(name, place)

sys.meta_path.append(Finder)
"""


@pytest.mark.parametrize("when", ["imported before", "imported in the call"])
def test_editable_installs_that_work_by_a_finder(lay, run_script, when):
    """As setuptools makes them, and `editables` for hatch and pdm: names are mapped to files, of parts as well."""
    lay(
        {
            "finder.py": FINDER,
            "elsewhere/source/__init__.py": "from demo import inner\n",
            "elsewhere/source/inner.py": "VALUE = 5\n",
            "elsewhere/source/table.csv": "1,2,3",
            "elsewhere/single.py": "VALUE = 7\n",
            "aside/__init__.py": "VALUE = 11\n",
        }
    )
    before = "import demo, demo.extra, single\n" if when == "imported before" else ""
    script = (
        "import finder\n"
        + before
        + CALL
        + """
def sees():
    import demo, single
    from importlib.resources import files
    found = [demo.inner.VALUE, single.VALUE, files("demo").joinpath("table.csv").read_text()]
    if IMPORTED_BEFORE:
        import demo.extra
        found.append(demo.extra.VALUE)
    return found
print(*call(sees))
"""
    ).replace("IMPORTED_BEFORE", str(bool(before)))
    expected = ["5", "7", "1,2,3", "11"] if before else ["5", "7", "1,2,3"]
    assert said(run_script(script)) == expected


def test_a_src_layout_on_the_path_with_data_and_what_only_it_imports(lay, run_script):
    lay(
        {
            "project/src/shop/__init__.py": "",
            "project/src/shop/prices.py": """
                from importlib.resources import files
                from pathlib import Path
                def total():
                    import other_project
                    table = files("shop").joinpath("data/prices.txt").read_text()
                    again = Path(__file__).with_name("data").joinpath("prices.txt").read_text()
                    return sum(map(int, table.split())) * other_project.FACTOR, table == again
            """,
            "project/src/shop/data/prices.txt": "1 2 3",
            "project/src/other_project/__init__.py": "FACTOR = 10\n",
        }
    )
    script = (
        "import sys; sys.path.append('project/src')\n" + CALL + "from shop.prices import total\nprint(*call(total))"
    )
    assert said(run_script(script)) == ["60", "True"]


def test_tracebacks_and_warnings_name_the_files_of_this_machine(lay, run_script):
    folder = lay(
        {
            "src/shop/__init__.py": "",
            "src/shop/prices.py": """
                import warnings
                def lookup(name):
                    warnings.warn("a price is missing")
                    from shop import later
                    return later.find(name)
            """,
            "src/shop/later.py": "def find(name):\n    raise KeyError(name)\n",
        }
    )
    done = run_script(
        "import sys; sys.path.append('src')\n" + CALL + "from shop.prices import lookup\ncall(lookup, 'pear')"
    )
    assert f'File "{folder}/src/shop/prices.py", line 6, in lookup' in done.stderr
    assert f'File "{folder}/src/shop/later.py", line 2, in find' in done.stderr
    assert f"{folder}/src/shop/prices.py:4: UserWarning: a price is missing" in done.stderr
    assert "KeyError: 'pear'" in done.stderr
    assert "wren-modules-" not in done.stderr


def test_a_namespace_with_parts_in_several_places_and_one_that_is_installed(lay, run_script, tmp_path):
    folder = lay(
        {
            "one/acme/a.py": "VALUE = 1\n",
            "two/acme/b.py": "VALUE = 2\n",
            "lib/site-packages/acme/installed.py": "VALUE = 3\n",
        }
    )
    script = (
        f"import sys; sys.path += ['one', 'two', {str(folder / 'lib/site-packages')!r}]\n"
        + CALL
        + """
import acme.a, acme.b, acme.installed
from acme import a, b
def sees():
    return a.VALUE, b.VALUE
print(*call(sees))
"""
    )
    assert said(run_script(script)) == ["1", "2"]


def test_run_as_a_module(lay, tmp_path, cloud):
    lay(
        {
            "app/__init__.py": "",
            "app/other.py": "VALUE = 4\n",
            "app/lazy.py": "VALUE = 5\n",
            "app/main.py": CALL
            + """
from . import other
def sees():
    from . import lazy
    from .lazy import VALUE
    return other.VALUE, lazy.VALUE, VALUE
if __name__ == "__main__":
    print(*call(sees))
""",
        }
    )
    done = subprocess.run(
        [sys.executable, "-m", "app.main"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert said(done) == ["4", "5", "5"]


def test_as_in_a_notebook_with_the_working_directory_on_the_path_and_edits(lay, tmp_path, cloud):
    """A notebook's code is in no file, and its folder is on the path as the empty string."""
    lay({"mine.py": "VALUE = 1\n"})
    code = """
import sys
sys.path[0] = ""
from wren_backends import WrenExecutor
def sees():
    import mine
    return mine.VALUE
def new():
    import made_meanwhile
    return made_meanwhile.VALUE
with WrenExecutor(1) as executor:
    print(executor.submit(sees).result())
    open("mine.py", "w").write("VALUE = 1 + 1\\n")
    open("made_meanwhile.py", "w").write("VALUE = 3\\n")
    executor.refresh_modules()
    print(executor.submit(sees).result())
    print(executor.submit(new).result())
"""
    done = subprocess.run(
        [sys.executable, "-"], input=code, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert said(done) == ["1", "2", "3"]


def test_a_module_whose_file_has_another_name(lay, run_script):
    lay({"strange-name.py": "def f(): return 8\n"})
    script = (
        CALL
        + """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("renamed", "strange-name.py")
renamed = sys.modules["renamed"] = module_from_spec(spec)
spec.loader.exec_module(renamed)
print(call(renamed.f))
"""
    )
    assert said(run_script(script)) == ["8"]


def test_links_to_folders_are_followed_and_caches_stay(lay, run_script, tmp_path):
    lay(
        {
            "pack/__init__.py": "",
            "shared/tables/t.txt": "linked",
            "pack/.ipynb_checkpoints/old.py": "",
            "pack/env/pyvenv.cfg": "",
            "pack/env/lib/huge.py": "",
        }
    )
    (tmp_path / "pack/tables").symlink_to(tmp_path / "shared/tables")
    (tmp_path / "pack/loop").symlink_to(tmp_path / "pack")
    script = (
        CALL
        + """
from pathlib import Path
import pack
def sees():
    folder = Path(pack.__file__).parent
    return (folder / "tables/t.txt").read_text(), *sorted(one.name for one in folder.iterdir() if one.name[0] != "_")
print(*call(sees))
"""
    )
    assert said(run_script(script)) == ["linked", "tables"]


C_SOURCE = """
#include <Python.h>
static PyObject *answer(PyObject *self, PyObject *unused) { return PyLong_FromLong(42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_fast", "", -1, methods};
PyMODINIT_FUNC PyInit__fast(void) { return PyModule_Create(&module); }
"""


def test_an_extension_built_in_place_travels(lay, run_script, tmp_path):
    lay({"pack/__init__.py": "from pack._fast import answer\n", "fast.c": C_SOURCE})
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    include = sysconfig.get_paths()["include"]
    command = ["cc", "-shared", "-fPIC", f"-I{include}", "fast.c", "-o", f"pack/_fast{suffix}"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert said(run_script(CALL + "import pack\nprint(call(pack.answer), call(lambda: pack.answer() + 1))")) == [
        "42",
        "43",
    ]


THIS, OTHER = ("x86_64", "aarch64") if platform.machine() == "x86_64" else ("aarch64", "x86_64")


@pytest.mark.parametrize("where", ["local", "aws"])
def test_machine_code_for_another_system_stays_and_is_named(lay, run_script, cloud, where):
    lay(
        {
            "pack/__init__.py": """
                try:
                    from pack._fast import answer
                except ImportError:
                    def answer(): return 41
            """,
            "pack/_fast.cpython-311-darwin.so": "machine code of another system",
            f"pack/_other.cpython-311-{OTHER}-linux-gnu.so": "machine code of another machine",
            f"pack/_both.cpython-311-{OTHER}-linux-gnu.so": "machine code of another machine",
            f"pack/_both.cpython-311-{THIS}-linux-gnu.so": "machine code of this one",
        }
    )
    environment = deploy_function(cloud, "for-machine-code") if where == "aws" else {}
    done = run_script(CALL + "import pack\nprint(call(pack.answer))", **environment)
    assert said(done) == ["41"]
    assert f"pack/_fast.cpython-311-darwin.so, pack/_other.cpython-311-{OTHER}-linux-gnu.so" in done.stderr
    assert "_both" not in done.stderr
    assert "deployed among the function's packages" in done.stderr


def test_joblib_and_dask_take_them_along_too(lay, run_script):
    lay({"mine.py": "def double(x): return 2 * x\n"})
    script = """
import dask, joblib
from wren_backends import wren_get
def lazily(x):
    import mine
    return mine.double(x)
with joblib.parallel_backend("wren"):
    print(*joblib.Parallel(n_jobs=2)(joblib.delayed(lazily)(x) for x in range(3)))
print(dask.delayed(lazily)(5).compute(scheduler=wren_get))
"""
    assert said(run_script(script)) == ["0", "2", "4", "10"]
