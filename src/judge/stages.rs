//! The nine stages, in the order in which a server learns them.

use std::fmt;
use std::mem;
use std::time::Duration;

use super::clients::{Check, Clients, Id, frame};
use super::failure::Failure;

/// The number of clients in the stage with many. Programs that use `select` stop at 1,024.
pub const CROWD: usize = 1100;

/// The time of silence that stands for an hour.
const SILENCE: Duration = Duration::from_secs(3);

/// The length of the messages that a slow reader does not read.
const BULK_LEN: usize = 4000;

/// Their number: more than the buffers of a connection hold, which are four megabytes with Linux.
const BULK: usize = 1500;

/// The number of messages that a server has to relay while a connection is reset.
const BURST: usize = 1000;

/// The number of connections that are reset so: a server may happen to have relayed all before the reset.
const RESETS: usize = 10;

/// The files of the guide's chapters.
const CHAPTERS: [&str; 13] = [
    "01_blocking",
    "02_threads",
    "03_busy_loop",
    "04_level",
    "05_framing",
    "06_write_queue",
    "07_edge_lost",
    "08_edge_drained",
    "09_turns",
    "10_accept",
    "11_timers",
    "12_shutdown",
    "13_one_copy",
];

/// One stage.
#[derive(Clone, Copy)]
pub struct Stage {
    /// What happens in it.
    pub title: &'static str,
    /// What a server that fails it has usually done.
    pub explanation: &'static str,
    /// How many clients there are.
    pub clients: usize,
    /// The number of the chapter that explains it.
    chapter: usize,
    run: fn(&mut Clients) -> Check,
}

/// All stages, in order.
pub const STAGES: [Stage; 9] = [
    Stage {
        title: "two clients join and chat",
        explanation: "A client's first frame is its name. Each later one is a message, which the other client \
                      receives after the frame with the name.",
        clients: 2,
        chapter: 1,
        run: chat,
    },
    Stage {
        title: "frames come in pieces, and several in one",
        explanation: "TCP has no messages: recv(10) may return one byte, or the end of one frame and the start \
                      of the next.",
        clients: 2,
        chapter: 4,
        run: pieces,
    },
    Stage {
        title: "a message goes to all others, and not back",
        explanation: "The server must read from each client that has sent something, in any order, and write to \
                      all others.",
        clients: 3,
        chapter: 1,
        run: others,
    },
    Stage {
        title: "messages are empty, long, or not ASCII",
        explanation: "The header counts bytes, not characters, and may be 0. A long message takes many reads, \
                      and after the last one there may be no further event.",
        clients: 2,
        chapter: 7,
        run: lengths,
    },
    Stage {
        title: "a client does not read, and the others go on",
        explanation: "When a client does not read, its buffers fill up: a send blocks, or takes a part. The \
                      other bytes must be kept for this client, and the others must not wait for it.",
        clients: 3,
        chapter: 5,
        run: slow,
    },
    Stage {
        title: "clients reset their connections",
        explanation: "Reading from a connection that was reset, and writing to it, is an error. It must end \
                      this connection, and nothing else.",
        clients: 3,
        chapter: 2,
        run: resets,
    },
    Stage {
        title: "a client ends its input and reads on",
        explanation: "The end of a client's input can come right after its last message, and while output is \
                      pending for it. Neither may be lost.",
        clients: 3,
        chapter: 9,
        run: half_close,
    },
    Stage {
        title: "1,100 clients are in the room",
        explanation: "select() has an end at 1,024 descriptors, and so has a process by default: see `ulimit \
                      -n`, and raise it. Without descriptors, accepting fails.",
        clients: CROWD,
        chapter: 10,
        run: crowd,
    },
    Stage {
        title: "all are silent, one before its name, and then chat",
        explanation: "A silent client is no error, and the others must not wait for it: not for its name either.",
        clients: 4,
        chapter: 11,
        run: silence,
    },
];

impl Stage {
    pub(super) fn play(&self, clients: &mut Clients) -> Check {
        (self.run)(clients)
    }

    /// The path of the chapter that explains a failure.
    #[must_use]
    pub fn chapter_of(&self, failure: &Failure) -> String {
        let chapter = failure.chapter.unwrap_or(self.chapter);
        format!("docs/guide/{}.md", CHAPTERS[chapter - 1])
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stage").field(&self.title).finish()
    }
}

fn chat(clients: &mut Clients) -> Check {
    let [alice, bob] = clients.room(["alice", "bob"])?;
    clients.relay(bob, &[alice], b"hi alice")?;
    clients.relay(alice, &[bob], b"hi bob")
}

/// The clients send in turns, so that a server which reads from them in turns can pass.
fn pieces(clients: &mut Clients) -> Check {
    let [mut alice, mut bob] = clients.room_in_bytes(["alice", "bob"])?;
    mem::swap(&mut alice, &mut bob);
    let hello = frame(b"hello");
    for len in [1, 3] {
        clients.send_parts(alice, &hello, len);
        clients.expect(bob, alice, b"hello")?;
        mem::swap(&mut alice, &mut bob);
    }
    for at in 1..hello.len() {
        clients.send_split(alice, &hello, at);
        clients.expect(bob, alice, b"hello")?;
        mem::swap(&mut alice, &mut bob);
    }
    let both = [frame(b"one"), frame(b"two")].concat();
    clients.send_bytes(alice, &both, ", in one write");
    clients.expect(bob, alice, b"one")?;
    clients.relay(bob, &[alice], b"and?")?;
    clients.expect(bob, alice, b"two")
}

fn others(clients: &mut Clients) -> Check {
    let room = clients.room(["alice", "bob", "carol"])?;
    for round in 0..3 {
        for from in room {
            let to: Vec<_> = room.into_iter().filter(|&id| id != from).collect();
            clients.relay(from, &to, format!("message {round}").as_bytes())?;
        }
    }
    let [alice, bob, carol] = room;
    for message in [b"one", b"two"] {
        clients.send(alice, message);
    }
    for to in [bob, carol] {
        clients.expect(to, alice, b"one")?;
        clients.expect(to, alice, b"two")?;
    }
    Ok(())
}

fn lengths(clients: &mut Clients) -> Check {
    let [alice, zoe] = clients.room(["alice", "Zoë"])?;
    let long = vec![b'x'; 200_000];
    for message in [
        &b""[..],
        "schön, 你好 🙂".as_bytes(),
        &long[..70_000],
        b"",
        &long,
        b"bye",
    ] {
        clients.relay(zoe, &[alice], message)?;
        clients.relay(alice, &[zoe], message)?;
    }
    Ok(())
}

/// Message `number` of those that a slow reader does not read.
fn bulk(number: usize) -> Vec<u8> {
    format!("{:<BULK_LEN$}", format!("message {number} of {BULK}")).into_bytes()
}

/// Has a client send messages while one does not read. Another one must receive each at once.
fn send_bulk(clients: &mut Clients, from: Id, witness: Id) -> Check {
    for number in 1..=BULK {
        clients.relay(from, &[witness], &bulk(number))?;
    }
    Ok(())
}

fn slow(clients: &mut Clients) -> Check {
    let [alice, carol, bob] = clients.room(["alice", "carol", "bob"])?;
    clients.pause(bob);
    // It is the write to bob that keeps carol waiting.
    send_bulk(clients, alice, carol).map_err(|failure| failure.in_chapter(2))?;
    clients.describe_sent(format!("alice: {BULK} messages, while bob did not read"));
    clients.resume(bob);
    for number in 1..=BULK {
        // A server may close a slow reader. It may not leave anything out and go on.
        if !clients.expect_or_end(bob, alice, &bulk(number))? {
            break;
        }
    }
    Ok(())
}

fn resets(clients: &mut Clients) -> Check {
    let [alice, carol, mut bob] = clients.room(["alice", "carol", "bob"])?;
    let nameless = clients.connect("a client without a name")?;
    clients.send_bytes(nameless, b"5    ", "");
    clients.reset(nameless);
    clients.relay(alice, &[carol, bob], b"one")?;
    clients.pause(bob);
    for number in 1..=50 {
        clients.relay(alice, &[carol], &bulk(number))?;
    }
    reset_in_a_burst(clients, alice, carol, bob)?;
    for _ in 1..RESETS {
        bob = clients.join("bob")?;
        clients.gather(&[alice, carol, bob])?;
        reset_in_a_burst(clients, alice, carol, bob)?;
    }
    clients.relay(carol, &[alice], b"two")
}

/// The server has messages of alice's to read when it meets the reset, so that it writes to bob once more, unless
/// it was faster.
fn reset_in_a_burst(clients: &mut Clients, alice: Id, carol: Id, bob: Id) -> Check {
    let burst: Vec<_> = (1..=BURST).map(|number| number.to_string()).collect();
    let frames: Vec<_> = burst
        .iter()
        .flat_map(|message| frame(message.as_bytes()))
        .collect();
    clients.send_bytes(alice, &frames, "");
    clients.reset(bob);
    clients.describe_sent(format!(
        "alice: {BURST} messages in one write; bob: a reset of his connection"
    ));
    burst
        .iter()
        .try_for_each(|message| clients.expect(carol, alice, message.as_bytes()))
}

fn half_close(clients: &mut Clients) -> Check {
    let [alice, carol, bob] = clients.room(["alice", "carol", "bob"])?;
    let dave = clients.join("dave")?;
    clients.gather(&[alice, carol, bob, dave])?;
    clients.send(dave, b"my last message");
    clients.shutdown(dave);
    for to in [alice, carol, bob] {
        clients.expect(to, dave, b"my last message")?;
    }
    clients.pause(bob);
    send_bulk(clients, alice, carol).map_err(|failure| failure.in_chapter(2))?;
    clients.shutdown(bob);
    // When carol has these, the server has met the end of bob's input.
    for number in 1..=20 {
        clients.relay(alice, &[carol], format!("{number}").as_bytes())?;
    }
    clients.describe_sent(format!(
        "alice: {BULK} messages; then bob ended his input, and only then read"
    ));
    clients.resume(bob);
    (1..=BULK).try_for_each(|number| clients.expect(bob, alice, &bulk(number)))
}

fn crowd(clients: &mut Clients) -> Check {
    let join = |number| clients.join(&format!("client {number}"));
    let ids: Vec<_> = (1..=CROWD).map(join).collect::<Check<_>>()?;
    clients.gather(&ids)?;
    let Some((&last, others)) = ids.split_last() else {
        return Ok(());
    };
    clients.relay(last, others, b"hello, all of you")?;
    clients.relay(ids[0], &[last], b"hello")
}

fn silence(clients: &mut Clients) -> Check {
    clients.connect("a client without a name")?;
    clients.describe_sent("a client connected, and did not send its name".to_owned());
    let [alice, bob, carol] = clients.room(["alice", "bob", "carol"])?;
    clients.expect_silence(&[alice, bob, carol], SILENCE)?;
    clients.relay(alice, &[bob, carol], b"still there?")?;
    clients.relay(carol, &[alice, bob], b"yes")
}
