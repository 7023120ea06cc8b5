//! What happens next.

use std::time::Duration;

use chatloop::server::Request;
use chatloop::wire::Dialect;

use super::faults::Fault;
use super::peer::Stage;
use super::plan::Weights;
use super::trace::Happening;
use super::web;
use super::world::{Phase, World};

/// Something that somebody does, where that is not left to chance.
#[derive(Clone, Debug)]
pub enum Action {
    /// Somebody connects to the listener of this index.
    Connect(usize),
    /// A peer sends a name or a message of so many bytes.
    Say(usize, usize),
    /// A peer takes its leave.
    SayFarewell(usize),
    /// A peer connects to the listener of this index, which is one of WebSocket, and sends the request of that
    /// index.
    Request(usize, usize),
    /// A peer sends these bytes.
    Send(usize, Vec<u8>),
    /// The network delivers all that is under way.
    Settle,
    StopReading(usize),
    ReadAgain(usize),
    CloseSending(usize),
    Close(usize),
    /// A peer takes so many bytes, though it may have stopped reading.
    Take(usize, usize),
    /// The next poll tells once more of the connection that was closed last.
    RepeatEvent,
    Wait(Duration),
    Signal(Request),
}

impl World {
    /// One thing happens.
    pub fn step(&mut self) {
        self.steps += 1;
        if !self.strikes(Fault::ClockStands) {
            self.now += Duration::from_micros(self.choices.below(2000) as u64);
        }
        if let Some(script) = &mut self.script {
            match script.pop_front() {
                Some(action) => self.perform(&action),
                None => self.begin_peace(),
            }
            return;
        }
        if self.steps_left == 0 || self.choices.are_used_up() {
            return self.begin_peace();
        }
        self.steps_left -= 1;
        match self
            .plan
            .stops
            .iter()
            .position(|&at| at == Some(self.steps_left))
        {
            Some(0) => self.stop(Fault::Stop),
            Some(_) if self.stop_by.is_some() => self.stop(Fault::SecondStop),
            _ => self.improvise(),
        }
        self.everybody_reads_in_time();
    }

    /// One thing happens by chance.
    fn improvise(&mut self) {
        let Weights {
            connect,
            say,
            flood,
            change_reading,
            leave,
            misbehave,
            arrive,
            drain,
            wait,
            trouble,
        } = self.plan.weights;
        let network = arrive + drain;
        let kinds = [
            connect,
            say,
            flood,
            change_reading,
            leave,
            misbehave,
            network,
            wait,
            trouble,
        ];
        let mut left = self.choices.below(kinds.iter().sum());
        let kind = kinds.iter().position(|&weight| {
            let is_it = left < weight;
            left = left.saturating_sub(weight);
            is_it
        });
        let somebody = match self.live.len() {
            0 => None,
            peers => Some(self.live[self.choices.below(peers)]),
        };
        match (kind, somebody) {
            (Some(0), _) => self.somebody_connects(),
            (Some(1), Some(who)) => self.somebody_talks(who),
            (Some(2), Some(who)) => {
                for _ in 0..self.choices.between(2, 60) {
                    self.somebody_talks(who);
                }
            }
            (Some(3), Some(who)) => self.somebody_changes_its_reading(who),
            (Some(4), Some(who)) => self.somebody_leaves(who),
            (Some(5), Some(who)) => self.somebody_misbehaves(who),
            (Some(7), _) => self.time_passes(),
            (Some(8), _) => self.trouble_comes(),
            _ => self.network_step(),
        }
    }

    /// Does what a script says.
    fn perform(&mut self, action: &Action) {
        match *action {
            Action::Connect(listener) => self.come(listener, false),
            Action::Say(who, len) => self.say(who, len),
            Action::SayFarewell(who) => self.say_farewell(who),
            Action::Request(listener, index) => {
                let (_, dialect) = self.plan.listener(listener);
                if let Some(who) = self.connect(listener, false) {
                    let head = web::requests(dialect)[index].head.clone();
                    self.peers[who].outgoing = head;
                    self.complete(who);
                }
            }
            Action::Send(who, ref bytes) => self.send(who, bytes),
            Action::Settle => {
                self.network_settles();
            }
            Action::StopReading(who) => self.read_or_not(who, false),
            Action::ReadAgain(who) => self.read_or_not(who, true),
            Action::CloseSending(who) => self.close_sending(who),
            Action::Close(who) => self.close_fully(who),
            Action::Take(who, bytes) => {
                self.sockets[who].is_peer_reading = true;
                self.drain(who, bytes);
                self.sockets[who].is_peer_reading = false;
            }
            Action::RepeatEvent => self.repeat_event(),
            Action::Wait(time) => self.now += time,
            Action::Signal(request) => self.signal(request),
        }
    }

    // The peers.

    fn somebody_connects(&mut self) {
        if self.live.len() < self.plan.peers {
            let listener = self.choices.below(self.has_listeners());
            let is_mute = self.choices.below(8) == 0;
            self.come(listener, is_mute);
        }
    }

    /// A peer connects, and sends its request if it has one.
    fn come(&mut self, listener: usize, is_mute: bool) {
        if let Some(who) = self.connect(listener, is_mute) {
            self.visit(who);
        }
    }

    /// A peer says something, if it has still something to say.
    fn somebody_talks(&mut self, who: usize) {
        let dialect = self.peers[who].dialect;
        let most_ahead = match dialect {
            // It may be read byte by byte.
            Dialect::Echo => 1000,
            _ => 4 * self.plan.window.1 + self.plan.longest_message,
        };
        if self.sockets[who].on_the_way() > most_ahead {
            return;
        }
        match self.peers[who].stage {
            Stage::Visiting => return self.visit(who),
            Stage::Talking if web::is_web_socket(dialect) && self.choices.below(8) == 1 => {
                return self.ping(who);
            }
            _ => {}
        }
        let is_name = self.peers[who].stage == Stage::Nameless;
        let limits = &self.plan.config.limits;
        let longest = if is_name {
            limits.max_name
        } else {
            limits.max_message
        };
        let len = match self.choices.below(32) {
            0..6 => 0,
            6..9 => 1,
            9 => longest,
            10 => longest.saturating_sub(1),
            11 => self.choices.below(longest + 1),
            _ => {
                let usual = longest.min(self.plan.usual_message);
                self.choices.below(usual + 1)
            }
        };
        if self.strikes(Fault::UrgentByte) {
            self.sockets[who].send_urgent();
        }
        self.say(who, len.min(longest));
    }

    /// A peer says something of this length.
    fn say(&mut self, who: usize, len: usize) {
        let peer = &mut self.peers[who];
        if !matches!(peer.stage, Stage::Talking | Stage::Nameless) {
            return;
        }
        if !web::is_web_socket(peer.dialect) {
            peer.stage = Stage::Talking;
            let payload = peer.payload(len);
            let bytes = peer.frame(&payload, &mut self.choices);
            return self.send(who, &bytes);
        }
        let bytes = peer.web_message(len, &mut self.choices);
        peer.stage = Stage::Talking;
        self.complete(who);
        if self.choices.below(8) == 1 {
            // It goes on with it some other time, or never.
            let (now, later) = bytes.split_at(self.choices.below(bytes.len()));
            self.peers[who].outgoing = later.to_vec();
            return self.send(who, now);
        }
        self.send(who, &bytes);
    }

    /// A peer sends what is left of its request or of something that it has begun.
    fn complete(&mut self, who: usize) {
        let rest = std::mem::take(&mut self.peers[who].outgoing);
        if !rest.is_empty() {
            self.send(who, &rest);
        }
    }

    /// A peer sends its request, or its proxy a header, perhaps only a part of it.
    fn visit(&mut self, who: usize) {
        let peer = &mut self.peers[who];
        if self.choices.below(8) == 1 && !peer.outgoing.is_empty() {
            let len = self.choices.below(peer.outgoing.len());
            let part: Vec<_> = peer.outgoing.drain(..len).collect();
            return self.send(who, &part);
        }
        self.complete(who);
        let peer = &mut self.peers[who];
        if peer.goes_on_at_once {
            let is_mute = self.choices.below(16) == 1;
            peer.begin(is_mute);
        }
    }

    /// A peer has received something. When its handshake was answered, it may go on.
    fn go_on(&mut self, who: usize) {
        let answer_len = self.model.answer_len(who) as u64;
        let is_answered = answer_len > 0 && self.sockets[who].taken() >= answer_len;
        if self.peers[who].stage == Stage::Visiting && is_answered {
            let is_mute = self.choices.below(16) == 1;
            self.peers[who].begin(is_mute);
        }
    }

    fn ping(&mut self, who: usize) {
        let peer = &self.peers[who];
        if peer.stage == Stage::Talking && web::is_web_socket(peer.dialect) {
            let bytes = peer.ping(&mut self.choices);
            self.complete(who);
            self.send(who, &bytes);
        }
    }

    fn say_farewell(&mut self, who: usize) {
        let peer = &self.peers[who];
        if web::is_web_socket(peer.dialect) {
            if matches!(peer.stage, Stage::Talking | Stage::Nameless | Stage::Mute) {
                let bytes = peer.close(&mut self.choices);
                self.complete(who);
                self.send(who, &bytes);
            }
            return;
        }
        let own = self.plan.config.texts.farewell.as_deref();
        let word = match peer.dialect {
            Dialect::Chat64 => own.unwrap_or(b"Client Disconnected"),
            Dialect::Ack64 => own.unwrap_or(b"!DISCONNECT"),
            _ => return,
        };
        if peer.stage == Stage::Talking && word.len() <= self.plan.config.limits.max_message {
            let bytes = peer.frame(word, &mut self.choices);
            self.send(who, &bytes);
        }
    }

    fn send(&mut self, who: usize, bytes: &[u8]) {
        let (peer, len) = (who, bytes.len());
        self.trace.note(Happening::Sends { peer, bytes: len });
        self.sockets[who].send(bytes);
    }

    fn somebody_changes_its_reading(&mut self, who: usize) {
        let is_reading = !self.sockets[who].is_peer_reading;
        if self.plan.has_pauses {
            if is_reading {
                return;
            }
            // Long enough to be told from one that takes little.
            let slow = self.plan.config.limits.slow_timeout.as_millis() as usize;
            let millis = self.choices.between(slow / 2 + 1, 7 * slow);
            let pause = Duration::from_millis(millis as u64);
            self.sockets[who].reads_again_at = Some(self.now + pause);
        }
        self.read_or_not(who, is_reading);
        let fault = if is_reading {
            Fault::WindowOpens
        } else {
            Fault::ZeroWindow
        };
        self.strike(fault);
    }

    fn read_or_not(&mut self, who: usize, is_reading: bool) {
        self.trace.note(if is_reading {
            Happening::ReadsAgain { peer: who }
        } else {
            Happening::StopsReading { peer: who }
        });
        self.sockets[who].is_peer_reading = is_reading;
    }

    fn somebody_leaves(&mut self, who: usize) {
        if self.peers[who].stage == Stage::Ended {
            return match self.choices.below(4) {
                0 => self.close_fully(who),
                1 => self.dies(who),
                _ => {}
            };
        }
        match self.choices.below(8) {
            0 | 1 => self.say_farewell(who),
            2 => {
                self.strike(Fault::HalfClose);
                self.close_sending(who);
            }
            3 if self.peers[who].stage == Stage::Talking => {
                self.complete(who);
                let whole = if web::is_web_socket(self.peers[who].dialect) {
                    self.peers[who].web_message(3, &mut self.choices)
                } else {
                    self.peers[who].frame(b"cut", &mut self.choices)
                };
                let len = self.choices.below(whole.len());
                self.strike(Fault::TruncatedFrame);
                self.send(who, &whole[..len]);
                self.close_sending(who);
            }
            4 | 5 => self.close_fully(who),
            _ => self.dies(who),
        }
    }

    fn close_sending(&mut self, who: usize) {
        self.trace.note(Happening::ClosesSending { peer: who });
        self.peers[who].stage = Stage::Ended;
        self.sockets[who].send_fin();
    }

    /// A peer closes its socket. If it has not read everything, its kernel says so with a reset.
    fn close_fully(&mut self, who: usize) {
        self.strike(Fault::FullClose);
        self.trace.note(Happening::Closes { peer: who });
        self.peers[who].stage = Stage::Ended;
        if self.sockets[who].queued() > 0 {
            return self.reset(who, libc::ECONNRESET, true);
        }
        self.sockets[who].send_fin();
        self.sockets[who].has_peer_closed = true;
        self.sockets[who].is_peer_reading = true;
    }

    /// A connection ends without a close.
    fn dies(&mut self, who: usize) {
        match self.choices.below(4) {
            0 => self.reset(who, libc::ECONNRESET, true),
            1 => self.reset(who, libc::ECONNRESET, false),
            2 => self.reset(who, libc::ETIMEDOUT, true),
            _ => self.reset(who, libc::EHOSTUNREACH, true),
        }
    }

    fn reset(&mut self, who: usize, errno: i32, keeps_input: bool) {
        // Linux says so of a reset that comes after the end of the input.
        let is_after_fin = errno == libc::ECONNRESET && self.sockets[who].has_fin_arrived();
        let errno = if is_after_fin { libc::EPIPE } else { errno };
        self.strike(match errno {
            libc::EPIPE => Fault::ResetAfterFin,
            libc::ETIMEDOUT => Fault::TimedOut,
            libc::EHOSTUNREACH => Fault::HostUnreachable,
            _ if keeps_input => Fault::ResetKeepingInput,
            _ => Fault::ResetDroppingInput,
        });
        self.peers[who].stage = Stage::Ended;
        self.die(who, errno, keeps_input);
    }

    fn somebody_misbehaves(&mut self, who: usize) {
        let peer = &self.peers[who];
        if matches!(peer.stage, Stage::Ended | Stage::Visiting) {
            return;
        }
        let is_web_socket = web::is_web_socket(peer.dialect);
        let limits = &self.plan.config.limits;
        let most = limits.max_message.max(limits.max_name);
        let bytes = if is_web_socket && (peer.header_width() == 0 || self.choices.below(2) == 0) {
            peer.bad_web_frame(most, &mut self.choices)
        } else if peer.header_width() == 0 {
            return;
        } else {
            let bad = if self.choices.below(2) == 0 {
                peer.bad_header(&mut self.choices)
            } else {
                let width = peer.header_width();
                let len = self.choices.one_of(&[most as u64 + 1, 9_999_999_999]);
                format!("{len:<width$}").into_bytes()
            };
            if is_web_socket {
                peer.web_frame(web::BINARY, &bad)
            } else {
                bad
            }
        };
        self.complete(who);
        self.send(who, &bytes);
    }

    // The network.

    /// The network does not wait for the end of a turn.
    pub fn network_moves(&mut self) {
        if !self.live.is_empty() && self.strikes(Fault::InTurn) {
            self.network_step();
        }
    }

    /// Something moves for somebody, if there is anything.
    fn network_step(&mut self) {
        let Weights { arrive, drain, .. } = self.plan.weights;
        let arrives = self.choices.below(arrive + drain) < arrive;
        let peers = self.live.len();
        let first = self.choices.below(peers);
        for index in first..first + peers {
            let who = self.live[index % peers];
            let socket = &self.sockets[who];
            if socket.is_reset_due {
                return self.reset_comes(who);
            }
            if arrives && socket.can_arrive() {
                let is_lone = self.strikes(Fault::LoneByte);
                let most = if is_lone {
                    1
                } else {
                    self.choices.between(1, self.longest_piece(who))
                };
                let with_fin = self.choices.below(2) == 0;
                return self.arrive(who, most, with_fin);
            }
            if !arrives && socket.can_drain() {
                let most = self.choices.between(1, self.plan.piece);
                return self.drain(who, most);
            }
        }
    }

    /// The most of a peer's bytes that the network moves at once. A request comes in few pieces.
    fn longest_piece(&self, who: usize) -> usize {
        const OF_REQUEST: usize = 200;
        match self.peers[who].stage {
            Stage::Visiting => self.plan.piece.max(OF_REQUEST),
            _ => self.plan.piece,
        }
    }

    fn arrive(&mut self, who: usize, most: usize, with_fin: bool) {
        let (bytes, is_end) = self.sockets[who].arrive(most, with_fin);
        self.trace.note(Happening::Arrives {
            peer: who,
            bytes,
            is_end,
        });
        self.edge(who);
    }

    fn drain(&mut self, who: usize, most: usize) {
        let (bytes, is_edge) = self.sockets[who].drain(most);
        self.trace.note(Happening::Takes {
            peer: who,
            bytes,
            is_edge,
        });
        if is_edge {
            self.edge(who);
        }
        self.go_on(who);
    }

    fn reset_comes(&mut self, who: usize) {
        self.sockets[who].is_reset_due = false;
        if !self.sockets[who].is_dead() {
            self.reset(who, libc::ECONNRESET, true);
        }
    }

    /// All that is under way arrives, and all who read have read. Says whether anything moved.
    pub fn network_settles(&mut self) -> bool {
        let mut moved = false;
        for index in 0..self.live.len() {
            let who = self.live[index];
            if self.sockets[who].is_reset_due {
                self.reset_comes(who);
                moved = true;
            }
            if self.sockets[who].can_arrive() {
                self.arrive(who, usize::MAX, true);
                moved = true;
            }
            if self.sockets[who].can_drain() {
                self.drain(who, usize::MAX);
                moved = true;
            }
        }
        self.steps += u64::from(moved);
        moved
    }

    /// Who always reads has taken what it was given long enough ago.
    fn everybody_reads_in_time(&mut self) {
        let Some(within) = self.plan.reads_within else {
            return;
        };
        for index in 0..self.live.len() {
            let who = self.live[index];
            let now = self.now;
            if self.sockets[who]
                .reads_again_at
                .take_if(|at| *at <= now)
                .is_some()
            {
                self.sockets[who].given_at = now;
                self.read_or_not(who, true);
                self.strike(Fault::WindowOpens);
            }
            let socket = &self.sockets[who];
            if socket.can_drain() && now >= socket.given_at + within {
                self.drain(who, usize::MAX);
            }
        }
    }

    // Time and trouble.

    /// How much time may pass with nothing else happening. Where everybody reads, and the server is
    /// awake in time for it, that is as long as nobody takes anything and the server has nothing to do.
    fn may_pass(&self) -> Duration {
        let Some(within) = self.plan.reads_within else {
            return Duration::MAX;
        };
        if !self.is_all_told() {
            return Duration::ZERO;
        }
        let sockets = self.live.iter().map(|&who| &self.sockets[who]);
        let given = sockets.filter(|socket| socket.can_drain());
        let due = given.map(|socket| socket.given_at + within);
        let sockets = self.live.iter().map(|&who| &self.sockets[who]);
        let back = sockets.filter_map(|socket| socket.reads_again_at);
        let until = due.chain(back).chain(self.wakes_at).min();
        until.map_or(Duration::MAX, |until| until.saturating_sub(self.now))
    }

    fn time_passes(&mut self) {
        let most = self.choices.one_of(&[1, 20, 200, 1000, 5000]);
        let mut millis = self.choices.below(most + 1) as u64;
        if self.strikes(Fault::ClockJumps) {
            millis = self
                .choices
                .one_of(&[60_000, 3_600_000, 400 * 24 * 3_600_000]);
        }
        self.now += Duration::from_millis(millis).min(self.may_pass());
        self.trace.note(Happening::ClockIs(self.now));
    }

    fn trouble_comes(&mut self) {
        match self.choices.below(8) {
            0..3 => {
                let errors = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
                let errno = self.choices.one_of(&errors);
                self.trace.note(Happening::Shortage { errno });
                if errno == libc::EMFILE {
                    // Somebody else in the process takes all that there are.
                    self.descriptors = self.used_descriptors();
                } else {
                    let millis = self.choices.one_of(&[1, 50, 900, 2000, 10_000]);
                    self.shortage = Some((errno, self.now + Duration::from_millis(millis)));
                }
            }
            3 | 4 => {
                self.trace.note(Happening::ShortageEnds);
                self.end_shortage();
            }
            5 if self.strikes(Fault::DayTurnsBack) => {
                self.day_turned_back += self.choices.below(100_000) as u64;
            }
            6 if self.strikes(Fault::Reload) => self.signal(Request::Reload),
            _ if self.strikes(Fault::Table) => self.signal(Request::Table),
            _ => {}
        }
    }

    fn stop(&mut self, fault: Fault) {
        self.strike(fault);
        self.signal(Request::Stop("SIGTERM"));
    }

    fn end_shortage(&mut self) {
        self.descriptors = self.plan.descriptors;
        self.shortage = None;
    }

    /// Nothing new happens any more.
    fn begin_peace(&mut self) {
        self.trace.note(Happening::PeaceBegins);
        self.end_shortage();
        for index in 0..self.live.len() {
            let who = self.live[index];
            self.sockets[who].is_peer_reading = true;
        }
        let limits = &self.plan.config.limits;
        // Whatever has a deadline has met it by then, and whoever waits has been turned away.
        let longest = limits.handshake_timeout + limits.farewell_timeout;
        let until = self.now + 2 * longest + Duration::from_secs(10);
        self.phase = Phase::Peace { until };
    }
}
