/** Arguments of a call on their way out: checked, then in the form that is sent. */
import { invalid } from "./error.js";
import { stringifyJson } from "./json.js";

/** A whole number. Beyond 2^53 it has to be a `bigint`: a `number` would have lost digits already. */
export type Integer = number | bigint;

/** What a message may carry: bytes, text (sent as UTF-8), or a JSON value. */
export type Payload = string | Uint8Array | number | bigint | boolean | object | null;

/** What an argument has to satisfy: gives it back in the form that is sent, or throws. */
export type Rule = (field: string, value: unknown) => unknown;

/** What a text has to satisfy. */
export interface TextRule {
  readonly code?: string;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minBytes?: number;
  readonly maxBytes?: number;
  readonly pattern?: string;
  /** The same for people. */
  readonly chars?: string;
  readonly forbid?: readonly string[];
  readonly text?: string;
}

const HEADER_NAME = /^[A-Za-z0-9\-_.]+$/;
const PRINTABLE = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/;
const CONTROL = /\p{Control}/u;
const LONE_SURROGATE = /\p{Surrogate}/u;
const SHOWN = 60;
const MAX_TIMER_MS = 2 ** 31 - 1;

const encoder = new TextEncoder();

function shown(value: unknown): string {
  const text =
    typeof value === "string"
      ? JSON.stringify(value)
      : typeof value === "object" && value !== null
        ? `an object of type ${value.constructor.name}`
        : String(value);
  return text.length <= SHOWN ? text : `${text.slice(0, SHOWN - 3)}...`;
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : typeof value;
}

/** Makes the check of a text. */
export function text(rule: TextRule): (field: string, value: unknown) => string {
  const pattern = rule.pattern === undefined ? undefined : new RegExp(rule.pattern, "u");
  return (field, value) => {
    if (typeof value !== "string") {
      throw invalid(field, `must be text, not ${kindOf(value)}`, rule.code);
    }
    const why = whyNot(rule, pattern, value);
    if (why !== undefined) {
      throw invalid(field, value === "" ? why : `${why}: ${shown(value)}`, rule.code);
    }
    return value;
  };
}

function whyNot(rule: TextRule, pattern: RegExp | undefined, value: string): string | undefined {
  const { minLength = 0, maxLength = Infinity, minBytes = 0, maxBytes = Infinity } = rule;
  if (LONE_SURROGATE.test(value)) return "has half a surrogate pair, which is no character";
  if (value === "" && (minLength > 0 || minBytes > 0)) return "must not be empty";
  const characters = Array.from(value).length;
  const bytes = encoder.encode(value).length;
  if (characters > maxLength) {
    return `has ${String(characters)} characters, at most ${String(maxLength)} are allowed`;
  }
  if (bytes > maxBytes) {
    return `has ${String(bytes)} bytes in UTF-8, at most ${String(maxBytes)} are allowed`;
  }
  if (characters < minLength || bytes < minBytes) return "is too short";
  if (pattern !== undefined && !pattern.test(value)) return `must be ${rule.chars ?? ""}`;
  for (const part of rule.forbid ?? []) {
    if (value.includes(part)) return `must not contain ${JSON.stringify(part)}`;
  }
  if (rule.text === "no_control" && CONTROL.test(value))
    return "must not contain control characters";
  if (rule.text === "printable_ascii" && !PRINTABLE.test(value)) {
    return "must be printable ASCII without blanks at its ends";
  }
  return undefined;
}

const headerText = text({ minBytes: 1, text: "printable_ascii" });

/** Makes the check of a whole number. */
export function integer(low: bigint, high: bigint): (field: string, value: unknown) => Integer {
  return (field, value) => {
    if (typeof value !== "bigint" && (typeof value !== "number" || !Number.isInteger(value))) {
      throw invalid(field, `must be a whole number, not ${shown(value)}`);
    }
    if (value < low || value > high) {
      throw invalid(field, `must be ${String(low)} to ${String(high)}, not ${shown(value)}`);
    }
    if (typeof value === "number" && !Number.isSafeInteger(value)) {
      throw invalid(field, `a number beyond 2^53 is not exact, give a bigint: ${shown(value)}`);
    }
    return value;
  };
}

/** Checks any number. */
export function number(field: string, value: unknown): number {
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw invalid(field, `must be a number, not ${shown(value)}`);
  }
  return value;
}

/** Checks a truth value. */
export function boolean(field: string, value: unknown): boolean {
  if (typeof value !== "boolean")
    throw invalid(field, `must be true or false, not ${shown(value)}`);
  return value;
}

/** Makes the check of a list, whose items are checked one by one. */
export function list(
  rule: Rule,
  low: number,
  high: number,
): (field: string, value: unknown) => unknown[] {
  return (field, value) => {
    if (!isIterable(value)) throw invalid(field, `must be a list, not ${kindOf(value)}`);
    const items = Array.from(value, (item) => rule(field, item));
    if (items.length < low) {
      throw invalid(
        field,
        low === 1
          ? "must not be empty"
          : `must have at least ${String(low)} items, not ${String(items.length)}`,
      );
    }
    if (items.length > high) {
      throw invalid(field, `must have at most ${String(high)} items, not ${String(items.length)}`);
    }
    return items;
  };
}

function isIterable(value: unknown): value is Iterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.iterator in value;
}

/** Text that can travel in a header. */
export function header(field: string, value: unknown): string {
  return headerText(field, value);
}

function isMembers(value: unknown): value is Readonly<Record<string, unknown>> {
  return (
    typeof value === "object" &&
    value !== null &&
    !isIterable(value) &&
    !ArrayBuffer.isView(value) &&
    !(value instanceof ArrayBuffer)
  );
}

/** Makes the check of the user's own headers. */
export function userHeaders(reserved: ReadonlySet<string>): Rule {
  return (field, value) => {
    if (!isMembers(value)) {
      throw invalid(field, `must be an object of names and values, not ${kindOf(value)}`);
    }
    for (const [name, item] of Object.entries(value)) {
      if (!HEADER_NAME.test(name)) {
        throw invalid(field, `a name must be letters, digits and -_. only: ${shown(name)}`);
      }
      if (reserved.has(name.toLowerCase()))
        throw invalid(field, `${name} has an option of its own`);
      headerText(field, item);
    }
    return value;
  };
}

/** Checks a JSON object of the user's own. */
export function jsonObject(field: string, value: unknown): Readonly<Record<string, unknown>> {
  if (!isMembers(value)) throw invalid(field, `must be an object, not ${kindOf(value)}`);
  return value;
}

/** A JSON value as UTF-8. */
export function jsonBytes(field: string, value: unknown): Uint8Array {
  try {
    return encoder.encode(stringifyJson(value));
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError) {
      throw invalid(field, `is no JSON value: ${error.message}`);
    }
    throw error;
  }
}

/** A payload as bytes: bytes as they are, text as UTF-8, anything else as JSON. */
export function payload(field: string, value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value;
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) {
    return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  }
  if (typeof value === "string") {
    if (LONE_SURROGATE.test(value)) {
      throw invalid(field, "has half a surrogate pair, which is no character");
    }
    return encoder.encode(value);
  }
  return jsonBytes(field, value);
}

/** A time in milliseconds, above 0. */
export function milliseconds(field: string, value: unknown): number {
  if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) {
    throw invalid(field, `must be milliseconds above 0, not ${shown(value)}`);
  }
  return Math.min(value, MAX_TIMER_MS);
}

/** The options of a call whose last argument may be left out, and given among the options instead. */
export function withPositional<T extends object>(
  name: string,
  value: unknown,
  options: T | undefined,
): T {
  if (typeof value === "object" && value !== null) return value as T;
  if (value === undefined || value === null) return options ?? ({} as T);
  return { ...options, [name]: value } as T;
}

/** A new dedup-id of that many random hexadecimal digits. */
export function generatedDedupId(digits: number): string {
  const bytes = crypto.getRandomValues(new Uint8Array(Math.ceil(digits / 2)));
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.slice(0, digits);
}
