/** An agent says what it can do; another finds it by that. */
import { connect } from "mq9";

const url = process.env["MQ9_URL"];
const card = {
  description: "Counts the words of a text.",
  skills: [
    { id: "count-words", tags: ["text", "statistics"], examples: ["How long is this article?"] },
  ],
};

const worker = await connect(url);
const client = await connect(url);
const inbox = await worker.mailboxCreate({ ttl: 3600 });
const helper = await worker.agentKeepAlive("word-counter", { mailbox: inbox, card });

const found = await client.agentDiscover("statistics");
const agents = found.agents as unknown as { name: string; description: string; mailbox: string }[];
for (const agent of agents) {
  console.log(`found ${agent.name}: ${agent.description}`);
  await client.send(agent.mailbox, "to be or not to be");
}
const { messages } = await worker.fetch(inbox, { deliver: "earliest" });
console.log(`${messages[0]?.text().split(/\s+/).length ?? 0} words`);

await helper.stop();
console.log(`${(await client.agentDiscover("statistics")).agents.length} agents left`);
await Promise.all([client.close(), worker.close()]);
