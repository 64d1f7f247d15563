/** The smallest conversation: a mailbox, a message, its receiver. */
import { connect } from "mq9";

const client = await connect(process.env["MQ9_URL"]);
const address = await client.mailboxCreate({ ttl: 3600 });
await client.send(address, { task: "greet", who: "world" }, { priority: "urgent" });

const { messages } = await client.fetch(address, {
  groupName: "workers",
  deliver: "earliest",
  leaseMs: 30_000,
});
for (const message of messages) {
  console.log(`message ${message.msgId} (${message.priority}):`, message.json());
  await client.ack(address, "workers", message.msgId);
}
await client.close();
