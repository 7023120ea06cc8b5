//! The flags of listeners with TLS.

use std::path::PathBuf;

use chatloop::server::TlsFiles;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct TlsArgs {
    /// The certificate of the listeners with TLS
    ///
    /// In PEM: the relay's own, and behind it those that lead to one that clients trust. `chatloop cert`
    /// makes one. SIGHUP has this file and those of the next flags read again, for connections that come
    /// from then on. If one of them cannot be used, the log says why, and what was read before is used
    /// on.
    #[arg(
        long,
        env = "CHATLOOP_CERT",
        value_name = "FILE",
        requires = "key",
        hide_env = true
    )]
    cert: Option<PathBuf>,

    /// The private key of --cert, in PEM
    #[arg(
        long,
        env = "CHATLOOP_KEY",
        value_name = "FILE",
        requires = "cert",
        hide_env = true
    )]
    key: Option<PathBuf>,

    /// The oldest version of TLS that clients may speak: `1.3` or `1.2`
    #[arg(
        long,
        env = "CHATLOOP_TLS_MIN",
        value_name = "VERSION",
        default_value = "1.3",
        value_parser = ["1.2", "1.3"],
        hide_possible_values = true,
        hide_env = true
    )]
    tls_min: String,

    /// Certificates in PEM, of which one must have issued each client's certificate
    ///
    /// With it, listeners with TLS accept no client without a certificate, and a member has the name
    /// that is in its certificate: its first email address, or else its first DNS name, or else its common
    /// name. The name that it sends itself is ignored.
    #[arg(
        long,
        env = "CHATLOOP_CLIENT_CA",
        value_name = "FILE",
        requires = "cert",
        hide_env = true
    )]
    client_ca: Option<PathBuf>,

    /// Revocation lists in PEM, of the issuers in --client-ca
    ///
    /// When they are read again, members whose certificate is revoked are closed.
    #[arg(
        long,
        env = "CHATLOOP_CLIENT_CRL",
        value_name = "FILE",
        requires = "client_ca",
        hide_env = true
    )]
    client_crl: Option<PathBuf>,
}

impl TlsArgs {
    /// The files, if there are any.
    pub(crate) fn files(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            certificate: self.cert.clone()?,
            key: self.key.clone()?,
            client_ca: self.client_ca.clone(),
            client_crl: self.client_crl.clone(),
            allows_tls12: self.tls_min == "1.2",
        })
    }
}
