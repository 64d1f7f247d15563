/** The connection against real and scripted servers. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectNats } from "@nats-io/transport-node";
import { beforeEach, expect, onTestFinished, test } from "vitest";
import { connect } from "../src/client.js";
import type { Client, ConnectOptions } from "../src/client.js";
import { setLogger } from "../src/log.js";
import { parseServer, serverList } from "../src/servers.js";
import { pause } from "../src/timing.js";
import { Broker, NatsServer, Peer, failure, freePort, until } from "./support.js";

const QUICK = { reconnectWaitMs: 10, reconnectWaitMaxMs: 50 };

beforeEach(() => {
  setLogger(undefined);
});

async function client(servers: string | string[], options: ConnectOptions = {}): Promise<Client> {
  const made = await connect(servers, { ...QUICK, ...options });
  onTestFinished(() => made.close());
  return made;
}

async function peer(info: Record<string, unknown> = {}): Promise<Peer> {
  const made = await new Peer(info).start();
  onTestFinished(async () => {
    await made.stop();
  });
  return made;
}

async function broker(options: Parameters<typeof Broker.start>[0] = {}): Promise<Broker> {
  const made = await Broker.start(options);
  onTestFinished(() => made.stop());
  return made;
}

test("servers are one URL, a list, or a string with commas", () => {
  const wanted = ["nats://a:4222", "tls://b:1", "nats://[::1]:4222", "nats://u:p@h:4222"];
  expect(serverList("a, tls://b:1,nats://[::1],u:p@h")).toEqual(wanted);
  expect(serverList(["a", "tls://b:1,[::1]", "u:p@h", "a"])).toEqual(wanted);
  for (const odd of [
    "",
    [],
    " , ",
    "http://a",
    "nats://",
    "nats://a b",
    5,
    "nats://a:x",
    ["ws://a", "b"],
  ]) {
    expect(() => serverList(odd), String(odd)).toThrow("servers: ");
  }
});

test("a password in a URL stays out of errors, and reaches the server decoded", async () => {
  const { user, password, token, shown, url } = parseServer("nats://me:p%40ss@h:1");
  expect([user, password, token, url]).toEqual(["me", "p@ss", undefined, "h:1"]);
  expect(parseServer("nats://secret@h:1").token).toBe("secret");
  expect(shown).toBe("nats://…@h:1");
  const port = await freePort();
  const error = await failure(connect(`nats://me:secret@127.0.0.1:${String(port)}`));
  expect(error.kind).toBe("connection_closed");
  expect(error.code).toBeUndefined();
  expect(error.message).not.toContain("secret");
});

test("a server that says nothing is given up, and its socket closed", async () => {
  const silent = await Peer.silent().start();
  const options = { connectTimeoutMs: 100 };
  expect((await failure(connect(silent.url, options))).kind).toBe("connection_closed");
  await until(() => silent.sockets.size === 0, "the end of the socket");
  const cancel = new AbortController();
  const connecting = connect(silent.url, { signal: cancel.signal });
  await until(() => silent.sockets.size === 1);
  cancel.abort(new Error("enough"));
  await expect(connecting).rejects.toThrow("enough");
  await until(() => silent.sockets.size === 0, "the end of the cancelled socket");
  await silent.stop();
});

test("a server that hangs up before it says anything is connection_closed", async () => {
  const server = createServer((socket) => socket.destroy()).listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo;
  const url = `nats://127.0.0.1:${String(port)}`;
  const error = await failure(connect(url));
  expect(error.kind).toBe("connection_closed");
  expect(error.code).toBeUndefined();
  expect(error.message).toContain(`could not connect to ${url}: `);
});

test("the next server is used when one is down", async () => {
  const { url } = await broker();
  const down = `127.0.0.1:${String(await freePort())}`;
  const one = await client(`${down},${url}`);
  expect(one.connectedUrl).toBe(url);
  expect(await one.mailboxCreate("a.b")).toBe("a.b");
});

test("user, password and token; a refusal is connection_closed with code unauthorized", async () => {
  const byUser = await NatsServer.start("--user", "me", "--pass", "secret");
  onTestFinished(() => byUser.stop());
  const place = `127.0.0.1:${String(byUser.port)}`;
  for (const options of [{}, { user: "me", password: "wrong" }]) {
    const error = await failure(connect(place, options));
    expect([error.kind, error.code]).toEqual(["connection_closed", "unauthorized"]);
  }
  const one = await client(place, { user: "me", password: "secret" });
  expect((await failure(one.mailboxInfo("a.b"))).kind).toBe("no_responders");
  const other = await client(`nats://me:secret@${place}`);
  expect(other.isConnected).toBe(true);

  const byToken = await NatsServer.start("--auth", "t0ken");
  onTestFinished(() => byToken.stop());
  const tokenPlace = `127.0.0.1:${String(byToken.port)}`;
  expect((await client(tokenPlace, { token: "t0ken" })).isConnected).toBe(true);
  expect((await client(`nats://t0ken@${tokenPlace}`)).isConnected).toBe(true);
});

test("TLS, and no password in clear where TLS was asked for", async () => {
  const folder = await mkdtemp(join(tmpdir(), "mq9-js-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
  const openssl = spawn("openssl", [
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
    ...["-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"],
    ...["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
  ]);
  await once(openssl, "exit");
  const server = await NatsServer.start("--tls", "--tlscert", cert, "--tlskey", key);
  onTestFinished(() => server.stop());
  const place = `127.0.0.1:${String(server.port)}`;
  expect((await failure(connect(`tls://${place}`))).kind).toBe("connection_closed");
  const one = await client(`tls://${place}`, { tls: { caFile: cert } });
  expect((await failure(one.mailboxInfo("a.b"))).kind).toBe("no_responders");

  const clear = await peer();
  const options = { tls: true, user: "me", password: "secret" };
  expect((await failure(connect(clear.url, options))).kind).toBe("connection_closed");
  expect(clear.connects).toEqual([]);
});

test("a credentials file", async () => {
  const missing = await failure(connect("a", { credentialsFile: "/nowhere/at.all" }));
  expect([missing.kind, missing.field]).toEqual(["invalid_argument", "credentials_file"]);
  const folder = await mkdtemp(join(tmpdir(), "mq9-js-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const { nkeys } = await import("@nats-io/nats-core");
  const seed = new TextDecoder().decode(nkeys.createUser().getSeed());
  const frame = (name: string, text: string): string =>
    `-----BEGIN ${name}-----\n${text}\n------END ${name}------\n\n`;
  const file = join(folder, "user.creds");
  await writeFile(file, frame("NATS USER JWT", "eyJ0.eyJ1.c2ln") + frame("USER NKEY SEED", seed));
  const server = await peer({ nonce: "abc", auth_required: true });
  await client(server.url, { credentialsFile: file, name: "me" });
  expect(server.connects[0]).toMatchObject({ jwt: "eyJ0.eyJ1.c2ln", name: "me" });
  expect(server.connects[0]?.["sig"]).toBeTruthy();
});

test("a request without a reply ends at its timeout", async () => {
  const server = await peer();
  const one = await client(server.url, { timeoutMs: 30 });
  expect((await failure(one.mailboxCreate())).kind).toBe("timeout");
  expect(server.published).toHaveLength(1);
});

test("a request in flight fails at once when the connection breaks", async () => {
  const server = await peer();
  const one = await client(server.url);
  const call = failure(one.mailboxCreate());
  await until(() => server.published.length === 1);
  server.breakOff();
  expect((await call).kind).toBe("connection_closed");
});

test("an -ERR of the server is followed by a reconnect", async () => {
  const server = await peer();
  const one = await client(server.url);
  const [socket] = server.sockets;
  socket?.end("-ERR 'Stale Connection'\r\n");
  await until(() => server.connects.length === 2 && one.isConnected);
});

test("calls while disconnected wait, and time out without being sent later", async () => {
  const server = await peer();
  const one = await client(server.url, { timeoutMs: 200 });
  const port = server.port;
  await server.stop();
  await until(() => !one.isConnected);
  const cancel = new AbortController();
  const waiting = failure(one.mailboxDelete("long.wait", { timeoutMs: 60_000 }));
  const gone = failure(one.fetch("gone", { timeoutMs: 20, maxWaitMs: 0 }));
  const cancelled = one.fetch("cancelled", { timeoutMs: 60_000, signal: cancel.signal });
  cancelled.catch(() => undefined);
  const error = await gone;
  expect(error.kind).toBe("timeout");
  expect(error.message).toContain("nothing was sent");
  cancel.abort(new Error("enough"));
  await expect(cancelled).rejects.toThrow("enough");

  const restarted = await new Peer().start(port);
  onTestFinished(async () => {
    await restarted.stop();
  });
  await until(() => restarted.published.length > 0);
  await pause(50);
  expect(restarted.published.map((sent) => sent.subject)).toEqual([
    "$mq9.AI.MAILBOX.DELETE.long.wait",
  ]);
  await one.close();
  expect((await waiting).kind).toBe("connection_closed");
});

test("closing while disconnected ends calls that wait", async () => {
  const server = await peer();
  const one = await client(server.url, { timeoutMs: 100 });
  await server.stop();
  await until(() => !one.isConnected);
  const call = failure(one.mailboxInfo("a.b", { timeoutMs: 60_000 }));
  await one.close();
  expect((await call).kind).toBe("connection_closed");
});

test("the next server is used when the connection is lost, those of a cluster too", async () => {
  const third = await peer();
  const second = await peer({ connect_urls: [`127.0.0.1:${String(third.port)}`] });
  const first = await peer();
  const one = await client([first.url, second.url]);
  await first.stop();
  await until(() => one.connectedUrl === second.url);
  await second.stop();
  await until(() => one.connectedUrl === third.url);
});

test("a restart of the broker is survived", async () => {
  const first = await Broker.start();
  const one = await client(first.url);
  await one.mailboxCreate("a.b");
  await first.stop();
  const call = one.mailboxCreate("a.c", { timeoutMs: 30_000 });
  await broker({ port: first.port });
  expect(await call).toBe("a.c");
});

test("an existing connection is used and left open", async () => {
  const { url } = await broker();
  const nats = await connectNats({ servers: url });
  onTestFinished(() => nats.close());
  const one = await connect([], { nats });
  await one.mailboxCreate("a.b");
  const cancel = new AbortController();
  const waiting = one.fetch("a.b", {
    groupName: "g",
    leaseMs: 60_000,
    maxWaitMs: 500,
    signal: cancel.signal,
  });
  waiting.catch(() => undefined);
  await one.mailboxInfo("a.b");
  cancel.abort(new Error("enough"));
  const sender = await client(url);
  await sender.send("a.b", "x");
  await one.close();
  expect(nats.isClosed()).toBe(false);
  expect((await failure(one.mailboxInfo("a.b"))).kind).toBe("connection_closed");
  const { messages } = await sender.fetch("a.b", {
    groupName: "g",
    leaseMs: 1000,
    maxWaitMs: 5000,
  });
  expect(messages).toHaveLength(1);
  const other = await connect([], { nats });
  await nats.close();
  expect((await failure(other.mailboxInfo("a.b"))).kind).toBe("connection_closed");
  await other.close();
  expect((await failure(connect([], { nats }))).kind).toBe("connection_closed");
});

test("an existing connection that reconnects sends nothing late", async () => {
  const server = await peer();
  const nats = await connectNats({
    servers: server.url,
    reconnectTimeWait: 20,
    maxReconnectAttempts: -1,
  });
  onTestFinished(() => nats.close());
  const one = await connect([], { nats });
  onTestFinished(() => one.close());
  const port = server.port;
  const pending = failure(one.mailboxCreate());
  await until(() => server.published.length === 1);
  await server.stop();
  expect((await pending).kind).toBe("connection_closed");
  await until(() => !one.isConnected);
  expect((await failure(one.fetch("a.b", { timeoutMs: 20, maxWaitMs: 0 }))).kind).toBe("timeout");
  const restarted = await new Peer().start(port);
  onTestFinished(async () => {
    await restarted.stop();
  });
  await until(() => one.isConnected);
  await pause(50);
  expect(restarted.published).toEqual([]);
});

test("another transport can be given", async () => {
  const server = await peer();
  let given: unknown;
  const one = await client(server.url, {
    transport: (options) => {
      given = options.servers;
      return connectNats(options);
    },
  });
  expect(one.isConnected).toBe(true);
  expect(given).toEqual([`127.0.0.1:${String(server.port)}`]);
});

test("size counts headers, so that the server does not hang up", async () => {
  const server = await peer({ max_payload: 100 });
  const one = await client(server.url, { timeoutMs: 20 });
  const large = await failure(one.send("a.b", "x".repeat(90), { key: "k" }));
  expect([large.kind, large.code, large.field]).toEqual([
    "invalid_argument",
    "payload_too_large",
    "payload",
  ]);
  expect(server.published).toEqual([]);
  expect((await failure(one.send("a.b", "x".repeat(100)))).kind).toBe("timeout");
});

test("ten clients leave no timer and no socket behind", async () => {
  const { url } = await broker();
  const before = process.getActiveResourcesInfo().length;
  for (let round = 0; round < 10; round++) {
    const one = await connect(url);
    const address = await one.mailboxCreate();
    const consumer = one.consume(address, "g", () => undefined);
    const cancel = new AbortController();
    const waiting = one.fetch(address, { maxWaitMs: 60_000, signal: cancel.signal });
    waiting.catch(() => undefined);
    await one.send(address, "x");
    cancel.abort();
    if (round % 2 === 0) await consumer.stop();
    await one.close();
  }
  await until(
    () => process.getActiveResourcesInfo().length <= before,
    "the end of all resources",
    5000,
  );
});
