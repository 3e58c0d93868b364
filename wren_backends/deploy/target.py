"""What packages are made for: the Python and the processor that a Lambda function runs on, whatever this machine is."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Literal

from lambda_worker.protocol import python_version
from wren_backends.errors import DeploymentError

Architecture = Literal["x86_64", "arm64"]
"""Lambda's names of its processors."""

_ARCHITECTURES: dict[str, Architecture] = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
_MACHINES: dict[Architecture, str] = {"x86_64": "x86_64", "arm64": "aarch64"}
_OLDER = (3, 11)


@dataclass(frozen=True)
class Target:
    """One kind of execution environment.

    Attributes:
        python: The function's Python, (major, minor).
        architecture: Its processor, in Lambda's words.
    """

    python: tuple[int, int]
    architecture: Architecture

    @classmethod
    def here(cls) -> Target:
        """This interpreter's version and this machine's processor, whatever its operating system.

        Raises:
            DeploymentError: Lambda has no such processor.
        """
        found = _ARCHITECTURES.get(platform.machine().lower())
        if found is None:
            raise DeploymentError(
                f"this machine is a {platform.machine()}, which Lambda has not: say which of its processors the "
                "function is to have, x86_64 or arm64"
            )
        return cls(python_version(), found)

    @property
    def runtime(self) -> str:
        """Lambda's name of the Python, such as `python3.13`."""
        return f"python{self.python_text}"

    @property
    def python_text(self) -> str:
        """Such as `3.13`."""
        return "{}.{}".format(*self.python)

    @property
    def is_amazon_linux_2(self) -> bool:
        """Whether its system is that of Python 3.11 and before, with a C library too old for many wheels."""
        return self.python <= _OLDER

    @property
    def uv_platform(self) -> str:
        """The newest of uv's platforms whose wheels run there: a wheel needs the C library of its tag, or a newer one.

        Up to Python 3.11 Lambda runs Amazon Linux 2 with glibc 2.26, from 3.12 on Amazon Linux 2023 with glibc 2.34
        (AWS Lambda developer guide, "Lambda runtimes"). uv knows none between 2.17 and 2.28.
        """
        return f"{_MACHINES[self.architecture]}-manylinux_2_{'17' if self.is_amazon_linux_2 else '34'}"

    def __str__(self) -> str:
        system = "Amazon Linux 2, glibc 2.26" if self.is_amazon_linux_2 else "Amazon Linux 2023, glibc 2.34"
        return f"Lambda's Python {self.python_text} on {self.architecture} ({system})"
