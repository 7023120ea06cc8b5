//! From the flags for TLS to what makes secure connections to a server.

use std::fmt;
#[cfg(feature = "tls-client")]
use std::path::PathBuf;

use chatloop::client_tls::Connector;

use crate::address::Address;
use crate::cli::TrustArgs;
#[cfg(feature = "tls-client")]
use crate::known_hosts::{self, KnownHostsError};

/// Why there is no secure connection to be made.
#[derive(Debug)]
pub(crate) enum SecureError {
    /// A flag has a value that cannot be used.
    Flag(String),
    /// The file of known keys cannot be used.
    #[cfg(feature = "tls-client")]
    KnownHosts(KnownHostsError),
}

impl SecureError {
    /// The exit code, as `--help` lists it.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Flag(_) => 2,
            #[cfg(feature = "tls-client")]
            Self::KnownHosts(_) => 1,
        }
    }
}

impl fmt::Display for SecureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(error) => f.write_str(error),
            #[cfg(feature = "tls-client")]
            Self::KnownHosts(error) => error.fmt(f),
        }
    }
}

/// What makes secure connections to a server.
#[cfg(not(feature = "tls-client"))]
pub(crate) fn connector(_: &TrustArgs, _: &Address, _: bool) -> Result<Connector, SecureError> {
    let error = "this program was made without TLS: the feature tls-client";
    Err(SecureError::Flag(error.to_owned()))
}

/// What makes secure connections to a server. The known keys are read here and not later: a server is trusted
/// or not for as long as the program runs.
#[cfg(feature = "tls-client")]
pub(crate) fn connector(
    args: &TrustArgs,
    server: &Address,
    is_web_socket: bool,
) -> Result<Connector, SecureError> {
    use chatloop::client_tls::Trust;

    let trust = if let Some(ca) = &args.ca {
        Trust::Issued(ca.clone())
    } else if args.pin.is_empty() {
        let file = known_file(args).map_err(SecureError::KnownHosts)?;
        let keys = known_hosts::keys_of(&known_name(server), &file);
        Trust::Known {
            keys: keys.map_err(SecureError::KnownHosts)?,
            file,
        }
    } else {
        Trust::Pinned(args.pin.clone())
    };
    let identity = args.client_cert.as_deref().zip(args.client_key.as_deref());
    Connector::new(&server.host(), trust, identity, is_web_socket).map_err(SecureError::Flag)
}

/// The file of the known keys.
#[cfg(feature = "tls-client")]
pub(crate) fn known_file(args: &TrustArgs) -> Result<PathBuf, KnownHostsError> {
    args.known_hosts
        .clone()
        .map_or_else(known_hosts::default_path, Ok)
}

/// A server's name in that file.
#[cfg(feature = "tls-client")]
pub(crate) fn known_name(server: &Address) -> String {
    server.authority().to_ascii_lowercase()
}
