"""What is cancelled half-way takes nothing with it."""

import asyncio
import contextlib
import socketserver
import threading

import pytest

from lambda_worker.objects import ObjectStore
from wren_backends.gather import gather_some

EMPTY = b'<?xml version="1.0"?><ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>'
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\ncontent-length: %d\r\n\r\n%s" % (len(EMPTY), EMPTY)


async def listing(store):
    return [key async for key in store.list_async("jobs/")]


def test_a_cancelled_listing_ends_with_the_request_that_is_under_way():
    """Dropping the request earlier has killed the process (obstore 0.12.1)."""

    async def main():
        asked, may_answer = asyncio.Event(), asyncio.Event()

        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await may_answer.wait()
            writer.write(REPLY)
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            credentials = {"access_key_id": "a", "secret_access_key": "b"}
            url = f"http://{host}:{port}"
            store = ObjectStore.open_s3("b", "", region="r", endpoint_url=url, credentials=credentials)
            task = asyncio.create_task(listing(store))
            await asyncio.wait_for(asked.wait(), 20)
            task.cancel()
            for _ in range(100):
                await asyncio.sleep(0)  # one turn of the event loop
            assert not task.done()
            may_answer.set()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 20)

    asyncio.run(main())


class Held(socketserver.ThreadingTCPServer):
    """Answers no request before it may, from threads that outlive the client's event loop."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), HeldRequest)
        self.asked, self.may_answer = threading.Semaphore(0), threading.Event()


class HeldRequest(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline() not in (b"\r\n", b""):
            pass
        self.server.asked.release()
        self.server.may_answer.wait(20)
        self.wfile.write(REPLY)


@pytest.fixture
def held():
    with Held() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.may_answer.set()
        server.shutdown()
        thread.join()


def test_reads_side_by_side_end_before_their_event_loop_does(held, capfd):
    """Else obstore tells a loop that is closed, and an interpreter that may have ended."""
    host, port = held.server_address
    credentials = {"access_key_id": "a", "secret_access_key": "b"}
    store = ObjectStore.open_s3("b", "", region="r", endpoint_url=f"http://{host}:{port}", credentials=credentials)
    ended = []

    async def read(key):
        try:
            await store.get_async(key)
        finally:
            ended.append(key)

    async def main():
        reading = asyncio.ensure_future(gather_some(read, ["a", "b", "c"]))
        for _ in range(3):
            await asyncio.to_thread(held.asked.acquire, timeout=20)
        reading.cancel()
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(reading.cancel)  # and again, as the end of a loop does
        asyncio.get_running_loop().call_later(0.1, held.may_answer.set)
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        assert held.may_answer.is_set()
        assert sorted(ended) == ["a", "b", "c"]

    asyncio.run(main())
    assert capfd.readouterr().err == ""


CYCLES = """
    from wren_backends import WrenExecutor

    with WrenExecutor(2, mode="s3") as executor:
        executor.submit(pow, 2, 3)
    for _ in range(100):
        with WrenExecutor.attach(executor.job_id) as job:
            assert job.results() == {0: 8}
    print("alive")
"""


def test_a_process_that_often_stops_looking_lives_on(run_script):
    """Each time it closes a job while a listing of failures is under way."""
    done = run_script(CYCLES)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")
