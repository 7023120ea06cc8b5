//! Where the bus is, and what is asked of it.

use std::net::SocketAddr;

/// `BusConfig` says which engine several relays share, and which room of it.
#[derive(Clone, Debug)]
pub struct BusConfig {
    /// The addresses of the engine, or of its Sentinels. They are tried one after the other.
    pub addrs: Vec<SocketAddr>,
    /// The name under which Sentinels know the engine; without it the addresses are the engine's.
    pub master: Option<String>,
    /// The user and its password, as the engine's `AUTH` takes them.
    pub login: Option<Login>,
    /// The number of the database.
    pub database: u32,
    /// The room: relays of the same room hear each other.
    pub room: String,
    /// The name of this relay, for people.
    pub node: String,
    /// How many bytes may wait for an engine that is away.
    pub queue: usize,
    /// How many entries the stream keeps, about.
    pub keep: u64,
    /// How many replicas should have each entry; 0 asks for none.
    pub replicas: u64,
}

/// A user of the engine.
#[derive(Clone)]
pub struct Login {
    /// Its name; none for the engine's default user.
    pub user: Option<String>,
    /// Its password.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password is no one's business.
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
