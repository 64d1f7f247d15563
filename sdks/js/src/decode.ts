/** Replies on their way in: strict where the protocol is, lenient where one odd value must not spoil all. */
import { Mq9Error, serverError } from "./error.js";
import { parseExact, toJsonObject } from "./json.js";
import type { JsonMembers, JsonObject, ParsedJson } from "./json.js";
import { log } from "./log.js";

/** A value is not of the type that the protocol says. */
export class OddValue extends Error {}

/** Makes a value of what stands in a reply, or throws OddValue. */
export type Decoder<T> = (value: ParsedJson) => T;

const MAX_INTEGER = 2n ** 63n - 1n;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function joined(error: OddValue): string {
  return /^[.[]/.test(error.message) ? error.message : `: ${error.message}`;
}

/** The members of a JSON object. */
export function members(value: ParsedJson): JsonMembers {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new OddValue("must be an object");
  }
  return value;
}

/** A whole number of at most 63 bits and a sign. */
export function integer(value: ParsedJson): bigint {
  if (typeof value !== "bigint" || value > MAX_INTEGER || value < -MAX_INTEGER - 1n) {
    throw new OddValue("must be a whole number");
  }
  return value;
}

/** Any number. */
export function number(value: ParsedJson): number {
  if (typeof value !== "number" && typeof value !== "bigint") {
    throw new OddValue("must be a number");
  }
  return Number(value);
}

/** True or false. */
export function boolean(value: ParsedJson): boolean {
  if (typeof value !== "boolean") throw new OddValue("must be true or false");
  return value;
}

/** A text. */
export function text(value: ParsedJson): string {
  if (typeof value !== "string") throw new OddValue("must be text");
  return value;
}

/** A JSON object of the user's own. */
export function jsonObject(value: ParsedJson): JsonObject {
  return toJsonObject(members(value));
}

/** Header names with their values. */
export function headerMap(value: ParsedJson): Readonly<Record<string, readonly string[]>> {
  const texts = list(text);
  return Object.fromEntries(
    Object.entries(members(value)).map(([name, values]) => [name, texts(values ?? null)]),
  );
}

/** A list; with `drop` an odd item is left out and logged instead of failing the whole. */
export function list<T>(item: Decoder<T>, odd: "fail" | "drop" = "fail"): Decoder<readonly T[]> {
  return (value) => {
    if (!Array.isArray(value)) throw new OddValue("must be a list");
    const result: T[] = [];
    for (const [index, entry] of value.entries()) {
      try {
        result.push(item(entry));
      } catch (error) {
        if (!(error instanceof OddValue)) throw error;
        const where = `[${String(index)}]${joined(error)}`;
        if (odd === "fail") throw new OddValue(where);
        log.warn(`left an odd item out of a reply: ${where}`);
      }
    }
    return result;
  };
}

/** A member that has to be there. */
export function required<T>(fields: JsonMembers, name: string, item: Decoder<T>): T {
  const value = fields[name] ?? null;
  if (value === null) throw new OddValue(`.${name}: is missing`);
  try {
    return item(value);
  } catch (error) {
    if (error instanceof OddValue) throw new OddValue(`.${name}${joined(error)}`);
    throw error;
  }
}

/** A member that may be absent or null. */
export function optional<T>(fields: JsonMembers, name: string, item: Decoder<T>): T | undefined {
  return (fields[name] ?? null) === null ? undefined : required(fields, name, item);
}

/** Likewise, with a default. */
export function optionalOr<T>(
  fields: JsonMembers,
  name: string,
  item: Decoder<T>,
  otherwise: T,
): T {
  return optional(fields, name, item) ?? otherwise;
}

/** A member that counts as absent when its value is odd. */
export function lenient<T>(fields: JsonMembers, name: string, item: Decoder<T>): T | undefined {
  try {
    return optional(fields, name, item);
  } catch (error) {
    if (error instanceof OddValue) return undefined;
    throw error;
  }
}

/** Likewise, with a default. */
export function lenientOr<T>(fields: JsonMembers, name: string, item: Decoder<T>, otherwise: T): T {
  return lenient(fields, name, item) ?? otherwise;
}

/** A message's payload: decoded base64, or the UTF-8 of a text that is none; empty if it is missing. */
export function payload(fields: JsonMembers, name: string, encodingName: string): Uint8Array {
  const value = fields[name];
  if (typeof value !== "string") return new Uint8Array(0);
  if (fields[encodingName] === "base64") {
    const bytes = base64(value);
    if (bytes !== undefined) return bytes;
    log.warn("a message says base64, but its payload is none: taken as text");
  }
  return encoder.encode(value);
}

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const SEXTETS = new Int8Array(128).fill(-1);
for (let sextet = 0; sextet < ALPHABET.length; sextet++) {
  SEXTETS[ALPHABET.charCodeAt(sextet)] = sextet;
}

/** Decodes base64 with padding; undefined if the text is none. `atob` would let blanks and missing padding through. */
export function base64(value: string): Uint8Array | undefined {
  const length = value.length;
  if (length % 4 !== 0) return undefined;
  const padding = value.endsWith("==") ? 2 : value.endsWith("=") ? 1 : 0;
  const bytes = new Uint8Array((length / 4) * 3 - padding);
  let bits = 0;
  let at = 0;
  for (let index = 0; index < length - padding; index++) {
    const sextet = SEXTETS[value.charCodeAt(index)] ?? -1;
    if (sextet < 0) return undefined;
    bits = ((bits << 6) | sextet) & 0xffffff;
    if (index % 4 > 0) {
      bytes[at++] = (bits >> (6 - 2 * (index % 4))) & 0xff;
    }
  }
  return bytes;
}

/** Bytes as text. Throws TypeError if they are not UTF-8. */
export function utf8(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** Decodes a successful reply. */
export function result<T>(
  operation: string,
  fields: JsonMembers,
  decode: (fields: JsonMembers) => T,
): T {
  try {
    return decode(fields);
  } catch (error) {
    if (!(error instanceof OddValue)) throw error;
    throw new Mq9Error("protocol", `${operation}: reply${joined(error)}`, { operation });
  }
}

/** Parses a reply, and throws what it says if that is an error. */
export function reply(operation: string, data: Uint8Array): JsonMembers {
  let value: ParsedJson;
  try {
    value = parseExact(utf8(data));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Mq9Error("protocol", `${operation}: the reply is no JSON: ${why}`, {
      operation,
      cause: error,
    });
  }
  if (
    typeof value !== "object" ||
    value === null ||
    Array.isArray(value) ||
    typeof value["error"] !== "string"
  ) {
    throw new Mq9Error(
      "protocol",
      `${operation}: the reply is no JSON object with a text \`error\``,
      {
        operation,
      },
    );
  }
  if (value["error"] !== "") {
    const code = value["code"];
    throw serverError(
      value["error"],
      typeof code === "string" && code !== "" ? code : undefined,
      operation,
    );
  }
  return value;
}
