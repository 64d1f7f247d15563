/** Consumers on a scripted mailbox. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Consumer } from "../src/consumer.js";
import { nackDelayMs } from "../src/consumer.js";
import { Mq9Error } from "../src/error.js";
import type { Message } from "../src/generated/models.js";
import { setLogger } from "../src/log.js";
import { deferred, pause } from "../src/timing.js";
import { FakeMailbox, fake, status, until } from "./support.js";
import type { Sent } from "./support.js";

const logged: string[] = [];

beforeEach(() => {
  logged.length = 0;
  setLogger({
    debug: () => undefined,
    info: () => undefined,
    warn: (...data) => logged.push(data.map(String).join(" ")),
  });
});

afterEach(() => {
  vi.useRealTimers();
});

function ids(messages: readonly Message[]): number[] {
  return messages.map((message) => Number(message.msgId));
}

function fetchBody(sent: Sent | undefined): Record<string, unknown> {
  return sent?.json ?? {};
}

test("the handler gets every message in order, and each is acknowledged alone", async () => {
  const mailbox = new FakeMailbox(25);
  const { client, carrier } = fake(mailbox.answer);
  const seen: Message[] = [];
  const consumer = client.consume("a.b", "g", (message) => seen.push(message));
  await until(() => mailbox.confirmed.size === 25);
  await consumer.stop();
  await consumer.done;
  expect(ids(seen)).toEqual(mailbox.messages);
  expect(carrier.of("msg.ack").map((sent) => sent.json["msg_id"])).toEqual(mailbox.messages);
  expect(fetchBody(carrier.of("msg.fetch")[0])).toEqual({
    group_name: "g",
    config: { num_msgs: 10, max_wait_ms: 5000, lease_ms: 30000 },
  });
  expect(consumer.stats).toMatchObject({ delivered: 25, acknowledged: 25, failed: 0 });
  expect(consumer.isRunning).toBe(false);
});

test("arguments are checked before anything is sent", () => {
  const { client, carrier } = fake();
  const wrong = [
    () => client.consume("a.b", ""),
    () => client.consume("A", "g"),
    () => client.consume("a.b", "g", { numMsgs: 0 }),
    () => client.consume("a.b", "g", { concurrency: 1001 }),
    () => client.consume("a.b", "g", { leaseMs: 0 }),
    () => client.consume("a.b", "g", { deliver: "from_id" }),
    () => client.consume("a.b", "g", { timeoutMs: 0 }),
    () => client.consume("a.b", "g", "x" as unknown as () => void),
  ];
  const fields = wrong.map((make) => {
    try {
      make();
    } catch (error) {
      return (error as Mq9Error).field;
    }
    return "nothing";
  });
  expect(fields).toEqual([
    "group_name",
    "mail_address",
    "num_msgs",
    "concurrency",
    "lease_ms",
    "from_id",
    "timeout",
    "handler",
  ]);
  expect(carrier.requests).toEqual([]);
});

test("a failed message is given back after the error hook and comes again", async () => {
  const mailbox = new FakeMailbox(5);
  const { client, carrier } = fake(mailbox.answer);
  const told: unknown[] = [];
  const consumer = client.consume(
    "a.b",
    "g",
    (message) => {
      if (message.msgId === 3n && message.deliveryCount === 1n) throw new Error("not yet");
    },
    {
      onError: (error, message) => {
        told.push((error as Error).message, message?.msgId, carrier.of("msg.nack").length);
        throw new Error("the hook fails too");
      },
    },
  );
  await until(() => mailbox.confirmed.size === 5);
  await consumer.stop();
  expect(told).toEqual(["not yet", 3n, 0]);
  expect(carrier.of("msg.nack").map((sent) => sent.json)).toEqual([
    { group_name: "g", mail_address: "a.b", msg_ids: [3], lease_id: "L1", delay_ms: 1000 },
  ]);
  expect(logged).toEqual([expect.stringContaining("the error hook failed")]);
});

test("the delay of a NACK doubles up to a minute", () => {
  expect([0n, 1n, 2n, 3n, 6n, 7n, 100n, 2n ** 62n].map(nackDelayMs)).toEqual([
    1000, 1000, 2000, 4000, 32_000, 60_000, 60_000, 60_000,
  ]);
});

test("an ACK that fails is reported once, and the message is not lost", async () => {
  const mailbox = new FakeMailbox(1);
  mailbox.fail("msg.ack", { error: "no", code: "internal" });
  const { client } = fake(mailbox.answer);
  const told: unknown[] = [];
  const consumer = client.consume("a.b", "g", () => undefined, {
    onError: (error, message) => told.push((error as Mq9Error).code, message?.msgId),
  });
  await until(() => told.length > 0);
  await consumer.stop();
  expect(told).toEqual(["internal", 0n]);
  expect(consumer.stats).toMatchObject({ failedAcks: 1, acknowledged: 0 });
});

test("unfinished messages are renewed every third of the lease", async () => {
  vi.useFakeTimers();
  const mailbox = new FakeMailbox(3);
  const { client, carrier } = fake(mailbox.answer);
  const gates = [deferred(), deferred(), deferred()];
  let running = 0;
  const consumer = client.consume("a.b", "g", () => gates[running++]?.promise, { leaseMs: 3000 });
  await vi.advanceTimersByTimeAsync(999);
  expect(carrier.of("msg.renew")).toHaveLength(0);
  await vi.advanceTimersByTimeAsync(1);
  gates[0]?.resolve();
  await vi.advanceTimersByTimeAsync(1000);
  expect(carrier.of("msg.renew").map((sent) => sent.json["msg_ids"])).toEqual([
    [0, 1, 2],
    [1, 2],
  ]);
  expect(carrier.of("msg.renew")[0]?.json).toMatchObject({ lease_id: "L1", lease_ms: 3000 });
  gates[1]?.resolve();
  gates[2]?.resolve();
  await vi.advanceTimersByTimeAsync(10);
  await consumer.stop();
  expect(mailbox.confirmed.size).toBe(3);
  expect(vi.getTimerCount()).toBe(0);
});

test("concurrency bounds handlers and widens the batch; an ACK is for a finished message", async () => {
  const mailbox = new FakeMailbox(9);
  const { client, carrier } = fake(mailbox.answer);
  let running = 0;
  let most = 0;
  const finished = new Set<number>();
  const consumer = client.consume(
    "a.b",
    "g",
    async (message) => {
      most = Math.max(most, ++running);
      await pause(Math.random() * 10);
      running -= 1;
      finished.add(Number(message.msgId));
      for (const id of mailbox.confirmed) expect(finished).toContain(id);
    },
    { concurrency: 3, numMsgs: 1 },
  );
  await until(() => mailbox.confirmed.size === 9);
  await consumer.stop();
  expect(most).toBe(3);
  expect(carrier.of("msg.fetch")[0]?.json["config"]).toMatchObject({ num_msgs: 3 });
});

test("stop waits for the running handler and its ACK and gives back the rest", async () => {
  const mailbox = new FakeMailbox(4);
  const { client, carrier } = fake(mailbox.answer);
  const gate = deferred();
  const consumer = client.consume("a.b", "g", () => gate.promise);
  await until(() => consumer.stats.delivered === 1);
  let stopped = false;
  const stopping = Promise.all([consumer.stop(), consumer.stop()]).then(() => (stopped = true));
  await pause(20);
  expect(stopped).toBe(false);
  gate.resolve();
  await stopping;
  expect([...mailbox.confirmed]).toEqual([0]);
  expect(mailbox.leased.size).toBe(0);
  expect(carrier.of("msg.nack").map((sent) => sent.json["msg_ids"])).toEqual([[1, 2, 3]]);
  expect(carrier.of("msg.nack")[0]?.json).not.toHaveProperty("delay_ms");
});

test("stop from inside a handler, from what it calls, and from the error hook", async () => {
  for (const where of ["handler", "later", "hook"]) {
    const mailbox = new FakeMailbox(3);
    const { client } = fake(mailbox.answer);
    const consumer: Consumer = client.consume(
      "a.b",
      "g",
      async () => {
        if (where === "handler") await consumer.stop();
        if (where === "later") await pause(1).then(() => consumer.stop());
        if (where === "hook") throw new Error("x");
      },
      { onError: () => consumer.stop() },
    );
    await consumer.done;
    expect(mailbox.confirmed.size).toBe(where === "hook" ? 0 : 1);
    expect(mailbox.leased.size).toBe(0);
  }
});

test("stop during a waiting FETCH leaves no message leased to nobody", async () => {
  const mailbox = new FakeMailbox();
  const { client, carrier } = fake(mailbox.answer);
  const consumer = client.consume("a.b", "g", () => undefined);
  await until(() => mailbox.fetches === 1);
  await consumer.stop();
  expect(carrier.of("msg.nack")).toEqual([]);
  mailbox.add(2);
  await until(() => carrier.of("msg.nack").length === 1);
  expect(carrier.of("msg.nack")[0]?.json).toMatchObject({ msg_ids: [0, 1], lease_id: "L1" });
});

test("a cancelled leased FETCH of the user gives back what it brings", async () => {
  const mailbox = new FakeMailbox();
  const { client, carrier } = fake(mailbox.answer);
  const cancel = new AbortController();
  const { signal } = cancel;
  const call = client.fetch("a.b", { groupName: "g", leaseMs: 1000, signal });
  await until(() => mailbox.fetches === 1);
  cancel.abort();
  await expect(call).rejects.toBe(signal.reason);
  mailbox.add(1);
  await client.close();
  expect(carrier.of("msg.nack")).toHaveLength(1);
});

test("cancelling ends the consumer at once, aborts handlers, and gives everything back", async () => {
  for (const heeds of [true, false]) {
    const mailbox = new FakeMailbox(3);
    const { client, carrier } = fake(mailbox.answer);
    const cancel = new AbortController();
    let inHandler: AbortSignal | undefined;
    const consumer = client.consume(
      "a.b",
      "g",
      (_, signal) => {
        inHandler = signal;
        return pause(2 ** 30, heeds ? { signal } : { until: new Promise(() => undefined) });
      },
      { signal: cancel.signal },
    );
    await until(() => consumer.stats.delivered === 1);
    cancel.abort(new Error("enough"));
    await expect(consumer.done).rejects.toThrow("enough");
    expect(inHandler?.aborted).toBe(true);
    await until(() => mailbox.leased.size === 0);
    expect(carrier.of("msg.nack").map((sent) => sent.json["msg_ids"])).toEqual([[0, 1, 2]]);
    await consumer.stop();
    if (!heeds) break;
  }
});

test("a handler that finished in spite of the cancellation is acknowledged", async () => {
  const mailbox = new FakeMailbox(2);
  const { client } = fake(mailbox.answer);
  const cancel = new AbortController();
  const consumer = client.consume(
    "a.b",
    "g",
    () => {
      cancel.abort(new Error("enough"));
    },
    { signal: cancel.signal },
  );
  await expect(consumer.done).rejects.toThrow("enough");
  await client.close();
  expect([...mailbox.confirmed]).toEqual([0]);
  expect(mailbox.leased.size).toBe(0);
});

test("a failed FETCH pauses and goes on; deliver is sent until one succeeded", async () => {
  vi.useFakeTimers();
  const mailbox = new FakeMailbox(1);
  mailbox.fail("msg.fetch", { error: "x", code: "internal" }, status("timeout"));
  const { client, carrier } = fake(mailbox.answer);
  const told: string[] = [];
  const consumer = client.consume("a.b", "g", () => undefined, {
    deliver: "from_id",
    fromId: 2n ** 60n,
    forceDeliver: true,
    onError: (error) => told.push((error as Mq9Error).kind),
  });
  await vi.advanceTimersByTimeAsync(999);
  expect(carrier.of("msg.fetch")).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(501);
  expect(carrier.of("msg.fetch")).toHaveLength(2);
  await vi.advanceTimersByTimeAsync(3000);
  expect(carrier.of("msg.fetch")).toHaveLength(4);
  const start = { deliver: "from_id", from_id: 2n ** 60n, force_deliver: true };
  const bodies = carrier.of("msg.fetch").map(fetchBody);
  for (const body of bodies.slice(0, 3)) expect(body).toMatchObject(start);
  expect(bodies[3]).not.toHaveProperty("deliver");
  expect(bodies[3]).not.toHaveProperty("force_deliver");
  expect(told).toEqual(["server", "timeout"]);
  const stopping = consumer.stop();
  await vi.runAllTimersAsync();
  await stopping;
});

test("without autoAck the handler decides, and what it settled is not settled again", async () => {
  const mailbox = new FakeMailbox(3);
  const { client, carrier } = fake(mailbox.answer);
  const consumer = client.consume(
    "a.b",
    "g",
    async (message) => {
      if (message.msgId === 0n) await message.ack();
      if (message.msgId === 1n) {
        expect(await message.renew({ leaseMs: 5000 })).toBe(true);
        await message.nack({ delayMs: 7 });
        throw new Error("after that");
      }
      if (message.msgId === 2n) await consumer.stop();
    },
    { autoAck: false, onError: () => undefined },
  );
  await consumer.done;
  expect([...mailbox.confirmed]).toEqual([0]);
  expect(carrier.of("msg.nack").map((sent) => sent.json)).toEqual([
    { group_name: "g", mail_address: "a.b", msg_ids: [1], lease_id: "L1", delay_ms: 7 },
  ]);
  expect(carrier.of("msg.renew")[0]?.json).toMatchObject({ lease_id: "L1", lease_ms: 5000 });
});

test("closing the client stops its consumers and waits for their handlers", async () => {
  const mailbox = new FakeMailbox(2);
  const { client } = fake(mailbox.answer);
  const gate = deferred();
  const consumer = client.consume("a.b", "g", () => gate.promise);
  await until(() => consumer.stats.delivered === 1);
  const closing = client.close();
  gate.resolve();
  await closing;
  await consumer.done;
  expect([...mailbox.confirmed]).toEqual([0]);
  expect(mailbox.leased.size).toBe(0);
});

test("a signal that is aborted already", () => {
  const { client, carrier } = fake();
  const reason = new Error("no");
  expect(() => client.consume("a.b", "g", { signal: AbortSignal.abort(reason) })).toThrow(reason);
  expect(carrier.requests).toEqual([]);
});

// Iteration.

test("a loop gives the same messages and acknowledges as it goes on", async () => {
  const mailbox = new FakeMailbox(12);
  const { client } = fake(mailbox.answer);
  const seen: Message[] = [];
  for await (const message of client.consume("a.b", "g")) {
    expect([...mailbox.confirmed]).toEqual(ids(seen));
    seen.push(message);
    if (seen.length === 12) {
      await message.ack();
      break;
    }
  }
  expect(ids(seen)).toEqual(mailbox.messages);
  expect(mailbox.confirmed.size).toBe(12);
  expect(mailbox.leased.size).toBe(0);
});

test("leaving the loop by break or an exception gives back what was not finished", async () => {
  for (const leave of ["break", "throw"]) {
    const mailbox = new FakeMailbox(3);
    const { client } = fake(mailbox.answer);
    const consumer = client.consume("a.b", "g");
    const loop = async (): Promise<void> => {
      for await (const message of consumer) {
        if (message.msgId === 0n) continue;
        if (leave === "break") break;
        throw new Error("thrown");
      }
    };
    if (leave === "break") await loop();
    else await expect(loop()).rejects.toThrow("thrown");
    expect([...mailbox.confirmed]).toEqual([0]);
    expect(mailbox.leased.size).toBe(0);
    expect(consumer.isRunning).toBe(false);
    await consumer.done;
    expect(() => consumer[Symbol.asyncIterator]()).toThrow(Mq9Error);
  }
});

test("cancelling a loop ends it with the signal's reason", async () => {
  const mailbox = new FakeMailbox(3);
  const { client } = fake(mailbox.answer);
  const cancel = new AbortController();
  const { signal } = cancel;
  const waiting = client.consume("a.c", "g", { signal })[Symbol.asyncIterator]();
  const loop = async (): Promise<void> => {
    for await (const message of client.consume("a.b", "g", { signal })) {
      if (message.msgId === 1n) cancel.abort(new Error("enough"));
    }
  };
  await expect(loop()).rejects.toThrow("enough");
  await client.close();
  expect([...mailbox.confirmed]).toEqual([0, 1]);
  expect(mailbox.leased.size).toBe(0);
  await expect(waiting.next()).rejects.toBe(signal.reason);
});

test("stop of a loop from its body and from elsewhere", async () => {
  const mailbox = new FakeMailbox(3);
  const { client } = fake(mailbox.answer);
  const consumer = client.consume("a.b", "g");
  for await (const message of consumer) {
    expect(message.msgId).toBe(0n);
    await consumer.stop();
    expect([...mailbox.leased.keys()]).toEqual([0]);
  }
  expect([...mailbox.confirmed]).toEqual([0]);
  const other = client.consume("a.b", "g");
  const iterator = other[Symbol.asyncIterator]();
  await iterator.next();
  await iterator.next();
  const third = iterator.next();
  await until(() => mailbox.fetches === 3);
  await other.stop();
  expect(await third).toEqual({ done: true, value: undefined });
});

test("a slow body is renewed", async () => {
  vi.useFakeTimers();
  const mailbox = new FakeMailbox(2);
  const { client, carrier } = fake(mailbox.answer);
  const iterator = client.consume("a.b", "g", { leaseMs: 300 })[Symbol.asyncIterator]();
  await iterator.next();
  await vi.advanceTimersByTimeAsync(250);
  expect(carrier.of("msg.renew").map((sent) => sent.json["msg_ids"])).toEqual([
    [0, 1],
    [0, 1],
  ]);
  await iterator.return(undefined);
  expect(mailbox.leased.size).toBe(0);
  expect(vi.getTimerCount()).toBe(0);
});

test("a consumer that is never iterated ends by stop, and with its client", async () => {
  const { client } = fake();
  const one = client.consume("a.b", "g");
  await one.stop();
  await one.done;
  const other = client.consume("a.b", "g");
  const iterator = other[Symbol.asyncIterator]();
  await iterator.return(undefined);
  await other.done;
  const third = client.consume("a.b", "g");
  await client.close();
  await third.done;
});
