"""Makes the packages layer and the function on a local cloud, through the same API calls as on AWS.

What differs is the layer with the user's packages: here it holds links to the client's site-packages, because copying
some hundred megabytes at each start would serve nobody.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import re
import site
import stat
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lambda_worker.protocol import FUNCTION_KEY_VARIABLE, PRELOAD_VARIABLE, python_version
from wren_backends.config import DEFAULT_MEMORY_MB, DEFAULT_TIMEOUT_S, Config
from wren_backends.deploy.bucket import put_lifecycle
from wren_backends.deploy.function import FunctionSpec, deploy
from wren_backends.deploy.package import function_zip
from wren_backends.deploy.session import local_client
from wren_backends.local.cloud import LocalCloud

_ROLE = "arn:aws:iam::000000000000:role/wren"
_PRELOADED = ("numpy", "scipy", "pandas", "joblib", "sklearn", "dask", "threadpoolctl")
_PRELOAD_CHARS = 3000  # AWS allows 4 KB for all environment variables of a function together
_STEM_CHARS = 51  # AWS Lambda API: a function's name has at most 64 characters, of which the hash takes 13
_LINK = (stat.S_IFLNK | 0o777) << 16


def prepare() -> None:
    """Do what takes long and needs no cloud, so that a caller can do it while one starts."""
    function_zip()
    for service in ("lambda", "s3"):
        local_client(service, region_name="us-east-1")


def ensure_local_function(cloud: LocalCloud, config: Config, bucket: str) -> dict[str, Any]:
    """Make the function if it is not there yet and return its configuration; a hash of all that is in it ends its name.

    Args:
        cloud: The local cloud.
        config: Settings.
        bucket: Bucket for records of failed asynchronous invocations.
    """
    code, links, preload = function_zip(), _links_zip(), _preload()
    memory_mb, timeout_s = config.memory_mb or DEFAULT_MEMORY_MB, config.timeout_s or DEFAULT_TIMEOUT_S
    settings = json.dumps([memory_mb, timeout_s, preload, python_version()]).encode()
    name = f"{config.function[:_STEM_CHARS]}-{hashlib.sha256(code + links + settings).hexdigest()[:12]}"
    client = _client(cloud, "lambda", cloud.lambda_endpoint_url)
    try:
        return dict(client.get_function_configuration(FunctionName=name))
    except client.exceptions.ResourceNotFoundException:
        put_lifecycle(_client(cloud, "s3", cloud.s3_endpoint_url), bucket, config.prefix, name)
        layer = client.publish_layer_version(LayerName=f"{name}-packages", Content={"ZipFile": links})
        return deploy(
            client,
            FunctionSpec(
                name=name,
                role=_ROLE,
                bucket=bucket,
                memory_mb=memory_mb,
                timeout_s=timeout_s,
                layers=(layer["LayerVersionArn"],),
                variables={PRELOAD_VARIABLE: preload, FUNCTION_KEY_VARIABLE: _secret(cloud, config.function)},
            ),
        )


def local_name_pattern(function: str) -> str:
    """Pattern of the names of all local functions that stand for one of AWS's: programs differ in what they preload."""
    return rf"{re.escape(function[:_STEM_CHARS])}-[0-9a-f]{{12}}"


def _client(cloud: LocalCloud, service: str, url: str) -> Any:
    return local_client(
        service,
        region_name=cloud.region,
        endpoint_url=url,
        aws_access_key_id=cloud.access_key_id,
        aws_secret_access_key=cloud.secret_access_key,
    )


def _secret(cloud: LocalCloud, function: str) -> str:
    """The function's secret: the same for all that stand for one function of AWS's, which keeps its own too.

    So a program may read the outcomes of another's job although the two import, and hence preload, different modules.
    """
    return hmac.new(cloud.secret_access_key.encode(), function.encode(), "sha256").hexdigest()


def _links_zip() -> bytes:
    """A layer whose `python` folder links to every top-level entry of the client's site-packages."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as bundle:
        for name, target in sorted(_entries()):
            info = zipfile.ZipInfo(f"python/{name}")
            info.create_system = 3  # Unix: the attributes below are a file mode
            info.external_attr = _LINK
            bundle.writestr(info, target)
    return packed.getvalue()


def _entries() -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for folder in _site_folders():
        for path in folder.iterdir():
            usual = path.suffix not in (".pth", ".pyc", ".egg-link") and path.name != "__pycache__"
            if usual and path.name not in seen:
                seen.add(path.name)
                yield path.name, str(path)


def _site_folders() -> list[Path]:
    """Folders in which packages are installed, as this process searches them."""
    known = {sysconfig.get_paths()[name] for name in ("purelib", "platlib")}
    known.update(site.getsitepackages())
    known.add(site.getusersitepackages())
    return [Path(one) for one in sys.path if one in known and Path(one).is_dir()]


def _preload() -> str:
    """Modules that this process uses and that are slow to import: the function's template imports them once."""
    wanted = re.compile(rf"(?:{'|'.join(_PRELOADED)})(?:\.[a-z][a-z0-9_]*)?")
    names = sorted(name for name in list(sys.modules) if wanted.fullmatch(name) and ".test" not in name)
    while len(",".join(names)) > _PRELOAD_CHARS:
        names.pop()
    return ",".join(names)
