//! What a member costs while it does nothing.

use std::mem::size_of;

use chatloop::relay::Connection;
use chatloop::server::Stream;
use mio::net::TcpStream;

#[test]
fn connection_is_80_bytes_and_so_is_its_slot() {
    // In a debug build mio keeps a selector's identity with each socket, to catch mix-ups.
    let expected = if cfg!(debug_assertions) { 96 } else { 80 };
    assert_eq!(size_of::<Connection<TcpStream>>(), expected);
    // A slab's entry is an enum around it, and finds room for its tag inside.
    assert_eq!(size_of::<Option<Connection<TcpStream>>>(), expected);
}

#[test]
fn connection_of_the_server_has_a_pointer_more_for_tls() {
    let (size, bare) = (
        size_of::<Connection<Stream<TcpStream>>>(),
        size_of::<Connection<TcpStream>>(),
    );
    // The socket's four bytes were in a gap, and a pointer is not.
    let expected = if cfg!(debug_assertions) {
        bare + 8
    } else {
        bare + 16
    };
    assert_eq!(size, expected);
}
