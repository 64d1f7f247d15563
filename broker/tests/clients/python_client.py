"""nats-py, as the matrix calls it."""

import asyncio
import os
import ssl

import nats


async def main() -> None:
    env = os.environ.get
    options: dict[str, object] = {"allow_reconnect": False, "connect_timeout": 10}
    for name, variable in (
        ("token", "MQ9_TOKEN"),
        ("user", "MQ9_USER"),
        ("password", "MQ9_PASSWORD"),
        ("nkeys_seed", "MQ9_NKEY"),
        ("user_credentials", "MQ9_CREDS"),
    ):
        if env(variable):
            options[name] = env(variable)
    if env("MQ9_CA"):
        context = ssl.create_default_context(cafile=env("MQ9_CA"))
        if env("MQ9_CERT"):
            context.load_cert_chain(env("MQ9_CERT", ""), env("MQ9_KEY"))
        options["tls"] = context
        options["tls_handshake_first"] = bool(env("MQ9_TLS_FIRST"))
    client = await nats.connect(env("MQ9_URL", ""), **options)  # type: ignore[arg-type]
    reply = await client.request("$mq9.AI.MAILBOX.CREATE", b"{}", timeout=10)
    print(reply.data.decode())  # noqa: T201
    await client.close()


asyncio.run(main())
