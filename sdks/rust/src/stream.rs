//! A mailbox as a stream of messages.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::future::BoxFuture;

use crate::consume::{Abort, ConsumerStats, Shared, Stopper};
use crate::error::Error;
use crate::generated::models::Message;

type Item = Option<Result<Message, Error>>;

/// Messages of a mailbox, one after the other; made by [`Consume::stream`](crate::Consume::stream).
///
/// It fetches while it is polled, and keeps the messages of its batch leased meanwhile. With `auto_ack` a
/// message is acknowledged when the next one is asked for. An error is a FETCH that failed, where no
/// `on_error` is set: ask again and it goes on after a pause. Dropping the stream gives back what was not
/// acknowledged, the message in hand too. It is fused: after its end it gives nothing more.
#[must_use = "a stream does nothing unless it is polled"]
pub struct MessageStream {
    shared: Arc<Shared>,
    step: Option<BoxFuture<'static, (Item, Option<Abort<()>>)>>,
    renewing: Option<Abort<()>>,
    in_hand: Option<Message>,
    ended: bool,
}

impl MessageStream {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            step: None,
            renewing: None,
            in_hand: None,
            ended: false,
        }
    }

    /// What asks this stream to end: it gives back what it has not handed out, and gives nothing more.
    pub fn stopper(&self) -> Stopper {
        self.shared.options.stopper()
    }

    /// What it has done so far.
    pub fn stats(&self) -> ConsumerStats {
        self.shared.stats()
    }
}

impl fmt::Debug for MessageStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageStream")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

impl Stream for MessageStream {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Item> {
        if self.ended {
            return Poll::Ready(None);
        }
        let this = &mut *self;
        let step = this.step.get_or_insert_with(|| {
            let (in_hand, renewing) = (this.in_hand.take(), this.renewing.take());
            Box::pin(next(this.shared.clone(), in_hand, renewing))
        });
        let (item, renewing) = match step.as_mut().poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(result) => result,
        };
        this.step = None;
        this.renewing = renewing;
        match &item {
            Some(Ok(message)) => this.in_hand = Some(message.clone()),
            Some(Err(_)) => {}
            None => {
                this.ended = true;
                this.shared.finish();
            }
        }
        Poll::Ready(item)
    }
}

impl Drop for MessageStream {
    fn drop(&mut self) {
        self.step = None;
        if !self.ended {
            self.shared.finish();
        }
    }
}

/// The next message, after the one before it is settled.
async fn next(
    shared: Arc<Shared>,
    in_hand: Option<Message>,
    mut renewing: Option<Abort<()>>,
) -> (Item, Option<Abort<()>>) {
    if let Some(message) = in_hand {
        // The loop has come back for more, so its body has ended well.
        shared.succeeded(&message).await;
    }
    loop {
        if let Some(message) = shared.take() {
            return (Some(Ok(message)), renewing);
        }
        shared.give_back_waiting().await;
        drop(renewing.take());
        match shared.next_batch().await {
            Ok(true) => {
                let renewer = shared.clone();
                let runtime = shared.options.client.runtime();
                renewing = Some(Abort(runtime.spawn(async move { renewer.renew().await })));
            }
            Ok(false) => return (None, None),
            Err(error) => return (Some(Err(error)), None),
        }
    }
}
