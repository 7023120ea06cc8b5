//! The acknowledgements of the peer's kernel.

use std::net::SocketAddr;

use crate::sockets::{self, canonical};

/// The bytes that the socket between these addresses has accepted and the peer's kernel has not
/// acknowledged; `None` if the system does not report them.
///
/// The protocol has no acknowledgements, but TCP has. A client that leaves, or that has lost its
/// connection, uses them to report which messages may be missing. The call for it is the ioctl
/// `SIOCOUTQ` (tcp(7)), which needs `unsafe`. Linux has the same number in its tables of sockets, which
/// have every TCP socket of the machine, so they are read seldom. A sent FIN counts as one byte.
pub(super) fn unacknowledged(local: SocketAddr, peer: SocketAddr) -> Option<u64> {
    let (local, peer) = (canonical(local), canonical(peer));
    let mut sockets = sockets::tables().flatten();
    let socket = sockets.find(|socket| socket.local == local && socket.peer == peer)?;
    Some(socket.unacknowledged)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    /// A connection: the client's end and the server's. `None` where there is no IPv6.
    fn connect(addr: &str) -> Option<(TcpStream, TcpStream)> {
        let listener = match TcpListener::bind(addr) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => return None,
            listener => listener.unwrap(),
        };
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Some((client, listener.accept().unwrap().0))
    }

    fn unacknowledged_by(client: &TcpStream) -> Option<u64> {
        unacknowledged(client.local_addr().unwrap(), client.peer_addr().unwrap())
    }

    #[test]
    fn bytes_beyond_the_peers_receive_buffer_are_unacknowledged() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let Some((mut client, mut server)) = connect(addr) else {
                continue;
            };
            assert_eq!(unacknowledged_by(&client), Some(0), "{addr}");
            client.set_nonblocking(true).unwrap();
            let mut sent = 0;
            while let Ok(taken) = client.write(&[b'x'; 16_384]) {
                sent += taken;
            }
            let left = unacknowledged_by(&client).unwrap() as usize;
            assert!(0 < left && left <= sent, "{left} of {sent}");
            client.shutdown(Shutdown::Write).unwrap();
            let mut read = Vec::new();
            server.read_to_end(&mut read).unwrap();
            assert_eq!(read.len(), sent);
            while unacknowledged_by(&client) != Some(0) {}
        }
    }

    #[test]
    fn missing_connection_has_no_count() {
        let local = "127.0.0.1:9".parse().unwrap();
        assert_eq!(unacknowledged(local, "127.0.0.1:10".parse().unwrap()), None);
    }
}
