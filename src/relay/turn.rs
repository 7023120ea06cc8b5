//! The turn: who is ready is served, and what was said goes out.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use log::info;

use super::connection::{InputEnd, Outcome, State};
use super::delivery::{Delivered, Delivery, Part, Trouble};
use super::departure::mark;
use super::lines::Line;
use super::ready::ReadyLists;
use super::{CloseReason, ConnId, Deadline, Ready, Relay, after, get_mut};
use crate::wire::Dialect;

/// How much of a connection that pays for what it says is read at once, in bytes: a large room makes a
/// large bill of it.
const CHARGED_READ: usize = 4096;

impl<S: Read + Write> Relay<S> {
    /// Serves whoever is ready: writes what was queued, reads what there is, collects what is said.
    ///
    /// `scratch` is the loop's one read buffer; its length is each connection's read budget for the
    /// turn. Who has not been read when the turn's budget is used up, and who has more to read or
    /// write than a turn allows, stays on its ready list. `now` is the time of the turn.
    pub fn serve_ready(&mut self, scratch: &mut [u8], now: Instant) {
        self.now = now;
        for _ in 0..self.ready.to_flush() {
            if let Some(id) = self.ready.next_to_flush() {
                self.flush(id);
            }
        }
        let budget = self.limits.turn_budget;
        let read_before = self.counters.bytes_in;
        for _ in 0..self.ready.to_read() {
            let read = self.counters.bytes_in - read_before;
            if self.has_said_enough() || read >= budget as u64 {
                return;
            }
            if let Some(id) = self.ready.next_to_read()
                && let Some(share) = self.share(id, scratch.len())
            {
                let is_waiting = self.waiting.is_on();
                let said_before = if is_waiting { self.said_in_part() } else { 0 };
                if self.receive(id, &mut scratch[..share]) {
                    self.ready.read_again(id);
                }
                if is_waiting {
                    // What was read of it before the room waited is free: to pay for that all at once
                    // would silence everybody for minutes.
                    let said = self.said_in_part().saturating_sub(said_before);
                    self.waiting.spend(said);
                }
            }
        }
    }

    /// How much was said in this turn, with all that was read of messages which are not whole, in bytes.
    fn said_in_part(&self) -> usize {
        self.channels.most_said() + self.unfinished
    }

    /// Whether so much was said in this turn that it should end.
    #[must_use]
    pub fn has_said_enough(&self) -> bool {
        self.channels.said_len() >= self.limits.turn_budget
    }

    /// How much of the budget a connection may be read now, in bytes. If it is nothing, it was put where
    /// it is found again.
    fn share(&mut self, id: ConnId, budget: usize) -> Option<usize> {
        if self.waiting.is_empty() && !self.spending.is_limited() {
            return Some(budget);
        }
        let connection = get_mut(&mut self.connections, id)?;
        let Some(header_width) = connection.dialect.rules().header_width else {
            return Some(budget);
        };
        if !connection.is_member() && self.waiting.is_on() {
            // Its name and no more, or its first words would not wait.
            let missing = connection.decoder.missing(header_width);
            return Some(budget.min(missing.max(1)));
        }
        if !connection.is_member() || connection.leaving().is_some() {
            return Some(budget);
        }
        // The place of one that is gone is not kept for as long as it would have to rest: its last words
        // are no more than its socket holds.
        let is_gone = connection.is_gone();
        if !is_gone && self.waiting.is_for_itself(id) {
            ReadyLists::rest(connection);
            return None;
        }
        if !is_gone && let Some(free_at) = self.spending.rest(id, self.now) {
            ReadyLists::rest(connection);
            if self.resting_line.is_due(self.now) {
                let wait = (free_at - self.now).as_secs_f64();
                info!(
                    "not read from for {wait:.1} s: {} (limit: --rate)",
                    connection.who()
                );
            }
            self.deadlines.push((free_at, Deadline::Rested(id)));
            return None;
        }
        let budget = if self.spending.is_limited() {
            budget.min(CHARGED_READ)
        } else {
            budget
        };
        if !self.waiting.is_on() {
            return Some(budget);
        }
        let had_share = connection.ready.any(Ready::HAD_SHARE);
        if had_share || !self.waiting.has_allowance() {
            self.ready.park(id, had_share);
            return None;
        }
        connection.ready.insert(Ready::HAD_SHARE);
        Some(budget.min(self.waiting.take_share(id)))
    }

    /// Writes what is queued for one connection.
    fn flush(&mut self, id: ConnId) {
        let Some(connection) = get_mut(&mut self.connections, id) else {
            return;
        };
        if !connection.is_member() || !connection.ready.any(Ready::WRITABLE) {
            return;
        }
        let mut decided = None;
        let channel = &mut self.channels[connection.dialect];
        match connection.flush(channel) {
            Outcome::Done(sent) => {
                self.counters.bytes_out += sent as u64;
                if sent > 0 {
                    channel.silent_half_closed.remove(&id);
                    if let Some(member) = &mut connection.behind {
                        let behind = member.queue.cost(&channel.backlog);
                        let limits = &channel.pace_limits;
                        let verdict = member.pace.took(sent as u64, behind, limits, self.now);
                        decided = Some((verdict, behind));
                    }
                }
            }
            Outcome::Blocked => {}
            Outcome::Failed(kind) => return self.break_off(id, kind),
        }
        if connection.ready.any(Ready::WRITABLE) {
            self.ready.flush_again(id);
        }
        if let (Some(leave), None) = (connection.leaving(), &connection.behind) {
            mark(connection, id.key(), leave.into(), &mut self.departures);
        }
        if connection.behind.is_none() {
            self.stop_waiting(id);
        } else if let Some((verdict, behind)) = decided {
            self.obey(id, verdict, behind);
        }
    }

    /// A connection cannot be written to any more. It is read to its end, and then it goes.
    pub(super) fn break_off(&mut self, id: ConnId, kind: ErrorKind) {
        if let Some(connection) = get_mut(&mut self.connections, id) {
            let channel = &mut self.channels[connection.dialect];
            connection.break_off(kind, &mut channel.backlog);
            let to_its_end = Ready::READABLE | Ready::READ_TO_END;
            self.ready.set(connection, id, to_its_end);
            self.ready.wake(connection, id);
        }
        self.stop_waiting(id);
    }

    /// Reads one connection's share of the turn and deals with what is in it. Says whether there may be
    /// more to read.
    pub(super) fn receive(&mut self, id: ConnId, scratch: &mut [u8]) -> bool {
        let Some(connection) = get_mut(&mut self.connections, id) else {
            return false;
        };
        if matches!(connection.state, State::Closing) {
            return false;
        }
        let dialect = connection.dialect;
        let moment = self.channels[dialect].moment();
        let (was_member, was_leaving) = (connection.is_member(), connection.leaving().is_some());
        let was_inside =
            (was_member && connection.decoder.is_inside_frame()).then(|| connection.said());
        let held_before = connection.decoder.held_bytes();
        let is_charged = self.spending.is_limited();
        let cost_before = if is_charged { self.channels.cost() } else { 0 };
        let input = connection.receive(scratch, &self.limits, &mut self.channels);
        self.unfinished = self.unfinished - held_before + connection.decoder.held_bytes();
        self.counters.bytes_in += input.bytes;
        self.counters.messages += input.messages;
        if is_charged {
            let own = self.channels[dialect].said.len() - moment.said;
            let own = if was_member { own as u64 } else { 0 };
            let cost = self.channels.cost().saturating_sub(cost_before + own);
            self.spending.spend(id, cost, self.now);
        }

        let is_readable = connection.ready.any(Ready::READABLE);
        let is_leaving = connection.leaving().is_some();
        let has_joined = connection.is_member() && !was_member;
        let line = Line::acks(input.acks);
        let said = moment.said..self.channels[dialect].said.len();
        if has_joined || !said.is_empty() || line != Line::Nothing || is_leaving != was_leaving {
            connection.ready.insert(Ready::WITHHELD);
            let part = if has_joined {
                self.first_part(id, moment, line)
            } else {
                Part {
                    span: said,
                    line,
                    history: None,
                }
            };
            self.parts.push((id, part));
        }
        if has_joined {
            self.nameless.remove(&id);
            self.count_joined(id);
        }
        let connection = &mut self.connections[id.key()];
        if input.bytes > 0
            && let Some(heard) = self.heard_from.get_mut(&id)
        {
            *heard = self.now;
        }
        let said = connection.said();
        let begins = connection.decoder.is_inside_frame()
            && connection.is_member()
            && was_inside != Some(said);
        if begins {
            let held_up = self.held_up(id);
            let due = after(self.now, self.limits.message_timeout);
            let deadline = Deadline::Message { id, said, held_up };
            self.deadlines.push((due, deadline));
        }
        let connection = &mut self.connections[id.key()];
        match input.end {
            InputEnd::Open => {}
            InputEnd::HalfClosed => {
                self.channels[dialect].silent_half_closed.insert(id);
                self.heard_from.remove(&id);
                info!(
                    "closed its sending side: {}: has left, or only listens",
                    connection.who()
                );
            }
            InputEnd::Over(reason) => {
                let reason = match (connection.leaving(), reason) {
                    // It was about to go, and has not waited for what was queued.
                    (Some(leave), CloseReason::Eof | CloseReason::Io(_)) => leave.into(),
                    (_, reason) => reason,
                };
                mark(connection, id.key(), reason, &mut self.departures);
            }
        }
        is_readable
    }

    /// Delivers what was said in this turn: one write to each member.
    pub fn fan_out(&mut self) {
        let now = self.now;
        let channels = self.channels.each_mut().each_mut();
        let mut deliveries = channels.map(|channel| Delivery::new(channel, now));
        let mut newly_leaving = Vec::new();
        let mut troubled = Vec::new();
        // First all who hear everything: as a rule nearly everybody. That is one walk for each dialect
        // in which something was said.
        for (dialect, delivery) in Dialect::ALL.into_iter().zip(&mut deliveries) {
            if !delivery.is_due() {
                continue;
            }
            for (key, connection) in &mut self.connections {
                if connection.dialect == dialect
                    && connection.hears()
                    && !connection.ready.any(Ready::WITHHELD)
                    && let Err(trouble) = delivery.deliver(connection)
                {
                    troubled.push((key, trouble));
                }
            }
            // All of them were written to now: who is gone will answer with a reset.
            delivery.silent_half_closed.clear();
        }
        // Who leaves hears nothing more, but holds on to what is said until it has taken its last.
        for &id in &self.leaving {
            if let Some(connection) = get_mut(&mut self.connections, id)
                && let delivery = &deliveries[connection.dialect.index()]
                && delivery.is_due()
                && let Err(trouble) = delivery.check(connection)
            {
                troubled.push((id.key(), trouble));
            }
        }
        // Then those who spoke or joined in this turn, each less its part.
        for (id, part) in self.parts.drain(..) {
            let Some(connection) = get_mut(&mut self.connections, id) else {
                continue;
            };
            connection.ready.remove(Ready::WITHHELD);
            let delivery = &mut deliveries[connection.dialect.index()];
            if connection.broken.is_some() {
                continue;
            }
            if !connection.is_member() {
                delivery.answer(connection, part.line);
                continue;
            }
            if connection.is_half_closed() {
                if part.line == Line::Nothing && part.span.len() == delivery.len() {
                    // It was the only one to speak, so nothing is written to it.
                    delivery.silent_half_closed.insert(id);
                } else {
                    // It is answered, though nothing may have been said that takes any bytes.
                    delivery.silent_half_closed.remove(&id);
                }
            }
            let leave = connection.leaving();
            match delivery.deliver_rest(connection, &part) {
                Ok(Delivered::ForNow) => {}
                Ok(Delivered::InPart) => self.ready.set(connection, id, Ready::WRITABLE),
                Err(trouble @ Trouble::FarBehind { .. }) => {
                    // Its socket may not have said that it is full.
                    self.ready.set(connection, id, Ready::WRITABLE);
                    // Who goes in any case is sent what is queued.
                    if leave.is_none() {
                        troubled.push((id.key(), trouble));
                    }
                }
                Err(trouble @ Trouble::Broken(_)) => {
                    troubled.push((id.key(), trouble));
                    continue;
                }
            }
            let Some(leave) = leave else {
                continue;
            };
            if delivery.end_queue(connection) {
                newly_leaving.push(id);
            } else {
                mark(connection, id.key(), leave.into(), &mut self.departures);
            }
        }
        self.counters.bytes_out += deliveries.iter().map(|one| one.bytes_out).sum::<u64>();
        for (key, trouble) in troubled {
            let connection = &mut self.connections[key];
            let id = ConnId::new(key, connection.generation);
            match (trouble, &mut connection.behind) {
                (Trouble::FarBehind { behind }, Some(member)) => {
                    let limits = &self.channels[connection.dialect].pace_limits;
                    let verdict = member.pace.judge(behind, limits, now);
                    self.obey(id, verdict, behind);
                }
                (Trouble::FarBehind { .. }, None) => {}
                (Trouble::Broken(kind), _) => self.break_off(id, kind),
            }
        }
        for id in newly_leaving {
            self.begin_leaving(id);
        }
        for channel in self.channels.each_mut() {
            channel.end_turn();
        }
        if self.held_bytes() > self.limits.max_memory {
            self.free_memory();
        }
    }
}
