//! The password of the page and of WebSocket clients: HTTP's Basic authentication (RFC 7617).
//!
//! It is what browsers ask for by themselves, and send again with the WebSocket handshake of the page. The protocols of
//! the tutorials have no place for a password.

use std::fmt;

use data_encoding::BASE64;

/// A password that clients must have.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

/// What a request has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// The password.
    Right,
    /// Something else.
    Wrong,
    /// Nothing: a browser asks its user when it is refused for that.
    Missing,
}

impl Password {
    /// A password; nothing if it has no bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (!bytes.is_empty()).then(|| Self(bytes.to_vec()))
    }

    /// What the `Authorization` field of a request shows. The name of the user is not looked at.
    pub(super) fn shown_in(&self, authorization: Option<&str>) -> Proof {
        match authorization {
            None => Proof::Missing,
            Some(field) => match password_of(field) {
                Some(password) if self.is(&password) => Proof::Right,
                _ => Proof::Wrong,
            },
        }
    }

    /// Whether these bytes are the password. How long that takes depends on their length alone, and shows nothing of
    /// the password.
    fn is(&self, bytes: &[u8]) -> bool {
        let expected = self.0.iter().cycle();
        let differences = bytes
            .iter()
            .zip(expected)
            .fold(0, |all, (a, b)| all | (a ^ b));
        differences == 0 && bytes.len() == self.0.len()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// The password in a field of the scheme `Basic`.
fn password_of(field: &str) -> Option<Vec<u8>> {
    let (scheme, credentials) = field.split_once(' ')?;
    let credentials = BASE64.decode(credentials.trim().as_bytes()).ok()?;
    let colon = credentials.iter().position(|&byte| byte == b':')?;
    scheme
        .eq_ignore_ascii_case("Basic")
        .then(|| credentials[colon + 1..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_shows_the_password_or_something_else() {
        let password = Password::new("swördfish:2".as_bytes()).unwrap();
        let basic = |scheme: &str, credentials: &str| {
            format!("{scheme} {}", BASE64.encode(credentials.as_bytes()))
        };
        for (field, shown) in [
            (None, Proof::Missing),
            (Some(basic("Basic", "alice:swördfish:2")), Proof::Right),
            (Some(basic("basic", ":swördfish:2")), Proof::Right),
            (Some(basic("Basic", ":swördfish:")), Proof::Wrong),
            (Some(basic("Basic", ":swördfish:22")), Proof::Wrong),
            (
                Some(basic("Basic", ":swördfish:2swördfish:2")),
                Proof::Wrong,
            ),
            (Some(basic("Basic", ":")), Proof::Wrong),
            (Some(basic("Basic", "swördfish")), Proof::Wrong),
            (Some(basic("Bearer", ":swördfish:2")), Proof::Wrong),
            (Some("Basic ***".to_owned()), Proof::Wrong),
            (Some(String::new()), Proof::Wrong),
        ] {
            assert_eq!(password.shown_in(field.as_deref()), shown, "{field:?}");
        }
        assert_eq!(Password::new(b""), None);
    }
}
