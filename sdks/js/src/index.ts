/**
 * Asynchronous messaging for software agents: the JavaScript and TypeScript client of mq9.
 *
 * @packageDocumentation
 */
export { Client, connect } from "./client.js";
export type { ConnectOptions } from "./client.js";
export { Consumer } from "./consumer.js";
export type { ConsumerStats, ErrorHook, Handler } from "./consumer.js";
export type { Integer, Payload } from "./encode.js";
export { Mq9Error } from "./error.js";
export type { ErrorDetails } from "./error.js";
export { SPEC_VERSION } from "./generated/constants.js";
export { ERROR_CODES, ERROR_KINDS } from "./generated/errors.js";
export type { ErrorCode, ErrorKind } from "./generated/errors.js";
export * from "./generated/public.js";
export { parseJson, stringifyJson } from "./json.js";
export type { JsonObject, JsonValue } from "./json.js";
export { AgentKeepAlive } from "./keep-alive.js";
export { setLogger } from "./log.js";
export type { Logger } from "./log.js";
export type { CallOptions } from "./operation.js";
export { VERSION } from "./version.js";
