/**
 * JSON without loss of digits. `JSON.parse` makes every number a double, which spoils whole numbers beyond 2^53,
 * and does not tell 1 from 1.0; the protocol needs both.
 */

/** A JSON value. Whole numbers that a `number` can't hold exactly are a `bigint`. */
export type JsonValue =
  string | number | bigint | boolean | null | readonly JsonValue[] | JsonObject;

/** A JSON object of the user's own, such as an agent's card. */
export interface JsonObject {
  readonly [name: string]: JsonValue;
}

/** What a reply is made of: here every whole number is a `bigint`, and every `number` was written as another one. */
export type ParsedJson = string | number | bigint | boolean | null | ParsedJson[] | JsonMembers;

/** The members of an object in a reply; without a prototype. */
export interface JsonMembers {
  [name: string]: ParsedJson | undefined;
}

const NUMBER = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const BLANK = /[ \t\n\r]*/y;
// A string without escapes and control characters, which most are.
const PLAIN_STRING = /"[^"\\\u0000-\u001f]*"/y;
const ANY_STRING = /"(?:[^"\\\u0000-\u001f]|\\.)*"/y;
const DIGITS_OF_A_SAFE_INTEGER = 15;

class Parser {
  private at = 0;

  constructor(
    private readonly text: string,
    private readonly exact: boolean,
  ) {}

  whole(): ParsedJson {
    const value = this.value();
    this.blanks();
    if (this.at < this.text.length) throw this.unexpected();
    return value;
  }

  private value(): ParsedJson {
    this.blanks();
    switch (this.text[this.at]) {
      case "{":
        return this.object();
      case "[":
        return this.array();
      case '"':
        return this.string();
      case "t":
        return this.word("true", true);
      case "f":
        return this.word("false", false);
      case "n":
        return this.word("null", null);
      default:
        return this.number();
    }
  }

  private object(): JsonMembers {
    // Nothing inherited can be taken for a member of a reply; what users get is an ordinary object.
    const members = (this.exact ? Object.create(null) : {}) as JsonMembers;
    this.at += 1;
    this.blanks();
    if (this.take("}")) return members;
    for (;;) {
      this.blanks();
      if (this.text[this.at] !== '"') throw this.unexpected();
      const name = this.string();
      this.blanks();
      if (!this.take(":")) throw this.unexpected();
      const value = this.value();
      if (name === "__proto__") {
        Object.defineProperty(members, name, {
          value,
          enumerable: true,
          writable: true,
          configurable: true,
        });
      } else {
        members[name] = value;
      }
      this.blanks();
      if (this.take("}")) return members;
      if (!this.take(",")) throw this.unexpected();
    }
  }

  private array(): ParsedJson[] {
    const items: ParsedJson[] = [];
    this.at += 1;
    this.blanks();
    if (this.take("]")) return items;
    for (;;) {
      items.push(this.value());
      this.blanks();
      if (this.take("]")) return items;
      if (!this.take(",")) throw this.unexpected();
    }
  }

  private string(): string {
    const plain = this.match(PLAIN_STRING);
    if (plain !== undefined) return plain.slice(1, -1);
    const escaped = this.match(ANY_STRING);
    if (escaped === undefined) throw this.unexpected();
    return JSON.parse(escaped) as string;
  }

  private number(): number | bigint {
    NUMBER.lastIndex = this.at;
    const found = NUMBER.exec(this.text);
    if (found === null) throw this.unexpected();
    this.at = NUMBER.lastIndex;
    const [text, fraction, exponent] = found;
    if (fraction !== undefined || exponent !== undefined) return Number(text);
    if (!this.exact && text.length <= DIGITS_OF_A_SAFE_INTEGER) return Number(text);
    const value = BigInt(text);
    return this.exact || !Number.isSafeInteger(Number(value)) ? value : Number(value);
  }

  private word<T>(word: string, value: T): T {
    if (!this.text.startsWith(word, this.at)) throw this.unexpected();
    this.at += word.length;
    return value;
  }

  private take(character: string): boolean {
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    return true;
  }

  private blanks(): void {
    this.match(BLANK);
  }

  private match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found === null) return undefined;
    this.at = pattern.lastIndex;
    return found[0];
  }

  private unexpected(): SyntaxError {
    const found = this.text[this.at];
    const what = found === undefined ? "the end" : JSON.stringify(found);
    return new SyntaxError(`unexpected ${what} at position ${String(this.at)}`);
  }
}

/** Parses a reply. Throws SyntaxError, or RangeError if it is nested too deeply. */
export function parseExact(text: string): ParsedJson {
  return new Parser(text, true).whole();
}

/**
 * Parses JSON text of the user's own: numbers are `number`, but whole numbers that it can't hold exactly are a
 * `bigint`. Throws SyntaxError.
 */
export function parseJson(text: string): JsonValue {
  return new Parser(text, false).whole() as JsonValue;
}

/** A value of a reply in the form that users get. */
export function toJsonValue(value: ParsedJson): JsonValue {
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value;
  }
  if (Array.isArray(value)) return value.map(toJsonValue);
  if (typeof value === "object" && value !== null) return toJsonObject(value);
  return value;
}

/** Likewise for an object. */
export function toJsonObject(members: JsonMembers): JsonObject {
  const result: Record<string, JsonValue> = {};
  for (const [name, value] of Object.entries(members)) {
    Object.defineProperty(result, name, {
      value: toJsonValue(value ?? null),
      enumerable: true,
      writable: true,
      configurable: true,
    });
  }
  return result;
}

const LONE_SURROGATE = /\p{Surrogate}/u;

/**
 * A value as JSON text. Like `JSON.stringify`, but a `bigint` is a whole number, and what JSON can't hold (a
 * function, NaN, half a surrogate pair) is a TypeError instead of a `null`.
 */
export function stringifyJson(value: unknown): string {
  return text(value, "");
}

function text(value: unknown, key: string): string {
  switch (typeof value) {
    case "string":
      if (LONE_SURROGATE.test(value)) {
        throw new TypeError("half a surrogate pair is no character");
      }
      return JSON.stringify(value);
    case "number":
      if (!Number.isFinite(value)) throw new TypeError(`${String(value)} is no JSON number`);
      return String(value);
    case "bigint":
    case "boolean":
      return String(value);
    case "object":
      return value === null ? "null" : objectText(value, key);
    default:
      throw new TypeError(`a value of type ${typeof value} is no JSON value`);
  }
}

function objectText(value: object, key: string): string {
  if ("toJSON" in value && typeof value.toJSON === "function") {
    return text((value.toJSON as (key: string) => unknown)(key), key);
  }
  if (Array.isArray(value)) {
    return `[${value.map((item, index) => text(item, String(index))).join(",")}]`;
  }
  if (value instanceof Map || value instanceof Set || ArrayBuffer.isView(value)) {
    throw new TypeError(`a ${value.constructor.name} is no JSON value`);
  }
  const members: string[] = [];
  for (const [name, item] of Object.entries(value)) {
    // As in JSON.stringify, a member that is undefined is none.
    if (item !== undefined) members.push(`${text(name, name)}:${text(item, name)}`);
  }
  return `{${members.join(",")}}`;
}
