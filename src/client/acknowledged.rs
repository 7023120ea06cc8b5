//! The acknowledgements of the peer's kernel.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// The bytes that the socket between these addresses has accepted and the peer's kernel has not
/// acknowledged; `None` if the system does not report them.
///
/// The protocol has no acknowledgements, but TCP has. A client that leaves, or that has lost its
/// connection, uses them to report which messages may be missing. The call for it is the ioctl
/// `SIOCOUTQ` (tcp(7)), which needs `unsafe`. Linux has the same number in /proc/net/tcp, in the column
/// `tx_queue` (proc(5)). The file lists every TCP socket of the machine, so it is read seldom. A sent
/// FIN counts as one byte.
pub(super) fn unacknowledged(local: SocketAddr, peer: SocketAddr) -> Option<u64> {
    let path = if local.is_ipv4() {
        "/proc/self/net/tcp"
    } else {
        "/proc/self/net/tcp6"
    };
    let table: io::Result<String> = fs::read_to_string(path);
    find(&table.ok()?, local, peer)
}

fn find(table: &str, local: SocketAddr, peer: SocketAddr) -> Option<u64> {
    let addresses = [in_hex(local), in_hex(peer)];
    table.lines().find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        if [columns.next()?, columns.next()?] != addresses {
            return None;
        }
        let (tx_queue, _) = columns.nth(1)?.split_once(':')?;
        u64::from_str_radix(tx_queue, 16).ok()
    })
}

/// An address as the table has it: each four bytes as a number of this machine's byte order.
fn in_hex(addr: SocketAddr) -> String {
    let word = |bytes: &[u8]| {
        let bytes = bytes.try_into().unwrap_or_default();
        format!("{:08X}", u32::from_ne_bytes(bytes))
    };
    let ip: String = match addr.ip() {
        IpAddr::V4(ip) => word(&ip.octets()),
        IpAddr::V6(ip) => ip.octets().chunks(4).map(word).collect(),
    };
    format!("{ip}:{:04X}", addr.port())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
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
