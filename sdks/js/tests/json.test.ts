import { expect, test } from "vitest";
import { base64 } from "../src/decode.js";
import { parseExact, parseJson, stringifyJson } from "../src/json.js";

test("whole numbers keep all their digits", () => {
  const text = '{"a":9007199254740993,"b":[9223372036854775807,-9223372036854775808,0,1.5,1e3]}';
  expect(parseJson(text)).toEqual({
    a: 9007199254740993n,
    b: [9223372036854775807n, -9223372036854775808n, 0, 1.5, 1000],
  });
  expect(stringifyJson({ a: 9007199254740993n, b: 1, c: undefined, d: [null, true, "x"] })).toBe(
    '{"a":9007199254740993,"b":1,"d":[null,true,"x"]}',
  );
});

test("a reply tells 1 from 1.0", () => {
  expect(parseExact("[1,1.0,1e0,-0]")).toEqual([1n, 1, 1, 0n]);
});

test("what JSON.parse takes is taken, and nothing else", () => {
  const fine = [
    '"a\\u00e9\\n\\"/"',
    " [ ] ",
    '{"a":{}}',
    "-1.5E-2",
    "true",
    "null",
    '""',
    '"\\ud83d"',
  ];
  for (const text of fine) expect(parseJson(text)).toEqual(JSON.parse(text));
  const odd = [
    "",
    "{",
    "[1,]",
    '{"a":1,}',
    "{a:1}",
    "01",
    "1.",
    ".5",
    "+1",
    "NaN",
    "nul",
    '"a\nb"',
    '"\\x"',
    "1 2",
    "\ufeff1",
  ];
  for (const text of odd) {
    expect(() => JSON.parse(text) as unknown, text).toThrow(SyntaxError);
    expect(() => parseJson(text), text).toThrow(SyntaxError);
  }
});

test("a member called __proto__ is a member", () => {
  const value = parseJson('{"__proto__":{"x":1},"constructor":2}') as Record<string, unknown>;
  expect(Object.keys(value)).toEqual(["__proto__", "constructor"]);
  expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
  expect(value["x"]).toBeUndefined();
});

test("of equal names the last counts", () => {
  expect(parseJson('{"a":1,"a":2}')).toEqual({ a: 2 });
});

test("what JSON can't hold is refused instead of becoming null", () => {
  const refused = [
    NaN,
    Infinity,
    () => 1,
    Symbol("x"),
    undefined,
    new Map(),
    new Set(),
    new Uint8Array(1),
    "\ud800",
  ];
  for (const value of refused) expect(() => stringifyJson([value])).toThrow(TypeError);
  const circular: unknown[] = [];
  circular.push(circular);
  expect(() => stringifyJson(circular)).toThrow(RangeError);
  expect(stringifyJson({ at: new Date(0) })).toBe('{"at":"1970-01-01T00:00:00.000Z"}');
});

test("base64 is strict", () => {
  for (const length of [0, 1, 2, 3, 4, 255, 256]) {
    const bytes = Uint8Array.from({ length }, (_, index) => (index * 7 + length) & 0xff);
    expect(base64(Buffer.from(bytes).toString("base64"))).toEqual(bytes);
  }
  for (const text of [
    "a",
    "ab",
    "abc",
    "ab=c",
    "a===",
    "====",
    "ab c",
    "ab\n=",
    "äbcd",
    "-_==",
    "abcd\n",
  ]) {
    expect(base64(text), text).toBeUndefined();
  }
});
