//! What a member costs while it does nothing.

use std::mem::size_of;

use chatloop::relay::Connection;
use mio::net::TcpStream;

#[test]
fn connection_is_80_bytes_and_so_is_its_slot() {
    // In a debug build mio keeps a selector's identity with each socket, to catch mix-ups.
    let expected = if cfg!(debug_assertions) { 96 } else { 80 };
    assert_eq!(size_of::<Connection<TcpStream>>(), expected);
    // A slab's entry is an enum around it, and finds room for its tag inside.
    assert_eq!(size_of::<Option<Connection<TcpStream>>>(), expected);
}
