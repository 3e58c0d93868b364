"""Makes function versions: packages from requests, folders from packages, templates from folders."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .api_errors import invalid, unsupported
from .configuration import FunctionSettings, host_architecture
from .errors import LocalCloudError
from .forkserver import TemplateSettings
from .functions import LATEST, Revision, snapshotted
from .layers import Layers, LayerVersion
from .options import REGION
from .packages import MAX_UNZIPPED_BYTES, BadPackageError, Package, keep, unpack
from .pool import ComputeContext, Pool
from .runtime_files import link_runtime

_MAX_ZIP_BYTES = 52_428_800

ReadObject = Callable[[str, str], Awaitable[bytes]]
"""Fetches bucket and key from S3."""


@dataclass
class RevisionMaker:
    """Turns settings and packages into versions that can run."""

    compute: ComputeContext
    layers: Layers
    directory: Path
    variables: Mapping[str, str]
    read_object: ReadObject

    async def package(self, body: Mapping[str, Any]) -> Package:
        """Store the zip that a request carries or names.

        Raises:
            ApiError: There is none, or it is no good.
        """
        if body.get("ImageUri"):
            raise unsupported("ImageUri", body["ImageUri"])
        if body.get("S3ObjectVersion"):
            raise unsupported("S3ObjectVersion", body["S3ObjectVersion"])
        if body.get("ZipFile"):
            data = _decoded(body["ZipFile"])
        elif body.get("S3Bucket") and body.get("S3Key"):
            data = await self.read_object(body["S3Bucket"], body["S3Key"])
        else:
            raise invalid("Please provide a source for function code.")
        try:
            package = await asyncio.to_thread(keep, data, self.directory / "packages")
        except BadPackageError as error:
            raise invalid(str(error)) from None
        if package.unzipped_size > MAX_UNZIPPED_BYTES:
            raise invalid(f"Unzipped size must be smaller than {MAX_UNZIPPED_BYTES} bytes")
        return package

    def make(self, name: str, settings: FunctionSettings, package: Package, version: str = LATEST) -> Revision:
        """Make a version.

        Raises:
            ApiError: A layer does not exist, or all of it is too large.
        """
        layers = tuple(self.layers.by_arn(arn) for arn in settings.layers)
        unzipped = package.unzipped_size + sum(layer.package.unzipped_size for layer in layers)
        if unzipped > MAX_UNZIPPED_BYTES:
            raise invalid(
                f"Function code combined with layers exceeds the maximum allowed size of {MAX_UNZIPPED_BYTES} bytes. "
                f"The actual size is {unzipped} bytes."
            )

        def template() -> TemplateSettings:
            return self._template(name, settings, package, layers, version)

        pool = Pool(self.compute, name, version, settings.memory_mb, settings.timeout_s, template)
        return Revision(settings, package, layers, pool, version)

    def _template(
        self,
        name: str,
        settings: FunctionSettings,
        package: Package,
        layers: tuple[LayerVersion, ...],
        version: str,
    ) -> TemplateSettings:
        if settings.architecture != host_architecture():
            raise LocalCloudError(
                f"{name!r} is a function for {settings.architecture}, and this machine is {host_architecture()}: the "
                "local cloud keeps it and shows it, but only AWS can run it"
            )
        python_version = settings.runtime.removeprefix("python")
        python, runtime = link_runtime(python_version, self.directory / "runtime")
        try:
            code = unpack([package], self.directory / "code")
            opt = unpack([layer.package for layer in layers], self.directory / "opt")
        except BadPackageError as error:
            raise LocalCloudError(str(error)) from None
        # The order of sys.path is the one of AWS's managed runtimes.
        path = (
            code,
            opt / "python" / "lib" / f"python{python_version}" / "site-packages",
            opt / "python",
            runtime,
        )
        variables = {
            "PATH": f"{opt / 'bin'}:{os.defpath}",
            "LD_LIBRARY_PATH": ":".join(filter(None, [os.environ.get("LD_LIBRARY_PATH"), str(opt / "lib")])),
            "LANG": "C.UTF-8",
            "TZ": ":UTC",
            "TMPDIR": str(self.compute.scratch),
            "HOME": str(self.compute.scratch),
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{settings.runtime}",
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(settings.memory_mb),
            "AWS_LAMBDA_FUNCTION_VERSION": version,
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
            "LAMBDA_TASK_ROOT": str(code),
            "LAMBDA_RUNTIME_DIR": str(runtime),
            "_HANDLER": settings.handler,
            **self.variables,
            **settings.variables,
        }
        return TemplateSettings(
            python,
            settings.handler,
            code,
            tuple(map(str, path)),
            snapshotted(settings, version),
            variables,
        )


def _decoded(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Could not unzip uploaded file. Please check your file, then try to upload again.") from None
    if len(data) > _MAX_ZIP_BYTES:
        raise invalid(f"Zipped size must be smaller than {_MAX_ZIP_BYTES} bytes")
    return data
