//! Which clients may connect: what the configuration allows and denies, and the bans for a time.
//!
//! Bans are the operator's, at the admin socket. They are kept in a file, if there is one, so that they outlive the
//! relay. The file has a line for each: what is banned, and when the ban ends in seconds since 1970. It is written
//! anew and takes the old one's place in one step, so that no half of it is ever read.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::banned::Banned;
use super::network::Network;

/// How many bans there are at most. Each is looked at for each connection that is accepted.
const MAX_BANS: usize = 10_000;

/// A file of bans is not read beyond this many bytes, which is more than that many bans take.
const MAX_FILE: u64 = 8 << 20;

/// Which addresses may connect. It applies to clients: of those behind a trusted proxy, to the addresses that the
/// proxy states. The admin socket is not concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRules {
    /// If there are any, only these may connect.
    pub allow: Vec<Network>,
    /// These may not, even if they are allowed as well.
    pub deny: Vec<Network>,
}

/// Why a client may not connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// There is a list of those that may, and it is in none of its networks.
    NotAllowed,
    /// It is in this network, which may not.
    Listed(Network),
    /// Its address, or the name in its certificate, is banned.
    Banned(Banned),
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ban {
    pub(super) banned: Banned,
    /// When it ends, in seconds since 1970; never if there is no end.
    pub(super) until: Option<u64>,
}

/// The rules and the bans.
#[derive(Debug, Default)]
pub(super) struct Access {
    rules: AccessRules,
    bans: Vec<Ban>,
    /// Where the bans are kept.
    file: Option<PathBuf>,
}

impl Access {
    /// These rules, and no ban.
    pub(super) const fn new(rules: AccessRules) -> Self {
        Self {
            rules,
            bans: Vec::new(),
            file: None,
        }
    }

    /// From now on keeps the bans in this file, and begins with those that are in it. It need not be there yet.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written, or has a line that is no ban ([`ErrorKind::InvalidData`]).
    pub(super) fn keep_bans_in(&mut self, path: &Path, now: Duration) -> io::Result<()> {
        self.bans = read(path)?;
        self.file = Some(path.to_owned());
        self.drop_ended(now);
        self.save()
    }

    /// Whether the bans outlive the relay.
    pub(super) const fn keeps_bans(&self) -> bool {
        self.file.is_some()
    }

    /// Whether anybody is banned.
    pub(super) const fn has_bans(&self) -> bool {
        !self.bans.is_empty()
    }

    /// Whether this client may not connect, and why. The time is that since 1970.
    pub(super) fn denial(&self, ip: IpAddr, now: Duration) -> Option<Denied> {
        let contains = |network: &&Network| network.contains(ip);
        if let Some(&network) = self.rules.deny.iter().find(contains) {
            return Some(Denied::Listed(network));
        }
        let is_banned =
            |banned: &Banned| matches!(banned, Banned::Network(one) if one.contains(ip));
        let denied = self.ban_where(is_banned, now);
        if denied.is_some() {
            return denied;
        }
        let is_allowed =
            self.rules.allow.is_empty() || self.rules.allow.iter().any(|one| one.contains(ip));
        (!is_allowed).then_some(Denied::NotAllowed)
    }

    /// Whether a client may not come in for the name in its certificate, and why. The name is looked at only if there
    /// are bans of names.
    pub(super) fn certificate_denial(
        &self,
        name: impl FnOnce() -> Option<Vec<u8>>,
        now: Duration,
    ) -> Option<Denied> {
        let is_name = |ban: &Ban| matches!(ban.banned, Banned::Certificate(_));
        if !self.bans.iter().any(is_name) {
            return None;
        }
        let name = name()?;
        self.ban_where(
            |banned| matches!(banned, Banned::Certificate(one) if **one == *name),
            now,
        )
    }

    /// The first ban of this kind that has not ended.
    fn ban_where(&self, is_banned: impl Fn(&Banned) -> bool, now: Duration) -> Option<Denied> {
        let ban = self.bans(now).find(|ban| is_banned(&ban.banned))?;
        Some(Denied::Banned(ban.banned.clone()))
    }

    /// Bans from now on, in place of earlier bans of the same.
    ///
    /// # Errors
    ///
    /// If there are too many bans, none of these is made ([`ErrorKind::QuotaExceeded`]). If the file cannot be
    /// written, they hold until the relay stops.
    pub(super) fn ban(&mut self, bans: &[Ban], now: Duration) -> io::Result<()> {
        self.drop_ended(now);
        let is_kept = |old: &Ban| !bans.iter().any(|new| new.banned == old.banned);
        let kept = self.bans.iter().filter(|old| is_kept(old)).count();
        if kept + bans.len() > MAX_BANS {
            let text =
                format!("there are {MAX_BANS} bans already; ban a larger network, or unban others");
            return Err(io::Error::new(ErrorKind::QuotaExceeded, text));
        }
        self.bans.retain(is_kept);
        self.bans.extend_from_slice(bans);
        self.save()
    }

    /// Lifts the ban of exactly this. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// If the file cannot be written: then the ban comes back when the relay is started again.
    pub(super) fn unban(&mut self, banned: &Banned, now: Duration) -> io::Result<bool> {
        self.drop_ended(now);
        let before = self.bans.len();
        self.bans.retain(|ban| ban.banned != *banned);
        let was_banned = self.bans.len() < before;
        if was_banned {
            self.save()?;
        }
        Ok(was_banned)
    }

    /// The bans that have not ended, in the order in which they were made.
    pub(super) fn bans(&self, now: Duration) -> impl Iterator<Item = &Ban> {
        self.bans.iter().filter(move |ban| !ban.has_ended(now))
    }

    fn drop_ended(&mut self, now: Duration) {
        self.bans.retain(|ban| !ban.has_ended(now));
    }

    fn save(&self) -> io::Result<()> {
        match &self.file {
            Some(path) => write(path, &self.bans),
            None => Ok(()),
        }
    }
}

impl Ban {
    const fn has_ended(&self, now: Duration) -> bool {
        match self.until {
            Some(until) => until <= now.as_secs(),
            None => false,
        }
    }
}

/// The bans of a file; none if there is no file.
fn read(path: &Path) -> io::Result<Vec<Ban>> {
    let text = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
        Ok(file) if file.len() > MAX_FILE => {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "it is too large for a file of bans",
            ));
        }
        Ok(_) => fs::read_to_string(path)?,
    };
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(index, line)| {
            let text = format!(
                "line {} is no ban; write SECONDS-SINCE-1970 or never after a network or cert:NAME",
                index + 1
            );
            parse(line).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, text))
        })
        .collect()
}

fn parse(line: &str) -> Option<Ban> {
    let (banned, until) = line.split_once(' ')?;
    let until = match until {
        "never" => None,
        seconds => Some(seconds.parse().ok()?),
    };
    Some(Ban {
        banned: banned.parse().ok()?,
        until,
    })
}

/// Writes the file anew. What is read at its path is all of the old one or all of the new one.
fn write(path: &Path, bans: &[Ban]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    let head =
        "# The bans of a chatloop relay, with their ends in seconds since 1970.\n".to_owned();
    let lines = bans.iter().map(|Ban { banned, until }| {
        let until = until.map_or_else(|| "never".to_owned(), |until| until.to_string());
        format!("{banned} {until}\n")
    });
    let text: String = std::iter::once(head).chain(lines).collect();
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| fs::rename(&new, path));
    written.inspect_err(|_| drop(fs::remove_file(&new)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| network(text)).collect()
    }

    fn ban(text: &str, until: Option<u64>) -> Ban {
        Ban {
            banned: text.parse().unwrap(),
            until,
        }
    }

    #[test]
    fn denied_network_is_refused_though_it_is_allowed_as_well() {
        let rules = AccessRules {
            allow: networks(&["10.0.0.0/8", "::1"]),
            deny: networks(&["10.9.0.0/16"]),
        };
        let access = Access::new(rules);
        for (ip, denial) in [
            ("10.0.0.1", None),
            ("::ffff:10.0.0.1", None),
            ("::1", None),
            ("10.9.0.1", Some(Denied::Listed(network("10.9.0.0/16")))),
            ("192.0.2.1", Some(Denied::NotAllowed)),
            ("::2", Some(Denied::NotAllowed)),
        ] {
            assert_eq!(access.denial(ip.parse().unwrap(), NOW), denial, "{ip}");
        }
        let none = Access::default();
        assert_eq!(none.denial("192.0.2.1".parse().unwrap(), NOW), None);
    }

    #[test]
    fn ban_holds_until_its_end_or_until_it_is_lifted() {
        let mut access = Access::default();
        let ip = "192.0.2.7".parse().unwrap();
        access.ban(&[ban("192.0.2.0/24", Some(1010))], NOW).unwrap();
        let banned = Some(Denied::Banned("192.0.2.0/24".parse().unwrap()));
        assert_eq!(access.denial(ip, Duration::from_millis(1_009_999)), banned);
        assert_eq!(
            access.certificate_denial(|| panic!("no name is banned"), NOW),
            None
        );
        assert_eq!(access.denial(ip, Duration::from_secs(1010)), None);
        assert_eq!(access.bans(Duration::from_secs(1010)).count(), 0);
        // A second one takes the place of the first.
        access.ban(&[ban("192.0.2.0/24", None)], NOW).unwrap();
        assert_eq!(
            access.bans(NOW).collect::<Vec<_>>(),
            [&ban("192.0.2.0/24", None)]
        );
        assert!(!access.unban(&"192.0.2.7".parse().unwrap(), NOW).unwrap());
        assert!(access.unban(&"192.0.2.0/24".parse().unwrap(), NOW).unwrap());
        assert_eq!(access.denial(ip, NOW), None);
    }

    #[test]
    fn client_is_refused_while_the_name_in_its_certificate_is_banned() {
        let mut access = Access::default();
        access
            .ban(&[ban("cert:bob", Some(1010)), ban("10.0.0.0/8", None)], NOW)
            .unwrap();
        let denial =
            |name: Option<&str>, now| access.certificate_denial(|| name.map(Into::into), now);
        let banned = Denied::Banned("cert:bob".parse().unwrap());
        assert_eq!(denial(Some("bob"), NOW), Some(banned));
        assert_eq!(denial(Some("bobby"), NOW), None);
        assert_eq!(denial(None, NOW), None);
        assert_eq!(denial(Some("bob"), Duration::from_secs(1010)), None);
    }

    #[test]
    fn number_of_bans_is_bounded() {
        let mut access = Access::default();
        for index in 0..MAX_BANS as u32 {
            let network = Network::from(IpAddr::from(index.to_be_bytes()));
            access.bans.push(Ban {
                banned: Banned::Network(network),
                until: None,
            });
        }
        let refused = access.ban(&[ban("192.0.2.0/24", None)], NOW).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("there are 10000 bans already"),
            "{refused}"
        );
        assert_eq!(access.bans(NOW).count(), MAX_BANS);
    }

    #[test]
    fn bans_are_read_again_from_their_file_as_they_were() {
        let path = std::env::temp_dir().join(format!("chatloop-bans-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let mut access = Access::default();
        access.keep_bans_in(&path, NOW).unwrap();
        access.ban(&[ban("192.0.2.0/24", Some(2000))], NOW).unwrap();
        access.ban(&[ban("2001:db8::/32", None)], NOW).unwrap();
        access.ban(&[ban("192.0.2.9", Some(1001))], NOW).unwrap();
        let mut again = Access::default();
        again
            .keep_bans_in(&path, Duration::from_secs(1001))
            .unwrap();
        let kept = [ban("192.0.2.0/24", Some(2000)), ban("2001:db8::/32", None)];
        assert_eq!(again.bans, kept);
        assert_eq!(
            read(&path).unwrap(),
            kept,
            "what has ended is gone from the file"
        );
        again.unban(&"2001:db8::/32".parse().unwrap(), NOW).unwrap();
        assert_eq!(read(&path).unwrap(), kept[..1]);
        fs::write(&path, "# a comment\n\n10.0.0.0/8 never\n10.0.0.0/8 soon\n").unwrap();
        let error = Access::default().keep_bans_in(&path, NOW).unwrap_err();
        assert!(error.to_string().starts_with("line 4 is no ban"), "{error}");
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.ends_with("soon\n"),
            "a file that is not understood is left as it is"
        );
        fs::remove_file(&path).unwrap();
    }
}
