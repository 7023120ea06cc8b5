//! The flags with which a client or a load tool decides whether to trust a server with TLS.

#[cfg(feature = "tls-client")]
use std::path::PathBuf;

#[cfg(feature = "tls-client")]
use chatloop::client_tls::Fingerprint;
use clap::Args;

/// The `TrustArgs` are the flags for TLS. There are none if it is not compiled in.
#[derive(Debug, Args)]
pub(crate) struct TrustArgs {
    /// With tls:// and wss://: trust certificates from the issuers in this file as well
    ///
    /// In PEM, as `chatloop-ca.crt` that `chatloop cert` makes. The certificate must be valid and have the
    /// server's name. Keys that were accepted before do not count then, and none is asked about.
    #[cfg(feature = "tls-client")]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub(crate) ca: Option<PathBuf>,

    /// Trust the server with this key, and no other; may be given more than once
    ///
    /// The fingerprint of the certificate's public key, as `chatloop cert` prints it. Nothing else of the
    /// certificate is checked: neither its issuer nor its names nor its dates.
    #[cfg(feature = "tls-client")]
    #[arg(
        long,
        value_name = "sha256:BASE64",
        help_heading = "TLS",
        conflicts_with = "ca"
    )]
    pub(crate) pin: Vec<Fingerprint>,

    /// The file of the keys that were accepted [default: chatloop/known_hosts in the folder for state]
    ///
    /// That folder is $XDG_STATE_HOME, or else ~/.local/state. Each line is `HOST:PORT sha256:BASE64`. A server
    /// that has a line must have that key, whatever its certificate is.
    #[cfg(feature = "tls-client")]
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "TLS",
        conflicts_with_all = ["ca", "pin"]
    )]
    pub(crate) known_hosts: Option<PathBuf>,

    /// The client's certificate, for a server that demands one
    ///
    /// In PEM, and behind it those that lead to one that the server trusts.
    #[cfg(feature = "tls-client")]
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "TLS",
        requires = "client_key"
    )]
    pub(crate) client_cert: Option<PathBuf>,

    /// The private key of --client-cert, in PEM
    #[cfg(feature = "tls-client")]
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "TLS",
        requires = "client_cert"
    )]
    pub(crate) client_key: Option<PathBuf>,
}
