//! The runtime against the reference broker: reconnecting, consuming, cancelling, closing.

#[path = "support/broker.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared by several tests")]
mod broker;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use broker::{Server, address, until};
use futures_util::StreamExt as _;
use mq9::{Client, Deliver, ErrorKind, HandlerError, Message, codes};
use tokio::sync::{Notify, mpsc};

type Result<T = (), E = HandlerError> = std::result::Result<T, E>;

const LONG: Duration = Duration::from_secs(30);

async fn connect(url: &str) -> Result<Client> {
    let wait = Duration::from_millis(20);
    Ok(mq9::connect(url).timeout(LONG).reconnect_wait(wait).reconnect_wait_max(wait * 4).await?)
}

async fn filled(client: &Client, count: usize) -> Result<String> {
    let inbox = client.mailbox_create().name(address()).await?;
    for number in 0..count {
        client.send(&inbox, number.to_string()).await?;
    }
    Ok(inbox)
}

async fn leased(client: &Client, inbox: &str, group: &str) -> Result<(i64, i64)> {
    let info = client.mailbox_info(inbox).await?;
    let group = info.groups.iter().find(|info| info.group_name == group);
    Ok(group.map_or((0, 0), |group| (group.pending, group.leased)))
}

#[tokio::test]
async fn the_next_server_of_the_list_is_used_when_one_fails() -> Result {
    let (first, second) = (Server::start(), Server::start());
    let servers = format!("{}, {}", first.url, second.url);
    let client = connect(&servers).await?;
    assert_eq!(client.connected_url().as_deref(), Some(first.url.as_str()));
    first.kill();
    let inbox = client.mailbox_create().name(address()).timeout(LONG).await;
    // What was on its way when the connection broke may fail; what comes after it does not.
    let inbox = match inbox {
        Err(error) if error.kind() == ErrorKind::ConnectionClosed => {
            client.mailbox_create().name(address()).await?
        }
        other => other?,
    };
    assert_eq!(client.connected_url().as_deref(), Some(second.url.as_str()));
    assert_eq!(client.send(&inbox, "hello").await?, 0);
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_down_is_passed_over() -> Result {
    let server = Server::start();
    let client = mq9::connect(["nats://127.0.0.1:1", &server.url]).await?;
    assert!(client.is_connected());
    let nobody = mq9::connect("nats://127.0.0.1:1").await.expect_err("nobody is there");
    assert_eq!((nobody.kind(), nobody.code()), (ErrorKind::ConnectionClosed, None));
    let odd = mq9::connect("http://127.0.0.1").await.expect_err("no such scheme");
    assert_eq!((odd.kind(), odd.field()), (ErrorKind::InvalidArgument, Some("servers")));
    Ok(())
}

#[tokio::test]
async fn calls_wait_for_the_connection_and_nothing_is_sent_late() -> Result {
    let server = Server::start();
    let listen = server.address().to_owned();
    let client = connect(&server.url).await?;
    server.kill();
    until("disconnected", async || !client.is_connected()).await;
    let short = client.mailbox_create().name("late").timeout(Duration::from_millis(50)).await;
    assert_eq!(short.expect_err("no server").kind(), ErrorKind::Timeout);
    let waiting = tokio::spawn(client.mailbox_create().name("waited").into_future());
    let _server = Server::start_on(&listen, &[]);
    assert_eq!(waiting.await??, "waited");
    let late = client.mailbox_info("late").await.expect_err("it was never sent");
    assert_eq!(late.code(), Some(codes::MAILBOX_NOT_FOUND));
    Ok(())
}

#[tokio::test]
async fn a_broker_that_restarts_does_not_end_a_consumer() -> Result {
    let data = std::env::temp_dir().join(format!("mq9-rust-data-{}", std::process::id()));
    let folder = data.to_string_lossy().into_owned();
    let server = Server::start_on("127.0.0.1:0", &["--data", &folder]);
    let listen = server.address().to_owned();
    let client = connect(&server.url).await?;
    let inbox = filled(&client, 1).await?;
    let (sender, mut handled) = mpsc::unbounded_channel();
    let consumer = client
        .consume(&inbox, "g")
        .deliver(Deliver::Earliest)
        .max_wait_ms(100)
        .on_error(|_| async {})
        .run(move |message: Message| {
            let sender = sender.clone();
            async move { sender.send(message.payload) }
        })?;
    assert_eq!(handled.recv().await.as_deref(), Some(b"0".as_slice()));
    until("it is confirmed", async || consumer.stats().acknowledged == 1).await;
    server.kill();
    until("the loss is noticed", async || consumer.stats().failed_fetches > 0).await;
    let server = Server::start_on(&listen, &["--data", &folder]);
    client.send(&inbox, "again").await?;
    assert_eq!(handled.recv().await.as_deref(), Some(b"again".as_slice()));
    consumer.stop().await;
    server.kill();
    std::fs::remove_dir_all(data)?;
    Ok(())
}

#[tokio::test]
async fn a_fetch_that_is_dropped_gives_its_messages_back() -> Result {
    let server = Server::start();
    let client = connect(&server.url).await?;
    let inbox = filled(&client, 0).await?;
    let fetch = client.fetch(&inbox).group_name("g").lease_ms(600_000).max_wait_ms(60_000);
    let waiting = tokio::spawn(fetch.into_future());
    until("the group is there", async || {
        client.mailbox_info(&inbox).await.is_ok_and(|info| !info.groups.is_empty())
    })
    .await;
    waiting.abort();
    assert!(waiting.await.expect_err("it was cancelled").is_cancelled());
    client.send(&inbox, "x").await?;
    let again = client.fetch(&inbox).group_name("g").lease_ms(1000).max_wait_ms(20_000).await?;
    assert_eq!(again.messages.len(), 1);
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn slow_handlers_keep_their_lease_and_an_ack_covers_nothing_else() -> Result {
    let server = Server::start();
    let client = connect(&server.url).await?;
    let inbox = filled(&client, 2).await?;
    let release = Arc::new(Notify::new());
    let waiting = release.clone();
    let consumer =
        client.consume(&inbox, "g").deliver(Deliver::Earliest).lease_ms(600).concurrency(2).run(
            move |message: Message| {
                let release = waiting.clone();
                async move {
                    if message.msg_id == 0 {
                        release.notified().await;
                    }
                    Ok::<(), HandlerError>(())
                }
            },
        )?;
    until("one is done", async || consumer.stats().acknowledged == 1).await;
    // Three leases long.
    tokio::time::sleep(Duration::from_millis(1800)).await;
    let other = client.fetch(&inbox).group_name("g").max_wait_ms(0).await?;
    assert!(other.messages.is_empty(), "it is still leased");
    release.notify_one();
    until("both are done", async || consumer.stats().acknowledged == 2).await;
    consumer.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_failed_message_comes_again_and_later_ones_do_not_hide_it() -> Result {
    let server = Server::start();
    let client = connect(&server.url).await?;
    let inbox = filled(&client, 5).await?;
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = failures.clone();
    let (sender, mut handled) = mpsc::unbounded_channel();
    let consumer = client
        .consume(&inbox, "g")
        .deliver(Deliver::Earliest)
        .on_error(move |failure| {
            let counted = counted.clone();
            async move {
                assert!(failure.handler_error().is_some());
                counted.fetch_add(1, Ordering::SeqCst);
                panic!("a hook that fails does not end the loop");
            }
        })
        .run(move |message: Message| {
            let sender = sender.clone();
            async move {
                if message.delivery_count == Some(1) {
                    match message.msg_id {
                        2 => return Err("not yet".into()),
                        3 => panic!("neither"),
                        _ => {}
                    }
                }
                sender.send(message.msg_id).map_err(HandlerError::from)
            }
        })?;
    let mut ids = Vec::new();
    while ids.len() < 5 {
        ids.extend(handled.recv().await);
    }
    assert_eq!(ids[..3], [0, 1, 4]);
    assert_eq!(failures.load(Ordering::SeqCst), 2);
    until("all are confirmed", async || consumer.stats().acknowledged == 5).await;
    consumer.stop().await;
    assert_eq!(leased(&client, &inbox, "g").await?, (0, 0));
    Ok(())
}

#[tokio::test]
async fn stop_inside_a_handler_ends_after_it_and_gives_the_rest_back() -> Result {
    let server = Server::start();
    let client = connect(&server.url).await?;
    let inbox = filled(&client, 3).await?;
    let consume = client.consume(&inbox, "g").deliver(Deliver::Earliest);
    let stopper = consume.stopper();
    let consumer = consume.run(move |_| {
        let stopper = stopper.clone();
        async move {
            stopper.stop();
            Ok::<(), HandlerError>(())
        }
    })?;
    consumer.wait().await;
    consumer.stop().await;
    assert!(!consumer.is_running());
    let stats = consumer.stats();
    assert_eq!((stats.delivered, stats.acknowledged, stats.given_back), (1, 1, 2));
    assert_eq!(leased(&client, &inbox, "g").await?, (2, 0));
    Ok(())
}

#[tokio::test]
async fn a_dropped_consumer_drops_its_handlers_and_leaves_nothing_leased() -> Result {
    let server = Server::start();
    let client = connect(&server.url).await?;
    let inbox = filled(&client, 3).await?;
    let consumer = client
        .consume(&inbox, "g")
        .deliver(Deliver::Earliest)
        .lease_ms(600_000)
        .run(|_| std::future::pending::<Result>())?;
    until("one runs", async || consumer.stats().delivered == 1).await;
    drop(consumer);
    until("all are back", async || {
        leased(&client, &inbox, "g").await.is_ok_and(|counts| counts == (3, 0))
    })
    .await;
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn a_stream_gives_ten_thousand_messages_in_order() -> Result {
    let server = Server::start();
    let client = connect(&server.url).await?;
    let inbox = client.mailbox_create().name(address()).await?;
    // join_all polls so few of them in their order.
    for chunk in 0..400 {
        let sends = (0..25).map(|n| client.send(&inbox, (chunk * 25 + n).to_string()));
        let sends = sends.map(IntoFuture::into_future);
        for sent in futures_util::future::join_all(sends).await {
            sent?;
        }
    }
    let mut stream = client
        .consume(&inbox, "g")
        .deliver(Deliver::Earliest)
        .num_msgs(1000)
        .auto_ack(false)
        .stream()?;
    let stopper = stream.stopper();
    let mut expected = 0;
    while let Some(message) = stream.next().await {
        let message = message?;
        assert_eq!(message.msg_id, expected);
        assert_eq!(message.text()?.parse::<i64>()?, expected);
        expected += 1;
        if expected == 10_000 {
            stopper.stop();
        }
    }
    assert_eq!((expected, stream.stats().delivered), (10_000, 10_000));
    assert_eq!(leased(&client, &inbox, "g").await?, (0, 10_000));
    Ok(())
}

#[tokio::test]
async fn a_stream_acknowledges_what_the_loop_has_come_back_from() -> Result {
    let server = Server::start();
    let client = connect(&server.url).await?;
    let inbox = filled(&client, 3).await?;
    let mut stream = client.consume(&inbox, "g").deliver(Deliver::Earliest).stream()?;
    let first = stream.next().await.expect("a message")?;
    assert!(first.renew().await?);
    let second = stream.next().await.expect("a message")?;
    second.nack().await?;
    let third = stream.next().await.expect("a message")?;
    assert_eq!(third.msg_id, 2);
    drop(stream);
    until("the others are back", async || {
        leased(&client, &inbox, "g").await.is_ok_and(|counts| counts == (2, 0))
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn payloads_come_back_bit_for_bit_up_to_the_limit() -> Result {
    let server = Server::start();
    let client = connect(&server.url).await?;
    let inbox = client.mailbox_create().name(address()).await?;
    let bytes: Vec<u8> =
        (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    client.send(&inbox, bytes.clone()).await?;
    let result = client.fetch(&inbox).deliver(Deliver::Earliest).await?;
    assert!(result.messages[0].payload == bytes, "every byte of 1 MiB is the same");
    let more = client.send(&inbox, vec![0; (1 << 20) + 1]).await.expect_err("too large");
    assert_eq!(more.kind(), ErrorKind::InvalidArgument);
    assert_eq!((more.code(), more.field()), (Some(codes::PAYLOAD_TOO_LARGE), Some("payload")));
    Ok(())
}

#[tokio::test]
async fn closing_waits_and_leaves_no_task_behind() -> Result {
    let server = Server::start();
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for _ in 0..5 {
        let client = connect(&server.url).await?;
        let inbox = filled(&client, 2).await?;
        let kept = client.agent_register("a").mailbox(&inbox).keep_alive().await?;
        let consumer = client
            .consume(&inbox, "g")
            .deliver(Deliver::Earliest)
            .run(|_| async { Ok::<(), HandlerError>(()) })?;
        let stream = client.consume(&inbox, "h").stream()?;
        let waits = client.fetch(&inbox).group_name("i").lease_ms(1000).max_wait_ms(60_000);
        let waits = tokio::spawn(waits.into_future());
        until("handled", async || consumer.stats().acknowledged == 2).await;
        waits.abort();
        client.close().await;
        client.close().await;
        assert!(client.is_closed() && !consumer.is_running());
        let after = client.send(&inbox, "x").await.expect_err("it is closed");
        assert_eq!(after.kind(), ErrorKind::ConnectionClosed);
        drop((kept, stream));
    }
    let other = connect(&server.url).await?;
    assert!(other.agent_discover().await?.agents.is_empty(), "close unregisters");
    other.close().await;
    drop(other);
    until("no task is left", async || {
        tokio::runtime::Handle::current().metrics().num_alive_tasks() <= before
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_client_that_is_dropped_leaves_no_task_behind() -> Result {
    let server = Server::start();
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for _ in 0..20 {
        drop(connect(&server.url).await?);
    }
    until("no task is left", async || {
        tokio::runtime::Handle::current().metrics().num_alive_tasks() <= before
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_connection_that_was_given_stays_open() -> Result {
    let server = Server::start();
    let nats = mq9::async_nats::connect(&server.url).await?;
    let client = Client::with_nats(nats.clone()).await?;
    let inbox = filled(&client, 1).await?;
    assert_eq!(client.query(&inbox).await?.len(), 1);
    client.close().await;
    let mut replies = nats.subscribe("still.open").await?;
    nats.publish("still.open", "yes".into()).await?;
    assert!(replies.next().await.is_some());
    let closed = client.query(&inbox).await.expect_err("the client is closed");
    assert_eq!(closed.kind(), ErrorKind::ConnectionClosed);
    Ok(())
}

#[tokio::test]
async fn wrong_options_fail_before_anything_is_sent() -> Result {
    let server = Server::start();
    let client = connect(&server.url).await?;
    let handler = |_| async { Ok::<(), HandlerError>(()) };
    let no_group = client.consume("a.b", "").run(handler).expect_err("a group is needed");
    assert_eq!(no_group.field(), Some("group_name"));
    let lease = client.consume("a.b", "g").lease_ms(0).stream().expect_err("a lease is needed");
    assert_eq!((lease.kind(), lease.field()), (ErrorKind::InvalidArgument, Some("lease_ms")));
    let none = client.mailbox_info("a.b").timeout(Duration::ZERO).await.expect_err("no time");
    assert_eq!(none.field(), Some("timeout"));
    let stray = filled(&client, 1).await?;
    let message = client.query(&stray).await?.remove(0);
    assert_eq!(message.ack().await.expect_err("not consumed").field(), Some("message"));
    Ok(())
}
