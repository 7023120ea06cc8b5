//! The time of day, from a clock that may stand anywhere.

use std::time::SystemTime;

use jiff::Timestamp;

/// The time of day as a timestamp, which is written as in RFC 3339.
///
/// Years have four digits there. A clock that was set wrong can stand beyond them, and must not end the
/// program: the time is then the last that can be written, or the first.
#[must_use]
pub fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(if time < SystemTime::UNIX_EPOCH {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timestamp_of_any_clock_can_be_written() {
        let epoch = SystemTime::UNIX_EPOCH;
        let year_10000 = Duration::from_secs(253_402_300_800);
        let longest = Duration::from_secs(i64::MAX as u64);
        for (time, written) in [
            (epoch, "1970-01-01T00:00:00Z"),
            (epoch + year_10000, "9999-12-30T22:00:00Z"),
            (epoch + longest, "9999-12-30T22:00:00Z"),
            (epoch - longest, "-009999-01-02T01:59:59Z"),
        ] {
            assert_eq!(format!("{:.0}", timestamp(time)), written);
        }
    }
}
