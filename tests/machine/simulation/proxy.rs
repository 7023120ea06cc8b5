//! The header of the PROXY protocol: how proxies write it, and what others send in its place.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::choices::Choices;

/// How many of the forms are headers. They come first.
const GOOD: usize = 7;

/// How many forms there are.
const FORMS: usize = 14;

/// The first bytes of a header of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What a connection to a listener for proxies begins with.
#[derive(Clone, Debug)]
pub struct Header {
    pub bytes: Vec<u8>,
    pub meaning: Meaning,
}

/// What the bytes of a [`Header`] mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// They are a header. The proxy's client has this address, if one is stated.
    Client(Option<SocketAddr>),
    /// They are none, which this many of them show.
    Refused { after: usize },
}

impl Header {
    /// What the peer of this number sends: as a rule a header.
    pub fn chosen(number: usize, choices: &mut Choices) -> Self {
        let form = match choices.below(4) {
            0..3 => choices.below(GOOD),
            _ => choices.below(FORMS),
        };
        Self::of_form(form, number)
    }

    fn of_form(form: usize, number: usize) -> Self {
        let port = 1024 + (number % 60_000) as u16;
        let v4 = Ipv4Addr::new(203, 0, 113, (number % 5) as u8);
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, (number % 5) as u16);
        let line = |text: String| text.into_bytes();
        let [high, low] = port.to_be_bytes();
        let in_v4 = [&v4.octets()[..], &[192, 0, 2, 1, high, low, 4, 210]].concat();
        let in_v6 = [&v6.octets()[..], &[9; 16], &[high, low, 4, 210]].concat();
        let stated = |ip| Meaning::Client(Some(ip));
        let unknown = Meaning::Client(None);
        let refused = |after| Meaning::Refused { after };
        let malformed = "PROXY TCP4 203.0.113.7 192.0.2.1 1024\r\n";
        let (bytes, meaning) = match form {
            0 => (
                line(format!("PROXY TCP4 {v4} 192.0.2.1 {port} 1234\r\n")),
                stated((v4, port).into()),
            ),
            1 => (
                line(format!("PROXY TCP6 {v6} 2001:db8::1 {port} 1234\r\n")),
                stated((v6, port).into()),
            ),
            2 => (line("PROXY UNKNOWN and more\r\n".into()), unknown),
            3 => (binary(0x21, 0x11, &in_v4), stated((v4, port).into())),
            // Behind the addresses there is a field that means nothing.
            4 => (
                binary(0x21, 0x21, &[&in_v6[..], &[4, 0, 3, 1, 2, 3]].concat()),
                stated((v6, port).into()),
            ),
            5 => (binary(0x20, 0x00, &[7; 5]), unknown),
            // The addresses of Unix sockets.
            6 => (binary(0x21, 0x31, &[0; 216]), unknown),
            7 => (line("5         alice".into()), refused(1)),
            8 => (line("PROXY\tTCP4".into()), refused(6)),
            9 => (line(malformed.into()), refused(malformed.len())),
            10 => (
                line(format!("PROXY TCP4 {}", "1".repeat(200))),
                refused(106),
            ),
            11 => (binary(0x11, 0x11, &in_v4), refused(13)),
            12 => (
                [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(),
                refused(SIGNATURE.len() + 4),
            ),
            // It announces less than its addresses take.
            _ => (
                binary(0x21, 0x11, &in_v4[1..]),
                refused(SIGNATURE.len() + 4 + 11),
            ),
        };
        Self { bytes, meaning }
    }
}

/// A header of version 2 with this command and transport, and what follows them.
fn binary(command: u8, transport: u8, rest: &[u8]) -> Vec<u8> {
    let [high, low] = (rest.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, transport, high, low], rest].concat()
}
