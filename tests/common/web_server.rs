//! The other end of a WebSocket client under test: a server that does what a test asks for, in frames of another
//! implementation.

use std::io::{Read, Write};
use std::net::TcpStream;

use data_encoding::BASE64;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

use super::chat_server::{Peer, ScriptedServer};

/// The object that a server sends when a client has joined.
pub const HELLO: &str = r#"{"hello":{"version":"0.1.0","maxName":256,"maxMessage":1048576}}"#;

pub const ACK: &str = r#"{"ack":1}"#;

/// The server's side of a WebSocket.
pub struct WebPeer {
    socket: WebSocket<TcpStream>,
}

/// Reads the head of a request, and nothing behind it.
#[track_caller]
pub fn read_request(peer: &mut Peer) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        peer.stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The response that accepts a request, which must be the handshake of this host.
#[track_caller]
pub fn response(request: &str, host: &str) -> String {
    let (before, after) = request.split_once("Sec-WebSocket-Key: ").unwrap();
    let (key, after) = after.split_once("\r\n").unwrap();
    assert_eq!(
        before,
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
    );
    assert_eq!(BASE64.decode(key.as_bytes()).unwrap().len(), 16);
    assert_eq!(
        after,
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chatloop.json\r\n\r\n"
    );
    let mut hash = sha1_smol::Sha1::from(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = BASE64.encode(&hash.digest().bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chatloop.json\r\n\r\n"
    )
}

/// A message as a server sends it.
pub fn message(time: &str, name: &str, text: &str) -> String {
    format!(r#"{{"time":"{time}","name":"{name}","message":"{text}"}}"#)
}

impl WebPeer {
    /// Waits for a client, and opens its WebSocket.
    #[track_caller]
    pub fn accept(server: &ScriptedServer) -> Self {
        let mut peer = server.accept();
        let request = read_request(&mut peer);
        peer.send_raw(response(&request, &server.addr().to_string()));
        Self {
            socket: WebSocket::from_raw_socket(peer.stream, Role::Server, None),
        }
    }

    /// The same, and the client joins under this name.
    #[track_caller]
    pub fn join(server: &ScriptedServer, name: &str) -> Self {
        let mut peer = Self::accept(server);
        peer.expect(name);
        peer.send(HELLO);
        peer
    }

    /// The client's next message is this text.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        assert_eq!(self.socket.read().unwrap(), Message::from(text));
    }

    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.socket.send(Message::from(text)).unwrap();
    }

    /// The client answers a ping.
    #[track_caller]
    pub fn ping(&mut self) {
        let payload = b"are you there?";
        self.socket.send(Message::Ping(payload[..].into())).unwrap();
        assert_eq!(
            self.socket.read().unwrap(),
            Message::Pong(payload[..].into())
        );
    }

    /// Ends the WebSocket with this code and reason, which the client must answer with the code.
    #[track_caller]
    pub fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame {
            code: code.into(),
            reason: reason.into(),
        };
        self.socket.close(Some(frame)).unwrap();
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => assert_eq!(u16::from(frame.unwrap().code), code),
                Ok(_) => {}
                Err(Error::ConnectionClosed) => break,
                Err(error) => panic!("the client does not answer: {error}"),
            }
        }
    }

    /// The client closes the WebSocket, and the connection when that is answered.
    #[track_caller]
    pub fn expect_close(mut self) {
        let Message::Close(Some(frame)) = self.socket.read().unwrap() else {
            panic!("no Close frame");
        };
        assert_eq!(u16::from(frame.code), 1000);
        while self.socket.read().is_ok() {}
        let mut rest = Vec::new();
        let stream = self.socket.get_mut();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
    }

    /// Sends bytes that may be no frame.
    #[track_caller]
    pub fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        let stream = self.socket.get_mut();
        stream.write_all(bytes.as_ref()).unwrap();
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }
}
