//! What goes on between requests: consumers with a handler, streams, keep-alives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::StreamExt as _;
use mq9::{AgentKeepAlive, Consumer, Message, MessageStream, Stopper};
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::task::{JoinHandle, yield_now};
use tokio_util::sync::CancellationToken;

use crate::convert::{Failed, How, Shown as _};
use crate::mutants;
use crate::{Request, error_fields, write};

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something under way that requests speak of by its label.
pub enum Background {
    /// A consumer with a handler.
    Consumer(ConsumerRun),
    /// A stream.
    Iteration(Box<IterationRun>),
    /// An agent that stays registered.
    KeepAlive(AsyncMutex<Option<AgentKeepAlive>>),
}

impl Background {
    /// Carries out a request.
    pub async fn command(&self, request: &Request) -> Result<Value, Failed> {
        match self {
            Self::Consumer(run) => run.command(request).await,
            Self::Iteration(run) => run.command(request).await,
            Self::KeepAlive(keep_alive) if request.op == "stop" => {
                let keep_alive = keep_alive.lock().await;
                if let Some(keep_alive) = keep_alive.as_ref() {
                    if mutants::is("keep-alive-stays-registered") {
                        return Ok(json!({}));
                    }
                    keep_alive.stop().await?;
                }
                Ok(json!({}))
            }
            Self::KeepAlive(_) => Err(no_command("a keep-alive", request)),
        }
    }

    /// Cancels it as Rust cancels: by dropping it.
    pub async fn cancel(&self) {
        match self {
            Self::Consumer(run) => run.cancel().await,
            Self::Iteration(run) => run.cancel().await,
            Self::KeepAlive(keep_alive) => drop(keep_alive.lock().await.take()),
        }
        // What was dropped ends when the runtime comes by.
        for _ in 0..4 {
            yield_now().await;
        }
    }
}

fn no_command(what: &str, request: &Request) -> Failed {
    Failed::Harness(format!("{what} has no {:?}", request.op))
}

/// What a handler fails with when the runner says so.
#[derive(Debug)]
struct ToldToFail;

impl std::fmt::Display for ToldToFail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the runner said that this handler fails")
    }
}

impl std::error::Error for ToldToFail {}

#[derive(Default)]
struct Deliveries {
    count: u64,
    outcomes: HashMap<u64, oneshot::Sender<String>>,
}

/// A consumer with a handler. Every handler waits for the runner to say how it ends.
pub struct ConsumerRun {
    consumer: Mutex<Option<Arc<Consumer>>>,
    deliveries: Arc<Mutex<Deliveries>>,
    cancelled: CancellationToken,
    waiter: AsyncMutex<Option<JoinHandle<()>>>,
}

impl ConsumerRun {
    /// Begins; an argument that is not as it should be fails here.
    pub fn start(consume: mq9::Consume, request: &Request) -> Result<Self, Failed> {
        let deliveries: Arc<Mutex<Deliveries>> = Arc::default();
        let itself: Arc<Mutex<Weak<Consumer>>> = Arc::default();
        let label = request.text("as")?;
        let fail_error_hook = request.fields.get("fail_error_hook") == Some(&json!(true));
        let hook_label = label.clone();
        let (handler_label, handler_itself) = (label.clone(), itself.clone());
        let handler_deliveries = deliveries.clone();
        let consume = consume.on_error(move |failure| {
            let label = hook_label.clone();
            async move {
                let mut fields = match failure.error() {
                    Some(error) => error_fields(error),
                    None => json!({"kind": "handler", "message": failure.to_string()}),
                };
                if let Some(message) = failure.message() {
                    fields["msg_id"] = message.msg_id.to_string().into();
                }
                write(&json!({"event": "error", "of": label, "error": fields}));
                assert!(!fail_error_hook, "the runner said that the error hook fails");
            }
        });
        let consumer = Arc::new(consume.run(move |message| {
            let (label, itself) = (handler_label.clone(), handler_itself.clone());
            let deliveries = handler_deliveries.clone();
            async move { handle(&label, &message, &deliveries, &itself).await }
        })?);
        *locked(&itself) = Arc::downgrade(&consumer);
        let cancelled = CancellationToken::new();
        let waiter = tokio::spawn(wait(label, consumer.clone(), cancelled.clone()));
        Ok(Self {
            consumer: Mutex::new(Some(consumer)),
            deliveries,
            cancelled,
            waiter: AsyncMutex::new(Some(waiter)),
        })
    }

    async fn command(&self, request: &Request) -> Result<Value, Failed> {
        match request.op.as_str() {
            "finish" => {
                let delivery = request.fields["delivery"].as_u64().unwrap_or_default();
                let outcome = request.text("outcome")?;
                if let Some(waiting) = locked(&self.deliveries).outcomes.remove(&delivery) {
                    waiting.send(outcome).ok();
                }
                Ok(json!({}))
            }
            "stop" => {
                let consumer = locked(&self.consumer).clone();
                if let Some(consumer) = consumer {
                    if mutants::is("stop-does-not-wait") {
                        consumer.stopper().stop();
                    } else {
                        consumer.stop().await;
                    }
                }
                Ok(json!({}))
            }
            _ => Err(no_command("a consumer", request)),
        }
    }

    async fn cancel(&self) {
        locked(&self.consumer).take();
        self.cancelled.cancel();
        if let Some(waiter) = self.waiter.lock().await.take() {
            waiter.await.ok();
        }
    }
}

/// The handler: reports the message, then ends as the runner says.
async fn handle(
    label: &str,
    message: &Message,
    deliveries: &Mutex<Deliveries>,
    itself: &Mutex<Weak<Consumer>>,
) -> Result<(), ToldToFail> {
    let (told, outcome) = oneshot::channel();
    let number = {
        let mut deliveries = locked(deliveries);
        deliveries.count += 1;
        let number = deliveries.count;
        deliveries.outcomes.insert(number, told);
        number
    };
    let mut shown = message.shown(&How::default()).unwrap_or_default();
    mutants::spoil(&mut shown);
    write(&json!({"event": "message", "of": label, "delivery": number, "message": shown}));
    match outcome.await.as_deref() {
        Ok("fail") if mutants::is("handler-failure-swallowed") => Ok(()),
        Ok("fail") => Err(ToldToFail),
        Ok("stop") => {
            let consumer = locked(itself).upgrade();
            if let Some(consumer) = consumer {
                consumer.stop().await;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Waits for the end of a consumer, as a program would, and reports it.
async fn wait(label: String, consumer: Arc<Consumer>, cancelled: CancellationToken) {
    let how = tokio::select! {
        biased;
        () = consumer.wait() => "stopped",
        () = cancelled.cancelled() => "cancelled",
    };
    drop(consumer);
    write(&json!({"event": "ended", "of": label, "how": how}));
}

/// A stream that the runner asks for one message after the other.
pub struct IterationRun {
    stream: AsyncMutex<Option<MessageStream>>,
    stopper: Stopper,
    messages: Mutex<HashMap<i64, Message>>,
    cancelled: CancellationToken,
}

impl IterationRun {
    /// Makes the stream; nothing is asked for yet.
    pub fn start(consume: mq9::Consume) -> Result<Self, Failed> {
        let stream = consume.stream()?;
        Ok(Self {
            stopper: stream.stopper(),
            stream: AsyncMutex::new(Some(stream)),
            messages: Mutex::default(),
            cancelled: CancellationToken::new(),
        })
    }

    async fn command(&self, request: &Request) -> Result<Value, Failed> {
        match request.op.as_str() {
            "next" => self.next().await,
            "leave" => {
                drop(self.stream.lock().await.take());
                Ok(json!({}))
            }
            "stop" => {
                self.stopper.stop();
                drop(self.stream.lock().await);
                Ok(json!({}))
            }
            "message_ack" => Ok(self.message(request)?.ack().await.map(|()| json!({}))?),
            "message_nack" => {
                let message = self.message(request)?;
                match request.fields.get("delay_ms").and_then(Value::as_i64) {
                    Some(delay_ms) => message.nack_with_delay(delay_ms).await?,
                    None => message.nack().await?,
                }
                Ok(json!({}))
            }
            "message_renew" => {
                let message = self.message(request)?;
                Ok(match request.fields.get("lease_ms").and_then(Value::as_i64) {
                    Some(lease_ms) => message.renew_for(lease_ms).await?,
                    None => message.renew().await?,
                }
                .into())
            }
            _ => Err(no_command("an iteration", request)),
        }
    }

    fn message(&self, request: &Request) -> Result<Message, Failed> {
        let id = request.text("msg_id")?;
        let message = id.parse().ok().and_then(|id: i64| locked(&self.messages).get(&id).cloned());
        message.ok_or_else(|| Failed::Harness(format!("the stream gave no message {id}")))
    }

    async fn next(&self) -> Result<Value, Failed> {
        let mut stream = self.stream.lock().await;
        loop {
            let Some(messages) = stream.as_mut() else { return Ok(Value::Null) };
            let item = tokio::select! {
                biased;
                item = messages.next() => item,
                () = self.cancelled.cancelled() => {
                    stream.take();
                    return Err(Failed::Cancelled);
                }
            };
            match item {
                None => return Ok(Value::Null),
                // A FETCH that failed; the stream goes on.
                Some(Err(_)) => {}
                Some(Ok(message)) => {
                    let mut shown = message.shown(&How::default()).unwrap_or_default();
                    mutants::spoil(&mut shown);
                    locked(&self.messages).insert(message.msg_id, message);
                    return Ok(shown);
                }
            }
        }
    }

    async fn cancel(&self) {
        self.cancelled.cancel();
        drop(self.stream.lock().await.take());
    }
}
