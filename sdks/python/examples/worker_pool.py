"""Three workers share a mailbox; one job fails at first and comes again. `python worker_pool.py [URL]`."""

import asyncio
import sys

import mq9

JOBS = 12


async def worker(name: str, url: str, address: str, done: "asyncio.Queue[tuple[int, str]]") -> None:
    """Handles jobs until it is cancelled."""
    async with await mq9.connect(url, name=name) as client:

        async def handle(message: mq9.Message) -> None:
            number = int(message.text())
            if number == 5 and message.delivery_count == 1:
                raise RuntimeError("job 5 does not like to be first")
            await asyncio.sleep(0.01)
            await done.put((number, name))

        async def failed(error: Exception, message: mq9.Message | None) -> None:
            print(f"{name}: {error}")

        await client.consume(address, "workers", handle, deliver="earliest", concurrency=2, on_error=failed)


async def main(url: str = "nats://127.0.0.1:4222") -> None:
    """Sends jobs, lets the pool work, and shows who did what."""
    done: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
    async with await mq9.connect(url) as client:
        address = await client.mailbox_create(ttl=3600)
        for number in range(JOBS):
            await client.send(address, str(number), retry=True)
        pool = [asyncio.create_task(worker(f"worker-{n}", url, address, done)) for n in range(3)]
        results = [await done.get() for _ in range(JOBS)]
        for task in pool:
            task.cancel()
        await asyncio.gather(*pool, return_exceptions=True)
    print(f"jobs done: {sorted(number for number, _ in results)}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
