/** A question and its answer, each in a mailbox: nobody has to be online. */
import { randomUUID } from "node:crypto";
import { connect } from "mq9";
import type { Client } from "mq9";

const url = process.env["MQ9_URL"];

/** Answers each question in the mailbox that it names. */
async function serve(server: Client, address: string): Promise<void> {
  for await (const question of server.consume(address, "servers", { deliver: "earliest" })) {
    const { replyTo, correlationId } = question;
    if (replyTo !== undefined) {
      await server.send(replyTo, question.text().toUpperCase(), { correlationId });
    }
  }
}

/** Sends a question and waits for the answer that belongs to it. */
async function ask(client: Client, address: string, text: string): Promise<string> {
  const inbox = await client.mailboxCreate({ ttl: 600 });
  const correlationId = randomUUID();
  await client.send(address, text, { replyTo: inbox, correlationId, retry: true });
  for await (const answer of client.consume(inbox, "me", { deliver: "earliest" })) {
    if (answer.correlationId === correlationId) {
      await answer.ack();
      return answer.text();
    }
  }
  throw new Error("the client was closed");
}

const client = await connect(url);
const server = await connect(url);
const address = await client.mailboxCreate({ ttl: 3600 });
const asking = ask(client, address, "how are you?"); // before anybody is there to answer
const serving = serve(server, address);
console.log(`answer: ${await asking}`);
await Promise.all([client.close(), server.close()]);
await serving;
