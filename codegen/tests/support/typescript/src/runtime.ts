// Decoding, checking and comparing, written by hand; the generated code calls nothing else.
import assert from "node:assert/strict";

export type Json = null | boolean | number | bigint | string | Json[] | Fields;
export type Fields = { [name: string]: Json };

export interface Request {
  readonly subject: string;
  readonly body: Fields;
}

export interface Classified {
  readonly prefix: string;
  readonly suffix: string;
  readonly code: string;
}

export interface TextRule {
  readonly characters: readonly [number, number];
  readonly bytes: readonly [number, number];
  readonly pattern: string;
  readonly forbid: readonly string[];
  readonly text: string;
  readonly code: string;
}

export class Failure extends Error {
  constructor(
    readonly kind: string,
    message: string,
    readonly code = "",
    readonly field = "",
  ) {
    super(message);
  }
}

let classified: readonly Classified[] = [];

export function recognise(table: readonly Classified[]): void {
  classified = table;
}

const odd = (why: string) => new Failure("protocol", why);

function invalid(field: string, code: string): Failure {
  return new Failure("invalid_argument", `${field} is not as it should be`, code, field);
}

// Integers become bigint, so that none loses a digit: each is wrapped before JSON.parse sees it.
const TOKENS = /"(?:[^"\\]|\\.)*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?/g;

export function parse(text: string): Json {
  const wrapped = text.replace(TOKENS, (token) =>
    /^-?\d+$/.test(token) ? `{"\\u0000":"${token}"}` : token,
  );
  try {
    return JSON.parse(wrapped, (_, value) =>
      value !== null && typeof value === "object" && "\u0000" in value
        ? BigInt(value["\u0000"])
        : value,
    ) as Json;
  } catch {
    throw odd("not JSON");
  }
}

export function checkText(
  name: string,
  value: string | undefined,
  optional: boolean,
  rule: TextRule,
): void {
  if (value === undefined || (optional && value === "")) return;
  const characters = [...value].length;
  const bytes = new TextEncoder().encode(value).length;
  const fine =
    characters >= rule.characters[0] &&
    characters <= rule.characters[1] &&
    bytes >= rule.bytes[0] &&
    bytes <= rule.bytes[1] &&
    new RegExp(rule.pattern, "u").test(value) &&
    !rule.forbid.some((text) => value.includes(text)) &&
    (rule.text !== "no_control" || !/[\u0000-\u001f\u007f-\u009f]/.test(value)) &&
    (rule.text !== "printable_ascii" || /^[ -~]*$/.test(value));
  if (!fine) throw invalid(name, rule.code);
}

export function checkInteger(
  name: string,
  value: bigint | undefined,
  low: bigint,
  high: bigint,
): void {
  if (value !== undefined && (value < low || value > high)) throw invalid(name, "invalid_argument");
}

export function checkList(
  name: string,
  items: readonly unknown[] | undefined,
  low: number,
  high: number,
): void {
  const length = items?.length ?? 0;
  if (length > 0 && (length < low || length > high)) throw invalid(name, "invalid_argument");
}

export function needs(field: string, condition: boolean, ...values: unknown[]): void {
  const given = values.some((value) => sent(value, false) !== undefined);
  if (condition && !given) throw invalid(field, "invalid_argument");
}

export const equals = (value: unknown, other: unknown) => value === other;

export const isOn = (value: unknown) => sent(value, true) !== undefined;

export const join = (...parts: unknown[]) => parts.map(String).join(".");

export function sent(value: unknown, zeroIsDefault: boolean): Json | undefined {
  if (value === undefined || value === "") return undefined;
  if (zeroIsDefault && (value === 0n || value === false)) return undefined;
  if (Array.isArray(value) && value.length === 0) return undefined;
  return value as Json;
}

export function putAt(body: Fields, path: string[], value: Json | undefined): void {
  if (value === undefined) return;
  let here = body;
  for (const key of path.slice(0, -1)) here = (here[key] ??= {}) as Fields;
  here[path.at(-1) as string] = value;
}

export function spread(body: Fields, fields: Fields | undefined): void {
  Object.assign(body, fields);
}

export function put<T>(
  out: Fields,
  name: string,
  value: unknown,
  convert?: (value: T) => Json,
): void {
  if (value === undefined) return;
  if (value instanceof Uint8Array) {
    out[name] = { base64: Buffer.from(value).toString("base64") };
  } else if (convert !== undefined) {
    out[name] = Array.isArray(value) ? value.map(convert) : convert(value as T);
  } else {
    out[name] = value as Json;
  }
}

export function members(value: Json): Fields {
  if (value === null || typeof value !== "object" || Array.isArray(value))
    throw odd("not an object");
  return value;
}

export function reply(value: Json): Fields {
  const fields = members(value);
  const text = required(fields, "error", asText);
  if (text === "") return fields;
  const known = classified.find(
    ({ prefix, suffix }) =>
      text.length >= prefix.length + suffix.length &&
      text.startsWith(prefix) &&
      text.endsWith(suffix),
  );
  throw new Failure("server", text, otherwise(fields, "code", asText, known?.code ?? ""));
}

export function asText(value: Json): string {
  if (typeof value !== "string") throw odd("not a text");
  return value;
}

export function asInteger(value: Json): bigint {
  if (typeof value !== "bigint" || value !== BigInt.asIntN(64, value)) throw odd("not an integer");
  return value;
}

export function asNumber(value: Json): number {
  if (typeof value !== "number" && typeof value !== "bigint") throw odd("not a number");
  return Number(value);
}

export function asBoolean(value: Json): boolean {
  if (typeof value !== "boolean") throw odd("not true or false");
  return value;
}

export const asBytes = (value: Json) => new TextEncoder().encode(asText(value));

export function asHeaderMap(value: Json): Record<string, string[]> {
  const decode = listOf(asText, false);
  return Object.fromEntries(
    Object.entries(members(value)).map(([name, values]) => [name, decode(values)]),
  );
}

export function listOf<T>(decode: (value: Json) => T, dropOdd: boolean): (value: Json) => T[] {
  return (value) => {
    if (!Array.isArray(value)) throw odd("not a list");
    return value.flatMap((item) => {
      try {
        return [decode(item)];
      } catch (error) {
        if (dropOdd) return [];
        throw error;
      }
    });
  };
}

export function required<T>(fields: Fields, name: string, decode: (value: Json) => T): T {
  return decode(fields[name] ?? null);
}

export function optional<T>(
  fields: Fields,
  name: string,
  decode: (value: Json) => T,
): T | undefined {
  const value = fields[name] ?? null;
  return value === null ? undefined : decode(value);
}

export function lenient<T>(
  fields: Fields,
  name: string,
  decode: (value: Json) => T,
): T | undefined {
  try {
    return optional(fields, name, decode);
  } catch {
    return undefined;
  }
}

export function otherwise<T>(
  fields: Fields,
  name: string,
  decode: (value: Json) => T,
  other: T,
): T {
  return lenient(fields, name, decode) ?? other;
}

export function payload(fields: Fields, name: string, encoding: string): Uint8Array {
  const text = otherwise(fields, name, asText, "");
  const known = fields[encoding] === "base64" && text.length % 4 === 0;
  if (known && /^[A-Za-z0-9+/]*={0,2}$/.test(text)) return Buffer.from(text, "base64");
  return new TextEncoder().encode(text);
}

// Plain values with every payload in base64.
function plain(value: Json | undefined): Json {
  if (Array.isArray(value)) return value.map(plain);
  if (value === undefined || value === null || typeof value !== "object") return value ?? null;
  const entries = Object.entries(value);
  if (entries.length === 1 && typeof value["text"] === "string") {
    return { base64: Buffer.from(value["text"]).toString("base64") };
  }
  return Object.fromEntries(entries.map(([name, item]) => [name, plain(item)]));
}

export function checkVector(
  call: (call: Fields) => Request,
  decode: (value: Json) => Json | undefined,
  data: string,
): void {
  const vector = members(parse(data));
  const expected = vector["error"] ?? null;
  const check = (error: unknown) => {
    assert.ok(error instanceof Failure, String(error));
    const want = members(expected);
    assert.equal(error.kind, want["kind"]);
    if ("code" in want) assert.equal(error.code, want["code"]);
    if ("field" in want) assert.equal(error.field, want["field"]);
    return true;
  };
  if (vector["request"] === null) {
    assert.throws(() => call(members(vector["call"] ?? null)), check);
    return;
  }
  const made = call(members(vector["call"] ?? null));
  const request = members(vector["request"] ?? null);
  assert.equal(made.subject, request["subject"]);
  assert.deepEqual(made.body, request["json"] ?? {});
  const answer = () => decode(answered(members(vector["reply"] ?? null)));
  if (vector["is_ok"] === true) assert.deepEqual(plain(answer()), plain(vector["ok"]));
  else assert.throws(answer, check);
}

function answered(reply: Fields): Json {
  if ("json" in reply) return reply["json"] ?? null;
  if (typeof reply["text"] === "string") return parse(reply["text"]);
  const bytes = Buffer.from(asText(reply["base64"] ?? null), "base64");
  try {
    return parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw odd("not JSON");
  }
}
