//! TLS: certificates, keys, and the sessions of connections. The only file that knows rustls.
//!
//! A [`Session`] does no I/O and owns no buffer: it is given the records that were received, and where to put
//! plaintext and records to be sent. That is the form of rustls' next interface. In the present one it is called
//! unbuffered, and it is the one with which an idle connection holds no 4 KiB of buffer.
//!
//! No session can be resumed: with TLS 1.3 that saves a peer next to nothing, and tickets would be memory, keys to
//! be changed, and a write for each new connection.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoServerSessionStorage, ServerConfig, ServerConnectionData, UnbufferedServerConnection,
    WebPkiClientVerifier,
};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus, WriteTraffic,
};
use rustls::version::{TLS12, TLS13};
use rustls::{CertRevocationListError, Error, InvalidMessage, RootCertStore};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time;

use super::records::{Outgoing, Plaintext};

/// How much longer than its plaintext a record of ours is, and what may precede it: a change of the keys.
const MAX_OVERHEAD: usize = 128;

/// The largest file that is read.
const MAX_FILE: u64 = 16 << 20;

/// The files of the listeners with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate in PEM, and behind it those that lead to the one that clients trust.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
    /// The certificates, in PEM, of which one must have issued each client's certificate. Without them, clients
    /// need no certificate.
    pub client_ca: Option<PathBuf>,
    /// The lists, in PEM, of those certificates of clients that were revoked.
    pub client_crl: Option<PathBuf>,
    /// Whether clients may speak TLS 1.2.
    pub allows_tls12: bool,
}

impl TlsFiles {
    /// Whether clients need certificates.
    pub(super) const fn demands_certificates(&self) -> bool {
        self.client_ca.is_some()
    }
}

/// Why the files cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// What the files hold: all that a new session needs.
pub(super) struct Credentials {
    config: Arc<ServerConfig>,
    /// The same for HTTP, which has a name in the handshake (RFC 7301).
    web_config: Arc<ServerConfig>,
    client_verifier: Option<Arc<dyn ClientCertVerifier>>,
    expires: SystemTime,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads all of the files.
    pub(super) fn load(files: &TlsFiles, now: SystemTime) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let versions: &[_] = if files.allows_tls12 {
            &[&TLS13, &TLS12]
        } else {
            &[&TLS13]
        };
        let chain = certificates("--cert", &files.certificate)?;
        let expires = expiry(&files.certificate, &chain, now)?;
        let key = Source("--key", &files.key);
        let key_der = PrivateKeyDer::from_pem_slice(&key.read()?)
            .map_err(|error| key.bad_pem("private key", &error))?;
        let client_verifier = client_verifier(files, &provider)?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| TlsError(error.to_string()))?;
        let builder = match &client_verifier {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key_der)
            .map_err(|error| match error {
                Error::InconsistentKeys(_) => key.error(&format!(
                    "it is not the key of --cert {}",
                    files.certificate.display()
                )),
                error => key.error(&format!("it cannot be used: {error}")),
            })?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let mut web_config = config.clone();
        web_config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            web_config: Arc::new(web_config),
            client_verifier,
            expires,
        })
    }

    /// When the certificate expires.
    pub(super) const fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Whether a client that has this session would be refused by now, because of its certificate.
    pub(super) fn refuses(&self, session: &Session, now: SystemTime) -> bool {
        let Some(verifier) = &self.client_verifier else {
            return false;
        };
        let certificates = session.connection.peer_certificates();
        let Some((own, others)) = certificates.and_then(<[_]>::split_first) else {
            // It came when clients needed none.
            return false;
        };
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = UnixTime::since_unix_epoch(since_1970.unwrap_or_default());
        verifier.verify_client_cert(own, others, now).is_err()
    }
}

/// The value of a flag that is the path of a file.
struct Source<'a>(&'static str, &'a Path);

impl Source<'_> {
    fn error(&self, what: &str) -> TlsError {
        TlsError(format!("{} {}: {what}", self.0, self.1.display()))
    }

    fn bad_pem(&self, what: &str, error: &pem::Error) -> TlsError {
        match error {
            pem::Error::NoItemsFound => self.error(&format!("there is no {what} in PEM in it")),
            error => self.error(&format!("it is not PEM: {error}")),
        }
    }

    fn read(&self) -> Result<Vec<u8>, TlsError> {
        let mut bytes = Vec::new();
        let read = File::open(self.1).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
        read.map_err(|error| self.error(&format!("cannot read it: {error}")))?;
        Ok(bytes)
    }
}

/// The certificates of a file, of which there must be one.
fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let source = Source(flag, path);
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&source.read()?).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(source.bad_pem("certificate", &pem::Error::NoItemsFound))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(source.bad_pem("certificate", &error)),
    }
}

/// When the first certificate of a chain expires, if it is valid now.
fn expiry(
    path: &Path,
    chain: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<SystemTime, TlsError> {
    let source = Source("--cert", path);
    let certificate = Certificate::from_der(&chain[0])
        .map_err(|error| source.error(&format!("it is not a certificate: {error}")))?;
    let validity = certificate.tbs_certificate().validity();
    let (from, to) = (&validity.not_before, &validity.not_after);
    let instant = |time: &Time| SystemTime::UNIX_EPOCH + time.to_unix_duration();
    if instant(from) > now {
        return Err(source.error(&format!("it is not valid before {from}")));
    }
    if instant(to) <= now {
        return Err(source.error(&format!("it has expired on {to}; renew it")));
    }
    Ok(instant(to))
}

/// What verifies the certificates of clients, if they need one.
fn client_verifier(
    files: &TlsFiles,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(path) = &files.client_ca else {
        return match &files.client_crl {
            Some(path) => Err(Source("--client-crl", path).error("it needs --client-ca")),
            None => Ok(None),
        };
    };
    let source = Source("--client-ca", path);
    let mut roots = RootCertStore::empty();
    for certificate in certificates(source.0, path)? {
        roots
            .add(certificate)
            .map_err(|error| source.error(&format!("it cannot be used: {error}")))?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let mut last = source;
    if let Some(path) = &files.client_crl {
        last = Source("--client-crl", path);
        let lists = CertificateRevocationListDer::pem_slice_iter(&last.read()?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| last.bad_pem("revocation list", &error))?;
        if lists.is_empty() {
            return Err(last.bad_pem("revocation list", &pem::Error::NoItemsFound));
        }
        // Of a CA without a list nothing is revoked.
        builder = builder
            .with_crls(lists)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status();
    }
    let verifier = builder
        .build()
        .map_err(|error| last.error(&format!("it cannot be used: {error}")))?;
    Ok(Some(verifier))
}

/// Why a session cannot go on.
#[derive(Clone, Debug)]
pub(super) struct Failure(Error);

impl Failure {
    /// Whether the peer speaks something else.
    pub(super) const fn is_other_protocol(&self) -> bool {
        matches!(
            self.0,
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion
            )
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Error::AlertReceived(alert) => write!(f, "the peer ended it: {alert:?}"),
            Error::InvalidCertificate(rustls::CertificateError::Revoked) => {
                f.write_str("the client's certificate is revoked")
            }
            Error::InvalidCertRevocationList(CertRevocationListError::BadSignature) => {
                f.write_str("the revocation list has a bad signature")
            }
            error => error.fmt(f),
        }
    }
}

/// The TLS of one connection.
pub(super) struct Session {
    connection: UnbufferedServerConnection,
    /// The peer has ended its side.
    has_ended: bool,
    /// Nothing can be received or sent any more. rustls must not be given its records again: it would alert twice.
    has_failed: bool,
    /// A number of its credentials.
    generation: u32,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("has_ended", &self.has_ended)
            .finish_non_exhaustive()
    }
}

/// What a session does next.
enum Next<'c> {
    /// It goes on at once.
    Again,
    /// It needs more records, and can send meanwhile.
    Traffic(WriteTraffic<'c, ServerConnectionData>),
    /// It needs more records.
    Blocked,
    /// It is over.
    Over,
}

impl Session {
    /// A session that begins with a handshake.
    pub(super) fn new(
        credentials: &Credentials,
        is_web: bool,
        generation: u32,
    ) -> Result<Self, Failure> {
        let config = if is_web {
            &credentials.web_config
        } else {
            &credentials.config
        };
        let connection = UnbufferedServerConnection::new(Arc::clone(config)).map_err(Failure)?;
        Ok(Self {
            connection,
            has_ended: false,
            has_failed: false,
            generation,
        })
    }

    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether the handshake is not complete yet.
    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Why a handshake fails of which more was received than any message of it is long.
    pub(super) fn oversized(&self) -> Failure {
        debug_assert!(self.is_handshaking(), "later there is no such limit");
        Failure(Error::PeerSentOversizedRecord)
    }

    /// Whether the peer has said that it sends nothing any more.
    pub(super) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Processes the records that were received, until there is plaintext enough. Returns how many bytes were
    /// used up; the others must be given again. What must be sent is there after a failure as well.
    pub(super) fn receive(
        &mut self,
        received: &mut [u8],
        plaintext: &mut Plaintext<'_>,
        outgoing: &mut Outgoing,
    ) -> (usize, Result<(), Failure>) {
        if self.has_failed {
            return (0, Err(Failure(Error::HandshakeNotComplete)));
        }
        let mut used = 0;
        while !plaintext.is_enough() {
            let UnbufferedStatus { discard, state } =
                self.connection.process_tls_records(&mut received[used..]);
            let is_blocked = match state {
                Ok(state) => {
                    let next = step(state, &mut self.has_ended, plaintext, outgoing);
                    !matches!(next, Next::Again)
                }
                Err(error) => {
                    used += discard;
                    self.take_alert(&mut received[used..], outgoing);
                    return (used, Err(Failure(error)));
                }
            };
            used += discard;
            if is_blocked {
                break;
            }
        }
        (used, Ok(()))
    }

    /// The alert that says why the session has failed, if there is one, is to be sent.
    fn take_alert(&mut self, received: &mut [u8], outgoing: &mut Outgoing) {
        self.has_failed = true;
        let status = self.connection.process_tls_records(received);
        if let Ok(ConnectionState::EncodeTlsData(data)) = status.state {
            encode(data, outgoing);
        }
    }

    /// Encrypts plaintext, at most 16 KiB of it, into one record.
    ///
    /// `received` is what [`receive`](Self::receive) has not used up yet.
    pub(super) fn send(
        &mut self,
        bytes: &[u8],
        received: &mut Vec<u8>,
        excess: &mut Vec<u8>,
        outgoing: &mut Outgoing,
    ) -> Result<(), Failure> {
        let most = bytes.len() + MAX_OVERHEAD;
        self.write(received, excess, outgoing, |traffic, outgoing| {
            outgoing.append(most, |to| traffic.encrypt(bytes, to))
        })
    }

    /// Says that nothing more will be sent.
    pub(super) fn close(
        &mut self,
        received: &mut Vec<u8>,
        excess: &mut Vec<u8>,
        outgoing: &mut Outgoing,
    ) -> Result<(), Failure> {
        self.write(received, excess, outgoing, |traffic, outgoing| {
            outgoing.append(MAX_OVERHEAD, |to| traffic.queue_close_notify(to))
        })
    }

    fn write<E: fmt::Display>(
        &mut self,
        received: &mut Vec<u8>,
        excess: &mut Vec<u8>,
        outgoing: &mut Outgoing,
        mut write: impl FnMut(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut Outgoing,
        ) -> Result<(), E>,
    ) -> Result<(), Failure> {
        while !self.has_failed {
            let mut plaintext = Plaintext {
                buffer: &mut [],
                filled: 0,
                excess,
            };
            // Parts of a message may be there that were processed in part. They must be given again, or the
            // session's positions in them would be wrong.
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(received);
            let state = match state {
                Ok(state) => state,
                Err(error) => {
                    received.drain(..discard);
                    self.take_alert(received, outgoing);
                    return Err(Failure(error));
                }
            };
            let done = match step(state, &mut self.has_ended, &mut plaintext, outgoing) {
                Next::Again => None,
                Next::Traffic(mut traffic) => Some(write(&mut traffic, outgoing)),
                Next::Blocked | Next::Over => {
                    return Err(Failure(Error::HandshakeNotComplete));
                }
            };
            received.drain(..discard);
            if let Some(written) = done {
                return written.map_err(|error| Failure(Error::General(error.to_string())));
            }
        }
        Err(Failure(Error::HandshakeNotComplete))
    }

    /// If the client has a certificate, the name in it: an email address, else a name of the domain name system,
    /// else the common name. It is empty if there is none of them.
    pub(super) fn client_name(&self) -> Option<Vec<u8>> {
        let certificate = self.connection.peer_certificates()?.first()?;
        let name = Certificate::from_der(certificate).map(|one| name_of(&one));
        Some(name.ok().flatten().unwrap_or_default())
    }
}

/// The name that a certificate is for.
fn name_of(certificate: &Certificate) -> Option<Vec<u8>> {
    let certificate = certificate.tbs_certificate();
    let names = certificate.get_extension::<SubjectAltName>().ok().flatten();
    let names = names.map_or_else(Vec::new, |(_, names)| names.0);
    let email = names.iter().find_map(|name| match name {
        GeneralName::Rfc822Name(name) => Some(name.as_bytes()),
        _ => None,
    });
    let domain = names.iter().find_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_bytes()),
        _ => None,
    });
    email.or(domain).map(<[u8]>::to_vec).or_else(|| {
        let name = certificate.subject().common_name().ok().flatten();
        name.map(|name| name.value().into_owned().into_bytes())
    })
}

/// Does what a state of a session asks for.
fn step<'c>(
    state: ConnectionState<'c, '_, ServerConnectionData>,
    has_ended: &mut bool,
    plaintext: &mut Plaintext<'_>,
    outgoing: &mut Outgoing,
) -> Next<'c> {
    match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(Ok(record)) = traffic.next_record() {
                plaintext.push(record.payload);
            }
            Next::Again
        }
        ConnectionState::EncodeTlsData(data) => {
            encode(data, outgoing);
            Next::Again
        }
        ConnectionState::TransmitTlsData(data) => {
            // It is sent before anything that comes later.
            data.done();
            Next::Again
        }
        ConnectionState::PeerClosed => {
            *has_ended = true;
            Next::Again
        }
        ConnectionState::WriteTraffic(traffic) => Next::Traffic(traffic),
        ConnectionState::BlockedHandshake => Next::Blocked,
        // No early data is accepted.
        _ => Next::Over,
    }
}

/// Appends a record of the session's own.
fn encode(mut data: EncodeTlsData<'_, ServerConnectionData>, outgoing: &mut Outgoing) {
    // It says how long it is only in an error.
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        let encoded = outgoing.append(size.required_size, |to| data.encode(to));
        debug_assert!(encoded.is_ok(), "there is as much room as it needs");
    }
}
