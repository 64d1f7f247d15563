//! An agent of `make demo`: counts the words of texts from a mailbox that it shares with its colleagues.
//!
//! What it tells, what it reads and what it sends is the same in every language; see demo/README.md.

use std::collections::BTreeMap;
use std::time::Duration;

use mq9::{Client, Deliver, HandlerError, JsonObject, Message, codes};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::signal::unix::{SignalKind, signal};

/// What stands between words, in every language.
const BLANKS: [char; 6] = [' ', '\t', '\r', '\n', '\u{b}', '\u{c}'];

/// The number of words, and the n most frequent ones of four letters or more.
fn count(text: &str, n: usize) -> (usize, Vec<(String, u64)>) {
    let mut frequent: BTreeMap<String, u64> = BTreeMap::new();
    for word in text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| word.len() >= 4) {
        *frequent.entry(word.to_ascii_lowercase()).or_default() += 1;
    }
    let mut top: Vec<(String, u64)> = frequent.into_iter().collect();
    // Stable, so ties stay in alphabetical order.
    top.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    top.truncate(n);
    (text.split(BLANKS).filter(|word| !word.is_empty()).count(), top)
}

/// Handles one task.
async fn handle(
    client: &Client,
    name: &str,
    think: Duration,
    message: Message,
) -> Result<(), HandlerError> {
    let task: Value = message.json()?;
    let document = task["document"].as_str().unwrap_or_default();
    let delivery = message.delivery_count.unwrap_or_default();
    println!("began {document} priority={} delivery={delivery}", message.priority);
    tokio::time::sleep(think).await;
    let n = usize::try_from(task["n"].as_u64().unwrap_or_default())?;
    let (words, top) = count(task["text"].as_str().unwrap_or_default(), n);
    let result = json!({
        "agent": name,
        "language": "Rust",
        "document": document,
        "words": words,
        "top": top,
    });
    client
        .send(message.reply_to().unwrap_or_default(), result)
        .priority(message.priority.clone())
        .correlation_id(message.correlation_id().unwrap_or_default())
        .await?;
    println!("did {document} words={words}");
    Ok(())
}

/// Registers, waits for the word `work`, works until it is dropped.
async fn run(client: &Client, name: &str, mailbox: &str) -> Result<(), HandlerError> {
    match client.mailbox_create().name(mailbox).ttl(600).await {
        // A colleague was first.
        Err(error) if error.code() == Some(codes::MAILBOX_EXISTS) => {}
        result => drop(result?),
    }
    let card = JsonObject::new(&json!({
        "description": "counts the words of a text, in Rust",
        "skills": [{"id": "count-words"}],
        "language": "Rust",
    }))?;
    let _registered = client.agent_register(name).mailbox(mailbox).card(card).keep_alive().await?;
    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    if lines.next_line().await?.as_deref().map(str::trim) != Some("work") {
        return Ok(());
    }
    let think = std::env::var("MQ9_THINK_MS").ok().and_then(|text| text.parse().ok());
    let think = Duration::from_millis(think.unwrap_or_default());
    let (own, name) = (client.clone(), name.to_owned());
    let consumer = client
        .consume(mailbox, "workers")
        .deliver(Deliver::Earliest)
        .num_msgs(1)
        .lease_ms(2000)
        .max_wait_ms(1000)
        .run(move |message| {
            let (client, name) = (own.clone(), name.clone());
            async move { handle(&client, &name, think, message).await }
        })?;
    consumer.wait().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), HandlerError> {
    let (name, mailbox) = (std::env::var("MQ9_NAME")?, std::env::var("MQ9_MAILBOX")?);
    let mut terminated = signal(SignalKind::terminate())?;
    let client = mq9::connect(std::env::var("MQ9_URL")?).name(&name).await?;
    let result = tokio::select! {
        result = run(&client, &name, &mailbox) => result,
        _ = terminated.recv() => Ok(()),
    };
    client.close().await;
    if let Err(error) = result {
        eprintln!("{name}: {error}");
        std::process::exit(1);
    }
    // The thread that reads stdin may still sit in its read.
    std::process::exit(0)
}
