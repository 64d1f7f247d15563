//! Client of mq9: asynchronous messaging for software agents on NATS.
//!
//! Each agent has durable mailboxes, so sender and receiver need not be online at the same time; agents find
//! each other in a registry by keyword or by meaning.
//!
//! ```no_run
//! # async fn example() -> Result<(), mq9::Error> {
//! let client = mq9::connect("nats://127.0.0.1:4222").await?;
//! let inbox = client.mailbox_create().ttl(3600).await?;
//! client.send(&inbox, "hello").priority(mq9::Priority::Urgent).await?;
//!
//! let batch = client.fetch(&inbox).group_name("workers").deliver(mq9::Deliver::Earliest).lease_ms(30000).await?;
//! for message in batch.messages {
//!     println!("{}", String::from_utf8_lossy(&message.payload));
//!     client.ack(&inbox, "workers").msg_id(message.msg_id).await?;
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! **Requests.** Every operation is a method of [`Client`] that gives a request: its methods set options, and
//! awaiting it sends it. An option that is not set is not sent.
//!
//! **Cancellation.** Dropping a future cancels the call at once, and nothing more is sent; every future of
//! this crate may be dropped at any time. A FETCH under a lease that is dropped while it waits is listened
//! for in the background until its timeout, and what it brings is given back.
//!
//! **Consuming.** [`Client::consume`] calls a handler with each message ([`Consume::run`]) or makes a stream
//! of them ([`Consume::stream`]).
//!
//! **Features.** `ring` (default), `aws-lc-rs` and `fips` choose the cryptography behind TLS, `websockets`
//! adds `ws://` and `wss://`.

#![deny(unreachable_pub)]

mod client;
mod connect;
mod connection;
mod consume;
mod decode;
mod delivery;
mod encode;
mod error;
mod failure;
mod generated;
mod headers;
mod json;
mod keep_alive;
mod payload;
mod stream;

pub use async_nats;

pub use client::{Client, ResponseFuture};
pub use connect::{Connect, ServerList, Tls, connect};
pub use consume::{Consumer, ConsumerStats, Stopper};
pub use error::{Error, ErrorKind, codes};
pub use failure::{Failure, HandlerError};
pub use generated::constants::SPEC_VERSION;
pub use generated::consume::Consume;
pub use generated::models::*;
pub use generated::operations::*;
pub use headers::Headers;
pub use json::JsonObject;
pub use keep_alive::AgentKeepAlive;
pub use payload::Payload;
pub use stream::MessageStream;
