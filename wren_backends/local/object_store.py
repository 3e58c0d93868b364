"""The supervisor's own use of S3: packages that requests name, and records of events that failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .api_errors import invalid
from .signing import Signer

if TYPE_CHECKING:
    from obstore.store import S3Store


@dataclass
class ObjectStore:
    """Reads and writes objects as the account's root would."""

    endpoint_url: str
    signer: Signer
    _buckets: dict[str, S3Store] = field(default_factory=dict)

    async def get(self, bucket: str, key: str) -> bytes:
        """Read an object that a Lambda request names.

        Raises:
            ApiError: It cannot be read.
        """
        import obstore

        try:
            return bytes(await (await obstore.get_async(self._bucket(bucket), key)).bytes_async())
        except FileNotFoundError:
            text = "S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist."
        except obstore.exceptions.BaseError as error:
            text = f"S3 Error Code: InvalidRequest. S3 Error Message: {error}"
        raise invalid(f"Error occurred while GetObject. {text}")

    async def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object."""
        import obstore

        await obstore.put_async(self._bucket(bucket), key, data)

    def _bucket(self, name: str) -> S3Store:
        # Imported late, and not needed by most clouds at all.
        from obstore.store import S3Store

        if name not in self._buckets:
            self._buckets[name] = S3Store(
                name,
                endpoint=self.endpoint_url,
                region=self.signer.region,
                access_key_id=self.signer.access_key_id,
                secret_access_key=self.signer.secret_access_key,
                virtual_hosted_style_request=False,
                client_options={"allow_http": True},
            )
        return self._buckets[name]
