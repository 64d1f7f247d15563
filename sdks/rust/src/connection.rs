//! The connection to a NATS server: it carries requests, and comes back by itself when it is lost.
//!
//! async-nats can reconnect too, but keeps what was published meanwhile and sends it later: a FETCH whose
//! caller has given up long ago would then take messages that nobody handles. So every connection here is a
//! fresh async-nats client that never reconnects, and this module decides what happens in between:
//!
//! - A request waits for the connection as long as its timeout allows; if that runs out, nothing was sent.
//! - A request that was sent when the connection broke fails at once: its reply can't come any more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connect::{Servers, Settings};
use crate::error::{Error, ErrorKind, codes};

/// "NATS/1.0\r\n" and the empty line after headers.
const HEADER_LINES: usize = 12;
const STATE_CHECK: Duration = Duration::from_millis(50);
const JITTER: f64 = 0.5;

/// What to do with a reply that comes after its caller is gone.
pub(crate) type Abandoned = Arc<dyn Fn(Bytes) -> BoxFuture<'static, ()> + Send + Sync>;

/// One connected NATS client with the subscription that replies come to.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) nats: async_nats::Client,
    pub(crate) inbox: String,
    pub(crate) url: Option<String>,
}

#[derive(Clone, Default)]
struct Status {
    link: Option<Link>,
    /// Counts links, so that a request knows whether its own is still there.
    generation: u64,
    closed: bool,
}

type Reply = Result<Message, Error>;

/// Carries requests over NATS.
pub(crate) struct Connection {
    status: watch::Sender<Status>,
    injected: bool,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    next: AtomicU64,
    /// Replies of cancelled requests that are still waited for, or handled.
    late: TaskTracker,
    ended: CancellationToken,
    runtime: Handle,
}

/// A request on its way out.
pub(crate) struct Request<'a> {
    pub(crate) operation: &'static str,
    pub(crate) subject: &'a str,
    pub(crate) headers: &'a [(String, String)],
    pub(crate) payload: Bytes,
    pub(crate) timeout: Duration,
    pub(crate) abandoned: Option<Abandoned>,
}

impl Connection {
    fn new(injected: bool) -> Arc<Self> {
        Arc::new(Self {
            status: watch::Sender::new(Status::default()),
            injected,
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
            late: TaskTracker::new(),
            ended: CancellationToken::new(),
            runtime: Handle::current(),
        })
    }

    /// Connects to the first server that can be reached.
    pub(crate) async fn open(settings: Settings) -> Result<Arc<Self>, Error> {
        let connection = Self::new(false);
        let mut servers = settings.servers();
        let (link, replies) = servers.connect(&settings).await?;
        connection.attach(link);
        let supervisor = connection.clone();
        tokio::spawn(async move {
            let ended = supervisor.ended.clone();
            tokio::select! {
                () = ended.cancelled() => {}
                () = supervisor.supervise(settings, servers, replies) => {}
            }
        });
        Ok(connection)
    }

    /// Puts requests on a connection that belongs to somebody else.
    pub(crate) async fn inject(nats: async_nats::Client) -> Result<Arc<Self>, Error> {
        let connection = Self::new(true);
        let inbox = nats.new_inbox();
        let mut replies = nats.subscribe(format!("{inbox}.*")).await.map_err(|error| {
            Error::closed(format!("the NATS connection that was given: {error}")).with_source(error)
        })?;
        connection.attach(Link {
            nats,
            inbox,
            url: None,
        });
        let listener = connection.clone();
        tokio::spawn(async move {
            let ended = listener.ended.clone();
            tokio::select! {
                () = ended.cancelled() => { replies.unsubscribe().await.ok(); }
                () = listener.dispatch(&mut replies) => listener.close(),
            }
        });
        Ok(connection)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.status.borrow().closed
    }

    pub(crate) fn is_injected(&self) -> bool {
        self.injected
    }

    /// The connected client of async-nats, if there is one right now.
    pub(crate) fn link(&self) -> Option<Link> {
        let status = self.status.borrow();
        let link = status.link.as_ref().filter(|_| !status.closed)?;
        (link.nats.connection_state() == State::Connected).then(|| link.clone())
    }

    /// Whether replies of cancelled requests are still waited for, or handled.
    pub(crate) fn is_listening(&self) -> bool {
        !self.late.is_empty()
    }

    /// Sends a request and gives the body of its reply.
    ///
    /// Dropping the future before the request is sent sends nothing. After that it stops listening, or hands
    /// the reply to `abandoned` if that is set.
    pub(crate) async fn request(self: &Arc<Self>, request: Request<'_>) -> Result<Bytes, Error> {
        let deadline = Instant::now() + request.timeout;
        let (link, mut waiting) = self.connected(&request, deadline).await?;
        let headers_size: usize =
            request.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let size = request.payload.len()
            + if request.headers.is_empty() { 0 } else { HEADER_LINES + headers_size };
        if size > link.nats.max_payload() {
            let most = link.nats.max_payload();
            let why = format!("{size} bytes with its headers, the server takes at most {most}");
            return Err(Error::invalid_as(codes::PAYLOAD_TOO_LARGE, "payload", why));
        }
        self.publish(&link, &request, &waiting, deadline).await?;
        waiting.abandoned = request.abandoned.clone();
        waiting.deadline = Some(deadline);
        let message = match timeout_at(deadline, waiting.reply()).await {
            Ok(reply) => reply?,
            Err(_) => {
                waiting.abandoned = None;
                let operation = request.operation;
                let seconds = request.timeout.as_secs_f64();
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("{operation}: no reply within {seconds} s"),
                ));
            }
        };
        if message.payload.is_empty() && message.status == Some(StatusCode::NO_RESPONDERS) {
            let operation = request.operation;
            return Err(Error::new(
                ErrorKind::NoResponders,
                format!("{operation}: no mq9 broker answers on this NATS server"),
            ));
        }
        Ok(message.payload)
    }

    async fn publish(
        &self,
        link: &Link,
        request: &Request<'_>,
        waiting: &Waiting,
        deadline: Instant,
    ) -> Result<(), Error> {
        let inbox = format!("{}.{}", link.inbox, waiting.token);
        let subject = request.subject.to_owned();
        let payload = request.payload.clone();
        let operation = request.operation;
        let sent = if request.headers.is_empty() {
            timeout_at(deadline, link.nats.publish_with_reply(subject, inbox, payload)).await
        } else {
            let mut headers = HeaderMap::new();
            for (name, value) in request.headers {
                headers.append(name.as_str(), value.as_str());
            }
            let sending =
                link.nats.publish_with_reply_and_headers(subject, inbox, headers, payload);
            timeout_at(deadline, sending).await
        };
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                Err(Error::closed(format!("{operation}: {error}")).with_source(error))
            }
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("{operation}: the server did not take it in time; nothing was sent"),
            )),
        }
    }

    /// Waits for the connection, and registers for a reply over it.
    async fn connected(
        self: &Arc<Self>,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<(Link, Waiting), Error> {
        let operation = request.operation;
        let mut status = self.status.subscribe();
        loop {
            let (closed, generation) = {
                let status = status.borrow_and_update();
                (status.closed, status.generation)
            };
            if closed {
                return Err(Error::closed(format!("{operation}: the client is closed")));
            }
            if let Some(link) = self.link() {
                let waiting = self.register();
                // A link that is lost from here on fails what is registered.
                let status = self.status.borrow();
                if status.link.is_some() && status.generation == generation {
                    return Ok((link, waiting));
                }
                continue;
            }
            if Instant::now() >= deadline {
                let seconds = request.timeout.as_secs_f64();
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("{operation}: not connected for {seconds} s; nothing was sent"),
                ));
            }
            // What async-nats knows of a lost connection is not told, so it is looked at now and then.
            let pause = deadline.min(Instant::now() + STATE_CHECK);
            timeout_at(pause, status.changed()).await.ok();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(self: &Arc<Self>) -> Waiting {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(token, sender);
        Waiting {
            token,
            connection: self.clone(),
            receiver: Some(receiver),
            abandoned: None,
            deadline: None,
        }
    }

    fn attach(&self, link: Link) {
        self.status.send_modify(|status| {
            status.generation += 1;
            status.link = Some(link);
        });
    }

    /// Hands replies to those who wait for them, until the connection is lost.
    async fn dispatch(&self, replies: &mut Subscriber) {
        while let Some(message) = replies.next().await {
            let token = message.subject.rsplit('.').next().and_then(|token| token.parse().ok());
            let waiting = token.and_then(|token: u64| self.waiting().remove(&token));
            if let Some(waiting) = waiting {
                waiting.send(Ok(message)).ok();
            }
        }
    }

    async fn supervise(&self, settings: Settings, mut servers: Servers, mut replies: Subscriber) {
        loop {
            self.dispatch(&mut replies).await;
            self.status.send_modify(|status| status.link = None);
            self.fail_waiting("the connection broke before the reply came");
            tracing::info!("mq9: connection lost, reconnecting");
            replies = self.reconnect(&settings, &mut servers).await;
            tracing::info!("mq9: connected again");
        }
    }

    async fn reconnect(&self, settings: &Settings, servers: &mut Servers) -> Subscriber {
        let mut wait = settings.reconnect_wait;
        loop {
            let pause = wait.mul_f64(1.0 + JITTER * fastrand::f64());
            sleep(pause.min(settings.reconnect_wait_max)).await;
            wait = (wait * 2).min(settings.reconnect_wait_max);
            servers.rotate();
            match servers.connect(settings).await {
                Ok((link, replies)) => {
                    self.attach(link);
                    return replies;
                }
                Err(error) => tracing::info!("mq9: {error}"),
            }
        }
    }

    fn fail_waiting(&self, why: &str) {
        for (_, waiting) in self.waiting().drain() {
            waiting.send(Err(Error::closed(why))).ok();
        }
    }

    /// Makes a round trip to the server, so that what it has sent so far has been handled.
    pub(crate) async fn flush(self: &Arc<Self>, within: Duration) {
        let deadline = Instant::now() + within;
        let Some(link) = self.link() else { return };
        let mut waiting = self.register();
        let inbox = format!("{}.{}", link.inbox, waiting.token);
        if let Ok(Ok(())) = timeout_at(deadline, link.nats.publish(inbox, Bytes::new())).await {
            timeout_at(deadline, waiting.reply()).await.ok();
        }
    }

    /// Waits until replies of cancelled requests have come and been handled.
    pub(crate) async fn settle(&self, within: Duration) {
        self.late.close();
        timeout_at(Instant::now() + within, self.late.wait()).await.ok();
    }

    /// Closes the connection for good; one that was given stays open.
    pub(crate) fn close(&self) {
        self.status.send_modify(|status| {
            status.closed = true;
            status.link = None;
        });
        self.fail_waiting("the client was closed before the reply came");
        self.ended.cancel();
    }
}

/// Somebody who waits for a reply. Dropped, it stops waiting, or leaves that to a task.
struct Waiting {
    token: u64,
    connection: Arc<Connection>,
    receiver: Option<oneshot::Receiver<Reply>>,
    abandoned: Option<Abandoned>,
    deadline: Option<Instant>,
}

impl Waiting {
    async fn reply(&mut self) -> Reply {
        let Some(receiver) = self.receiver.as_mut() else {
            return Err(Error::closed("the reply was taken already"));
        };
        let reply = receiver.await;
        self.receiver = None;
        reply.unwrap_or_else(|_| Err(Error::closed("the client was closed before the reply came")))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let (Some(receiver), Some(abandoned), Some(deadline)) =
            (self.receiver.take(), self.abandoned.take(), self.deadline)
        else {
            self.connection.waiting().remove(&self.token);
            return;
        };
        let (connection, token) = (self.connection.clone(), self.token);
        let (late, runtime) = (connection.late.clone(), connection.runtime.clone());
        late.spawn_on(
            async move {
                let reply = timeout_at(deadline, receiver).await;
                connection.waiting().remove(&token);
                if let Ok(Ok(Ok(message))) = reply {
                    abandoned(message.payload).await;
                }
            },
            &runtime,
        );
    }
}
