//! Relays, an engine and faults: the steps that are possible, and what must hold.

use std::collections::VecDeque;
use std::time::Duration;

use chatloop::bus::{EntryId, Found, Frames, Reader, Request, Value, Writer};

use crate::engine::{Boot, Engine, Entry, Number, Sent, read_reply};
use crate::explorer::Model;
use crate::promise::{Due, Heard, Sender};

/// What may happen in one exploration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) relays: usize,
    /// How many messages are said.
    pub(crate) messages: u8,
    /// Whether each relay has heard each other before anything else happens.
    pub(crate) has_prologue: bool,
    /// What the relays cannot rely on.
    pub(crate) without: Without,
    pub(crate) faults: Faults,
}

/// A part of the protocol that is made useless: the engine lies, so that the relay does what it would do without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Without {
    Nothing,
    /// An entry that is in the stream twice is of another boot the second time.
    Deduplication,
    /// What is sent again is acknowledged and not added.
    Resending,
    /// A reader that goes back over a gap is given the stream from the gap on.
    ReadingBack,
    /// A reader's last entry is always there.
    LastEntry,
    /// A relay that starts is shown an empty stream.
    Start,
}

/// How often each fault may happen.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(crate) struct Faults {
    /// A writer's connection ends, and with it the replies on their way.
    pub(crate) cuts: u8,
    /// The same, and the engine adds the entry that was on its way at any time after that.
    pub(crate) late: u8,
    /// The engine refuses an entry.
    pub(crate) refusals: u8,
    /// The engine is replaced by one that lacks the end of the stream.
    pub(crate) failovers: u8,
    /// The same behind a proxy that leaves the readers' connections as they are.
    pub(crate) silent_failovers: u8,
    /// The oldest entry is trimmed.
    pub(crate) trims: u8,
    /// A relay is killed and started.
    pub(crate) crashes: u8,
    /// A relay gives up the oldest message that waits for the engine.
    pub(crate) given_up: u8,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Say(usize),
    ConnectWriter(usize),
    /// The engine executes the next command of this relay's writer.
    Execute(usize),
    /// A reply to this relay's writer arrives.
    Reply(usize),
    ConnectReader(usize),
    /// The reader's command is executed and its reply arrives.
    Read(usize),
    /// The engine adds an entry whose connection is gone.
    AddLate(usize),
    Cut(usize),
    CutLate(usize),
    Refuse(usize),
    /// The engine that takes over has only so many entries, and its clock may be behind.
    Failover {
        kept: usize,
        is_behind: bool,
    },
    SilentFailover {
        kept: usize,
        is_behind: bool,
    },
    Trim,
    Crash(usize),
    GiveUp(usize),
}

/// The writer's connection, as far as it is outside of the relay.
#[derive(Clone, Debug, Default, Hash)]
struct Link {
    is_up: bool,
    /// Commands that the engine has not executed.
    requests: VecDeque<Request>,
    /// Replies on their way.
    replies: VecDeque<Value>,
}

#[derive(Clone, Debug, Hash)]
struct Relay {
    boot: Boot,
    /// How many messages the writer has.
    pushed: Number,
    /// How many wait for it.
    waiting: u8,
    writer: Writer,
    link: Link,
    reader: Reader,
    /// The reader's command; none without a connection.
    asked: Option<Request>,
    /// The entry that the reader got last.
    last: Option<Entry>,
    /// What is due of each boot.
    due: Vec<Due>,
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct World {
    engine: Engine,
    relays: Vec<Relay>,
    senders: Vec<Sender>,
    /// Entries whose connections are gone.
    late: Vec<Sent>,
    messages: u8,
    faults: Faults,
    /// Whether readers may lack something without a notice until each sender says another word.
    was_silent: bool,
}

impl Relay {
    /// Sends the writer's commands, and what waits for it.
    fn send(&mut self) {
        while self.waiting > 0 && self.writer.may_push() {
            self.waiting -= 1;
            self.writer.push(&frames(self.boot, self.pushed), 1);
            self.pushed += 1;
        }
        self.link.requests.extend(self.writer.take_requests());
    }

    fn cut_writer(&mut self) {
        self.writer.on_disconnected();
        self.link = Link::default();
    }

    fn cut_reader(&mut self) {
        self.reader.on_disconnected();
        self.asked = None;
    }

    /// Hands the reader a reply, and returns what it found.
    fn take_reply(&mut self, reply: Value) -> Vec<Found> {
        let mut found = Vec::new();
        match self.reader.on_reply(reply, &mut found) {
            Ok(()) => self.asked = self.reader.take_requests().pop(),
            Err(_) => self.cut_reader(),
        }
        found
    }
}

/// One message, as frames of `chat10`: its name is the boot and its text the number.
fn frames(boot: Boot, number: Number) -> Vec<u8> {
    format!("1         {boot}1         {number}").into_bytes()
}

impl World {
    fn new(plan: &Plan) -> Self {
        let mut world = Self {
            engine: Engine::default(),
            relays: Vec::new(),
            senders: Vec::new(),
            late: Vec::new(),
            messages: plan.messages,
            faults: plan.faults,
            was_silent: false,
        };
        for _ in 0..plan.relays {
            let relay = world.new_relay();
            world.relays.push(relay);
        }
        world.settle(plan).expect("nothing goes wrong yet");
        if plan.has_prologue {
            (0..plan.relays).for_each(|at| world.say(at));
            world.settle(plan).expect("nothing goes wrong yet");
        }
        world
    }

    fn new_relay(&mut self) -> Relay {
        let boot = self.senders.len() as Boot;
        self.senders.push(Sender::default());
        for relay in &mut self.relays {
            relay.due.push(Due::default());
        }
        let random = u64::from(boot) + 1;
        Relay {
            boot,
            pushed: 0,
            waiting: 0,
            writer: Writer::new(random, 0),
            link: Link::default(),
            reader: Reader::new(random, 0, 64),
            asked: None,
            last: None,
            due: vec![Due::default(); self.senders.len()],
        }
    }

    fn say(&mut self, relay: usize) {
        let relay = &mut self.relays[relay];
        self.senders[relay.boot as usize].said += 1;
        relay.waiting += 1;
        relay.send();
    }

    /// Takes the next command of a writer.
    fn take_request(&mut self, relay: usize) -> Request {
        let requests = &mut self.relays[relay].link.requests;
        requests.pop_front().expect("there is a command")
    }

    fn execute(&mut self, relay: usize, without: Without) {
        let request = self.take_request(relay);
        let boot = self.relays[relay].boot;
        let reply = if let Request::Add { batch, .. } = &request {
            let number = batch.first as u8;
            let sent = &mut self.senders[boot as usize].sent;
            let is_again = *sent > number;
            *sent = (*sent).max(number + 1);
            if without == Without::Resending && is_again {
                Value::Bytes(b"1-0".into())
            } else {
                self.engine.add(Sent::new(boot, &request))
            }
        } else {
            self.engine.reply(&request)
        };
        self.relays[relay].link.replies.push_back(reply);
        // Only the order of entries and of what follows them matters.
        if !matches!(request, Request::Add { .. }) && self.relays[relay].link.replies.len() == 1 {
            self.reply(relay);
        }
    }

    fn reply(&mut self, relay: usize) {
        let relay = &mut self.relays[relay];
        let reply = relay.link.replies.pop_front().expect("there is a reply");
        match relay.writer.on_reply(reply) {
            Ok(()) => relay.send(),
            Err(_) => relay.cut_writer(),
        }
    }

    fn connect_reader(&mut self, at: usize) {
        let relay = &mut self.relays[at];
        relay.reader.on_connected(Duration::ZERO);
        relay.asked = relay.reader.take_requests().pop();
    }

    /// The receiver begins now: what is in the stream is not for it.
    fn begin(&mut self, at: usize) {
        for (boot, due) in self.relays[at].due.iter_mut().enumerate() {
            let entries = self.engine.stream.iter().map(|entry| &entry.sent);
            let there = entries.filter(|sent| sent.boot as usize == boot);
            due.next = there.map(|sent| sent.number + 1).max();
            due.first = self.senders[boot].said;
        }
    }

    /// The reply to a reader's command.
    fn reply_to_reader(&self, at: usize, without: Without) -> Value {
        let Relay { asked, last, .. } = &self.relays[at];
        let request = asked.as_ref().expect("it has asked");
        match (request, without, last) {
            (Request::At(_), Without::LastEntry, Some(last)) => Value::Array(vec![last.listed()]),
            (Request::After(EntryId::START), Without::ReadingBack, Some(last)) => read_reply(last),
            (Request::Time | Request::Before(_), Without::Start, _) => {
                Engine::default().reply(request)
            }
            _ => self.engine.reply(request),
        }
    }

    /// Whether there is a reply to the reader's command, or it makes a difference to it that there is none.
    fn can_read(&self, at: usize) -> bool {
        let Relay { asked, reader, .. } = &self.relays[at];
        match asked {
            None => false,
            Some(Request::After(id)) if self.engine.after(*id).is_none() => {
                let mut after = reader.clone();
                let is_taken = after.on_reply(Value::Null, &mut Vec::new()).is_ok();
                after.take_requests();
                is_taken && after != *reader
            }
            Some(_) => true,
        }
    }
}

impl World {
    fn read(&mut self, at: usize, without: Without) -> Result<(), String> {
        if let Some(Request::Before(_)) = self.relays[at].asked {
            self.begin(at);
        }
        let mut reply = self.reply_to_reader(at, without);
        let relay = &mut self.relays[at];
        if let Some(Request::After(id)) = relay.asked
            && reply != Value::Null
            && let Some(entry) = self.engine.after(id)
        {
            let is_again = relay.due[entry.sent.boot as usize].has_come(entry.sent.number);
            if without == Without::Deduplication && is_again && entry.sent.boot != relay.boot {
                reply = read_reply(&entry.of_another_boot());
            }
            if without != Without::ReadingBack || id != EntryId::START {
                relay.last = Some(entry.clone());
            }
        }
        for found in relay.take_reply(reply) {
            let heard = match found {
                Found::Messages { bytes, .. } => delivered(&bytes)?,
                Found::Missing { node, messages } => Heard::Missing(node[0], messages as Number),
                Found::HistoryRead => continue,
                Found::Unreadable(id) => return Err(format!("{id} is unreadable")),
            };
            self.hear(at, heard)
                .map_err(|error| format!("relay {at}: {error}"))?;
        }
        Ok(())
    }

    fn hear(&mut self, at: usize, heard: Heard) -> Result<(), String> {
        let (Heard::Delivered(of, _) | Heard::Missing(of, _)) = heard;
        let is_living = self.relays.iter().any(|relay| relay.boot == of);
        self.relays[at].due[of as usize].hear(heard, &self.senders[of as usize], is_living)
    }

    /// Replaces the engine by one that has the first entries only. All writers lose their connections.
    fn fail_over(&mut self, kept: usize, is_behind: bool) {
        self.engine.stream.truncate(kept);
        self.engine.is_behind = is_behind;
        if is_behind {
            self.engine.last_id = self.engine.stream.last().map_or(0, |entry| entry.id);
        }
        self.late.clear();
        self.relays.iter_mut().for_each(Relay::cut_writer);
    }

    /// Takes steps without faults until none is possible.
    fn settle(&mut self, plan: &Plan) -> Result<(), String> {
        for _ in 0..1000 {
            let Some(step) = self.ordinary_steps().next() else {
                return Ok(());
            };
            plan.take(self, step)?;
        }
        Err("the relays do not come to rest".into())
    }

    fn ordinary_steps(&self) -> impl Iterator<Item = Step> {
        let of_relay = move |at: usize| {
            let Relay { link, asked, .. } = &self.relays[at];
            [
                (!link.is_up).then_some(Step::ConnectWriter(at)),
                (!link.replies.is_empty()).then_some(Step::Reply(at)),
                (!link.requests.is_empty()).then_some(Step::Execute(at)),
                asked.is_none().then_some(Step::ConnectReader(at)),
                self.can_read(at).then_some(Step::Read(at)),
            ]
        };
        let late = (0..self.late.len()).map(Step::AddLate);
        (0..self.relays.len())
            .flat_map(of_relay)
            .flatten()
            .chain(late)
    }

    fn faults(&self, steps: &mut Vec<Step>) {
        let faults = &self.faults;
        for (at, Relay { link, waiting, .. }) in self.relays.iter().enumerate() {
            let adds = matches!(link.requests.front(), Some(Request::Add { .. }));
            let possible = [
                (faults.cuts > 0 && link.is_up, Step::Cut(at)),
                (faults.late > 0 && adds, Step::CutLate(at)),
                (faults.refusals > 0 && adds, Step::Refuse(at)),
                (faults.crashes > 0, Step::Crash(at)),
                (faults.given_up > 0 && *waiting > 0, Step::GiveUp(at)),
            ];
            let possible = possible.into_iter().filter(|(is_possible, _)| *is_possible);
            steps.extend(possible.map(|(_, step)| step));
        }
        for kept in 0..self.engine.stream.len() {
            for is_behind in [false, true] {
                if faults.failovers > 0 {
                    steps.push(Step::Failover { kept, is_behind });
                }
                if faults.silent_failovers > 0 {
                    steps.push(Step::SilentFailover { kept, is_behind });
                }
            }
        }
        if faults.trims > 0 && !self.engine.stream.is_empty() {
            steps.push(Step::Trim);
        }
    }

    fn take_fault(&mut self, step: Step) {
        let faults = &mut self.faults;
        match step {
            Step::Cut(at) => {
                faults.cuts -= 1;
                self.relays[at].cut_writer();
            }
            Step::CutLate(at) => {
                faults.late -= 1;
                let request = self.take_request(at);
                self.late.push(Sent::new(self.relays[at].boot, &request));
                self.relays[at].cut_writer();
            }
            Step::Refuse(at) => {
                faults.refusals -= 1;
                self.take_request(at);
                let reply = Value::Error(b"OOM command not allowed".into());
                self.relays[at].link.replies.push_back(reply);
            }
            Step::Failover { kept, is_behind } => {
                faults.failovers -= 1;
                self.fail_over(kept, is_behind);
                self.relays.iter_mut().for_each(Relay::cut_reader);
            }
            Step::SilentFailover { kept, is_behind } => {
                faults.silent_failovers -= 1;
                self.was_silent = true;
                self.fail_over(kept, is_behind);
            }
            Step::Trim => {
                faults.trims -= 1;
                let sent = self.engine.stream.remove(0).sent;
                self.senders[sent.boot as usize].lose(sent.number);
            }
            Step::Crash(at) => {
                faults.crashes -= 1;
                self.relays[at] = self.new_relay();
            }
            Step::GiveUp(at) => {
                faults.given_up -= 1;
                let relay = &mut self.relays[at];
                self.senders[relay.boot as usize].lose(relay.pushed);
                relay.waiting -= 1;
                relay.pushed += 1;
                relay.writer.give_up(1);
            }
            other => unreachable!("{other:?} is no fault"),
        }
    }

    /// Whether each living relay has what each other has said.
    fn check_settled(&self, is_complete: impl Fn(Due, &Sender) -> bool) -> Result<(), String> {
        for (at, relay) in self.relays.iter().enumerate() {
            for of in self.relays.iter().filter(|of| of.boot != relay.boot) {
                let (due, sender) = (relay.due[of.boot as usize], &self.senders[of.boot as usize]);
                if !is_complete(due, sender) {
                    return Err(format!(
                        "relay {at} lacks messages of boot {}: {due:?}, {sender:?}",
                        of.boot
                    ));
                }
            }
        }
        Ok(())
    }
}

fn delivered(bytes: &[u8]) -> Result<Heard, String> {
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
    let mut frames = Frames::new(bytes);
    let message = frames
        .next()
        .and_then(|(boot, text)| Some(Heard::Delivered(number(boot)?, number(text)?)));
    message
        .filter(|_| frames.next().is_none())
        .ok_or_else(|| "an entry has one message".into())
}

impl Model for Plan {
    type State = World;
    type Step = Step;

    fn start(&self) -> World {
        World::new(self)
    }

    fn steps(&self, world: &World, steps: &mut Vec<Step>) {
        if world.messages > 0 {
            steps.extend((0..world.relays.len()).map(Step::Say));
        }
        steps.extend(world.ordinary_steps());
        world.faults(steps);
    }

    fn take(&self, world: &mut World, step: Step) -> Result<(), String> {
        match step {
            Step::Say(at) => {
                world.messages -= 1;
                world.say(at);
            }
            Step::ConnectWriter(at) => {
                let relay = &mut world.relays[at];
                relay.link.is_up = true;
                relay.writer.on_connected();
                relay.send();
            }
            Step::Execute(at) => world.execute(at, self.without),
            Step::Reply(at) => world.reply(at),
            Step::ConnectReader(at) => world.connect_reader(at),
            Step::Read(at) => world.read(at, self.without)?,
            Step::AddLate(at) => {
                let sent = world.late.remove(at);
                world.engine.add(sent);
            }
            fault => world.take_fault(fault),
        }
        Ok(())
    }

    /// Whatever has happened: when nothing happens any more, each relay has everything. Only what is gone from
    /// the stream may be lacking, and with the next word of its sender it is counted.
    ///
    /// All that can happen is explored, so it is enough to look where nothing happens any more. That this comes
    /// to pass is tried from one state in sixteen.
    fn check(&self, world: &World, hash: u64) -> Result<(), String> {
        let is_settled = world.ordinary_steps().next().is_none();
        if !is_settled && !hash.is_multiple_of(16) {
            return Ok(());
        }
        let mut world = world.clone();
        world.settle(self)?;
        if !world.was_silent {
            world.check_settled(Due::is_complete)?;
        }
        (0..world.relays.len()).for_each(|at| world.say(at));
        world.settle(self)?;
        world.check_settled(|due, sender| due.next == Some(sender.said))
    }
}
