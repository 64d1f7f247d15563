//! An agent says what it can do; another finds it by that. `cargo run --example agent_registry`.

use mq9::{Deliver, JsonObject};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("MQ9_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned());
    let worker = mq9::connect(&url).await?;
    let client = mq9::connect(&url).await?;
    let inbox = worker.mailbox_create().ttl(3600).await?;
    let card = JsonObject::new(&json!({
        "description": "Counts the words of a text.",
        "skills": [{
            "id": "count-words",
            "tags": ["text", "statistics"],
            "examples": ["How long is this article?"],
        }],
    }))?;
    let agent =
        worker.agent_register("word-counter").mailbox(&inbox).card(card).keep_alive().await?;

    let found = client.agent_discover().text("statistics").await?;
    for card in &found.agents {
        let card: Value = card.get()?;
        println!("found {}: {}", card["name"], card["description"]);
        if let Some(mailbox) = card["mailbox"].as_str() {
            client.send(mailbox, "to be or not to be").await?;
        }
    }
    let result = worker.fetch(&inbox).deliver(Deliver::Earliest).await?;
    for message in result.messages {
        println!("{} words", message.text()?.split_whitespace().count());
    }
    agent.stop().await?;
    println!("{} agents left", client.agent_discover().text("statistics").await?.agents.len());
    client.close().await;
    worker.close().await;
    Ok(())
}
