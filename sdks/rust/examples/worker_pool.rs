//! Three workers share a mailbox; one job fails at first and comes again. `cargo run --example worker_pool`.

use std::time::Duration;

use mq9::{Client, Consumer, Deliver, Message};
use tokio::sync::mpsc;

const JOBS: usize = 12;

/// Begins to handle jobs, until what it gives is stopped or dropped.
fn worker(
    client: &Client,
    name: String,
    address: &str,
    done: mpsc::Sender<usize>,
) -> Result<Consumer, mq9::Error> {
    client
        .consume(address, "workers")
        .deliver(Deliver::Earliest)
        .concurrency(2)
        .on_error(move |failure| {
            println!("{name}: {failure}");
            async {}
        })
        .run(move |message: Message| {
            let done = done.clone();
            async move {
                let number: usize = message.text()?.parse()?;
                if number == 5 && message.delivery_count == Some(1) {
                    return Err("job 5 does not like to be first".into());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                done.send(number).await?;
                Ok::<(), mq9::HandlerError>(())
            }
        })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("MQ9_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned());
    let client = mq9::connect(&url).await?;
    let address = client.mailbox_create().ttl(3600).await?;
    for number in 0..JOBS {
        client.send(&address, number.to_string()).retry(true).await?;
    }
    let (done, mut results) = mpsc::channel(JOBS);
    let mut pool = Vec::new();
    for number in 0..3 {
        let name = format!("worker-{number}");
        let own = mq9::connect(&url).name(&name).await?;
        pool.push(worker(&own, name, &address, done.clone())?);
    }
    let mut numbers = Vec::new();
    while numbers.len() < JOBS {
        numbers.extend(results.recv().await);
    }
    for consumer in &pool {
        consumer.stop().await;
    }
    numbers.sort_unstable();
    println!("jobs done: {numbers:?}");
    client.close().await;
    Ok(())
}
