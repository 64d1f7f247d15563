/** The client against the reference broker. */
import { expect, onTestFinished, test } from "vitest";
import { connect } from "../src/client.js";
import type { Client, ConnectOptions } from "../src/client.js";
import { setLogger } from "../src/log.js";
import { deferred, pause } from "../src/timing.js";
import { Broker, failure, until } from "./support.js";

setLogger(undefined);

async function start(options: Parameters<typeof Broker.start>[0] = {}): Promise<Broker> {
  const broker = await Broker.start(options);
  onTestFinished(() => broker.stop());
  return broker;
}

async function client(broker: Broker, options: ConnectOptions = {}): Promise<Client> {
  const made = await connect(broker.url, {
    reconnectWaitMs: 20,
    reconnectWaitMaxMs: 100,
    ...options,
  });
  onTestFinished(() => made.close());
  return made;
}

test("every operation once", async () => {
  const one = await client(await start());
  const address = await one.mailboxCreate({ ttl: 60, desc: "Grüße", maxDeliveries: 3 });
  expect(
    await one.send(address, "x", {
      priority: "urgent",
      tags: ["a", "b"],
      key: "k",
      headers: { "X-Y": "z" },
    }),
  ).toBe(0n);
  expect(await one.send(address, { n: 2n ** 60n }, { delay: 60 })).toBe(-1n);
  expect(await one.send(address, "y", { replyTo: "me", correlationId: "c", ttl: 30 })).toBe(1n);
  const { messages, leaseId } = await one.fetch(address, {
    groupName: "g",
    deliver: "earliest",
    leaseMs: 60_000,
  });
  expect(messages.map((message) => [message.msgId, message.text(), message.priority])).toEqual([
    [0n, "x", "urgent"],
    [1n, "y", "normal"],
  ]);
  expect(messages[0]).toMatchObject({
    key: "k",
    tags: ["a", "b"],
    headers: { "X-Y": ["z"] },
    deliveryCount: 1n,
  });
  expect([messages[1]?.replyTo, messages[1]?.correlationId]).toEqual(["me", "c"]);
  expect(await one.renew(address, "g", [0, 1n, 5], 60_000, { leaseId })).toEqual([0n, 1n]);
  await one.nack(address, "g", [0], { leaseId });
  await one.ack(address, "g", 1);
  const info = await one.mailboxInfo(address);
  expect(info).toMatchObject({
    mailAddress: address,
    desc: "Grüße",
    ttl: 60n,
    maxDeliveries: 3n,
    delayed: 1n,
  });
  expect(info.groups).toEqual([{ groupName: "g", pending: 1n, leased: 0n }]);
  expect(
    (await one.query(address, { tags: ["a"], limit: 5 })).map((message) => message.msgId),
  ).toEqual([0n]);
  expect(await one.delete(address, 0)).toBe(true);
  expect((await failure(one.delete(address, 0n))).code).toBe("message_not_found");
  expect(await one.mailboxDelete(address)).toBe(true);
  const error = await failure(one.send(address, "x"));
  expect([error.kind, error.code, error.operation]).toEqual([
    "server",
    "mailbox_not_found",
    "msg.send",
  ]);
});

test("the registry keeps cards as they are", async () => {
  const one = await client(await start());
  const card = {
    description: "Translates 世界",
    big: 9007199254740993n,
    none: null,
    list: [1, 2.5],
  };
  await one.agentRegister("translator", { mailbox: "t.in", card, ttl: 60 });
  await one.agentReport("translator", { status: { jobs: 9007199254740993n } });
  const found = await one.agentDiscover("translates");
  expect(found.agents).toEqual([{ name: "translator", mailbox: "t.in", ttl: 60, ...card }]);
  expect(found.meta?.[0]?.status).toEqual({ jobs: 9007199254740993n });
  await one.agentUnregister({ mailbox: "t.in" });
  expect((await one.agentDiscover()).agents).toEqual([]);
});

test("payloads come back bit for bit, up to 1 MiB and not one byte more", async () => {
  const one = await client(await start());
  const address = await one.mailboxCreate();
  const large = Uint8Array.from({ length: 1024 * 1024 - 64 }, (_, index) => (index * 31) & 0xff);
  const payloads = [new Uint8Array(0), Uint8Array.of(0, 255, 254, 128), large];
  for (const payload of payloads) await one.send(address, payload, { key: "" });
  const error = await failure(one.send(address, new Uint8Array(1024 * 1024 + 1)));
  expect([error.kind, error.code, error.field]).toEqual([
    "invalid_argument",
    "payload_too_large",
    "payload",
  ]);
  await one.send(address, new Uint8Array(1024 * 1024).fill(7));
  let from = 0n;
  const seen: Uint8Array[] = [];
  for (;;) {
    const found = await one.query(address, { fromId: from });
    if (found.length === 0) break;
    seen.push(...found.map((message) => message.payload));
    from = (found.at(-1)?.msgId ?? 0n) + 1n;
  }
  expect(seen.map((payload) => payload.length)).toEqual([0, 4, large.length, 1024 * 1024]);
  expect(Buffer.compare(seen[2] ?? large.subarray(1), large)).toBe(0);
  expect(seen[1]).toEqual(payloads[1]);
  expect(seen[1]?.constructor).toBe(Uint8Array);
});

test("ten thousand messages in order", async () => {
  const one = await client(await start());
  const address = await one.mailboxCreate();
  const count = 10_000;
  for (let begin = 0; begin < count; begin += 500) {
    const sends = Array.from({ length: 500 }, (_, index) =>
      one.send(address, String(begin + index)),
    );
    expect((await Promise.all(sends)).at(-1)).toBe(BigInt(begin + 499));
  }
  let next = 0;
  for await (const message of one.consume(address, "g", {
    deliver: "earliest",
    numMsgs: 1000,
    autoAck: false,
  })) {
    expect(message.text()).toBe(String(next++));
    if (next % 1000 === 0) {
      const ids = Array.from({ length: 1000 }, (_, index) => next - 1000 + index);
      await one.ack(address, "g", { msgIds: ids });
    }
    if (next === count) break;
  }
  expect((await one.mailboxInfo(address)).groups).toMatchObject([{ pending: 0n, leased: 0n }]);
});

test("a failed message comes again after its delay", async () => {
  const broker = await start({ clock: true });
  const one = await client(broker);
  const address = await one.mailboxCreate();
  await one.send(address, "x");
  const counts: unknown[] = [];
  const consumer = one.consume(
    address,
    "g",
    (message) => {
      counts.push(message.deliveryCount);
      if (counts.length < 3) throw new Error("not yet");
    },
    { deliver: "earliest", onError: () => undefined },
  );
  for (const wait of [1000, 2000]) {
    const seen = counts.length;
    await until(() => counts.length > seen || counts.length > 0);
    await until(
      async () =>
        (await one.mailboxInfo(address)).groups[0]?.pending === 1n || consumer.stats.givenBack > 0,
    );
    await until(() => consumer.stats.givenBack === (wait === 1000 ? 1 : 2));
    await broker.advance(wait);
  }
  await until(() => consumer.stats.acknowledged === 1);
  await consumer.stop();
  expect(counts).toEqual([1n, 2n, 3n]);
});

test("a slow handler keeps its message, and two workers never share one", async () => {
  const broker = await start();
  const one = await client(broker);
  const address = await one.mailboxCreate();
  await one.send(address, "slow");
  const seen: string[] = [];
  const gate = deferred();
  const handle = (message: { text(): string }): Promise<void> | undefined => {
    seen.push(message.text());
    return message.text() === "slow" ? gate.promise : undefined;
  };
  const options = { deliver: "earliest", leaseMs: 300, numMsgs: 1 } as const;
  const first = one.consume(address, "g", handle, options);
  await until(() => seen.length === 1);
  const second = (await client(broker)).consume(address, "g", handle, options);
  await pause(1000);
  for (let index = 0; index < 20; index++) await one.send(address, String(index));
  await until(() => second.stats.acknowledged === 20);
  gate.resolve();
  await until(() => first.stats.acknowledged === 1);
  await Promise.all([first.stop(), second.stop()]);
  expect(seen).toHaveLength(21);
  expect(new Set(seen).size).toBe(21);
});

test("stop and cancel during a waiting FETCH leave no message leased to nobody", async () => {
  const one = await client(await start());
  const address = await one.mailboxCreate();
  const consumer = one.consume(address, "g", () => undefined, { deliver: "earliest" });
  await until(async () => (await one.mailboxInfo(address)).groups.length === 1);
  await consumer.stop();
  const cancel = new AbortController();
  const call = one.fetch(address, {
    groupName: "g",
    leaseMs: 600_000,
    maxWaitMs: 60_000,
    signal: cancel.signal,
  });
  call.catch(() => undefined);
  await one.mailboxInfo(address);
  cancel.abort();
  await one.send(address, "x");
  await one.send(address, "y");
  await until(async () => (await one.mailboxInfo(address)).groups[0]?.pending === 2n);
});

test("a FETCH that is cancelled at any moment loses nothing", async () => {
  const one = await client(await start());
  const address = await one.mailboxCreate();
  const group = { groupName: "g", deliver: "earliest", leaseMs: 600_000 };
  await one.fetch(address, { ...group, maxWaitMs: 0 });
  await one.send(address, "x");
  for (let round = 0; round < 50; round++) {
    const cancel = new AbortController();
    setTimeout(() => {
      cancel.abort();
    }, Math.random() * 4);
    const result = await one
      .fetch(address, { ...group, maxWaitMs: 1000, signal: cancel.signal })
      .catch(() => undefined);
    if (result?.leaseId !== undefined) {
      await one.nack(address, "g", [0], { leaseId: result.leaseId });
    }
    await until(async () => (await one.mailboxInfo(address)).groups[0]?.pending === 1n);
  }
});

test("a restart of the broker during consume", async () => {
  const first = await Broker.start();
  const one = await client(first);
  await one.mailboxCreate("a.b");
  const seen: string[] = [];
  let errors = 0;
  const consumer = one.consume("a.b", "g", (message) => seen.push(message.text()), {
    deliver: "earliest",
    onError: () => (errors += 1),
  });
  await one.send("a.b", "before");
  await until(() => consumer.stats.acknowledged === 1);
  await first.stop("SIGKILL");
  await start({ port: first.port });
  await one.mailboxCreate("a.b", { timeoutMs: 30_000 });
  await until(async () => (await one.mailboxInfo("a.b")).groups.length === 1);
  await one.send("a.b", "after");
  await until(() => seen.includes("after"));
  await consumer.stop();
  expect(errors).toBeGreaterThan(0);
});

test("a wait longer than the timeout is no timeout, and holds nothing up", async () => {
  const one = await client(await start(), { timeoutMs: 2000 });
  const address = await one.mailboxCreate();
  const waiting = one.fetch(address, { maxWaitMs: 2500 });
  await one.mailboxInfo(address);
  expect((await waiting).messages).toEqual([]);
});
