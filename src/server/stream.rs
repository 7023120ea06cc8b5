//! The stream of a connection: its socket, and TLS around it if its listener has that.
//!
//! **Plaintext is queued, and encrypted when it is written.** A member that lags is a position in the backlog that
//! all share, with TLS as without. What it has of its own is at most one record: the one that its socket has
//! accepted in part, and which cannot be made again.
//!
//! The relay sees plaintext and nothing else, so reads and writes keep the promises of a socket's:
//!
//! - A write that accepts less than it was offered means that the socket is full and that its next edge will come. So
//!   while a record is kept, a part of its plaintext counts as not accepted: as many bytes as the record has left,
//!   if it has so many. The relay offers these bytes again. They are skipped then.
//! - A read that returns less than there is room for means that the socket is drained. So what was received and fits
//!   into the buffer is returned, whatever records it is in. But an end, or an error, can be in the records behind
//!   it, and no socket reports that. It is noted in the [`Buffers`] that all connections share, and the loop takes
//!   it from there as an event.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::records::{MAX_PLAINTEXT, MAX_RECORD, Outgoing, Plaintext};
use super::tls::{Failure, Session};
use crate::relay::ConnId;

/// The stream of a connection.
#[derive(Debug)]
pub struct Stream<S: Read + Write> {
    socket: S,
    tls: Option<Box<Tls>>,
}

/// The buffers that all connections share, with nothing in them between two calls; and the ends that were found in
/// records.
#[derive(Clone, Debug)]
pub(super) struct Buffers(Arc<Mutex<BufferSet>>);

#[derive(Debug)]
struct BufferSet {
    /// Records that were received.
    incoming: Box<[u8]>,
    /// The plaintext of a record, if it is in several slices.
    gathered: Vec<u8>,
    outgoing: Outgoing,
    ended: Vec<ConnId>,
    /// How much the relay's connections hold of their own, in bytes.
    held: usize,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(BufferSet {
            incoming: vec![0; 2 * MAX_RECORD].into(),
            gathered: Vec::new(),
            outgoing: Outgoing::default(),
            ended: Vec::new(),
            held: 0,
        })))
    }

    /// Takes the connections whose input has ended since the last call, or has an error in it. They must be read
    /// again.
    pub(super) fn take_ended(&self) -> Vec<ConnId> {
        std::mem::take(&mut self.lock().ended)
    }

    /// How much memory the relay's connections hold for records and plaintext, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.lock().held
    }

    fn lock(&self) -> MutexGuard<'_, BufferSet> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// TLS around a socket. What is here is there for every member, so at rest all of it is empty.
#[derive(Debug)]
struct Tls {
    session: Session,
    /// The connection, once it is the relay's.
    id: Option<ConnId>,
    buffers: Buffers,
    /// Received and not processed: an incomplete record, or more records than a read had room for.
    received: Vec<u8>,
    /// Plaintext that the last read had no room for.
    plaintext: Vec<u8>,
    /// What the socket has not accepted of the records that are to be sent.
    unsent: Vec<u8>,
    /// How many bytes are encrypted and were not reported as accepted yet.
    owed: usize,
    /// Why the next read fails.
    failed: Option<ErrorKind>,
    /// Nothing can be sent any more.
    is_broken: bool,
}

/// What came of a step of a handshake.
#[derive(Debug)]
pub(super) enum Handshake {
    /// It is complete.
    Done,
    /// More must be received, or accepted by the socket.
    Waits,
    /// The connection has ended.
    Ended,
    /// It has failed.
    Failed(Failure),
}

impl<S: Read + Write> Stream<S> {
    /// A stream without TLS.
    pub(super) const fn new(socket: S) -> Self {
        Self { socket, tls: None }
    }

    pub(super) const fn socket(&self) -> &S {
        &self.socket
    }

    pub(super) const fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    /// From now on everything is inside this session, these bytes first, which were received already.
    pub(super) fn start_tls(&mut self, session: Session, buffers: &Buffers, received: &[u8]) {
        self.tls = Some(Box::new(Tls {
            session,
            id: None,
            buffers: buffers.clone(),
            received: received.to_vec(),
            plaintext: Vec::new(),
            unsent: Vec::new(),
            owed: 0,
            failed: None,
            is_broken: false,
        }));
    }

    /// The session, if there is TLS.
    pub(super) fn session(&self) -> Option<&Session> {
        self.tls.as_deref().map(|tls| &tls.session)
    }

    /// How much memory it holds for records and plaintext, in bytes: none at rest.
    pub(super) fn held_bytes(&self) -> usize {
        self.tls.as_deref().map_or(0, Tls::held_bytes)
    }

    /// It will be the relay's, as this connection. Returns whether something was received that the socket does not
    /// report any more.
    pub(super) fn admit_as(&mut self, id: ConnId) -> bool {
        self.tls.as_deref_mut().is_some_and(|tls| {
            tls.id = Some(id);
            tls.charge(0);
            tls.session.has_ended() || !tls.received.is_empty() || !tls.plaintext.is_empty()
        })
    }

    /// Goes on with the handshake. Returns as well whether that took cryptography, and not only a read.
    pub(super) fn shake_hands(&mut self) -> (Handshake, bool) {
        match &mut self.tls {
            Some(tls) => tls.shake_hands(&mut self.socket),
            None => (Handshake::Done, false),
        }
    }

    /// Ends the sending side of the session, if the socket accepts that at once. Without it, a peer cannot tell the
    /// end of the connection from one that was cut.
    pub(super) fn close_session(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.close(&mut self.socket);
        }
    }
}

impl<S: Read + Write> Drop for Stream<S> {
    fn drop(&mut self) {
        self.close_session();
        if let Some(tls) = &mut self.tls {
            let held = tls.held_bytes();
            (tls.received, tls.plaintext, tls.unsent) = Default::default();
            tls.charge(held);
        }
    }
}

impl<S: Read + Write> Read for Stream<S> {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.read(buffer),
            Some(tls) => tls.charged(|tls| tls.read(&mut self.socket, buffer)),
        }
    }
}

impl<S: Read + Write> Write for Stream<S> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write(bytes),
            Some(tls) => tls.charged(|tls| tls.write(&mut self.socket, &[IoSlice::new(bytes)])),
        }
    }

    #[inline]
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write_vectored(slices),
            Some(tls) => tls.charged(|tls| tls.write(&mut self.socket, slices)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl Tls {
    fn held_bytes(&self) -> usize {
        self.received.capacity() + self.plaintext.capacity() + self.unsent.capacity()
    }

    /// Does this, and keeps account of what is held after it.
    fn charged<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.held_bytes();
        let result = act(self);
        self.charge(before);
        result
    }

    /// What is held has changed since it was so much. Handshakes have a limit of their own.
    fn charge(&self, before: usize) {
        let held = self.held_bytes();
        if held != before && self.id.is_some() {
            let mut buffers = self.buffers.lock();
            buffers.held = buffers.held + held - before;
        }
    }

    /// Reads plaintext. The end is the peer's `close_notify`, or the socket's end: whoever can cut a connection
    /// can make a member leave anyway, and a message that is cut is never delivered.
    #[inline(never)]
    fn read<S: Read + Write>(&mut self, socket: &mut S, buffer: &mut [u8]) -> io::Result<usize> {
        let excess = self.plaintext.len().min(buffer.len());
        buffer[..excess].copy_from_slice(&self.plaintext[..excess]);
        self.plaintext.drain(..excess);
        if excess == buffer.len() {
            return Ok(excess);
        }
        self.plaintext = Vec::new();
        let (filled, ended) = self.decrypt(socket, buffer, excess);
        match ended {
            _ if filled > 0 => Ok(filled),
            Some(end) => end,
            None => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Reads and decrypts until the buffer is full or the socket is drained. Returns how far the buffer is filled,
    /// and what comes after that, unless it is more input.
    fn decrypt<S: Read + Write>(
        &mut self,
        socket: &mut S,
        buffer: &mut [u8],
        filled: usize,
    ) -> (usize, Option<io::Result<usize>>) {
        let size = buffer.len();
        let mut buffers = self.buffers.lock();
        let BufferSet {
            incoming,
            outgoing,
            ended,
            ..
        } = &mut *buffers;
        outgoing.clear();
        let mut len = self.received.len();
        incoming[..len].copy_from_slice(&self.received);
        self.received = Vec::new();
        let mut plaintext = Plaintext {
            buffer,
            filled,
            excess: &mut self.plaintext,
        };
        let mut is_drained = false;
        let end = loop {
            if let Some(kind) = self.failed {
                break Some(Err(kind.into()));
            }
            let (used, result) =
                self.session
                    .receive(&mut incoming[..len], &mut plaintext, outgoing);
            incoming.copy_within(used..len, 0);
            len -= used;
            if result.is_err() {
                self.failed = Some(ErrorKind::InvalidData);
                continue;
            }
            if self.session.has_ended() {
                // What follows means nothing (RFC 8446, 6.1).
                len = 0;
                break Some(Ok(0));
            }
            if plaintext.filled == size || (is_drained && plaintext.filled > 0) {
                break None;
            }
            if len == incoming.len() {
                // A message of a handshake that has no end.
                self.failed = Some(ErrorKind::InvalidData);
                continue;
            }
            match socket.read(&mut incoming[len..]) {
                Ok(0) => break Some(Ok(0)),
                Ok(read) => {
                    is_drained = read < incoming.len() - len;
                    len += read;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break None,
                Err(error) => self.failed = Some(error.kind()),
            }
        };
        let filled = plaintext.filled;
        if filled > 0 && (self.session.has_ended() || self.failed.is_some()) {
            ended.extend(self.id);
        }
        self.received.extend_from_slice(&incoming[..len]);
        self.unsent.extend_from_slice(outgoing.bytes());
        drop(buffers);
        // An alert, whose arrival nothing depends on.
        let _ = self.flush_unsent(socket);
        self.is_broken |= self.failed.is_some();
        (filled, end)
    }

    /// Writes the plaintext of these slices. See the promises above.
    #[inline(never)]
    fn write<S: Write>(&mut self, socket: &mut S, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.is_broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let offered = slices.iter().map(|slice| slice.len()).sum();
        self.flush_unsent(socket)?;
        let mut accepted = self.report(offered);
        while self.unsent.is_empty() && accepted < offered {
            accepted += self.encrypt(socket, slices, accepted)?;
        }
        if accepted == 0 && offered > 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(accepted)
    }

    /// Writes the next record, whose plaintext begins `from` bytes into the slices. Returns how many of them count
    /// as accepted.
    fn encrypt<S: Write>(
        &mut self,
        socket: &mut S,
        slices: &[IoSlice<'_>],
        from: usize,
    ) -> io::Result<usize> {
        let mut buffers = self.buffers.lock();
        let BufferSet {
            gathered, outgoing, ..
        } = &mut *buffers;
        let record = next_record(slices, from, gathered);
        outgoing.clear();
        let encrypted =
            self.session
                .send(record, &mut self.received, &mut self.plaintext, outgoing);
        let sent = if encrypted.is_ok() {
            write_some(socket, outgoing.bytes())
        } else {
            // There was something wrong in what was received and not read yet. The next read sends the alert.
            self.unsent.extend_from_slice(outgoing.bytes());
            Err(ErrorKind::InvalidData.into())
        };
        let len = record.len();
        match sent {
            Ok(sent) => self.unsent.extend_from_slice(&outgoing.bytes()[sent..]),
            Err(error) => {
                self.is_broken = true;
                return Err(error);
            }
        }
        drop(buffers);
        self.owed = len;
        Ok(self.report(len))
    }

    /// How many of the bytes that are encrypted, and of those that are offered again, count as accepted from now
    /// on.
    fn report(&mut self, offered: usize) -> usize {
        let accepted = self.owed.saturating_sub(self.unsent.len()).min(offered);
        self.owed -= accepted;
        accepted
    }

    /// Has the socket accept what it has not accepted yet, as far as it does.
    fn flush_unsent<S: Write>(&mut self, socket: &mut S) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        match write_some(socket, &self.unsent) {
            Ok(sent) if sent == self.unsent.len() => self.unsent = Vec::new(),
            Ok(sent) => {
                self.unsent.drain(..sent);
            }
            Err(error) => {
                self.is_broken = true;
                self.unsent = Vec::new();
                return Err(error);
            }
        }
        Ok(())
    }

    fn shake_hands<S: Read + Write>(&mut self, socket: &mut S) -> (Handshake, bool) {
        let mut has_worked = false;
        let handshake = loop {
            if let Err(failure) = self.process_handshake(&mut has_worked) {
                // The alert. If it is not accepted at once, the peer has to do without.
                let _ = self.flush_unsent(socket);
                break Handshake::Failed(failure);
            }
            if self.flush_unsent(socket).is_err() {
                break Handshake::Ended;
            }
            if !self.unsent.is_empty() {
                break Handshake::Waits;
            }
            if !self.session.is_handshaking() {
                self.received.shrink_to_fit();
                break Handshake::Done;
            }
            match self.receive_handshake(socket) {
                Ok(0) => break Handshake::Ended,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Handshake::Waits,
                Err(_) => break Handshake::Ended,
            }
        };
        (handshake, has_worked)
    }

    /// Processes what was received of a handshake.
    fn process_handshake(&mut self, has_worked: &mut bool) -> Result<(), Failure> {
        if self.received.is_empty() {
            return Ok(());
        }
        let mut buffers = self.buffers.lock();
        let outgoing = &mut buffers.outgoing;
        outgoing.clear();
        let mut plaintext = Plaintext {
            buffer: &mut [],
            filled: 0,
            excess: &mut self.plaintext,
        };
        let (used, result) = self
            .session
            .receive(&mut self.received, &mut plaintext, outgoing);
        self.received.drain(..used);
        *has_worked |= !outgoing.bytes().is_empty() || !self.session.is_handshaking();
        self.unsent.extend_from_slice(outgoing.bytes());
        result?;
        if self.received.len() >= MAX_RECORD && self.session.is_handshaking() {
            return Err(self.session.oversized());
        }
        Ok(())
    }

    fn receive_handshake<S: Read>(&mut self, socket: &mut S) -> io::Result<usize> {
        let mut buffers = self.buffers.lock();
        let room = MAX_RECORD - self.received.len();
        let read = socket.read(&mut buffers.incoming[..room])?;
        self.received.extend_from_slice(&buffers.incoming[..read]);
        Ok(read)
    }

    fn close<S: Write>(&mut self, socket: &mut S) {
        if self.is_broken || !self.unsent.is_empty() || self.session.is_handshaking() {
            return;
        }
        self.is_broken = true;
        let mut buffers = self.buffers.lock();
        let outgoing = &mut buffers.outgoing;
        outgoing.clear();
        let closed = self
            .session
            .close(&mut self.received, &mut self.plaintext, outgoing);
        if closed.is_ok() {
            let _ = write_some(socket, outgoing.bytes());
        }
    }
}

/// The plaintext of the record that begins `skip` bytes into the slices. It is where it was if it is in one of
/// them, and gathered otherwise.
fn next_record<'a>(
    slices: &'a [IoSlice<'_>],
    mut skip: usize,
    gathered: &'a mut Vec<u8>,
) -> &'a [u8] {
    gathered.clear();
    for (index, slice) in slices.iter().enumerate() {
        let part = &slice[skip.min(slice.len())..];
        skip -= slice.len() - part.len();
        let part = &part[..part.len().min(MAX_PLAINTEXT - gathered.len())];
        let is_all = index + 1 == slices.len() || part.len() == MAX_PLAINTEXT;
        if gathered.is_empty() && is_all {
            return part;
        }
        gathered.extend_from_slice(part);
        if gathered.len() == MAX_PLAINTEXT {
            break;
        }
    }
    gathered
}

/// Writes once. Returns how much the socket has accepted: nothing if it is full.
fn write_some<S: Write>(socket: &mut S, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            written => return written,
        }
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::super::certificates::Certificates;
    use super::super::tls::TlsFiles;
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use std::fs;
    use std::time::{Instant, SystemTime};

    /// A socket that accepts no more than this in one write, and is full after that until it is drained.
    #[derive(Debug, Default)]
    struct Socket {
        received: Vec<u8>,
        sent: Vec<u8>,
        accepts: usize,
        is_full: bool,
    }

    impl Read for Socket {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.received.is_empty() {
                return Err(ErrorKind::WouldBlock.into());
            }
            let len = self.received.len().min(buffer.len());
            buffer[..len].copy_from_slice(&self.received[..len]);
            self.received.drain(..len);
            Ok(len)
        }
    }

    impl Write for Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.is_full {
                return Err(ErrorKind::WouldBlock.into());
            }
            let len = bytes.len().min(self.accepts);
            self.is_full = len < bytes.len();
            self.sent.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A stream whose handshake is complete, and its peer.
    fn connected(test: &str) -> (Stream<Socket>, ClientConnection) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let id = std::process::id();
        let folder = std::env::temp_dir().join(format!("chatloop-stream-{id}-{test}"));
        fs::create_dir_all(&folder).unwrap();
        let files = TlsFiles {
            certificate: folder.join("crt"),
            key: folder.join("key"),
            client_ca: None,
            client_crl: None,
            allows_tls12: false,
        };
        fs::write(&files.certificate, cert.pem()).unwrap();
        fs::write(&files.key, signing_key.serialize_pem()).unwrap();
        let certificates = Certificates::load(files, (Instant::now(), SystemTime::now())).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = Stream::new(Socket {
            accepts: usize::MAX,
            ..Socket::default()
        });
        let session = certificates.session(false).unwrap();
        stream.start_tls(session, certificates.buffers(), &records(&mut client));
        while let (Handshake::Waits, _) = stream.shake_hands() {
            receive(&mut client, &std::mem::take(&mut stream.socket.sent));
            stream.socket.received.extend(records(&mut client));
        }
        assert!(!client.is_handshaking());
        (stream, client)
    }

    /// What a client sends.
    fn records(client: &mut ClientConnection) -> Vec<u8> {
        let mut records = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut records).unwrap();
        }
        records
    }

    /// What a client makes of these records.
    fn receive(client: &mut ClientConnection, mut records: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !records.is_empty() {
            client.read_tls(&mut records).unwrap();
            let state = client.process_new_packets().unwrap();
            let from = bytes.len();
            bytes.resize(from + state.plaintext_bytes_to_read(), 0);
            client.reader().read_exact(&mut bytes[from..]).unwrap();
        }
        bytes
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|index| (index * 31 % 251) as u8).collect()
    }

    #[test]
    fn what_counts_as_accepted_arrives_wherever_the_socket_stops() {
        for accepts in [
            1, 2, 5, 21, 22, 23, 100, 1_000, 16_405, 16_406, 16_407, 40_000,
        ] {
            // What is offered again is less than before, or more, and cut elsewhere.
            for offers in [
                &[7, 100][..],
                &[40_000, 9],
                &[1],
                &[50_000],
                &[16_384, 16_385],
            ] {
                let len = if accepts < 100 { 300 } else { 50_000 };
                let (bytes, (mut stream, mut client)) = (pattern(len), connected("writes"));
                let mut received = Vec::new();
                let (mut accepted, mut turn) = (0, 0);
                while accepted < bytes.len() {
                    stream.socket.accepts = accepts;
                    stream.socket.is_full = false;
                    let offer = offers[turn % offers.len()].min(bytes.len() - accepted);
                    let offered = &bytes[accepted..accepted + offer];
                    let (one, other) = offered.split_at(offer / 3);
                    let slices = [one, &[], other].map(IoSlice::new);
                    match stream.write_vectored(&slices) {
                        Ok(count) => {
                            assert!(
                                count == offer || stream.socket.is_full,
                                "no edge would come"
                            );
                            accepted += count;
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::WouldBlock);
                            assert!(stream.socket.is_full, "no edge would come");
                        }
                    }
                    turn += 1;
                    let tls = stream.tls.as_ref().unwrap();
                    assert!(tls.unsent.len() <= MAX_RECORD, "it keeps one record");
                    received.extend(receive(
                        &mut client,
                        &std::mem::take(&mut stream.socket.sent),
                    ));
                    assert!(accepted <= received.len() + MAX_RECORD);
                }
                assert!(received == bytes, "accepts {accepts}, offers {offers:?}");
                assert!(stream.tls.as_ref().unwrap().unsent.is_empty());
            }
        }
    }

    #[test]
    fn short_read_has_drained_the_socket_however_records_are_cut() {
        for piece in [1, 2, 5, 22, 100, 1_000, 16_406, 70_000] {
            for size in [1, 3, 64, 16_384, 65_536] {
                let (mut stream, mut client) = connected("reads");
                let bytes = pattern(if piece < 100 || size < 64 {
                    400
                } else {
                    60_000
                });
                let mut sent = Vec::new();
                for part in bytes.chunks(bytes.len() / 3) {
                    let mut part = part;
                    while !part.is_empty() {
                        let count = client.writer().write(part).unwrap();
                        part = &part[count..];
                        sent.extend(records(&mut client));
                    }
                }
                let (mut received, mut buffer) = (Vec::new(), vec![0; size]);
                for part in sent.chunks(piece) {
                    stream.socket.received.extend_from_slice(part);
                    // As the relay does: until a read is short.
                    while let Ok(count) = stream.read(&mut buffer) {
                        received.extend_from_slice(&buffer[..count]);
                        if count < size {
                            break;
                        }
                    }
                    assert!(stream.socket.received.is_empty(), "no edge would come");
                }
                assert!(received == bytes, "pieces of {piece}, reads of {size}");
                let end = stream.read(&mut buffer).unwrap_err();
                assert_eq!(end.kind(), ErrorKind::WouldBlock);
            }
        }
    }

    #[test]
    fn message_of_a_handshake_that_is_cut_by_records_does_not_disturb_what_is_sent() {
        let (mut stream, mut client) = connected("keys");
        client.refresh_traffic_keys().unwrap();
        let update = records(&mut client);
        for part in update.chunks(update.len() / 2) {
            stream.socket.received.extend_from_slice(part);
            let end = stream.read(&mut [0; 100]).unwrap_err();
            assert_eq!(end.kind(), ErrorKind::WouldBlock);
            assert_eq!(stream.write(b"hello").unwrap(), 5);
        }
        assert_eq!(
            receive(&mut client, &stream.socket.sent),
            b"hellohellohello"
        );
    }
}
