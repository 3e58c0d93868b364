"""Prints what the local cloud costs: ``python tests/local/measure.py [--environments N]``.

Not a test: its figures depend on the machine. The client is a raw aiohttp one, signing with botocore.
"""

import argparse
import asyncio
import io
import statistics
import sys
import time
import zipfile

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from wren_backends.local.cloud import start_private, stop_private

SOURCE = "import time\ndef handler(event, context):\n    time.sleep(event.get('s', 0))\n    return event\n"


class Client:
    """Signs and sends Lambda requests."""

    def __init__(self, cloud, session):
        self.cloud, self.session = cloud, session
        self.auth = SigV4Auth(Credentials(cloud.access_key_id, cloud.secret_access_key), "lambda", cloud.region)

    async def post(self, path, body):
        url = self.cloud.lambda_endpoint_url + path
        request = AWSRequest("POST", url, data=body)
        self.auth.add_auth(request)
        async with self.session.post(url, data=body, headers=dict(request.headers)) as answer:
            content = await answer.read()
            assert answer.status < 300, content
            assert "X-Amz-Function-Error" not in answer.headers, content
            return content

    async def invoke(self, body=b"{}"):
        began = time.perf_counter()
        await self.post("/2015-03-31/functions/f/invocations", body)
        return (time.perf_counter() - began) * 1000


async def measure(cloud, environments):
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        client = Client(cloud, session)
        await create(client)
        print(f"first cold start (with template)  {await client.invoke():8.1f} ms")
        cold = []
        busy = [asyncio.create_task(client.invoke(b'{"s": 2}'))]
        for _ in range(10):
            await asyncio.sleep(0.1)
            began = time.perf_counter()
            busy.append(asyncio.create_task(client.invoke(b'{"s": 2}')))
            while cloud_stat(cloud, "cold_starts") < len(busy):
                await asyncio.sleep(0.001)
            cold.append((time.perf_counter() - began) * 1000)
        await asyncio.gather(*busy)
        print(f"cold start by fork, median        {statistics.median(cold):8.1f} ms")
        warm = sorted([await client.invoke() for _ in range(2000)])
        print(f"warm invoke, one after another    {warm[1000]:8.2f} ms p50, {warm[1980]:.2f} ms p99")
        for concurrency in (2, 16, 64):
            began, count = time.perf_counter(), 6000

            async def worker(calls):
                for _ in range(calls):
                    await client.invoke()

            await asyncio.gather(*(worker(count // concurrency) for _ in range(concurrency)))
            print(f"invocations/s, {concurrency:3d} at once       {count / (time.perf_counter() - began):8.0f}")
        began = time.perf_counter()
        await asyncio.gather(*(client.invoke(b'{"s": 3}') for _ in range(environments)))
        print(f"{environments} at once, 3 s each             {time.perf_counter() - began:8.1f} s")
        print(cloud.stats())


def cloud_stat(cloud, name):
    return cloud.stats()["lambda"][name]


async def create(client):
    import base64
    import json

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m.py", SOURCE)
    body = {
        "FunctionName": "f",
        "Runtime": f"python{sys.version_info.major}.{sys.version_info.minor}",
        "Role": "arn:aws:iam::123456789012:role/r",
        "Handler": "m.handler",
        "Timeout": 60,
        "Code": {"ZipFile": base64.b64encode(buffer.getvalue()).decode()},
    }
    await client.post("/2015-03-31/functions", json.dumps(body).encode())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--environments", type=int, default=300)
    arguments = parser.parse_args()
    ready = []
    for _ in range(5):
        began = time.perf_counter()
        cloud = start_private()
        ready.append(time.perf_counter() - began)
        if len(ready) < 5:
            stop_private()
    print(f"ready, median of 5                {statistics.median(ready):8.2f} s")
    asyncio.run(measure(cloud, arguments.environments))
    stop_private()


if __name__ == "__main__":
    main()
