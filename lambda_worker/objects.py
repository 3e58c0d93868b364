"""The one S3 data path, used by client and worker alike: objects below one prefix of one bucket, through obstore.

Foreign errors end here: a missing object is `MissingObjectError`, what S3 will not allow `DeniedError`, all else that
goes wrong is `ObjectStoreError`.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from lambda_worker.codec import verify
from lambda_worker.protocol import BlobRef, Bytes, ProtocolError

if TYPE_CHECKING:
    from obstore.store import ClientConfig
    from obstore.store import ObjectStore as AnyStore

T = TypeVar("T")

_PART_BYTES = 16 * 1024 * 1024
"""Size of a multipart upload's parts: 10,000 of them (S3's limit) hold 160 GB."""

_HEAD_FIRST_BYTES = 1024 * 1024
"""From this size on it pays to ask whether a blob is there before sending it."""

_FAREWELL_S = 5.0

RETRY_S = 20.0
"""How long a worker repeats a request that S3 did not answer: that is billed, but so is running calls anew."""

_DENIED = re.compile(r"status code: 4(?!08|09|29)\d\d(?!.*<Code>RequestTimeout</Code>)", re.DOTALL)
"""How obstore words a 4xx, for some of which it has no exception of their own (Amazon S3 API reference, "Error
responses": a RequestTimeout is a 400, and so is an ExpiredToken)."""

_BACKOFF_FIRST_S = 0.1
_BACKOFF_LAST_S = 3.0


class ObjectStoreError(Exception):
    """S3 refused a request or could not be reached."""


class DeniedError(ObjectStoreError):
    """S3 refused a request for good: to ask again is of no use."""


class MissingObjectError(ObjectStoreError):
    """There is no such object (or no such bucket)."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing says of an object.

    Attributes:
        key: Its key, below the store's prefix.
        size: Its length in bytes.
        modified: When it was last written, by the clock of S3, to the second.
    """

    key: str
    size: int
    modified: datetime


class ObjectStore:
    """Gets and puts objects below one prefix.

    The blocking methods are the worker's, those that end in `_async` the client's; both are free of the GIL while they
    wait.

    Args:
        store: Any obstore store; its root is the project's prefix.
        where: How messages name it, such as `s3://bucket/prefix`.
        retry_s: How long `create` tries again, in seconds; all else is the store's own business.

    Attributes:
        requests: Requests made so far by verb, not counting retries and multipart uploads' parts.
    """

    def __init__(self, store: AnyStore, where: str, *, retry_s: float = RETRY_S) -> None:
        self._store = store
        self._retry_s = retry_s
        self.where = where
        self.requests: Counter[str] = Counter()
        self._counting = threading.Lock()

    @classmethod
    def open_s3(
        cls,
        bucket: str,
        prefix: str,
        *,
        region: str,
        endpoint_url: str | None = None,
        credentials: Mapping[str, str] | None = None,
        credential_provider: Callable[[], Any] | None = None,
        retry_s: float = RETRY_S,
    ) -> ObjectStore:
        """Open a prefix of an S3 bucket. No request is made.

        Args:
            bucket: Its name.
            prefix: Key prefix, without slashes at its ends; may be empty.
            region: AWS region.
            endpoint_url: Another S3 than AWS's; plain HTTP is allowed there.
            credentials: `access_key_id`, `secret_access_key` and, if temporary, `token`. Without them and without a
                provider, obstore finds those of the environment (in Lambda: the role's).
            credential_provider: Called whenever credentials are needed; see `obstore.auth`.
            retry_s: How long a request is tried again that S3 refused (5xx) or that found no S3, in seconds.
        """
        if region.startswith("cn-"):  # obstore knows the addresses of AWS's other partitions only
            endpoint_url = endpoint_url or f"https://s3.{region}.amazonaws.com.cn"
        settings: dict[str, Any] = {"region": region, **(credentials or {})}
        if endpoint_url:
            settings |= {"endpoint": endpoint_url, "virtual_hosted_style_request": False}
        if credential_provider:
            settings["credential_provider"] = credential_provider
        store = S3Store(
            bucket,
            prefix=prefix or None,
            client_options={
                "allow_http": bool(endpoint_url),
                "connect_timeout": timedelta(seconds=5),
                "read_timeout": timedelta(seconds=60),  # for each read: a large object may take as long as it needs
                "timeout": timedelta(hours=1),
                **_proxy_options(endpoint_url),
            },
            retry_config=_retry_config(retry_s),  # type: ignore[arg-type]
            **settings,
        )
        return cls(store, f"s3://{bucket}/{prefix}".rstrip("/"), retry_s=retry_s)

    def get(self, key: str) -> memoryview:
        """Content of an object; raises MissingObjectError, ObjectStoreError."""
        with self._errors("GET", key):
            try:
                return memoryview(obstore.get(self._store, key).bytes())
            except PermissionDeniedError:
                self._check_it_exists(key)
            return memoryview(obstore.get(self._store, key).bytes())

    async def get_async(self, key: str) -> memoryview:
        """Content of an object; raises MissingObjectError, ObjectStoreError."""
        with self._errors("GET", key):
            try:
                return memoryview(await _settled((await _settled(obstore.get_async(self._store, key))).bytes_async()))
            except PermissionDeniedError:
                await self._check_it_exists_async(key)
            return memoryview(await _settled((await _settled(obstore.get_async(self._store, key))).bytes_async()))

    async def get_small_async(self, key: str, limit_bytes: int) -> tuple[memoryview, ObjectInfo]:
        """Content of an object that somebody else may have written, with what a listing would say of it.

        Args:
            key: Its key.
            limit_bytes: One that is larger is not read.

        Raises:
            ProtocolError: It is larger.
            MissingObjectError: There is none.
            ObjectStoreError: S3 did not answer.
        """
        with self._errors("GET", key):
            response = await _settled(obstore.get_async(self._store, key))
            info = ObjectInfo(key, response.meta["size"], response.meta["last_modified"])
            if info.size > limit_bytes:
                raise ProtocolError(f"{self.where}/{key} has {info.size} bytes, more than the {limit_bytes} allowed")
            return memoryview(await _settled(response.bytes_async())), info

    def create(self, key: str, data: bytes) -> bool:
        """Put an object unless there is one (`If-None-Match: *`); returns whether this call is known to have made it.

        obstore does not repeat a conditional PUT whose connection broke, because it cannot know whether the first one
        went through. Here it may have: whoever gets False reads what stands there, were it their own.
        """
        begun, wait_s = time.monotonic(), _BACKOFF_FIRST_S
        while True:
            with self._errors("PUT", key):
                try:
                    obstore.put(self._store, key, data, mode="create", use_multipart=False)
                except AlreadyExistsError as error:
                    # Another PUT was under way; S3 does not say how it ended (Amazon S3 user guide, "Conditional
                    # writes": 409, to be tried again).
                    if "ConditionalRequestConflict" not in str(error) or self._is_late(begun):
                        return False
                except GenericError as error:
                    if _is_denied(error) or self._is_late(begun):
                        raise
                else:
                    return True
            time.sleep(random.uniform(0, wait_s))
            wait_s = min(2 * wait_s, _BACKOFF_LAST_S)

    def _is_late(self, begun: float) -> bool:
        return time.monotonic() - begun >= self._retry_s

    async def put_async(self, key: str, data: bytes) -> None:
        """Put a small object, in place of what is there; raises ObjectStoreError."""
        with self._errors("PUT", key):
            await _settled(obstore.put_async(self._store, key, data, use_multipart=False))

    def get_blob(self, ref: BlobRef) -> memoryview:
        """Content of a blob, authenticated.

        Raises:
            TamperedError: It is not what its name says.
            MissingObjectError: It is gone.
            ObjectStoreError: S3 did not answer.
        """
        data = self.get(ref.key)
        verify(ref, data)
        return data

    async def get_blob_async(self, ref: BlobRef) -> memoryview:
        """Content of a blob, authenticated; raises as `get_blob` does."""
        data = await self.get_async(ref.key)
        verify(ref, data)
        return data

    def put_blob(self, ref: BlobRef, data: Bytes) -> None:
        """Put a blob. Writing it twice does no harm, since its name is its content."""
        with self._errors("PUT", ref.key):
            obstore.put(self._store, ref.key, data, chunk_size=_PART_BYTES)

    async def put_blob_async(self, ref: BlobRef, data: Bytes, *, overwrite: bool = False) -> bool:
        """Put a blob unless it is large and already there; returns whether it was sent.

        Args:
            ref: Its name.
            data: Its content.
            overwrite: Send it in any case, since what is there is known to be wrong.
        """
        if not overwrite and ref.size >= _HEAD_FIRST_BYTES and await self._has_async(ref):
            return False
        with self._errors("PUT", ref.key):
            await _settled(obstore.put_async(self._store, ref.key, data, chunk_size=_PART_BYTES))
        return True

    async def has_async(self, ref: BlobRef) -> bool:
        """Whether a blob is there, as far as its size tells; raises ObjectStoreError."""
        return await self._has_async(ref)

    async def _has_async(self, ref: BlobRef) -> bool:
        with self._errors("HEAD", ref.key):
            try:
                found = await _settled(obstore.head_async(self._store, ref.key))
            except (FileNotFoundError, PermissionDeniedError):  # refused: it may be missing, see below, and is sent
                return False
        return bool(found["size"] == ref.size)

    # AWS answers 403 and not 404 for a missing object to whoever may not list the whole bucket (S3 API reference,
    # GetObject, "Permissions"). A listing of its folder tells what is missing from what is forbidden; an object that
    # is listed is asked for once more, because it may have come in between.

    def _check_it_exists(self, key: str) -> None:
        """Raise FileNotFoundError if a refused object is not there at all."""
        self.requests["LIST"] += 1
        pages = obstore.list(self._store, _folder(key), offset=key[:-1])
        _check_found(next((one["path"] for page in pages for one in page if one["path"] >= key), None), key)

    async def _check_it_exists_async(self, key: str) -> None:
        self.requests["LIST"] += 1
        stream = obstore.list(self._store, _folder(key), offset=key[:-1])
        while (page := await _next_page(stream)) is not None:
            for one in page:
                if one["path"] >= key:
                    return _check_found(one["path"], key)
        _check_found(None, key)

    async def list_async(self, prefix: str, start_after: str | None = None) -> AsyncIterator[str]:
        """Keys below `prefix` in order, from the first after `start_after` on."""
        async for one in self.list_info_async(prefix, start_after):
            yield one.key

    async def list_info_async(self, prefix: str, start_after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """As `list_async`, with sizes and times."""
        with self._errors("LIST", prefix):
            stream = obstore.list(self._store, prefix, offset=start_after, chunk_size=1000)
            while (page := await _next_page(stream)) is not None:
                for one in page:
                    yield ObjectInfo(one["path"], one["size"], one["last_modified"])

    async def delete_async(self, keys: list[str]) -> None:
        """Delete objects; those that are gone already are no error."""
        with self._errors("DELETE", keys[0] if keys else ""):
            await _settled(obstore.delete_async(self._store, keys))

    @contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        with self._counting:  # a worker has several threads that fetch and put
            self.requests[verb] += 1
        _check_the_process(f"{verb} {self.where}/{key}")
        try:
            yield
        except FileNotFoundError as error:
            raise MissingObjectError(f"{verb} {self.where}/{key}: not found ({_first_line(error)})") from None
        except (BaseError, OSError) as error:
            kind = DeniedError if _is_denied(error) else ObjectStoreError
            raise kind(f"{verb} {self.where}/{key} failed: {_first_line(error)}") from error


_process_id = os.getpid  # calls may replace it in its module
_used_by: int | None = None
"""The process that obstore was first used in."""


def _check_the_process(what: str) -> None:
    """Refuse what would never return: obstore's threads (tokio's) do not live on in a forked child (obstore 0.12.1)."""
    global _used_by  # noqa: PLW0603  the threads are the process's, too
    if _used_by is None:
        _used_by = _process_id()
    elif _used_by != _process_id():
        raise DeniedError(
            f"{what}: this process was forked from one that had used S3, and cannot use it itself. Start processes "
            'with multiprocessing\'s "spawn" or "forkserver", or fork before the first use'
        )


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def _check_found(found: str | None, key: str) -> None:
    if found != key:
        raise FileNotFoundError("S3 refused it, and does not list it either")


def _proxy_options(endpoint_url: str | None) -> ClientConfig:
    """What the environment says of proxies is meant for the world, not for this machine.

    obstore has no option to leave it unread, but naming a proxy does that, and then nothing need go by way of it.
    """
    host = urlsplit(endpoint_url).hostname if endpoint_url else None
    if endpoint_url and host in ("127.0.0.1", "localhost"):
        return {"proxy_url": endpoint_url, "proxy_excludes": host}
    return {}


def _retry_config(retry_s: float) -> dict[str, Any]:
    """As long as there is time; waits are drawn between the first one and three times the last one."""
    backoff = {
        "init_backoff": timedelta(seconds=_BACKOFF_FIRST_S),
        "max_backoff": timedelta(seconds=_BACKOFF_LAST_S),
        "base": 3,
    }
    return {"max_retries": 10_000, "retry_timeout": timedelta(seconds=retry_s), "backoff": backoff}


def _is_denied(error: BaseException) -> bool:
    known = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    return known or _DENIED.search(_first_line(error)) is not None


async def _next_page(stream: Any) -> Any:
    """The next page of a listing, None after the last."""
    try:
        return await _settled(stream.__anext__())
    except StopAsyncIteration:
        return None


async def _settled(operation: Awaitable[T]) -> T:
    """Result of an operation of obstore, which is not left alone when it is cancelled.

    One that is under way when its event loop ends, and the interpreter with it, can take the process down, and so can a
    listing that is dropped (obstore 0.12.1). So a cancellation waits for the operation, and so does the next one, which
    a loop sends to all that is left when it ends; if S3 does not answer soon, the operation goes on by itself.
    """
    under_way = asyncio.ensure_future(operation)
    try:
        return await asyncio.shield(under_way)
    except asyncio.CancelledError:
        under_way.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody else will ask for it
        loop = asyncio.get_running_loop()
        end = loop.time() + _FAREWELL_S
        while not under_way.done() and loop.time() < end:
            with suppress(asyncio.CancelledError):
                await asyncio.wait([under_way], timeout=end - loop.time())
        raise


def _first_line(error: BaseException) -> str:
    return str(error).split("\n\nDebug source", 1)[0].strip()
