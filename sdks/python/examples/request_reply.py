"""A question and its answer, each in a mailbox: nobody has to be online. `python request_reply.py [URL]`."""

import asyncio
import sys
import uuid

import mq9


async def serve(client: mq9.Client, address: str) -> None:
    """Answers each question in the mailbox that it names."""
    async for question in client.consume(address, "servers", deliver="earliest"):
        if question.reply_to is not None:
            answer = question.text().upper()
            await client.send(question.reply_to, answer, correlation_id=question.correlation_id or "")


async def ask(client: mq9.Client, address: str, text: str) -> str:
    """Sends a question and waits for the answer that belongs to it."""
    inbox = await client.mailbox_create(ttl=600)
    correlation_id = uuid.uuid4().hex
    await client.send(address, text, reply_to=inbox, correlation_id=correlation_id, retry=True)
    async for answer in client.consume(inbox, "me", deliver="earliest"):
        if answer.correlation_id == correlation_id:
            await answer.ack()
            return answer.text()
    raise RuntimeError("the client was closed")


async def main(url: str = "nats://127.0.0.1:4222") -> None:
    """Asks before anybody is there to answer."""
    async with await mq9.connect(url) as client, await mq9.connect(url) as server:
        address = await client.mailbox_create(ttl=3600)
        asking = asyncio.create_task(ask(client, address, "how are you?"))
        await asyncio.sleep(0.1)
        serving = asyncio.create_task(serve(server, address))
        print(f"answer: {await asking}")
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
