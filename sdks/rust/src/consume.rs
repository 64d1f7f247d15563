//! Consuming a mailbox: fetch under a lease, hand over, renew meanwhile, acknowledge or give back.
//!
//! One batch at a time. Each message of it is *waiting*, then *running*, then *settled*; a lease covers all
//! that are not settled:
//!
//! ```text
//! FETCH -> waiting -> running -> handler succeeded -> ACK -> settled
//!             |          `-----> handler failed -> error hook, NACK with a growing delay -> settled
//!             `-> stop(), dropped -> NACK -> settled
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::client::Part;
use crate::delivery::Delivery;
use crate::error::Error;
use crate::failure::{Failure, HandlerError, panic_text};
use crate::generated::constants;
use crate::generated::consume::Consume;
use crate::generated::models::Message;
use crate::stream::MessageStream;

type Handler = Arc<dyn Fn(Message) -> BoxFuture<'static, Result<(), HandlerError>> + Send + Sync>;
type ErrorHook = Arc<dyn Fn(Failure) -> BoxFuture<'static, ()> + Send + Sync>;

tokio::task_local! {
    /// The consumer whose handler or error hook this task runs.
    static INSIDE: usize;
}

/// Asks a consumer to end, from wherever it is needed, also from inside a handler.
#[derive(Clone, Debug, Default)]
pub struct Stopper(CancellationToken);

impl Stopper {
    /// Asks for the end and returns at once: running handlers go on, what was not started is given back.
    /// Calling it again is fine.
    pub fn stop(&self) {
        self.0.cancel();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// What a consumer has besides the options of the specification.
#[derive(Default)]
pub(crate) struct Extras {
    on_error: Option<ErrorHook>,
    stopper: Stopper,
    timeout: Option<Duration>,
}

impl fmt::Debug for Extras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extras").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// What a consumer has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Messages handed to the handler or the stream.
    pub delivered: u64,
    /// Messages confirmed.
    pub acknowledged: u64,
    /// Messages whose handler failed.
    pub failed: u64,
    /// Messages given back.
    pub given_back: u64,
    /// ACKs that failed; those messages come again.
    pub failed_acks: u64,
    /// FETCHes that failed; each was followed by a pause.
    pub failed_fetches: u64,
}

impl Consume {
    /// How long each request may take, besides `max_wait_ms`. Default: the client's.
    pub fn timeout(mut self, value: Duration) -> Self {
        self.extras.timeout = Some(value);
        self
    }

    /// Called when a handler, an ACK or anything else failed; see [`Failure`]. Default: it is logged.
    ///
    /// A hook that panics does not end the consumer.
    pub fn on_error<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Failure) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.extras.on_error = Some(Arc::new(move |failure| hook(failure).boxed()));
        self
    }

    /// What asks this consumer to end, for a handler to keep.
    pub fn stopper(&self) -> Stopper {
        self.extras.stopper.clone()
    }

    /// Begins to consume, in the background, and calls the handler with each message.
    ///
    /// A handler fails by an error or a panic. Keep what this gives: dropping it cancels the consumer.
    ///
    /// # Errors
    ///
    /// - kind `invalid_argument`: an option is not as it should be; nothing was sent.
    /// - kind `connection_closed`: the client is closed.
    pub fn run<F, Fut, E>(self, handler: F) -> Result<Consumer, Error>
    where
        F: Fn(Message) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError>,
    {
        let handler: Handler = Arc::new(move |message| {
            let running = handler(message);
            async move { running.await.map_err(Into::into) }.boxed()
        });
        let shared = Shared::begin(self, false)?;
        let runtime = shared.options.client.runtime().clone();
        let task = runtime.spawn(drive(shared.clone(), handler));
        Ok(Consumer {
            shared,
            task,
        })
    }

    /// Makes a stream of messages. It fetches while it is polled; with `auto_ack` a message is acknowledged
    /// when the next one is asked for.
    ///
    /// # Errors
    ///
    /// - kind `invalid_argument`: an option is not as it should be; nothing was sent.
    /// - kind `connection_closed`: the client is closed.
    pub fn stream(self) -> Result<MessageStream, Error> {
        Ok(MessageStream::new(Shared::begin(self, true)?))
    }
}

/// A running consumer; made by [`Consume::run`]. Dropping it cancels it: handlers are dropped too, and what
/// they had in hand is given back in the background.
#[must_use = "dropping a consumer cancels it"]
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Consumer {
    /// Ends the consumer: waits for running handlers and their ACKs, gives back what was not started.
    ///
    /// Calling it again is fine. From inside a handler it only asks for the end and returns. Dropping the
    /// future does not take the wish back.
    pub async fn stop(&self) {
        self.stopper().stop();
        if !self.shared.is_inside() {
            self.wait().await;
        }
    }

    /// Waits until the consumer has ended, which it does when it is stopped or its client is closed.
    pub async fn wait(&self) {
        self.shared.ended.cancelled().await;
    }

    /// What asks this consumer to end.
    pub fn stopper(&self) -> Stopper {
        self.shared.options.stopper()
    }

    /// Whether it fetches or handles messages.
    pub fn is_running(&self) -> bool {
        !self.shared.ended.is_cancelled()
    }

    /// What it has done so far.
    pub fn stats(&self) -> ConsumerStats {
        self.shared.stats()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A message in hand.
struct Held {
    message: Message,
    /// Whether its handler has succeeded.
    done: Arc<AtomicBool>,
}

/// What the loop, its workers and the handle share.
pub(crate) struct Shared {
    pub(crate) options: Consume,
    in_hand: Mutex<BTreeMap<i64, Held>>,
    waiting: Mutex<VecDeque<Message>>,
    stats: Mutex<ConsumerStats>,
    /// Whether a FETCH has succeeded, so that the group has started.
    started: AtomicBool,
    /// The pause before the next FETCH, in milliseconds; 0 = none.
    pause_ms: Mutex<f64>,
    is_stream: bool,
    ended: CancellationToken,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("options", &self.options).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Part for Shared {
    fn end(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.options.extras.stopper.stop();
            if self.is_stream {
                // The body of its loop may be the caller, so that is not waited for.
                self.give_back_waiting().await;
            } else if !self.is_inside() {
                self.ended.cancelled().await;
            }
        })
    }
}

impl Shared {
    fn begin(options: Consume, is_stream: bool) -> Result<Arc<Self>, Error> {
        options.check()?;
        if let Some(timeout) = options.extras.timeout {
            crate::connect::check_timeout("timeout", timeout)?;
        }
        let shared = Arc::new(Self {
            options,
            in_hand: Mutex::default(),
            waiting: Mutex::default(),
            stats: Mutex::default(),
            started: AtomicBool::new(false),
            pause_ms: Mutex::new(0.0),
            is_stream,
            ended: CancellationToken::new(),
        });
        let part: Weak<dyn Part> = Arc::downgrade(&(shared.clone() as Arc<dyn Part>));
        shared.options.client.add_part(part)?;
        Ok(shared)
    }

    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn is_inside(&self) -> bool {
        INSIDE.try_with(|inside| *inside == self.id()).unwrap_or(false)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.options.extras.stopper.is_stopping()
    }

    pub(crate) fn stats(&self) -> ConsumerStats {
        *locked(&self.stats)
    }

    fn count(&self, change: impl FnOnce(&mut ConsumerStats)) {
        change(&mut locked(&self.stats));
    }

    fn concurrency(&self) -> i64 {
        self.options.concurrency.unwrap_or(constants::CONSUME_CONCURRENCY)
    }

    fn lease_ms(&self) -> i64 {
        self.options.lease_ms.unwrap_or(constants::CONSUME_LEASE_MS)
    }

    pub(crate) fn auto_ack(&self) -> bool {
        self.options.auto_ack.unwrap_or(constants::CONSUME_AUTO_ACK)
    }

    /// Takes the next message to be handled; none at the end of the batch or after stop.
    pub(crate) fn take(&self) -> Option<Message> {
        if self.is_stopping() {
            return None;
        }
        let message = locked(&self.waiting).pop_front()?;
        self.count(|stats| stats.delivered += 1);
        Some(message)
    }

    /// Waits for messages; false if it was stopped. The stream hears of a failed FETCH where there is no
    /// error hook.
    pub(crate) async fn next_batch(&self) -> Result<bool, Error> {
        while !self.is_stopping() {
            let pause_ms = *locked(&self.pause_ms);
            if pause_ms > 0.0 {
                let jitter = 1.0 + constants::CONSUME_FETCH_PAUSE_JITTER * fastrand::f64();
                let pause = Duration::from_secs_f64(pause_ms * jitter / 1000.0);
                self.unless_stopped(sleep(pause)).await;
                if self.is_stopping() {
                    break;
                }
            }
            match self.unless_stopped(self.fetch()).await {
                None => break,
                Some(Ok(())) => *locked(&self.pause_ms) = 0.0,
                Some(Err(error)) => {
                    self.count(|stats| stats.failed_fetches += 1);
                    if self.options.client.is_closed() {
                        self.options.extras.stopper.stop();
                        break;
                    }
                    let first = constants::CONSUME_FETCH_PAUSE_MS as f64;
                    let next = pause_ms * constants::CONSUME_FETCH_PAUSE_FACTOR as f64;
                    let most = constants::CONSUME_FETCH_PAUSE_MAX_MS as f64;
                    *locked(&self.pause_ms) = next.clamp(first, most);
                    if self.is_stream && self.options.extras.on_error.is_none() {
                        return Err(error);
                    }
                    self.report(Failure::operation(error, None)).await;
                }
            }
            if !locked(&self.waiting).is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn fetch(&self) -> Result<(), Error> {
        let options = &self.options;
        let num_msgs = options.num_msgs.unwrap_or(constants::CONSUME_NUM_MSGS);
        let mut request = options
            .client
            .fetch(&options.mail_address)
            .group_name(&options.group_name)
            .num_msgs(num_msgs.max(self.concurrency()))
            .max_wait_ms(options.max_wait_ms.unwrap_or(constants::CONSUME_MAX_WAIT_MS))
            .lease_ms(self.lease_ms());
        if let Some(timeout) = options.extras.timeout {
            request = request.timeout(timeout);
        }
        if !self.started.load(Ordering::SeqCst) {
            request = options.start(request);
        }
        let result = request.await?;
        // Nothing is awaited from here on: what has arrived is in hand, whatever is cancelled now.
        self.started.store(true, Ordering::SeqCst);
        let lease_id = result.lease_id.unwrap_or_default();
        for mut message in result.messages {
            message.delivery = Delivery::new(
                options.client.clone(),
                &options.mail_address,
                &options.group_name,
                &lease_id,
                self.lease_ms(),
            );
            let held = Held {
                message: message.clone(),
                done: Arc::default(),
            };
            locked(&self.in_hand).insert(message.msg_id, held);
            locked(&self.waiting).push_back(message);
        }
        Ok(())
    }

    /// Runs something; drops it when the consumer is stopped meanwhile. What a dropped FETCH brings is given
    /// back by the client.
    async fn unless_stopped<T>(&self, action: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            result = action => Some(result),
            () = self.options.extras.stopper.0.cancelled() => None,
        }
    }

    /// Keeps everything that is not settled hidden from the rest of the group.
    pub(crate) async fn renew(&self) {
        let every = self.lease_ms() as f64 / constants::CONSUME_RENEW_DIVISOR as f64;
        loop {
            sleep(Duration::from_secs_f64(every / 1000.0)).await;
            let mut held: BTreeMap<String, Vec<i64>> = BTreeMap::new();
            for (id, entry) in locked(&self.in_hand).iter() {
                if !entry.message.delivery.is_settled() {
                    held.entry(entry.message.delivery.lease_id().to_owned()).or_default().push(*id);
                }
            }
            for (lease_id, ids) in held {
                let options = &self.options;
                let request = options
                    .client
                    .renew(&options.mail_address, &options.group_name, ids, self.lease_ms())
                    .lease_id(lease_id);
                if let Err(error) = request.await {
                    self.report(Failure::operation(error, None)).await;
                }
            }
        }
    }

    async fn work(&self, handler: &Handler) {
        while let Some(message) = self.take() {
            match self.run_handler(message.clone(), handler).await {
                Ok(()) => self.succeeded(&message).await,
                Err(error) => {
                    self.count(|stats| stats.failed += 1);
                    let delay_ms = nack_delay_ms(message.delivery_count.unwrap_or(1));
                    self.report(Failure::handler(error, message.clone())).await;
                    self.give_back(vec![message], delay_ms).await;
                }
            }
        }
    }

    async fn run_handler(&self, message: Message, handler: &Handler) -> Result<(), HandlerError> {
        let done = locked(&self.in_hand).get(&message.msg_id).map(|held| held.done.clone());
        let handler = handler.clone();
        let running = async move {
            let result = handler(message).await;
            if let (Ok(()), Some(done)) = (&result, done) {
                done.store(true, Ordering::SeqCst);
            }
            result
        };
        let mut task = Abort(self.options.client.runtime().spawn(INSIDE.scope(self.id(), running)));
        match (&mut task.0).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => {
                Err(format!("the handler panicked: {}", panic_text(&*error.into_panic())).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// After the handler, or the stream's loop body, has ended well.
    pub(crate) async fn succeeded(&self, message: &Message) {
        if self.auto_ack() {
            self.acknowledge(message).await;
        }
        locked(&self.in_hand).remove(&message.msg_id);
    }

    async fn acknowledge(&self, message: &Message) {
        if message.delivery.is_settled() {
            return;
        }
        match message.ack_within(self.options.extras.timeout).await {
            Ok(()) => self.count(|stats| stats.acknowledged += 1),
            Err(error) => {
                self.count(|stats| stats.failed_acks += 1);
                self.report(Failure::operation(error, Some(message.clone()))).await;
            }
        }
    }

    /// NACKs messages of one batch that are not settled; what fails comes again when its lease is over.
    async fn give_back(&self, messages: Vec<Message>, delay_ms: i64) {
        for message in &messages {
            locked(&self.in_hand).remove(&message.msg_id);
        }
        let held: Vec<Message> =
            messages.into_iter().filter(|message| !message.delivery.is_settled()).collect();
        let Some(first) = held.first() else { return };
        let options = &self.options;
        let ids = held.iter().map(|message| message.msg_id);
        let mut request = options
            .client
            .internal()
            .nack(&options.mail_address, &options.group_name, ids)
            .lease_id(first.delivery.lease_id())
            .delay_ms(delay_ms);
        if let Some(timeout) = options.extras.timeout {
            request = request.timeout(timeout);
        }
        match request.await {
            Ok(()) => self.count(|stats| stats.given_back += held.len() as u64),
            Err(error) => {
                let about = if held.len() == 1 { held.into_iter().next() } else { None };
                self.report(Failure::operation(error, about)).await;
            }
        }
    }

    /// After stop: gives back what was not started.
    pub(crate) async fn give_back_waiting(&self) {
        let messages: Vec<Message> = locked(&self.waiting).drain(..).collect();
        self.give_back(messages, 0).await;
    }

    /// Runs the error hook, or logs where there is none; a hook that panics is logged too.
    async fn report(&self, failure: Failure) {
        let place = format!("{}, group {}", self.options.mail_address, self.options.group_name);
        let Some(hook) = &self.options.extras.on_error else {
            tracing::warn!("{place}, {failure}");
            return;
        };
        let running = AssertUnwindSafe(async { hook(failure).await }).catch_unwind();
        if let Err(panic) = INSIDE.scope(self.id(), running).await {
            tracing::error!("{place}: the error hook failed: {}", panic_text(&*panic));
        }
    }

    /// The end, however it came about: gives everything back, in the background, that is still in hand.
    /// Messages whose handler had succeeded are acknowledged, so that their work is not done again.
    pub(crate) fn finish(self: &Arc<Self>) {
        self.options.extras.stopper.stop();
        locked(&self.waiting).clear();
        let in_hand = std::mem::take(&mut *locked(&self.in_hand));
        let (done, open): (Vec<Held>, Vec<Held>) = in_hand
            .into_values()
            .partition(|held| held.done.load(Ordering::SeqCst) && self.auto_ack());
        if !done.is_empty() || !open.is_empty() {
            let shared = self.clone();
            self.options.client.run_in_background(async move {
                for held in done {
                    shared.acknowledge(&held.message).await;
                }
                shared.give_back(open.into_iter().map(|held| held.message).collect(), 0).await;
            });
        }
        self.ended.cancel();
    }
}

/// Finishes a consumer when its task ends or is aborted.
struct Finish(Arc<Shared>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finish();
    }
}

async fn drive(shared: Arc<Shared>, handler: Handler) {
    let finish = Finish(shared);
    let shared = &finish.0;
    while let Ok(true) = shared.next_batch().await {
        let count = shared.concurrency().min(locked(&shared.waiting).len() as i64);
        let workers = join_all((0..count).map(|_| shared.work(&handler)));
        tokio::select! {
            biased;
            _ = workers => {}
            () = shared.renew() => {}
        }
        shared.give_back_waiting().await;
    }
}

/// A task that ends with its handle.
pub(crate) struct Abort<T>(pub(crate) JoinHandle<T>);

impl<T> Drop for Abort<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How long a message stays hidden after its handler failed, in milliseconds.
fn nack_delay_ms(delivery_count: i64) -> i64 {
    let times = u32::try_from(delivery_count.clamp(1, 63) - 1).unwrap_or(0);
    constants::CONSUME_NACK_DELAY_FACTOR
        .saturating_pow(times)
        .saturating_mul(constants::CONSUME_NACK_DELAY_MS)
        .min(constants::CONSUME_NACK_DELAY_MAX_MS)
}
