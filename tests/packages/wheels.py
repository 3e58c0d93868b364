"""Makes wheels and source distributions in a folder, which is an index to uv."""

import base64
import hashlib
import io
import tarfile
import zipfile

ANYWHERE = "py3-none-any"


def wheel(folder, name, version="1.0", files=None, tag=ANYWHERE, needs=(), scripts=None):
    """Write a wheel; `files` are texts by name, and one module of its name if there are none."""
    stem = f"{name.replace('-', '_')}-{version}"
    content = files or {f"{name.replace('-', '_')}.py": f"VERSION = {version!r}\n"}
    requires = "".join(f"Requires-Dist: {one}\n" for one in needs)
    pure = str(tag == ANYWHERE).lower()
    content = {
        **content,
        **{f"{stem}.data/scripts/{script}": text for script, text in (scripts or {}).items()},
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}",
        f"{stem}.dist-info/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: {pure}\nTag: {tag}\n",
    }
    record = f"{stem}.dist-info/RECORD"
    content[record] = "".join(f"{one},{_hash(text)},{len(text.encode())}\n" for one, text in content.items())
    content[record] += f"{record},,\n"
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as bundle:
        for one, text in content.items():
            bundle.writestr(one, text)
    return path


def sdist(folder, name, version="1.0"):
    """Write a source distribution."""
    stem = f"{name.replace('-', '_')}-{version}"
    with tarfile.open(folder / f"{stem}.tar.gz", "w:gz") as bundle:
        for one, text in {
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            "setup.py": "raise SystemExit('nothing is to be built')\n",
        }.items():
            info = tarfile.TarInfo(f"{stem}/{one}")
            info.size = len(text)
            bundle.addfile(info, io.BytesIO(text.encode()))


def _hash(text):
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).decode().rstrip("=")
