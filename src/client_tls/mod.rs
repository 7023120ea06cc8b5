//! TLS of the client and of the load tool: which servers are trusted, and the stream of a connection.
//!
//! | what happens | where |
//! |---|---|
//! | A connection is wrapped in TLS, or not | [`Stream`] |
//! | Records are exchanged, and certificates verified | `session.rs`, the only file here that knows rustls |
//! | A server's key is accepted or refused | [`Trust`] |
//!
//! The handshake runs in the loop of its caller. Nothing here waits.

#[cfg(feature = "tls-client")]
mod session;
#[cfg(not(feature = "tls-client"))]
#[path = "no_session.rs"]
mod session;
mod stream;
mod trust;

pub use session::Connector;
pub use stream::Stream;
pub use trust::{Fingerprint, KnownKey, Refusal, Trust};
