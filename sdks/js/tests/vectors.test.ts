/** Every wire vector of the specification: the exact request of a call, and what a reply becomes. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { OBJECTS, OPERATIONS } from "../adapter/dispatch.js";
import { Mq9Error } from "../src/error.js";
import type { ErrorKind } from "../src/generated/errors.js";
import { parseJson, stringifyJson } from "../src/json.js";
import { setLogger } from "../src/log.js";
import { fake, status } from "./support.js";
import type { Answer, Sent } from "./support.js";

setLogger(undefined);

type Fields = Record<string, unknown>;

interface Vector {
  readonly id: string;
  readonly operation: string;
  readonly method: string;
  readonly call: Fields;
  readonly request: Fields | null;
  readonly reply: Fields | null;
  readonly attempts?: number;
  readonly is_ok: boolean;
  readonly ok: unknown;
  readonly error: Fields | null;
}

const file = new URL("generated/vectors.json", import.meta.url);
const { vectors } = parseJson(readFileSync(file, "utf8")) as unknown as { vectors: Vector[] };

const byMethod = new Map(Object.values(OPERATIONS).map((item) => [item.method, item]));

function bytes(value: Fields): Uint8Array {
  if (typeof value["base64"] === "string")
    return new Uint8Array(Buffer.from(value["base64"], "base64"));
  return new TextEncoder().encode(value["text"] as string);
}

function payload(value: unknown): unknown {
  const fields = value as Fields;
  if ("json" in fields) return fields["json"];
  return "text" in fields ? fields["text"] : bytes(fields);
}

/** The same value always gives the same text; it tells 1 from true, and bytes from text. */
function exact(value: unknown): string {
  if (value instanceof Uint8Array) return `bytes ${Buffer.from(value).toString("hex")}`;
  if (Array.isArray(value)) return `[${value.map(exact).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    const members = Object.entries(value).filter(([, item]) => item !== undefined);
    return `{${members
      .map(([name, item]) => `${JSON.stringify(name)}:${exact(item)}`)
      .sort()
      .join(",")}}`;
  }
  return stringifyJson(value);
}

/** A result under the protocol's names. */
function wire(value: unknown, kind: string): unknown {
  if (kind === "none") return {};
  if (kind.startsWith("list:"))
    return (value as unknown[]).map((item) => wire(item, kind.slice(5)));
  if (!kind.startsWith("object:")) return value;
  const members = Object.entries(OBJECTS[kind.slice(7)] ?? {});
  return Object.fromEntries(
    members
      .map(([name, member]) => [name, (value as Fields)[member.name], member.kind] as const)
      .filter(([, item]) => item !== undefined)
      .map(([name, item, inner]) => [name, wire(item, inner)]),
  );
}

/** A result as the specification writes it, with payloads as bytes. */
function expected(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(expected);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value as Fields).map(([name, item]) => [
      name,
      name === "payload" && typeof item === "object" ? bytes(item as Fields) : expected(item),
    ]),
  );
}

function check(wanted: Fields, sent: Sent): void {
  const text = (): string => new TextDecoder("utf-8", { fatal: true }).decode(sent.payload);
  expect(sent.subject).toBe(wanted["subject"]);
  if (wanted["empty"] === true) expect(sent.payload).toHaveLength(0);
  if ("json" in wanted) expect(exact(parseJson(text()))).toBe(exact(wanted["json"]));
  if ("payload" in wanted && wanted["payload"] !== null) {
    const body = wanted["payload"] as Fields;
    if ("json" in body) expect(exact(parseJson(text()))).toBe(exact(body["json"]));
    else expect(exact(sent.payload)).toBe(exact(bytes(body)));
  }
  if ("headers" in wanted) expect(sent.headers).toEqual(wanted["headers"]);
  for (const pattern of (wanted["forbid_headers"] ?? []) as string[]) {
    const start = pattern.toLowerCase().replace(/\*$/, "");
    const found = Object.keys(sent.headers).filter((name) =>
      pattern.endsWith("*") ? name.toLowerCase().startsWith(start) : name.toLowerCase() === start,
    );
    expect(found).toEqual([]);
  }
}

function answer(reply: Fields | null): Answer {
  if (reply === null) return { error: "" };
  if ("status" in reply) return status(reply["status"] as ErrorKind);
  if ("json" in reply) return new TextEncoder().encode(stringifyJson(reply["json"]));
  return bytes(reply);
}

test.concurrent.each(
  vectors.map((vector) => [`${vector.operation}/${vector.id}`, vector] as const),
)("%s", async (_, vector) => {
  const { client, carrier } = fake(answer(vector.reply));
  const operation = byMethod.get(vector.method);
  if (operation === undefined) throw new Error(`there is no method ${vector.method}`);
  const args: Fields = {};
  for (const [name, value] of Object.entries(vector.call)) {
    const parameter = operation.parameters[name];
    if (parameter === undefined) throw new Error(`there is no parameter ${name}`);
    const isPayload = parameter.kind === "payload" && typeof value === "object";
    args[parameter.name] = isPayload ? payload(value) : value;
  }
  const positional = operation.required.map((name) => args[name]);
  for (const name of operation.required) Reflect.deleteProperty(args, name);
  const methods = client as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
  let result: unknown;
  let error: unknown;
  try {
    result = await methods[operation.method]?.call(client, ...positional, args);
  } catch (failure) {
    error = failure;
  }

  if (vector.request === null) expect(carrier.requests).toEqual([]);
  else {
    expect(carrier.requests.length, String(error)).toBeGreaterThan(0);
    for (const sent of carrier.requests) check(vector.request, sent);
  }
  if (vector.attempts) expect(carrier.requests).toHaveLength(vector.attempts);
  if (vector.is_ok) {
    expect(error).toBeUndefined();
    expect(exact(wire(result, operation.result))).toBe(exact(expected(vector.ok)));
  } else {
    expect(error).toBeInstanceOf(Mq9Error);
    const { kind, code, field, operation: name } = error as Mq9Error;
    const wanted = vector.error ?? {};
    expect(kind).toBe(wanted["kind"]);
    if ("code" in wanted) expect(code ?? null).toBe(wanted["code"]);
    if ("field" in wanted) expect(field ?? null).toBe(wanted["field"]);
    expect([undefined, vector.operation]).toContain(name);
  }
});

test("all vectors are here", () => {
  expect(new Set(vectors.map((vector) => vector.operation)).size).toBe(byMethod.size);
  expect(new Set(vectors.map((vector) => vector.id)).size).toBe(vectors.length);
});
