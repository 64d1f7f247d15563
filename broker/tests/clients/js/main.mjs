// @nats-io/transport-node, and wsconnect of @nats-io/nats-core, as the matrix calls them.
import { readFileSync } from "node:fs";
import { credsAuthenticator, nkeyAuthenticator, wsconnect } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";

const env = process.env;
const options = { servers: env.MQ9_URL, reconnect: false, timeout: 10_000 };
if (env.MQ9_TOKEN) options.token = env.MQ9_TOKEN;
if (env.MQ9_USER) Object.assign(options, { user: env.MQ9_USER, pass: env.MQ9_PASSWORD });
if (env.MQ9_NKEY) options.authenticator = nkeyAuthenticator(readFileSync(env.MQ9_NKEY));
if (env.MQ9_CREDS) options.authenticator = credsAuthenticator(readFileSync(env.MQ9_CREDS));
const isWebSocket = env.MQ9_URL.startsWith("ws");
if (env.MQ9_CA && !isWebSocket) {
  options.tls = { caFile: env.MQ9_CA, certFile: env.MQ9_CERT, keyFile: env.MQ9_KEY };
  if (env.MQ9_TLS_FIRST) options.tls.handshakeFirst = true;
}
const client = await (isWebSocket ? wsconnect : connect)(options);
const reply = await client.request("$mq9.AI.MAILBOX.CREATE", "{}", { timeout: 10_000 });
console.log(reply.string());
await client.close();
