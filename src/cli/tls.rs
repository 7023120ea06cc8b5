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

#[cfg(feature = "cert")]
pub(super) const CERT_EPILOGUE: &str = "\
Files:
  chatloop.crt     the certificate, for serve --cert
  chatloop.key     its key, for serve --key; keep it secret
  chatloop-ca.crt  the authority's certificate: clients that trust it trust the relay. Install it in
                   browsers, or name it to other programs
  chatloop-ca.key  the authority's key: who has it can pretend to be any site to those clients
An authority that is there is used again, and the certificate and its key are replaced: so it is renewed.
The certificate is valid for 397 days, the authority for 10 years.

Examples:
  chatloop cert                               for this machine's names and addresses
  chatloop cert --host chat.example.org       for another name
  chatloop cert --out /etc/chatloop && systemctl reload chatloop
                                              a new one, which a running relay uses at once

Exit codes:
  0  the files are there
  1  anything not listed here
  2  usage: a flag that does not exist, or a value that cannot work";

#[cfg(feature = "cert")]
#[derive(Debug, Args)]
pub(crate) struct CertArgs {
    /// A name or an address of the relay; may be given more than once [default: localhost, and this
    /// machine's name and addresses]
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Vec<String>,

    /// The folder of the files
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
}
