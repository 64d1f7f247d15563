/** The client on a scripted connection: retries, timeouts, cancelling, arguments, closing, keep-alive. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Mq9Error } from "../src/error.js";
import { ERROR_CODES } from "../src/generated/errors.js";
import type { ErrorKind } from "../src/generated/errors.js";
import { Message } from "../src/generated/models.js";
import type { MessageFields } from "../src/generated/models.js";
import * as operations from "../src/generated/operations.js";
import type { Operation } from "../src/operation.js";
import { setLogger } from "../src/log.js";
import { failure, fake, status, until } from "./support.js";

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
  vi.restoreAllMocks();
});

const KINDS: ErrorKind[] = ["no_responders", "timeout", "connection_closed"];

test.each(
  Object.values(operations)
    .filter((item): item is Operation => typeof item === "object" && "retriesOn" in item)
    .flatMap((operation) => KINDS.map((kind) => [operation.name, kind, operation] as const)),
)("%s after %s", async (_, kind, operation) => {
  vi.spyOn(Math, "random").mockReturnValue(0);
  const { client, carrier } = fake(status(kind), 100);
  const args: Record<string, unknown> = {
    mailAddress: "a.b",
    groupName: "g",
    msgIds: [1],
    msgId: 1,
    payload: "x",
    leaseMs: 1000,
    name: "n",
  };
  const call = client as unknown as {
    carryOut: (operation: Operation, args: unknown, options: object) => Promise<unknown>;
  };
  if (operation.name === "mailbox.create") args["name"] = "a.b";
  const error = await failure(call.carryOut(operation, args, {}));
  expect(error.kind).toBe(kind);
  expect(error.operation).toBe(operation.name);
  const again = operation.retriesOn.includes(kind) && operation.retryNeeds === undefined;
  expect(carrier.requests).toHaveLength(again ? 3 : 1);
});

test("SEND with a dedup-id is sent again under it, and retry makes one up", async () => {
  const { client, carrier } = fake(status("timeout"));
  await failure(client.send("a.b", "x", { dedupId: "d" }));
  expect(carrier.requests.map((sent) => sent.headers["mq9-dedup-id"])).toEqual(["d", "d", "d"]);
  await failure(client.send("a.b", "x", { retry: true }));
  await failure(client.send("a.b", "x", { retry: true }));
  const ids = carrier.requests.slice(3).map((sent) => sent.headers["mq9-dedup-id"]);
  expect(new Set(ids).size).toBe(2);
  for (const id of ids) expect(id).toMatch(/^[0-9a-f]{32}$/);
});

test("pauses grow", async () => {
  vi.useFakeTimers();
  const { client, carrier } = fake(status("no_responders"));
  const call = failure(client.mailboxInfo("a.b"));
  const counts: number[] = [];
  for (const wait of [0, 99, 51, 190, 120]) {
    await vi.advanceTimersByTimeAsync(wait);
    counts.push(carrier.requests.length);
  }
  expect(counts).toEqual([1, 1, 2, expect.any(Number), 3]);
  expect((await call).kind).toBe("no_responders");
});

test("a cancelled call ends at once with the signal's reason and sends nothing more", async () => {
  const { client, carrier } = fake(status("no_responders"));
  const cancel = new AbortController();
  const call = client.mailboxInfo("a.b", { signal: cancel.signal });
  await until(() => carrier.requests.length === 1);
  const reason = new Error("enough");
  cancel.abort(reason);
  await expect(call).rejects.toBe(reason);
  await expect(client.mailboxInfo("a.b", { signal: cancel.signal })).rejects.toBe(reason);
  expect(carrier.requests).toHaveLength(1);
});

test("timeouts", async () => {
  const { client, carrier } = fake({ error: "", messages: [] }, 1000);
  await client.fetch("a.b");
  await client.fetch("a.b", { maxWaitMs: 60_000, timeoutMs: 50 });
  await client.fetch("a.b", { maxWaitMs: 0 });
  expect(carrier.requests.map((sent) => sent.timeoutMs)).toEqual([1500, 60_050, 1000]);
  for (const timeoutMs of [0, -1, NaN, Infinity, "5" as unknown as number]) {
    expect((await failure(client.fetch("a.b", { timeoutMs }))).field).toBe("timeout");
  }
  expect(carrier.requests).toHaveLength(3);
});

test("numbers are whole, exact and in their bounds", async () => {
  const { client, carrier } = fake({ error: "", deleted: true });
  for (const id of [-1, 1.5, 2 ** 53, "1", true, null, 2n ** 63n] as unknown as bigint[]) {
    expect((await failure(client.delete("a.b", id))).field).toBe("msg_id");
  }
  expect(carrier.requests).toEqual([]);
  await client.delete("a.b", 2n ** 63n - 1n);
  await client.delete("a.b", 7);
  expect(carrier.requests.map((sent) => sent.subject.split(".").at(-1))).toEqual([
    "9223372036854775807",
    "7",
  ]);
});

test("an argument among the options is the same as one before them", async () => {
  const { client, carrier } = fake();
  await client.ack("a.b", "g", 9007199254740993n);
  await client.ack("a.b", "g", { msgId: 9007199254740993n });
  await client.ack("a.b", "g", undefined, { msgIds: [1, 2n] });
  await client.ack("a.b", "g", { msgIds: new Set([1, 2n]) as unknown as bigint[] });
  const bodies = carrier.requests.map((sent) => sent.json);
  expect(bodies[0]).toEqual({ group_name: "g", mail_address: "a.b", msg_id: 9007199254740993n });
  expect(bodies[1]).toEqual(bodies[0]);
  expect(bodies[2]).toEqual({ group_name: "g", mail_address: "a.b", msg_ids: [1, 2] });
  expect(bodies[3]).toEqual(bodies[2]);
  expect((await failure(client.ack("a.b", "g"))).field).toBe("msg_id");
});

test("payloads", async () => {
  const { client, carrier } = fake({ error: "", msg_id: 0 });
  const bytes = Uint8Array.of(0, 255, 254);
  const payloads = [
    bytes,
    bytes.buffer,
    new DataView(bytes.buffer, 1),
    "ü",
    { n: 2n ** 60n },
    [1],
    5,
    null,
    true,
  ];
  for (const payload of payloads) await client.send("a.b", payload);
  expect(carrier.requests.map((sent) => Buffer.from(sent.payload).toString("latin1"))).toEqual([
    "\u0000\u00ff\u00fe",
    "\u0000\u00ff\u00fe",
    "\u00ff\u00fe",
    "\u00c3\u00bc",
    '{"n":1152921504606846976}',
    "[1]",
    "5",
    "null",
    "true",
  ]);
  for (const payload of [undefined, () => 1, NaN, "\udc00", { a: NaN }, new Map()]) {
    expect((await failure(client.send("a.b", payload as unknown as string))).field).toBe("payload");
  }
});

test("headers that can't be sent", async () => {
  const { client, carrier } = fake();
  const odd: Record<string, string>[] = [
    { "": "x" },
    { "a b": "x" },
    { a: "" },
    { a: "ü" },
    { a: " x" },
    { a: "x\r\ny" },
    { "MQ9-Key": "x" },
  ];
  for (const headers of odd) {
    expect((await failure(client.send("a.b", "x", { headers }))).field).toBe("headers");
  }
  expect(carrier.requests).toEqual([]);
});

test("a reply without a code is classified by its text, and any code comes through", async () => {
  const { client, carrier } = fake({ error: "mailbox a.b does not exist" });
  expect((await failure(client.mailboxInfo("a.b"))).code).toBe("mailbox_not_found");
  carrier.script = { error: "what?" };
  expect((await failure(client.mailboxInfo("a.b"))).code).toBeUndefined();
  carrier.script = { error: "no", code: "brand_new" };
  const error = await failure(client.mailboxInfo("a.b"));
  expect([error.kind, error.code, error.message]).toEqual(["server", "brand_new", "no"]);
  expect(error).toBeInstanceOf(Error);
  expect(error.name).toBe("Mq9Error");
  expect(ERROR_CODES).toContain("mailbox_not_found");
});

test("a reply that is none is kind protocol", async () => {
  const { client, carrier } = fake();
  for (const text of [
    "",
    "x",
    "[]",
    "1",
    '{"error":1}',
    "{}",
    "\ufeff{}",
    '{"error":""}',
    '{"error":"","a":',
  ]) {
    carrier.script = new TextEncoder().encode(text);
    expect((await failure(client.mailboxInfo("a.b"))).kind, text).toBe("protocol");
  }
  carrier.script = new TextEncoder().encode("[".repeat(200_000));
  expect((await failure(client.mailboxInfo("a.b"))).kind).toBe("protocol");
  carrier.script = Uint8Array.of(0xff);
  expect((await failure(client.mailboxInfo("a.b"))).kind).toBe("protocol");
});

test("an odd item is left out and logged", async () => {
  const { client } = fake({ error: "", messages: [{ msg_id: "1" }, { msg_id: 2 }] });
  const { messages } = await client.fetch("a.b");
  expect(messages.map((message) => message.msgId)).toEqual([2n]);
  expect(logged).toEqual([expect.stringContaining("[0].msg_id: must be a whole number")]);
});

function message(fields: Partial<MessageFields>): Message {
  return new Message({
    msgId: 1n,
    payload: new Uint8Array(0),
    priority: "normal",
    ...fields,
  } as MessageFields);
}

test("a message as text and JSON, and its headers", async () => {
  const payload = new TextEncoder().encode('{"n":9007199254740993}');
  const one = message({
    payload,
    headers: { "MQ9-Reply-To": ["me", "you"], "mq9-dead-letter-count": ["12"] },
  });
  expect(one.text()).toBe('{"n":9007199254740993}');
  expect(one.json()).toEqual({ n: 9007199254740993n });
  expect(one.replyTo).toBe("me");
  expect(one.deadLetterCount).toBe(12n);
  expect(one.correlationId).toBeUndefined();
  expect(() => message({ payload: Uint8Array.of(0xff) }).text()).toThrow(TypeError);
  expect(() => message({}).json()).toThrow(SyntaxError);
  const error = await failure(one.ack());
  expect([error.kind, error.field]).toEqual(["invalid_argument", "message"]);
});

test("closing waits for calls in flight; twice is fine; calls fail then", async () => {
  let answer: (value: Record<string, unknown>) => void = () => undefined;
  const { client, carrier } = fake(() => new Promise((resolve) => (answer = resolve)));
  const call = client.mailboxDelete("a.b");
  await until(() => carrier.requests.length === 1);
  const closing = client.close();
  expect(client.close()).toBe(closing);
  expect(carrier.isClosed).toBe(false);
  answer({ error: "", deleted: true });
  expect(await call).toBe(true);
  await closing;
  await client[Symbol.asyncDispose]();
  expect(client.isClosed).toBe(true);
  expect((await failure(client.mailboxInfo("a.b"))).kind).toBe("connection_closed");
  expect((await failure(client.mailboxInfo("A"))).kind).toBe("invalid_argument");
  expect(() => client.consume("a.b", "g")).toThrow(Mq9Error);
});

test("closing does not wait longer than the timeout", async () => {
  const { client, carrier } = fake(() => new Promise(() => undefined), 20);
  client.mailboxInfo("a.b").catch(() => undefined);
  await until(() => carrier.requests.length === 1);
  await client.close();
  expect(carrier.isClosed).toBe(true);
});

test("keep-alive registers, reports with only the name, registers again, unregisters", async () => {
  vi.useFakeTimers();
  const { client, carrier } = fake();
  const helper = await client.agentKeepAlive("n", {
    mailbox: "a.b",
    card: { ttl: 1, x: 2n ** 60n },
  });
  expect(carrier.requests[0]?.json).toEqual({ name: "n", mailbox: "a.b", ttl: 60, x: 2n ** 60n });
  await vi.advanceTimersByTimeAsync(20_000);
  expect(carrier.of("agent.report").map((sent) => sent.json)).toEqual([{ name: "n" }]);
  carrier.script = (sent) =>
    sent.operation === "agent.report"
      ? { error: "agent not found", code: "agent_not_found" }
      : { error: "" };
  await vi.advanceTimersByTimeAsync(20_000);
  expect(carrier.of("agent.register")).toHaveLength(2);
  carrier.script = { error: "broken", code: "internal" };
  await vi.advanceTimersByTimeAsync(20_000);
  expect(logged).toHaveLength(1);
  carrier.script = { error: "" };
  await helper.stop();
  await helper.stop();
  expect(carrier.of("agent.unregister")).toHaveLength(1);
  expect(vi.getTimerCount()).toBe(0);
});

test("closing the client unregisters what is kept alive", async () => {
  const { client, carrier } = fake();
  await client.agentKeepAlive("n");
  await client.close();
  expect(carrier.requests.at(-1)?.operation).toBe("agent.unregister");
});

test("keep-alive that can't register says so", async () => {
  const { client } = fake({ error: "no", code: "unauthorized" });
  expect((await failure(client.agentKeepAlive("n"))).code).toBe("unauthorized");
  expect((await failure(client.agentKeepAlive(""))).field).toBe("name");
});
