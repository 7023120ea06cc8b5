//! The TLS of one connection, by rustls, and how it verifies certificates.
//!
//! No session is resumed: one that is has no certificate to verify.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct,
    Error, InvalidMessage, OtherError, SignatureScheme,
};
use rustls_platform_verifier::Verifier as PlatformVerifier;
use sha2::{Digest, Sha256};

use super::trust::{Fingerprint, Refusal, Trust};

/// A `Connector` begins sessions with one server.
#[derive(Clone, Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
    server: ServerName<'static>,
}

impl Connector {
    /// A connector for the server of this name or address. `identity` is the client's certificate and its key.
    ///
    /// # Errors
    ///
    /// If the name is none, or a file cannot be used: a sentence for the user.
    pub fn new(
        server: &str,
        trust: Trust,
        identity: Option<(&Path, &Path)>,
        is_web_socket: bool,
    ) -> Result<Self, String> {
        let server = ServerName::try_from(server.to_owned())
            .map_err(|_| format!("{server}: not a name that a certificate can have"))?;
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(Verifier {
            issuers: platform_verifier(&trust, &provider)?,
            algorithms: provider.signature_verification_algorithms,
            trust,
            refusal: Mutex::default(),
        });
        let custom = Arc::clone(&verifier);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(custom);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates("--client-cert", certificate)?;
                let source = Source("--client-key", key);
                let key = PrivateKeyDer::from_pem_slice(&source.read()?)
                    .map_err(|error| source.bad_pem("private key", &error))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| source.error(&format!("it cannot be used: {error}")))?
            }
        };
        config.resumption = Resumption::disabled();
        if is_web_socket {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        Ok(Self {
            config: Arc::new(config),
            verifier,
            server,
        })
    }

    /// The latest refusal of the server, if there was one.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.verifier.last_refusal().clone()
    }

    /// Begins a session with a handshake.
    pub(super) fn begin(&self) -> io::Result<Session> {
        let config = Arc::clone(&self.config);
        let connection = ClientConnection::new(config, self.server.clone()).map_err(failure)?;
        Ok(Session {
            connection,
            output: Vec::new(),
            failed: None,
        })
    }
}

/// What verifies certificates by their issuers, if that matters. A machine may know no issuers.
fn platform_verifier(
    trust: &Trust,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<PlatformVerifier>, String> {
    if !trust.needs_issuer() {
        return Ok(None);
    }
    let provider = Arc::clone(provider);
    let Trust::Issued(path) = trust else {
        return Ok(PlatformVerifier::new(provider).ok());
    };
    PlatformVerifier::new_with_extra_roots(certificates("--ca", path)?, provider)
        .map(Some)
        .map_err(|error| Source("--ca", path).error(&format!("it cannot be used: {error}")))
}

/// The value of a flag that is the path of a file.
struct Source<'a>(&'static str, &'a Path);

impl Source<'_> {
    fn error(&self, what: &str) -> String {
        format!("{} {}: {what}", self.0, self.1.display())
    }

    fn bad_pem(&self, what: &str, error: &pem::Error) -> String {
        match error {
            pem::Error::NoItemsFound => self.error(&format!("there is no {what} in PEM in it")),
            error => self.error(&format!("it is not PEM: {error}")),
        }
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        fs::read(self.1).map_err(|error| self.error(&format!("cannot read it: {error}")))
    }
}

/// The certificates of a file, of which there must be one.
fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let source = Source(flag, path);
    let certificates = CertificateDer::pem_slice_iter(&source.read()?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| source.bad_pem("certificate", &error))?;
    if certificates.is_empty() {
        return Err(source.bad_pem("certificate", &pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

/// A `Verifier` accepts the servers that are trusted.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    issuers: Option<PlatformVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
    refusal: Mutex<Option<Refusal>>,
}

impl Verifier {
    fn last_refusal(&self) -> MutexGuard<'_, Option<Refusal>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        let key = Fingerprint(Sha256::digest(key).into());
        let mut revoked = None;
        let verify = || {
            let Some(issuers) = &self.issuers else {
                return Err("is from an unknown issuer".to_owned());
            };
            match issuers.verify_server_cert(certificate, others, server, ocsp_response, now) {
                Ok(_) => Ok(()),
                Err(error) => {
                    let why = doubt(&error);
                    // There is no asking about it.
                    let is_revoked = Error::InvalidCertificate(CertificateError::Revoked) == error;
                    revoked = is_revoked.then_some(error);
                    Err(why)
                }
            }
        };
        let checked = self.trust.check(key, verify);
        match (checked, revoked) {
            (Ok(()), _) => Ok(ServerCertVerified::assertion()),
            (Err(_), Some(revoked)) => Err(revoked),
            (Err(refusal), None) => {
                *self.last_refusal() = Some(refusal.clone());
                let error = CertificateError::Other(OtherError(Arc::new(refusal)));
                Err(Error::InvalidCertificate(error))
            }
        }
    }

    // Whoever sends a certificate proves with these that it has the key. They are never skipped.

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What is wrong with a certificate, as the end of a sentence about it.
fn doubt(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => "is from an unknown issuer".to_owned(),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "is not valid yet".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "is for another name".to_owned()
            }
            error => format!("cannot be verified ({error})"),
        },
        error => format!("cannot be verified ({error})"),
    }
}

/// The error of a session.
fn failure(error: Error) -> io::Error {
    let text = match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
            return match other.downcast_ref::<Refusal>() {
                Some(refusal) => io::Error::new(ErrorKind::InvalidData, refusal.clone()),
                None => io::Error::new(ErrorKind::InvalidData, other.to_string()),
            };
        }
        Error::AlertReceived(alert) if is_about_certificates(alert) => {
            let text = format!(
                "the server does not accept this client without another certificate ({alert:?}): see \
                 --client-cert"
            );
            return io::Error::new(ErrorKind::PermissionDenied, text);
        }
        Error::AlertReceived(alert) => format!("the server ended TLS: {alert:?}"),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => "this port does not speak TLS".to_owned(),
        error => format!("TLS failed: {error}"),
    };
    io::Error::new(ErrorKind::InvalidData, text)
}

/// Whether a server refuses the certificate of its client, or that there is none.
const fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}

/// A `Session` is the TLS of one connection.
pub(super) struct Session {
    connection: ClientConnection,
    /// Records that the socket has not accepted.
    output: Vec<u8>,
    failed: Option<Error>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("pending", &self.output.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn is_shaking_hands(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Goes on with the handshake, as far as the socket has input. Returns whether it is complete.
    pub(super) fn shake_hands(&mut self, socket: &mut (impl Read + Write)) -> io::Result<bool> {
        loop {
            // An error shows when the socket is read, after an alert that may be there.
            let _ = self.send_pending(socket);
            if let Some(error) = &self.failed {
                return Err(failure(error.clone()));
            }
            if !self.connection.is_handshaking() {
                return Ok(true);
            }
            match self.receive(socket) {
                Ok(0) => return Err(cut_short()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(cut_short()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the socket once, and processes what has come.
    fn receive(&mut self, socket: &mut impl Read) -> io::Result<usize> {
        let read = self.connection.read_tls(socket)?;
        if let Err(error) = self.connection.process_new_packets() {
            self.failed = Some(error);
        }
        Ok(read)
    }

    /// Reads plaintext. The end of the connection is an end of the input, with the end of TLS or without:
    /// whoever can cut the connection can end it anyway, and a message that is cut is not a message.
    pub(super) fn read(
        &mut self,
        socket: &mut (impl Read + Write),
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return if self.connection.is_handshaking() {
                        Err(cut_short())
                    } else {
                        Ok(0)
                    };
                }
                read => return read,
            }
            if let Some(error) = &self.failed {
                return Err(failure(error.clone()));
            }
            self.receive(socket)?;
            // The rest of a handshake, or an alert. An error shows in the next read.
            let _ = self.send_pending(socket);
        }
    }

    /// Encrypts and writes plaintext, unless there are records of an earlier write that the socket has not
    /// accepted.
    pub(super) fn write(
        &mut self,
        socket: &mut impl Write,
        slices: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        self.send_pending(socket)?;
        if !self.output.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let accepted = self.connection.writer().write_vectored(slices)?;
        if accepted == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        // An error shows in the next write, since the records stay.
        let _ = self.send_pending(socket);
        Ok(accepted)
    }

    /// Ends the sending side.
    pub(super) fn close(&mut self) {
        self.connection.send_close_notify();
    }

    pub(super) const fn pending(&self) -> usize {
        self.output.len()
    }

    /// Writes records, as far as the socket accepts them.
    pub(super) fn send_pending(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.output)?;
        }
        let mut sent = 0;
        let mut result = Ok(());
        while sent < self.output.len() {
            match socket.write(&self.output[sent..]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.output.drain(..sent);
        if self.output.is_empty() {
            // An idle connection has no buffer.
            self.output = Vec::new();
        }
        result
    }
}

/// The error of a server that ends the connection in the handshake.
fn cut_short() -> io::Error {
    io::Error::new(
        ErrorKind::UnexpectedEof,
        "the server closed the connection during the TLS handshake; is it a port with TLS?",
    )
}
