//! What is shown of a relay: its last figures, and the rates since the ones before.

use std::collections::HashMap;
use std::time::Instant;

use super::figures::Figures;
use super::histogram::Histogram;
use super::members::{Member, MembersTable};

/// An `Answer` is what a relay answered in one sample.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) figures: Figures,
    /// The members, if the relay was asked at its admin socket.
    pub(super) table: Option<MembersTable>,
}

/// A `RelayModel` is what is known of one relay.
#[derive(Debug)]
pub(super) struct RelayModel {
    /// The relay, as the user wrote it.
    pub(super) name: String,
    /// Why the last sample failed, if it did.
    pub(super) failure: Option<String>,
    /// The last answer, and when it came.
    latest: Option<(Answer, Instant)>,
    pub(super) rates: Option<Rates>,
    /// The members' messages a second, sent and received, by identity.
    member_rates: HashMap<String, (f64, f64)>,
}

/// The `Rates` are what happened between two samples, a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) messages: f64,
    pub(super) deliveries: f64,
    pub(super) received_bytes: f64,
    pub(super) sent_bytes: f64,
    pub(super) turns: f64,
    pub(super) wakeups: f64,
    /// The share of the time in which the loop did not wait.
    pub(super) busy: f64,
    /// The share of the time in which senders were paused.
    pub(super) paused: f64,
    /// The share of a CPU that was used.
    pub(super) cpu: Option<f64>,
    pub(super) turn_times: Histogram,
    pub(super) delays: Histogram,
}

/// How a relay is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// No sample has come yet.
    Unknown,
    Healthy,
    Stopping,
    Unreachable,
}

impl Health {
    /// The word for it, on the screen and in JSON.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Stopping => "stopping",
            Self::Unreachable => "unreachable",
        }
    }
}

impl RelayModel {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            failure: None,
            latest: None,
            rates: None,
            member_rates: HashMap::new(),
        }
    }

    /// Notes the result of a sample.
    pub(super) fn update(&mut self, result: Result<Answer, String>, now: Instant) {
        let answer = match result {
            Ok(answer) => answer,
            Err(failure) => {
                self.failure = Some(failure);
                // There are none over a gap in which the relay may have been another one.
                (self.latest, self.rates) = (None, None);
                return;
            }
        };
        self.failure = None;
        self.rates = None;
        self.member_rates.clear();
        if let Some((earlier, at)) = &self.latest
            && answer.figures.continues(&earlier.figures)
        {
            let seconds = now.saturating_duration_since(*at).as_secs_f64();
            if seconds > 0.0 {
                self.rates = Some(Rates::between(&earlier.figures, &answer.figures, seconds));
                self.member_rates = member_rates(earlier, &answer, seconds);
            }
        }
        self.latest = Some((answer, now));
    }

    /// The figures of the last sample.
    pub(super) fn figures(&self) -> Option<&Figures> {
        self.latest.as_ref().map(|(answer, _)| &answer.figures)
    }

    /// The members of the last sample, if the relay was asked at its admin socket.
    pub(super) fn table(&self) -> Option<&MembersTable> {
        self.latest.as_ref()?.0.table.as_ref()
    }

    /// The messages a second that a member sent and received.
    pub(super) fn rates_of(&self, member: &Member) -> Option<(f64, f64)> {
        self.member_rates.get(&member.id).copied()
    }

    pub(super) fn health(&self) -> Health {
        match self.figures() {
            _ if self.failure.is_some() => Health::Unreachable,
            None => Health::Unknown,
            Some(figures) if figures.is_stopping => Health::Stopping,
            Some(_) => Health::Healthy,
        }
    }
}

impl Rates {
    fn between(earlier: &Figures, later: &Figures, seconds: f64) -> Self {
        let rate = |of: fn(&Figures) -> f64| (of(later) - of(earlier)).max(0.0) / seconds;
        let turn_times = later.turn_times.since(&earlier.turn_times);
        let cpu = later.cpu_seconds.zip(earlier.cpu_seconds);
        Self {
            messages: rate(|figures| figures.messages),
            deliveries: rate(|figures| figures.deliveries),
            received_bytes: rate(|figures| figures.received_bytes),
            sent_bytes: rate(|figures| figures.sent_bytes),
            turns: rate(|figures| figures.turns),
            wakeups: rate(|figures| figures.wakeups),
            // The two samples are not taken at exactly the times at which they arrive.
            busy: (turn_times.sum() / seconds).min(1.0),
            paused: rate(|figures| figures.paused_seconds).min(1.0),
            cpu: cpu.map(|(later, earlier)| (later - earlier).max(0.0) / seconds),
            turn_times,
            delays: later.delays.since(&earlier.delays),
        }
    }
}

fn member_rates(earlier: &Answer, later: &Answer, seconds: f64) -> HashMap<String, (f64, f64)> {
    let (Some(earlier), Some(later)) = (&earlier.table, &later.table) else {
        return HashMap::new();
    };
    let members = earlier.members.iter();
    let before: HashMap<_, _> = members.map(|member| (&member.id, member)).collect();
    let rates = later.members.iter().filter_map(|member| {
        let before = before.get(&member.id)?;
        let rate = |later: u64, earlier: u64| later.saturating_sub(earlier) as f64 / seconds;
        let rates = (
            rate(member.sent, before.sent),
            rate(member.received, before.received),
        );
        Some((member.id.clone(), rates))
    });
    rates.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn answer(messages: f64, started: f64, sent: u64) -> Answer {
        let table = format!(
            r#"{{"slow":"pace","soft_limit":1,"queue_limit":2,"members":[{{"id":"7","name":"a",
            "address":"","dialect":"","age":0,"sent":{sent},"received":9,"pending":0,"state":"ok"}}]}}"#
        );
        Answer {
            figures: Figures {
                messages,
                started: Some(started),
                turn_times: Histogram::new(vec![(f64::INFINITY, messages)], messages / 100.0),
                ..Figures::default()
            },
            table: Some(MembersTable::parse(table.as_bytes()).unwrap()),
        }
    }

    #[test]
    fn rates_are_differences_over_the_time_between_two_answers() {
        let now = Instant::now();
        let mut relay = RelayModel::new("one".to_owned());
        relay.update(Ok(answer(100.0, 1.0, 5)), now);
        assert_eq!(relay.rates, None);
        relay.update(Ok(answer(150.0, 1.0, 8)), now + Duration::from_secs(2));
        let rates = relay.rates.as_ref().unwrap();
        assert_eq!((rates.messages, rates.busy), (25.0, 0.25));
        let member = &relay.table().unwrap().members[0];
        assert_eq!(relay.rates_of(member), Some((1.5, 0.0)));
    }

    #[test]
    fn relay_that_was_started_again_has_no_rates_until_its_second_answer() {
        let now = Instant::now();
        let mut relay = RelayModel::new("one".to_owned());
        relay.update(Ok(answer(100.0, 1.0, 5)), now);
        relay.update(Ok(answer(150.0, 2.0, 5)), now + Duration::from_secs(1));
        assert_eq!(relay.rates, None);
        relay.update(Ok(answer(10.0, 2.0, 5)), now + Duration::from_secs(2));
        assert_eq!(relay.rates, None, "a counter went back");
        relay.update(Err("gone".to_owned()), now + Duration::from_secs(3));
        assert_eq!(relay.health(), Health::Unreachable);
        relay.update(Ok(answer(20.0, 2.0, 5)), now + Duration::from_secs(4));
        assert_eq!((relay.health(), &relay.rates), (Health::Healthy, &None));
    }
}
