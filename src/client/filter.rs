//! The client in a pipe: each line of input is a message, each message a line of output.

use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use mio::event::Event;
use mio::{Registry, Token};

use super::ask::Ask;
use super::display::{Clock, Format, write_line};
use super::error::ClientError;
use super::limits::MAX_PENDING;
use super::lines::LineSplitter;
use super::session::MAX_PAYLOAD;
use super::stdio::{Sink, Source};
use crate::clock::timestamp;

/// How much to read at once, in bytes: what a pipe holds.
const INPUT: usize = 64 * 1024;

/// Programs or files where a person would be.
#[derive(Debug)]
pub(super) struct Filter {
    /// Until it ends.
    input: Option<Source>,
    lines: LineSplitter,
    /// How many lines there were.
    count: u64,
    /// Whether to go on listening after the end of the input.
    stay: bool,
    /// As long as somebody reads it.
    output: Option<Sink>,
    notices: Sink,
    format: Format,
    clock: Option<Clock>,
}

/// What to read and to write, and how.
#[derive(Debug)]
pub struct Streams {
    /// Each line of this is a message. Without it, the client only listens.
    pub input: Option<OwnedFd>,
    /// Each message is a line of this.
    pub output: OwnedFd,
    /// Where everything else goes that there is to tell, a line each.
    pub notices: OwnedFd,
    /// How the lines of the output look.
    pub format: Format,
    /// With a clock, the lines say when it was.
    pub clock: Option<Clock>,
    /// Whether to go on listening after the end of the input.
    pub stay: bool,
}

impl Filter {
    pub(super) fn start(
        streams: Streams,
        registry: &Registry,
        [input, output, notices]: [Token; 3],
    ) -> Result<Self, ClientError> {
        let source = match streams.input {
            Some(fd) => Some(Source::new(fd, registry, input).map_err(ClientError::Input)?),
            None => None,
        };
        let no_input = source.is_none();
        let output = Sink::new(streams.output, registry, output);
        let notices = Sink::new(streams.notices, registry, notices);
        Ok(Self {
            input: source,
            lines: LineSplitter::default(),
            count: 0,
            // What is not there does not end.
            stay: streams.stay || no_input,
            output: Some(output.map_err(ClientError::Output)?),
            notices: notices.map_err(ClientError::Output)?,
            format: streams.format,
            clock: streams.clock,
        })
    }

    pub(super) fn note_input(&mut self) {
        if let Some(input) = &mut self.input {
            input.note();
        }
    }

    pub(super) fn note_output(&mut self, event: &Event, registry: &Registry, asked: &mut Vec<Ask>) {
        if self
            .output
            .as_mut()
            .is_some_and(|output| output.note(event).is_err())
        {
            self.output_is_gone(registry, asked);
        }
    }

    /// What there is to tell of it to whoever has just connected.
    pub(super) fn welcome(&self) -> &'static str {
        if self.count > 0 || self.input.is_some() {
            ""
        } else if !self.stay {
            "; the input is empty, so there is nothing to say: --stay listens"
        } else {
            ", to listen"
        }
    }

    /// Whether a read would not wait.
    pub(super) fn has_input(&self) -> bool {
        self.input.as_ref().is_some_and(Source::is_ready)
    }

    /// Whether the output keeps up.
    pub(super) fn has_room(&self) -> bool {
        self.output
            .as_ref()
            .is_none_or(|output| output.pending() < MAX_PENDING)
    }

    /// Whether all of the output is written.
    pub(super) fn is_written(&self) -> bool {
        self.output
            .as_ref()
            .is_none_or(|output| output.pending() == 0)
    }

    /// Reads once, and adds what the lines ask for to `asked`.
    pub(super) fn read(
        &mut self,
        registry: &Registry,
        buf: &mut [u8],
        asked: &mut Vec<Ask>,
    ) -> Result<(), ClientError> {
        let Some(input) = &mut self.input else {
            return Ok(());
        };
        let end = buf.len().min(INPUT);
        let mut say = |line: &[u8]| {
            self.count += 1;
            asked.push(Ask::Say(line.to_vec()));
        };
        match input.read(registry, &mut buf[..end]) {
            Ok(None) => {}
            Ok(Some(0)) => {
                self.lines.finish(say);
                if let Some(input) = self.input.take() {
                    input.close(registry);
                }
                if !self.stay || self.output.is_none() {
                    asked.push(Ask::Finish);
                }
            }
            Ok(Some(read)) => {
                self.lines.feed(&buf[..read], &mut say);
                if self.lines.unfinished() > MAX_PAYLOAD {
                    return Err(ClientError::LineTooLong(self.count + 1));
                }
            }
            Err(error) => return Err(ClientError::Input(error)),
        }
        Ok(())
    }

    /// Writes a message that was heard.
    pub(super) fn message(&mut self, name: &[u8], message: &[u8]) -> io::Result<()> {
        let Some(output) = &mut self.output else {
            return Ok(());
        };
        let timed = |clock| (clock, timestamp(SystemTime::now()));
        let clock = self.clock.as_ref().map(timed);
        write_line(output.buffer(), self.format, clock, name, message)
    }

    /// Tells something that was not heard, unless nobody has read what was told before.
    pub(super) fn notice(&mut self, text: &str) {
        if self.notices.pending() < MAX_PENDING {
            // Memory takes it all.
            let _ = writeln!(self.notices.buffer(), "chatloop: {text}");
        }
    }

    pub(super) fn note_notices(&mut self, event: &Event) {
        // Nobody is there to be told if that fails, here and below.
        let _ = self.notices.note(event);
    }

    pub(super) fn flush_notices(&mut self, registry: &Registry) {
        if self.notices.flush(registry).is_err() {
            self.notices.take_pending();
        }
    }

    /// Writes what the output takes.
    pub(super) fn flush(
        &mut self,
        registry: &Registry,
        asked: &mut Vec<Ask>,
    ) -> Result<(), ClientError> {
        self.flush_notices(registry);
        match self.output.as_mut().map(|output| output.flush(registry)) {
            Some(Err(error)) if error.kind() == ErrorKind::BrokenPipe => {
                self.output_is_gone(registry, asked);
                Ok(())
            }
            Some(Err(error)) => Err(ClientError::Output(error)),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// Nobody reads the output any more, as after `| head`. What there is to say is still said.
    fn output_is_gone(&mut self, registry: &Registry, asked: &mut Vec<Ask>) {
        if let Some(output) = self.output.take() {
            output.close(registry);
        }
        if self.input.is_none() {
            asked.push(Ask::Finish);
        }
    }
}
