//! Certificates made for a test, and a peer that speaks TLS: rustls, whose client side the relay does not use.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chatloop::server::TlsFiles;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ED25519, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::socket::TestRelay;

/// A folder of certificates, which is removed at the end. `ca.crt` is the authority's, `server.crt` and `server.key`
/// are the relay's.
pub struct Authority {
    pub dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// A certificate, and the key to it.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
    serial: u64,
}

impl Authority {
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("chatloop-tls-{}-{number}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Its signatures are all of one length, so that records are.
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let authority = Self {
            dir,
            issuer: Issuer::new(params, key),
            certificate,
        };
        authority.write("ca.crt", &authority.certificate.pem());
        authority.renew();
        authority
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The relay's files.
    pub fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.path("server.crt"),
            key: self.path("server.key"),
            client_ca: None,
            client_crl: None,
            allows_tls12: false,
        }
    }

    /// Gives the relay another certificate.
    pub fn renew(&self) {
        let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]);
        self.issue("server", &params.unwrap());
    }

    /// Writes a certificate and its key under this name.
    pub fn issue(&self, name: &str, params: &CertificateParams) {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.write(&format!("{name}.crt"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// A client's certificate with this common name, and these alternative names.
    pub fn identity(&self, serial: u64, common: &str, others: &[SanType]) -> Identity {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(serial));
        params.distinguished_name.push(DnType::CommonName, common);
        params.subject_alt_names = others.to_vec();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            serial,
        }
    }

    /// Writes a list that revokes these certificates.
    pub fn revoke(&self, name: &str, revoked: &[&Identity]) {
        let revoked = revoked.iter().map(|identity| RevokedCertParams {
            serial_number: SerialNumber::from(identity.serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).unwrap();
        self.write(name, &list.pem().unwrap());
    }

    /// A client that trusts this authority.
    pub fn client(&self) -> ClientConfig {
        self.client_of(rustls::DEFAULT_VERSIONS, None)
    }

    pub fn client_of(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        identity: Option<&Identity>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())
                .unwrap(),
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsEnd {
    /// The relay has said so inside TLS.
    Closed,
    /// The connection ended without that.
    Cut,
    /// The relay sent an alert.
    Alert,
}

/// A client's side of a connection with TLS. It never blocks.
pub struct TlsPeer {
    pub stream: TcpStream,
    pub connection: ClientConnection,
    pub received: Vec<u8>,
    pub end: Option<TlsEnd>,
}

impl TlsPeer {
    /// A connection whose handshake has not begun.
    pub fn new(addr: SocketAddr, config: ClientConfig) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        Self {
            stream,
            connection: ClientConnection::new(Arc::new(config), name).unwrap(),
            received: Vec::new(),
            end: None,
        }
    }

    /// A connection whose handshake is complete.
    #[track_caller]
    pub fn connect(relay: &mut TestRelay, addr: SocketAddr, config: ClientConfig) -> Self {
        let mut peer = Self::new(addr, config);
        relay.until("a handshake", |_| {
            peer.pump();
            assert_eq!(peer.end, None, "the handshake failed");
            !peer.connection.is_handshaking()
        });
        peer
    }

    /// Sends what is sure to fit the socket's buffer.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.connection.writer().write_all(bytes.as_ref()).unwrap();
        self.flush();
    }

    /// The records that are to be sent, instead of sending them.
    pub fn take_records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut records).unwrap();
        }
        records
    }

    pub fn flush(&mut self) {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // What the relay has sent before it closed is read.
                Err(_) => break,
            }
        }
    }

    /// Ends the sending side inside TLS.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
        self.flush();
    }

    /// Reads all there is, and returns what was received and not yet taken.
    pub fn pump(&mut self) -> &mut Vec<u8> {
        self.flush();
        while self.end.is_none() {
            let is_cut = match self.connection.read_tls(&mut self.stream) {
                Ok(read) => read == 0,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => true,
            };
            match self.connection.process_new_packets() {
                Ok(state) => {
                    let mut bytes = vec![0; state.plaintext_bytes_to_read()];
                    self.connection.reader().read_exact(&mut bytes).unwrap();
                    self.received.extend(bytes);
                    if state.peer_has_closed() {
                        self.end = Some(TlsEnd::Closed);
                    }
                }
                Err(_) => self.end = Some(TlsEnd::Alert),
            }
            if is_cut && self.end.is_none() {
                self.end = Some(TlsEnd::Cut);
            }
        }
        self.flush();
        &mut self.received
    }

    /// Receives exactly this next.
    #[track_caller]
    pub fn expect(&mut self, relay: &mut TestRelay, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        relay.until("bytes", |_| {
            self.pump().len() >= expected.len() || self.end.is_some()
        });
        let len = self.received.len().min(expected.len());
        let received: Vec<u8> = self.received.drain(..len).collect();
        super::assert_bytes(&received, expected);
    }

    /// The connection ends, and nothing is received before that.
    #[track_caller]
    pub fn expect_end(&mut self, relay: &mut TestRelay) -> TlsEnd {
        relay.until("an end", |_| {
            self.pump();
            self.end.is_some()
        });
        super::assert_bytes(&self.received, b"");
        self.end.unwrap()
    }
}
