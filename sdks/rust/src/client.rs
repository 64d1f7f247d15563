//! The client: one connection, every operation, consumers and keep-alives.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::connect::check_timeout;
use crate::connection::{Abandoned, Connection, Request};
use crate::decode::{self, Fields, Odd};
use crate::encode::HeaderList;
use crate::error::{Error, ErrorKind};
use crate::generated::constants;
use crate::generated::operations::FetchRequest;

/// What awaiting a request gives.
///
/// Dropping it before it is done cancels the call at once, and nothing more is sent.
pub type ResponseFuture<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// What the runtime has to know of an operation; generated from the specification.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// Kinds of failure, and codes, after which it may be tried again.
    pub(crate) retries_on: &'static [&'static str],
    /// When retries end, in milliseconds after the first attempt.
    pub(crate) give_up_ms: Option<i64>,
}

/// A checked request.
pub(crate) struct Call {
    pub(crate) operation: &'static Operation,
    pub(crate) subject: String,
    pub(crate) headers: HeaderList,
    pub(crate) payload: Bytes,
    pub(crate) timeout: Option<Duration>,
    /// Milliseconds that the broker may take on top.
    pub(crate) wait_ms: i64,
    /// Whether this call may be tried again at all.
    pub(crate) repeatable: bool,
    /// Mailbox and consumer group, if the reply may bring messages under a lease.
    pub(crate) lease: Option<(String, String)>,
}

/// Something that runs on a client and ends with it.
pub(crate) trait Part: Send + Sync {
    fn end(self: Arc<Self>) -> BoxFuture<'static, ()>;
}

struct Shared {
    connection: Arc<Connection>,
    timeout: Duration,
    calls: TaskTracker,
    background: TaskTracker,
    parts: Mutex<Vec<Weak<dyn Part>>>,
    closing: AtomicBool,
    closed: AtomicBool,
    close: OnceCell<()>,
    runtime: Handle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.connection.close();
    }
}

/// A connection to mq9. Made by [`connect`](crate::connect); clones are cheap and share the connection.
///
/// Every operation of the protocol is a method that gives a request: set its options, then await it.
/// Dropping what is awaited cancels the call. Dropping the last clone closes the connection without waiting
/// for anything; [`close`](Self::close) waits.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// Of our own: may still send while the client closes.
    internal: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("connected_url", &self.connected_url())
            .finish_non_exhaustive()
    }
}

impl Client {
    pub(crate) fn new(connection: Arc<Connection>, timeout: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                connection,
                timeout,
                calls: TaskTracker::new(),
                background: TaskTracker::new(),
                parts: Mutex::default(),
                closing: AtomicBool::new(false),
                closed: AtomicBool::new(false),
                close: OnceCell::new(),
                runtime: Handle::current(),
            }),
            internal: false,
        }
    }

    /// Puts a client on an existing connection of async-nats, which stays open when the client is closed.
    ///
    /// async-nats keeps what is published while it is disconnected; this client waits for the connection
    /// instead, as far as async-nats tells its state.
    ///
    /// # Errors
    ///
    /// kind `connection_closed`: that connection is closed.
    pub async fn with_nats(nats: async_nats::Client) -> Result<Self, Error> {
        let connection = Connection::inject(nats).await?;
        Ok(Self::new(connection, Duration::from_millis(constants::CONNECT_TIMEOUT_MS)))
    }

    /// The same client with another timeout for requests that don't set their own.
    ///
    /// # Errors
    ///
    /// kind `invalid_argument`: the timeout is 0.
    pub async fn with_nats_and_timeout(
        nats: async_nats::Client,
        timeout: Duration,
    ) -> Result<Self, Error> {
        check_timeout("timeout", timeout)?;
        Ok(Self::new(Connection::inject(nats).await?, timeout))
    }

    /// Whether it was closed; calls fail then.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::SeqCst) || self.shared.connection.is_closed()
    }

    /// Whether there is a connection to a server right now.
    pub fn is_connected(&self) -> bool {
        self.shared.connection.link().is_some()
    }

    /// The server that it is connected to, without credentials; none while there is none, or where the
    /// connection was given.
    pub fn connected_url(&self) -> Option<String> {
        self.shared.connection.link()?.url
    }

    /// Ends consumers and keep-alives, waits for calls in flight and closes the connection.
    ///
    /// It waits for handlers that run, and for at most the client's timeout for calls; what takes longer
    /// fails with kind `connection_closed`. A connection that was given stays open. Closing twice is fine.
    pub async fn close(&self) {
        self.shared.close.get_or_init(|| self.close_once()).await;
    }

    /// The same as [`close`](Self::close).
    pub async fn drain(&self) {
        self.close().await;
    }

    async fn close_once(&self) {
        let shared = &self.shared;
        shared.closing.store(true, Ordering::SeqCst);
        let parts = std::mem::take(&mut *self.parts());
        join_all(parts.iter().filter_map(Weak::upgrade).map(Part::end)).await;
        shared.closed.store(true, Ordering::SeqCst);
        shared.calls.close();
        shared.background.close();
        let calls = async {
            shared.calls.wait().await;
            shared.background.wait().await;
        };
        timeout(shared.timeout, calls).await.ok();
        if shared.connection.is_listening() {
            // Cancelled FETCHes that still wait. The end of our own connection ends them at the broker too;
            // on somebody else's they have to be waited for. What they have brought until now is given back.
            if shared.connection.is_injected() {
                let wait = constants::CONSUME_MAX_WAIT_MS.unsigned_abs();
                shared.connection.settle(shared.timeout + Duration::from_millis(wait)).await;
            } else {
                shared.connection.flush(shared.timeout).await;
            }
            timeout(shared.timeout, shared.background.wait()).await.ok();
        }
        shared.connection.close();
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Vec<Weak<dyn Part>>> {
        self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers something that ends with the client.
    pub(crate) fn add_part(&self, part: Weak<dyn Part>) -> Result<(), Error> {
        if self.shared.closing.load(Ordering::SeqCst) {
            return Err(Error::closed("the client is closed"));
        }
        let mut parts = self.parts();
        parts.retain(|part| part.strong_count() > 0);
        parts.push(part);
        Ok(())
    }

    /// The same client for what must still be sent while it closes.
    pub(crate) fn internal(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            internal: true,
        }
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.shared.runtime
    }

    /// Runs something that must end before the client closes.
    pub(crate) fn run_in_background(&self, action: impl Future<Output = ()> + Send + 'static) {
        self.shared.background.spawn_on(action, &self.shared.runtime);
    }

    /// Carries an operation out: sends it, and again where that is allowed, and decodes the reply.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        call: Result<Call, Error>,
        decode: fn(&Fields<'_>) -> Result<T, Odd>,
    ) -> ResponseFuture<T> {
        let client = self.clone();
        Box::pin(async move {
            let call = call?;
            let operation = call.operation.name;
            if client.shared.closed.load(Ordering::SeqCst) && !client.internal {
                return Err(
                    Error::closed(format!("{operation}: the client is closed")).of(operation)
                );
            }
            let _in_flight = client.shared.calls.token();
            client.attempts(call, decode).await.map_err(|error| error.of(operation))
        })
    }

    async fn attempts<T>(
        &self,
        call: Call,
        decode: fn(&Fields<'_>) -> Result<T, Odd>,
    ) -> Result<T, Error> {
        let base = call.timeout.unwrap_or(self.shared.timeout);
        check_timeout("timeout", base)?;
        let mut seconds = base + Duration::from_millis(call.wait_ms.unsigned_abs());
        let give_up = call
            .operation
            .give_up_ms
            .map(|ms| Instant::now() + Duration::from_millis(ms.unsigned_abs()));
        let attempts = if call.repeatable { constants::RETRY_ATTEMPTS } else { 1 };
        let abandoned = call.lease.map(|lease| self.give_back_late(lease));
        let mut pause = Duration::from_millis(constants::RETRY_PAUSE_MS.unsigned_abs());
        for attempt in 1.. {
            let request = Request {
                operation: call.operation.name,
                subject: &call.subject,
                headers: call.headers.pairs(),
                payload: call.payload.clone(),
                timeout: seconds,
                abandoned: abandoned.clone(),
            };
            let data = self.shared.connection.request(request).await;
            let error = match data.and_then(|data| decode::reply(&data, decode)) {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            let retries_on = call.operation.retries_on;
            let again = retries_on.contains(&error.kind().as_str())
                || error.kind() == ErrorKind::Server
                    && error.code().is_some_and(|code| retries_on.contains(&code));
            let wait = pause.mul_f64(1.0 + constants::RETRY_JITTER * fastrand::f64());
            if !again
                || attempt >= attempts
                || self.shared.connection.is_closed()
                || give_up.is_some_and(|end| Instant::now() + wait >= end)
            {
                return Err(error);
            }
            tracing::debug!("attempt {attempt} failed ({error}), trying again");
            sleep(wait).await;
            pause *= u32::try_from(constants::RETRY_PAUSE_FACTOR).unwrap_or(1);
            if let Some(end) = give_up {
                seconds = seconds.min(end.saturating_duration_since(Instant::now()));
            }
        }
        Err(Error::closed("no attempt was made"))
    }

    /// What to do with the reply of a cancelled FETCH under a lease: its messages go back.
    fn give_back_late(&self, (mail_address, group_name): (String, String)) -> Abandoned {
        let client = self.internal();
        Arc::new(move |data: Bytes| {
            let (client, mail_address, group_name) =
                (client.clone(), mail_address.clone(), group_name.clone());
            Box::pin(async move {
                let Ok(result) = decode::reply(&data, FetchRequest::decode) else { return };
                let Some(lease_id) = result.lease_id.filter(|_| !result.messages.is_empty()) else {
                    return;
                };
                let ids = result.messages.iter().map(|message| message.msg_id);
                let back = client.nack(mail_address, group_name, ids).lease_id(lease_id);
                if let Err(error) = back.await {
                    tracing::warn!(
                        "messages of a cancelled FETCH could not be given back: {error}"
                    );
                }
            })
        })
    }
}
