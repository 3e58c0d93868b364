"""An S3 server that runs on this machine already, in SeaweedFS's place: `CloudOptions.s3_port`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass

from .errors import LocalCloudError
from .options import BUCKET
from .weed import Weed

_ANSWER_LIMIT_S = 30.0
_MINE_ALREADY, _MADE = 409, 200


def keys() -> tuple[str, str]:
    """The access key and the secret that the server knows; the local cloud takes them for all of its services.

    Raises:
        LocalCloudError: They are not in the environment.
    """
    try:
        return os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    except KeyError as error:
        raise LocalCloudError(f"An S3 server of your own needs its keys: set {error.args[0]}") from None


@dataclass
class OtherS3(Weed):
    """Has what the supervisor asks of `Weed`, but starts and ends nothing. It does not count requests."""

    def launch(self) -> None:
        """It runs already."""

    async def wait_ready(self) -> None:
        """Wait until it answers, and make the bucket.

        Raises:
            LocalCloudError: It does not answer, or refuses the bucket.
        """
        status = 0
        deadline = asyncio.get_running_loop().time() + _ANSWER_LIMIT_S
        while asyncio.get_running_loop().time() < deadline and status not in (_MADE, _MINE_ALREADY):
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                status = await self._request("PUT", f"/{BUCKET}", b"")
                if 400 <= status < 500 and status != _MINE_ALREADY:
                    break
            await asyncio.sleep(0.05)
        if status not in (_MADE, _MINE_ALREADY):
            said = f"answers {status} to PUT /{BUCKET}" if status else f"did not answer in {_ANSWER_LIMIT_S:.0f} s"
            raise LocalCloudError(f"The S3 server at 127.0.0.1:{self.port} {said}: check its port and its keys")

    @property
    def running(self) -> bool:
        """Whoever started it looks after it."""
        return True

    async def stats(self) -> dict[str, int]:
        """Nothing is known of its requests."""
        return {}

    def stop(self) -> None:
        """It is not ours to end."""
