//! Through whom, for which group and under which lease a message was delivered; what it can do then.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::Client;
use crate::error::Error;
use crate::generated::models::Message;

struct Inner {
    client: Client,
    mail_address: String,
    group_name: String,
    lease_id: String,
    lease_ms: i64,
    settled: AtomicBool,
}

/// The delivery of a message; empty if it did not come from a consumer. It is no part of what a message is,
/// so all deliveries are equal.
#[derive(Clone, Default)]
pub(crate) struct Delivery(Option<Arc<Inner>>);

impl PartialEq for Delivery {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_ref().map_or("none", |inner| &inner.lease_id))
    }
}

impl Delivery {
    pub(crate) fn new(
        client: Client,
        mail_address: &str,
        group_name: &str,
        lease_id: &str,
        lease_ms: i64,
    ) -> Self {
        Self(Some(Arc::new(Inner {
            client,
            mail_address: mail_address.to_owned(),
            group_name: group_name.to_owned(),
            lease_id: lease_id.to_owned(),
            lease_ms,
            settled: AtomicBool::new(false),
        })))
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.0.as_ref().is_none_or(|inner| inner.settled.load(Ordering::SeqCst))
    }

    pub(crate) fn lease_id(&self) -> &str {
        self.0.as_ref().map_or("", |inner| &inner.lease_id)
    }

    fn inner(&self, method: &str) -> Result<&Inner, Error> {
        self.0.as_deref().ok_or_else(|| {
            let why = format!("did not come from `consume`: call the client's `{method}` instead");
            Error::invalid("message", why)
        })
    }
}

impl Message {
    /// The payload as text.
    ///
    /// # Errors
    ///
    /// It is not UTF-8.
    pub fn text(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.payload)
    }

    /// The payload as a JSON value: a type of your own, or [`serde_json::Value`].
    ///
    /// # Errors
    ///
    /// It is not JSON, or does not fit that type.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.payload)
    }

    /// Confirms this message for its consumer group: it never comes again.
    ///
    /// Only for messages that `consume` delivered; others are confirmed by [`Client::ack`].
    ///
    /// # Errors
    ///
    /// It could not be confirmed; it comes again when its lease is over.
    pub async fn ack(&self) -> Result<(), Error> {
        self.ack_within(None).await
    }

    pub(crate) async fn ack_within(&self, timeout: Option<Duration>) -> Result<(), Error> {
        let inner = self.delivery.inner("ack")?;
        let mut request =
            inner.client.ack(&inner.mail_address, &inner.group_name).msg_id(self.msg_id);
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        request.await?;
        inner.settled.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Gives this message back to its consumer group at once, unless another consumer holds it by now.
    ///
    /// # Errors
    ///
    /// It could not be given back; it comes again when its lease is over.
    pub async fn nack(&self) -> Result<(), Error> {
        self.nack_with_delay(0).await
    }

    /// Gives this message back; it comes again after so many milliseconds, bounded as in [`Client::nack`].
    ///
    /// # Errors
    ///
    /// It could not be given back; it comes again when its lease is over.
    pub async fn nack_with_delay(&self, delay_ms: i64) -> Result<(), Error> {
        let inner = self.delivery.inner("nack")?;
        inner
            .client
            .nack(&inner.mail_address, &inner.group_name, [self.msg_id])
            .lease_id(&inner.lease_id)
            .delay_ms(delay_ms)
            .await?;
        inner.settled.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Keeps this message hidden from the rest of its group for as long as the lease that it came under.
    ///
    /// A consumer does so by itself while a handler runs.
    ///
    /// Gives whether it is still ours; if not, its lease was over before.
    ///
    /// # Errors
    ///
    /// It could not be renewed.
    pub async fn renew(&self) -> Result<bool, Error> {
        let lease_ms = self.delivery.inner("renew")?.lease_ms;
        self.renew_for(lease_ms).await
    }

    /// Likewise, for so many milliseconds from now, bounded as in [`Client::renew`].
    ///
    /// # Errors
    ///
    /// It could not be renewed.
    pub async fn renew_for(&self, lease_ms: i64) -> Result<bool, Error> {
        let inner = self.delivery.inner("renew")?;
        let renewed = inner
            .client
            .renew(&inner.mail_address, &inner.group_name, [self.msg_id], lease_ms)
            .lease_id(&inner.lease_id)
            .await?;
        Ok(renewed.contains(&self.msg_id))
    }
}
