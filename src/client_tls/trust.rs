//! Which server is trusted: the decision, without I/O.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use data_encoding::{BASE64, BASE64_NOPAD};

/// A `Fingerprint` is the SHA-256 hash of a public key, in the form that a certificate has it in
/// (SubjectPublicKeyInfo). A new certificate for the same key has the same fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl FromStr for Fingerprint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text
            .strip_prefix("sha256:")
            .map(|it| it.trim_end_matches('='));
        digits
            .and_then(|digits| BASE64_NOPAD.decode(digits.as_bytes()).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(
                "not a fingerprint; it is sha256: and 44 characters, as `chatloop cert` prints it",
            )
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", BASE64.encode(&self.0))
    }
}

/// A `KnownKey` is a key that the user has accepted for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// The fingerprint of the key.
    pub fingerprint: Fingerprint,
    /// The line of the file that has it.
    pub line: usize,
}

/// A `Trust` decides which key a server must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// One of these. Nothing else is checked.
    Pinned(Vec<Fingerprint>),
    /// One in a certificate from an issuer that this machine knows, or from one of those in this file.
    Issued(PathBuf),
    /// One that is known. If none is known for the server, a certificate from an issuer that this machine
    /// knows is accepted as well.
    Known {
        /// The file of the known keys.
        file: PathBuf,
        /// The keys of this server.
        keys: Vec<KnownKey>,
    },
}

impl Trust {
    /// Whether the issuer of a certificate matters.
    #[must_use]
    pub const fn needs_issuer(&self) -> bool {
        match self {
            Self::Pinned(_) => false,
            Self::Issued(_) => true,
            Self::Known { keys, .. } => keys.is_empty(),
        }
    }

    /// Accepts or refuses a key. `verify` verifies the certificate by its issuer, and is not called unless
    /// that matters.
    ///
    /// # Errors
    ///
    /// The refusal.
    pub fn check(
        &self,
        key: Fingerprint,
        verify: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), Refusal> {
        match self {
            Self::Pinned(pins) if pins.contains(&key) => Ok(()),
            Self::Pinned(_) => Err(Refusal::NotPinned { key }),
            Self::Issued(_) => verify().map_err(|why| Refusal::NotIssued { key, why }),
            Self::Known { file, keys } => match keys.first() {
                _ if keys.iter().any(|known| known.fingerprint == key) => Ok(()),
                None => verify().map_err(|why| Refusal::Unknown { key, why }),
                Some(known) => Err(Refusal::Changed {
                    key,
                    known: known.fingerprint,
                    file: file.clone(),
                    line: known.line,
                }),
            },
        }
    }
}

/// A `Refusal` is why a server's key is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not one of those that it must be.
    NotPinned {
        /// The key of the server.
        key: Fingerprint,
    },
    /// The certificate cannot be verified, and the user has named the issuer.
    NotIssued {
        /// The key of the server.
        key: Fingerprint,
        /// Why the certificate cannot be verified.
        why: String,
    },
    /// The certificate cannot be verified, and no key of the server is known. The user may accept it.
    Unknown {
        /// The key of the server.
        key: Fingerprint,
        /// Why the certificate cannot be verified.
        why: String,
    },
    /// Another key is known.
    Changed {
        /// The key of the server.
        key: Fingerprint,
        /// The first of the keys that are known.
        known: Fingerprint,
        /// The file that has it.
        file: PathBuf,
        /// Its line in the file.
        line: usize,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPinned { key } => write!(f, "its key is {key}, which is not the one of --pin"),
            Self::NotIssued { key, why } => write!(
                f,
                "its certificate {why}, and --ca has no other issuer for it; its key is {key}"
            ),
            Self::Unknown { key, why } => write!(
                f,
                "its certificate {why}; compare the fingerprint of its key with the server's, and add --pin \
                 {key} if it is the same, or join once on a terminal"
            ),
            Self::Changed {
                key,
                known,
                file,
                line,
            } => write!(
                f,
                "its key has changed: it is {key} now, and was {known}; that may be another server in its \
                 place. If the server has a new key, remove line {line} of {}",
                file.display()
            ),
        }
    }
}

impl Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Fingerprint = Fingerprint([1; 32]);
    const OTHER: Fingerprint = Fingerprint([2; 32]);

    fn known(keys: &[Fingerprint]) -> Trust {
        let keys = keys.iter().zip([3, 7]);
        Trust::Known {
            file: "known".into(),
            keys: keys
                .map(|(&fingerprint, line)| KnownKey { fingerprint, line })
                .collect(),
        }
    }

    fn expired() -> Result<(), String> {
        Err("has expired".to_owned())
    }

    fn unasked() -> Result<(), String> {
        panic!("the issuer does not matter")
    }

    #[test]
    fn fingerprint_is_read_as_it_is_written_with_its_padding_or_without() {
        let text = OURS.to_string();
        assert_eq!(text, "sha256:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
        assert_eq!(text.parse(), Ok(OURS));
        assert_eq!(text.trim_end_matches('=').parse(), Ok(OURS));
        for wrong in [
            "",
            "sha256:",
            &text[7..],
            "sha256:AQE=",
            "sha1:AQE=",
            "sha256:é",
        ] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn pinned_key_is_accepted_without_a_valid_certificate_and_no_other_key_with_one() {
        let trust = Trust::Pinned(vec![OTHER, OURS]);
        assert_eq!(trust.check(OURS, unasked), Ok(()));
        let trust = Trust::Pinned(vec![OTHER]);
        assert_eq!(
            trust.check(OURS, unasked),
            Err(Refusal::NotPinned { key: OURS })
        );
    }

    #[test]
    fn known_key_is_accepted_and_a_changed_one_is_refused_whatever_its_certificate() {
        assert_eq!(known(&[OTHER, OURS]).check(OURS, unasked), Ok(()));
        let refusal = known(&[OTHER, OTHER]).check(OURS, unasked).unwrap_err();
        let expected = Refusal::Changed {
            key: OURS,
            known: OTHER,
            file: "known".into(),
            line: 3,
        };
        assert_eq!(refusal, expected);
    }

    #[test]
    fn issuer_decides_where_no_key_is_known() {
        assert_eq!(known(&[]).check(OURS, || Ok(())), Ok(()));
        assert_eq!(
            known(&[]).check(OURS, expired),
            Err(Refusal::Unknown {
                key: OURS,
                why: "has expired".to_owned()
            })
        );
        let trust = Trust::Issued("ca.crt".into());
        assert_eq!(trust.check(OURS, || Ok(())), Ok(()));
        assert!(matches!(
            trust.check(OURS, expired),
            Err(Refusal::NotIssued { .. })
        ));
    }
}
