//! The smallest conversation: a mailbox, a message, its receiver. `cargo run --example quickstart`.

use mq9::{Deliver, Priority};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("MQ9_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned());
    let client = mq9::connect(url).await?;
    let address = client.mailbox_create().ttl(3600).await?;
    let task = json!({"task": "greet", "who": "world"});
    client.send(&address, task).priority(Priority::Urgent).await?;

    let result = client
        .fetch(&address)
        .group_name("workers")
        .deliver(Deliver::Earliest)
        .lease_ms(30_000)
        .await?;
    for message in result.messages {
        println!("{} {}", message.priority, message.json::<Value>()?);
        client.ack(&address, "workers").msg_id(message.msg_id).await?;
    }
    client.close().await;
    Ok(())
}
