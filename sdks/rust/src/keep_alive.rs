//! Keeping an agent in the registry as long as a program runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::sleep;

use crate::client::{Client, Part};
use crate::consume::Abort;
use crate::error::{Error, codes};
use crate::generated::constants;
use crate::generated::operations::AgentRegisterRequest;

impl AgentRegisterRequest {
    /// Registers the agent, reports it regularly, registers it again when the registry has forgotten it, and
    /// unregisters it at the end: `client.agent_register("translator").mailbox(&inbox).keep_alive().await?`.
    ///
    /// The registration's `ttl` is that of the specification, whatever is set.
    ///
    /// # Errors
    ///
    /// It could not be registered.
    pub async fn keep_alive(self) -> Result<AgentKeepAlive, Error> {
        let registration = self.ttl(constants::AGENT_KEEP_ALIVE_REGISTER_TTL);
        let client = registration.client();
        registration.clone().await?;
        let inner = Arc::new(Inner {
            client: client.clone(),
            registration,
            stopped: AtomicBool::new(false),
        });
        let part: Weak<dyn Part> = Arc::downgrade(&(inner.clone() as Arc<dyn Part>));
        client.add_part(part)?;
        let reporter = inner.clone();
        let task = Abort(client.runtime().spawn(async move { reporter.report().await }));
        Ok(AgentKeepAlive {
            inner,
            task,
        })
    }
}

struct Inner {
    client: Client,
    registration: AgentRegisterRequest,
    stopped: AtomicBool,
}

impl Inner {
    async fn report(&self) {
        let every =
            Duration::from_millis(constants::AGENT_KEEP_ALIVE_REPORT_EVERY_MS.unsigned_abs());
        loop {
            sleep(every).await;
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let mut result = self.client.agent_report().name(&self.registration.name).await;
            let code = result.as_ref().err().and_then(Error::code);
            if code == Some(codes::AGENT_NOT_FOUND) && !self.stopped.load(Ordering::SeqCst) {
                result = self.registration.clone().await;
            }
            if let Err(error) = result {
                let name = &self.registration.name;
                tracing::warn!("agent {name} could not be reported, trying again later: {error}");
            }
        }
    }

    async fn stop(&self) -> Result<(), Error> {
        if self.stopped.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.client.internal().agent_unregister().name(&self.registration.name).await
    }
}

impl Part for Inner {
    fn end(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.stop().await.ok();
        })
    }
}

/// An agent that is registered as long as this lives; made by [`AgentRegisterRequest::keep_alive`].
///
/// [`stop`](Self::stop) it to hear whether it could be unregistered; dropping it, or closing the client,
/// unregisters it too.
#[must_use = "dropping it unregisters the agent"]
pub struct AgentKeepAlive {
    inner: Arc<Inner>,
    task: Abort<()>,
}

impl std::fmt::Debug for AgentKeepAlive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentKeepAlive")
            .field("name", &self.inner.registration.name)
            .finish_non_exhaustive()
    }
}

impl AgentKeepAlive {
    /// Ends the reports and unregisters the agent; calling it again is fine.
    ///
    /// # Errors
    ///
    /// It could not be unregistered; it goes by itself when its ttl is over.
    pub async fn stop(&self) -> Result<(), Error> {
        self.task.0.abort();
        self.inner.stop().await
    }
}

impl Drop for AgentKeepAlive {
    fn drop(&mut self) {
        if !self.inner.stopped.load(Ordering::SeqCst) {
            let inner = self.inner.clone();
            self.inner.client.run_in_background(async move {
                inner.stop().await.ok();
            });
        }
    }
}
