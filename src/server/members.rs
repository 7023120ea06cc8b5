//! The members as JSON, in parts.
//!
//! Ten thousand members are over a megabyte of text. A client that asks for them may read slowly or not at all,
//! so the text is made in parts of some kilobytes, each when the one before it was accepted: a turn makes one
//! part for a client, and a client never holds more memory than that. The parts are of different turns. A member
//! that is there from the first part to the last is in exactly one of them.

use std::fmt::Write;
use std::time::Instant;

use crate::relay::{MemberInfo, Relay, Slow};
use crate::text::JsonField;
use crate::wire::Naming;

/// A part ends with the member that makes it this long, in bytes.
const PART_BYTES: usize = 32 * 1024;

/// How many slots a part covers at most. Most slots can be empty.
const PART_SLOTS: usize = 4096;

/// Where the next part begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    slot: usize,
    /// A member stands before this, so that a comma must follow it.
    has_members: bool,
}

/// The part of the text that begins here, and where the next one begins if there is one.
///
/// The whole is an object with a line for each member.
pub(super) fn part<S>(relay: &Relay<S>, from: Cursor, now: Instant) -> (String, Option<Cursor>) {
    let mut text = String::with_capacity(PART_BYTES + 1024);
    if from == Cursor::default() {
        push_head(&mut text, relay);
    }
    let slots = relay.slots();
    let end = slots.min(from.slot + PART_SLOTS);
    let mut next = from;
    while next.slot < end && text.len() < PART_BYTES {
        if let Some(member) = relay.member_in_slot(next.slot, now) {
            text.push_str(if next.has_members { ",\n" } else { "\n" });
            push_member(&mut text, &member);
            next.has_members = true;
        }
        next.slot += 1;
    }
    if next.slot < slots {
        return (text, Some(next));
    }
    text.push_str("\n]}\n");
    (text, None)
}

/// Writing to a string does not fail, here and below.
fn push_head<S>(text: &mut String, relay: &Relay<S>) {
    let limits = relay.limits();
    let slow = match limits.slow {
        Slow::Pace => "pace",
        Slow::Cut => "cut",
    };
    let _ = write!(
        text,
        "{{\"slow\":\"{slow}\",\"soft_limit\":{},\"queue_limit\":{},\"members\":[",
        limits.soft_limit, limits.queue_limit
    );
}

fn push_member(text: &mut String, member: &MemberInfo<'_>) {
    let rules = member.dialect.rules();
    let _ = write!(text, "{{\"id\":\"{:x}\",", usize::from(member.id));
    let _ = match rules.naming {
        Naming::FirstFrame => write!(text, "{}", JsonField("name", member.name)),
        Naming::Address => write!(text, "\"name\":null"),
    };
    let _ = write!(
        text,
        ",\"address\":\"{}\",\"dialect\":\"{}\",\"age\":{},\"sent\":{},\"received\":{},\"pending\":{},\"state\":\"{}\"}}",
        member.peer,
        rules.name,
        member.age.as_secs(),
        member.sent,
        member.received,
        member.pending,
        member.state.word()
    );
}
