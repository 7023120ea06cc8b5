//! The TCP sockets of this machine, as `/proc/net/tcp` and `/proc/net/tcp6` list them (proc(5)).
//!
//! Linux only; elsewhere the tables are empty. A table lists every socket of the machine, so reading
//! all of it takes a while on a machine that has many. Sockets that listen come first.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// One line of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    state: u8,
    /// The bytes that the peer's kernel has not acknowledged. A sent FIN counts as one.
    pub(crate) unacknowledged: u64,
    /// The received bytes that were not read; of a socket that listens, the connections that were not
    /// accepted.
    pub(crate) unread: u64,
    pub(crate) inode: u64,
}

/// Returns the sockets of each table.
pub(crate) fn tables() -> impl Iterator<Item = impl Iterator<Item = Socket>> {
    TABLES
        .into_iter()
        .filter_map(|path| File::open(path).ok())
        .map(|file| sockets(BufReader::new(file)))
}

fn sockets(table: impl BufRead) -> impl Iterator<Item = Socket> {
    let lines = table.lines().map_while(Result::ok);
    // The first line has the names of the columns.
    lines.filter_map(|line| Socket::parse(&line))
}

impl Socket {
    fn parse(line: &str) -> Option<Self> {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let local = address(columns.next()?)?;
        let peer = address(columns.next()?)?;
        let state = u8::from_str_radix(columns.next()?, 16).ok()?;
        let (unacknowledged, unread) = columns.next()?.split_once(':')?;
        Some(Self {
            local,
            peer,
            state,
            unacknowledged: u64::from_str_radix(unacknowledged, 16).ok()?,
            unread: u64::from_str_radix(unread, 16).ok()?,
            inode: columns.nth(4)?.parse().ok()?,
        })
    }

    pub(crate) const fn is_established(&self) -> bool {
        self.state == 0x01
    }

    pub(crate) const fn is_listening(&self) -> bool {
        self.state == 0x0A
    }
}

/// The form in which two addresses are comparable: an IPv4 address that is mapped to IPv6 is an IPv4
/// address, and there is no scope.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Parses an address: words in this machine's byte order, in hexadecimal, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let mut bytes = [0; 16];
    for (index, bytes) in bytes.chunks_mut(4).take(ip.len() / 8).enumerate() {
        let word = u32::from_str_radix(ip.get(8 * index..8 * index + 8)?, 16).ok()?;
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(*bytes.first_chunk()?)),
        _ => IpAddr::from(Ipv6Addr::from(bytes)),
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(canonical(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn line_of_a_table_is_a_socket() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when ...\n\
             0: 00000000:04D2 00000000:0000 0A 00000000:0000001F 00:00000000 00000000 0 0 111 1 0\n\
             1: 0000000000000000FFFF00000100007F:04D4 0200007F:9C40 01 00000010:00000000 \
             00:00000000 00000000 0 0 222 1 0\n\
             2: 00000000000000000000000001000000:04D5 00000000000000000000000000000000:0000 06 \
             00000000:00000000 00:00000000 00000000 0 0 333 1 0\n";
        let sockets: Vec<_> = sockets(table.as_bytes()).collect();
        let expected = |local: &str, peer: &str, state, (unacknowledged, unread), inode| Socket {
            local: local.parse().unwrap(),
            peer: peer.parse().unwrap(),
            state,
            unacknowledged,
            unread,
            inode,
        };
        let any = "0.0.0.0:0";
        assert_eq!(
            sockets,
            [
                expected("0.0.0.0:1234", any, 10, (0, 31), 111),
                expected("127.0.0.1:1236", "127.0.0.2:40000", 1, (16, 0), 222),
                expected("[::1]:1237", "[::]:0", 6, (0, 0), 333),
            ]
        );
        assert!(sockets[0].is_listening() && sockets[1].is_established());
    }
}
