//! A `Link` is the stream of one connection, with the WebSocket around its bytes if there is one.
//!
//! A WebSocket is opened before the first byte of the protocol passes. A tunnel's bytes are put into
//! frames when they are sent, and taken out of frames when they are received.

use std::io::{self, ErrorKind, Read, Write};

use super::connect::{Cause, is_made};
use super::protocol::masked;
use crate::client_tls::Stream;
use crate::handshake::{Opening, Target};
use crate::wire::websocket::{Item, Opcode, WebSocketDecoder};

/// The longest WebSocket message that is accepted, in bytes: its end has no meaning.
const MAX_TUNNEL_MESSAGE: usize = 64 * 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) stream: Option<Stream>,
    transport: Transport,
    /// Output of a tunnel that is in no frame yet.
    unframed: Vec<u8>,
    /// Output that the socket has not accepted.
    output: Vec<u8>,
}

/// A `Transport` carries the bytes of a protocol.
#[derive(Debug, Default)]
enum Transport {
    /// They are the bytes of the connection.
    #[default]
    Bare,
    /// The WebSocket is being opened, and perhaps becomes a tunnel.
    Opening(Box<Opening>, bool),
    /// They are in the payloads of WebSocket frames.
    Tunnel(Box<WebSocketDecoder>),
}

impl Link {
    /// Whether the connection is made by now, and TLS with it.
    ///
    /// # Errors
    ///
    /// If it will never be.
    pub(super) fn is_made(&mut self) -> Result<bool, Cause> {
        match &mut self.stream {
            None => Ok(false),
            Some(stream) => Ok(is_made(stream.socket())? && stream.shake_hands()?),
        }
    }

    /// Whether a handshake of TLS is not complete.
    pub(super) fn is_shaking_hands(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::is_shaking_hands)
    }

    /// Begins to open a WebSocket.
    pub(super) fn open_web_socket(&mut self, target: &Target, is_tunnel: bool) {
        let chance = fastrand::u128(..).to_ne_bytes();
        let (opening, request) = Opening::begin(target, chance);
        self.transport = Transport::Opening(Box::new(opening), is_tunnel);
        self.output = request;
        self.send();
    }

    pub(super) const fn is_opening(&self) -> bool {
        matches!(self.transport, Transport::Opening(..))
    }

    /// Whether what is read of the socket are the bytes of the protocol.
    pub(super) const fn is_bare(&self) -> bool {
        matches!(self.transport, Transport::Bare)
    }

    pub(super) fn has_output(&self) -> bool {
        let stream = self.stream.as_ref();
        !self.output.is_empty() || stream.is_some_and(|stream| stream.pending() > 0)
    }

    /// Whether a read that returns less than there is room for may not be the last.
    pub(super) fn reads_in_parts(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::is_tls)
    }

    /// The output that is not sent. [`send`](Self::send) sends what is appended to it.
    pub(super) const fn output(&mut self) -> &mut Vec<u8> {
        match self.transport {
            Transport::Tunnel(_) => &mut self.unframed,
            Transport::Bare | Transport::Opening(..) => &mut self.output,
        }
    }

    /// Sends the output, as far as the socket accepts it; the rest stays for the next call.
    pub(super) fn send(&mut self) {
        if !self.unframed.is_empty() {
            masked(Opcode::Binary, &self.unframed, &mut self.output);
            self.unframed.clear();
        }
        let Some(stream) = &mut self.stream else {
            return;
        };
        // An error shows when the socket is read, after the input before it.
        if stream.send_pending().is_err() {
            return;
        }
        let mut sent = 0;
        while sent < self.output.len() {
            match stream.write(&self.output[sent..]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.output.drain(..sent);
    }

    /// Reads once.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = self.stream.as_mut();
        stream.map_or_else(|| Err(ErrorKind::WouldBlock.into()), |it| it.read(buffer))
    }

    /// The same through a WebSocket, until it is open and after that. Appends the bytes of the protocol
    /// to `out`. Pings of a tunnel are answered.
    pub(super) fn read_web_socket(
        &mut self,
        buffer: &mut [u8],
        out: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let read = self.read(buffer)?;
        let mut input = &mut buffer[..read];
        if let Transport::Opening(opening, is_tunnel) = &mut self.transport {
            let refused = |_| Cause::NoWebSocket;
            let Some(taken) = opening.feed(input).map_err(refused)? else {
                return Ok(read);
            };
            self.transport = if *is_tunnel {
                Transport::Tunnel(Box::new(WebSocketDecoder::for_server_frames()))
            } else {
                Transport::Bare
            };
            input = &mut input[taken..];
        }
        let Transport::Tunnel(decoder) = &mut self.transport else {
            out.extend_from_slice(input);
            return Ok(read);
        };
        let mut is_pinged = false;
        while let Some(item) = decoder
            .decode(&mut input, MAX_TUNNEL_MESSAGE)
            .map_err(|_| Cause::Garbled)?
        {
            match item {
                Item::Message { is_text: true, .. } => return Err(Cause::Garbled.into()),
                Item::Message { payload, .. } => out.extend_from_slice(payload),
                Item::Ping(payload) => {
                    masked(Opcode::Pong, payload, &mut self.output);
                    is_pinged = true;
                }
                // The end of the connection follows a Close frame.
                Item::Pong | Item::Close(..) => {}
            }
        }
        if is_pinged {
            self.send();
        }
        Ok(read)
    }
}
