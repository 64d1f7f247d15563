//! The conformance adapter of the Rust SDK: JSON lines in, JSON lines out; see conformance/ADAPTERS.md.

mod background;
mod convert;
mod dispatch;
mod mutants;

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mq9::async_nats::connection::State;
use mq9::{Client, async_nats};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use background::{Background, ConsumerRun, IterationRun};
use convert::{Args, Failed, How};

const FEATURES: &[&str] = &["consume", "iterate", "keep_alive", "existing_connection"];

/// A request of the runner.
pub(crate) struct Request {
    op: String,
    fields: Map<String, Value>,
}

impl Request {
    fn text(&self, name: &str) -> Result<String, Failed> {
        let text = self.fields.get(name).and_then(Value::as_str);
        text.map(str::to_owned)
            .ok_or_else(|| Failed::Harness(format!("the request has no {name:?}")))
    }

    fn args(&self) -> Map<String, Value> {
        let mut args =
            self.fields.get("args").and_then(Value::as_object).cloned().unwrap_or_default();
        mutants::spoil_arguments(&self.op, &mut args);
        args
    }
}

/// Writes one line of the protocol.
pub(crate) fn write(line: &Value) {
    let mut out = std::io::stdout().lock();
    // A runner that is gone needs no answer.
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

/// An error of the SDK in the protocol's form.
pub(crate) fn error_fields(error: &mq9::Error) -> Value {
    let mut fields = json!({"kind": error.kind().as_str(), "message": error.to_string()});
    if let Some(code) = error.code() {
        fields["code"] = code.into();
    }
    if let Some(field) = error.field() {
        fields["field"] = field.into();
    }
    mutants::spoil_error(&mut fields);
    fields
}

type Running = (CancellationToken, Arc<AsyncMutex<Option<JoinHandle<()>>>>);

/// Carries out requests side by side; each answer goes out as soon as it is there.
#[derive(Default)]
struct Adapter {
    clients: Mutex<HashMap<String, Client>>,
    connections: Mutex<HashMap<String, async_nats::Client>>,
    backgrounds: Mutex<HashMap<String, Arc<Background>>>,
    running: Mutex<HashMap<u64, Running>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Adapter {
    /// Reads requests until the end of the input, then finishes.
    async fn run(self: Arc<Self>) {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let Ok(Value::Object(fields)) = serde_json::from_str(&line) else { continue };
            let id = fields.get("id").and_then(Value::as_u64).unwrap_or_default();
            let op = fields.get("op").and_then(Value::as_str).unwrap_or_default().to_owned();
            let request = Request {
                op,
                fields,
            };
            let cancelled = CancellationToken::new();
            let task = tokio::spawn(self.clone().serve(id, request, cancelled.clone()));
            let task = Arc::new(AsyncMutex::new(Some(task)));
            locked(&self.running).insert(id, (cancelled, task));
        }
        let running = std::mem::take(&mut *locked(&self.running));
        for running in running.into_values() {
            end(running).await;
        }
        let backgrounds = std::mem::take(&mut *locked(&self.backgrounds));
        for background in backgrounds.into_values() {
            background.cancel().await;
        }
        let clients = std::mem::take(&mut *locked(&self.clients));
        for client in clients.into_values() {
            client.close().await;
        }
    }

    /// Carries out one request and answers it.
    async fn serve(self: Arc<Self>, id: u64, request: Request, cancelled: CancellationToken) {
        let result = tokio::select! {
            biased;
            result = self.carry_out(&request) => result,
            () = cancelled.cancelled() => Err(Failed::Cancelled),
        };
        let answer = match result {
            Ok(mut value) => {
                mutants::spoil(&mut value);
                json!({"id": id, "ok": value})
            }
            Err(Failed::Sdk(error)) => json!({"id": id, "error": error_fields(&error)}),
            Err(Failed::Cancelled) => {
                json!({"id": id, "error": {"kind": "cancelled", "message": "cancelled"}})
            }
            Err(Failed::Harness(why)) => json!({"id": id, "harness_error": why}),
        };
        locked(&self.running).remove(&id);
        write(&answer);
    }

    /// Finds what a request asks for.
    async fn carry_out(&self, request: &Request) -> Result<Value, Failed> {
        match request.op.as_str() {
            "hello" => Ok(json!({
                "sdk": "rust",
                "sdk_version": env!("CARGO_PKG_VERSION"),
                "spec": mq9::SPEC_VERSION,
                "features": FEATURES,
            })),
            "connect" => self.connect(request).await,
            "close" => {
                self.client(request)?.close().await;
                Ok(json!({}))
            }
            "connection_open" => self.connection_open(request).await,
            "cancel" => self.cancel(request).await,
            "consume" => {
                let consume = dispatch::consume(&self.client(request)?, &Args(&request.args()))?;
                let run = ConsumerRun::start(consume, request)?;
                self.begin(request, Background::Consumer(run))
            }
            "iterate" => {
                let consume = dispatch::consume(&self.client(request)?, &Args(&request.args()))?;
                let run = IterationRun::start(consume)?;
                self.begin(request, Background::Iteration(Box::new(run)))
            }
            "agent_keep_alive" => {
                let args = request.args();
                let client = self.client(request)?;
                let registration = dispatch::agent_register_request(&client, &Args(&args))?;
                let keep_alive = registration.keep_alive().await?;
                let run = AsyncMutex::new(Some(keep_alive));
                self.begin(request, Background::KeepAlive(run))
            }
            _ if request.fields.contains_key("of") => {
                let label = request.text("of")?;
                let background = locked(&self.backgrounds).get(&label).cloned();
                let background = background
                    .ok_or_else(|| Failed::Harness(format!("nothing runs as {label:?}")))?;
                background.command(request).await
            }
            _ => self.operation(request).await,
        }
    }

    /// One operation of the specification.
    async fn operation(&self, request: &Request) -> Result<Value, Failed> {
        let decode: Vec<String> = request
            .fields
            .get("decode")
            .and_then(|v| serde_json::from_value(v.clone()).ok())
            .unwrap_or_default();
        let how = How::decoding(&decode);
        let args = request.args();
        let called = dispatch::call(&self.client(request)?, &request.op, &Args(&args), &how).await;
        called.unwrap_or_else(|| {
            Err(Failed::Harness(format!("there is no operation {:?}", request.op)))
        })
    }

    /// The client that a request names.
    fn client(&self, request: &Request) -> Result<Client, Failed> {
        let name = request.text("client")?;
        let client = locked(&self.clients).get(&name).cloned();
        client.ok_or_else(|| Failed::Harness(format!("client {name:?} was never connected")))
    }

    fn begin(&self, request: &Request, background: Background) -> Result<Value, Failed> {
        locked(&self.backgrounds).insert(request.text("as")?, Arc::new(background));
        Ok(json!({}))
    }

    /// Connects a client, on an existing NATS connection if `existing` says so.
    async fn connect(&self, request: &Request) -> Result<Value, Failed> {
        let args = request.args();
        let texts = Args(&args);
        let servers = match args.get("servers") {
            Some(Value::Array(_)) => texts.texts("servers")?.unwrap_or_default(),
            _ => vec![texts.text("servers")?.unwrap_or_default()],
        };
        let duration = |name: &str| -> Result<Option<Duration>, Failed> {
            Ok(texts.integer(name)?.map(|ms| Duration::from_millis(ms.unsigned_abs())))
        };
        let name = request.text("client")?;
        if texts.boolean("existing")? == Some(true) {
            let nats = async_nats::connect(servers)
                .await
                .map_err(|error| Failed::Harness(format!("async-nats: {error}")))?;
            locked(&self.connections).insert(name.clone(), nats.clone());
            let client = match duration("timeout_ms")? {
                Some(timeout) => Client::with_nats_and_timeout(nats, timeout).await?,
                None => Client::with_nats(nats).await?,
            };
            locked(&self.clients).insert(name, client);
            return Ok(json!({}));
        }
        let mut connect = mq9::connect(servers);
        for (name, value) in &args {
            let number = duration(name).ok().flatten();
            connect = match (name.as_str(), value.as_str(), number) {
                ("servers" | "existing", _, _) => connect,
                ("name", Some(text), _) => connect.name(text),
                ("user", Some(text), _) => connect.user(text),
                ("password", Some(text), _) => connect.password(text),
                ("token", Some(text), _) => connect.token(text),
                ("credentials_file", Some(text), _) => connect.credentials_file(text),
                ("timeout_ms", _, Some(time)) => connect.timeout(time),
                ("connect_timeout_ms", _, Some(time)) => connect.connect_timeout(time),
                ("reconnect_wait_ms", _, Some(time)) => connect.reconnect_wait(time),
                ("reconnect_wait_max_ms", _, Some(time)) => connect.reconnect_wait_max(time),
                _ => return Err(Failed::Harness(format!("connect has no option {name:?}"))),
            };
        }
        let client = connect.await?;
        locked(&self.clients).insert(name, client);
        Ok(json!({}))
    }

    /// Says whether the existing connection of a client is still open, then closes it.
    async fn connection_open(&self, request: &Request) -> Result<Value, Failed> {
        let name = request.text("client")?;
        let connection = locked(&self.connections).remove(&name);
        let connection =
            connection.ok_or_else(|| Failed::Harness(format!("{name:?} has no connection")))?;
        let open =
            connection.connection_state() == State::Connected && connection.flush().await.is_ok();
        connection.drain().await.ok();
        Ok(open.into())
    }

    /// Cancels a call (`target`) or something under way (`of`) as Rust cancels: by dropping it.
    async fn cancel(&self, request: &Request) -> Result<Value, Failed> {
        if request.fields.contains_key("of") {
            let background = locked(&self.backgrounds).get(&request.text("of")?).cloned();
            if let Some(background) = background {
                background.cancel().await;
            }
        } else {
            let target = request.fields.get("target").and_then(Value::as_u64).unwrap_or_default();
            let running = locked(&self.running).get(&target).cloned();
            if let Some(running) = running {
                end(running).await;
            }
        }
        Ok(json!({"ended": "cancelled"}))
    }
}

/// Cancels a request and waits for its answer.
async fn end((cancelled, task): Running) {
    cancelled.cancel();
    if let Some(task) = task.lock().await.take() {
        task.await.ok();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    Arc::new(Adapter::default()).run().await;
    // The thread that reads stdin may still sit in its read.
    std::process::exit(0);
}
