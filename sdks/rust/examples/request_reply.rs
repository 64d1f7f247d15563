//! A question and its answer, each in a mailbox: nobody has to be online. `cargo run --example request_reply`.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use mq9::{Client, Deliver};

/// Answers each question in the mailbox that it names.
async fn serve(client: Client, address: String) -> Result<(), mq9::Error> {
    let mut questions = client.consume(&address, "servers").deliver(Deliver::Earliest).stream()?;
    while let Some(question) = questions.try_next().await? {
        let Some(reply_to) = question.reply_to() else { continue };
        let answer = String::from_utf8_lossy(&question.payload).to_uppercase();
        let correlation_id = question.correlation_id().unwrap_or_default();
        client.send(reply_to, answer).correlation_id(correlation_id).await?;
    }
    Ok(())
}

/// Sends a question and waits for the answer that belongs to it.
async fn ask(client: &Client, address: &str, text: &str) -> Result<String, mq9::Error> {
    let inbox = client.mailbox_create().ttl(600).await?;
    let correlation_id = format!("question-to-{inbox}");
    client.send(address, text).reply_to(&inbox).correlation_id(&correlation_id).retry(true).await?;
    let mut answers = client.consume(&inbox, "me").deliver(Deliver::Earliest).stream()?;
    while let Some(answer) = answers.try_next().await? {
        if answer.correlation_id() == Some(&correlation_id) {
            answer.ack().await?;
            return Ok(String::from_utf8_lossy(&answer.payload).into_owned());
        }
    }
    Ok("the client was closed".to_owned())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("MQ9_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned());
    let client = mq9::connect(&url).await?;
    let address = client.mailbox_create().ttl(3600).await?;
    let (asking, place) = (client.clone(), address.clone());
    let question = tokio::spawn(async move { ask(&asking, &place, "how are you?").await });
    // Nobody is there yet to answer.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let serving = tokio::spawn(serve(mq9::connect(&url).await?, address));
    println!("answer: {}", question.await??);
    // Cancelled by dropping its future, as all of them.
    serving.abort();
    client.close().await;
    Ok(())
}
