//! The client in a pipe: each line of input is a message, each message a line of output.

use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use mio::event::Event;
use mio::{Registry, Token};

use super::display::{Clock, Format, write_line};
use super::error::ClientError;
use super::incoming::Received;
use super::limits::MAX_PENDING_BYTES;
use super::lines::LineSplitter;
use super::request::Request;
use super::session::MAX_PAYLOAD;
use crate::clock::timestamp;
use crate::terminal::stdio::{Sink, Source};

/// The most bytes of one read: the capacity of a pipe.
const MAX_READ_BYTES: usize = 64 * 1024;

/// A `Filter` is the user interface of a client in a pipe.
#[derive(Debug)]
pub(super) struct Filter {
    /// The input until it ends.
    input: Option<Source>,
    lines: LineSplitter,
    /// The number of lines so far.
    line_count: u64,
    /// Whether to stay connected after the end of the input.
    stay: bool,
    /// The output as long as it has a reader.
    output: Option<Sink>,
    notices: Sink,
    format: Format,
    clock: Option<Clock>,
    /// Whether a line of the input can be a command.
    by_hand: bool,
}

/// The `Streams` of a client in a pipe.
#[derive(Debug)]
pub struct Streams {
    /// Each line of the input is a message. Without an input, the client only receives.
    pub input: Option<OwnedFd>,
    /// Each received message is a line of the output.
    pub output: OwnedFd,
    /// Each notice is a line of this stream.
    pub notices: OwnedFd,
    /// The format of the output.
    pub format: Format,
    /// With a clock, the lines have the time.
    pub clock: Option<Clock>,
    /// Whether to stay connected after the end of the input.
    pub stay: bool,
    /// Whether the input is typed on a terminal, on which `/quit` leaves.
    pub by_hand: bool,
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
            line_count: 0,
            // Without an input there is no end of it.
            stay: streams.stay || no_input,
            output: Some(output.map_err(ClientError::Output)?),
            notices: notices.map_err(ClientError::Output)?,
            format: streams.format,
            clock: streams.clock,
            by_hand: streams.by_hand,
        })
    }

    pub(super) fn note_input(&mut self) {
        if let Some(input) = &mut self.input {
            input.note();
        }
    }

    pub(super) fn note_output(
        &mut self,
        event: &Event,
        registry: &Registry,
        requests: &mut Vec<Request>,
    ) {
        if self
            .output
            .as_mut()
            .is_some_and(|output| output.note(event).is_err())
        {
            self.close_output(registry, requests);
        }
    }

    /// The end of the notice that the client is connected.
    pub(super) fn welcome(&self) -> &'static str {
        if self.line_count > 0 || self.input.is_some() {
            ""
        } else if !self.stay {
            "; the input is empty, so there is nothing to send: --stay listens"
        } else {
            ", to listen"
        }
    }

    /// Whether a read does not block.
    pub(super) fn has_input(&self) -> bool {
        self.input.as_ref().is_some_and(Source::is_ready)
    }

    /// Whether the output has room for more messages.
    pub(super) fn has_room(&self) -> bool {
        self.output
            .as_ref()
            .is_none_or(|output| output.pending() < MAX_PENDING_BYTES)
    }

    /// Whether all of the output is written.
    pub(super) fn is_written(&self) -> bool {
        self.output
            .as_ref()
            .is_none_or(|output| output.pending() == 0)
    }

    /// Reads once, and adds a request for each line to `requests`.
    pub(super) fn read(
        &mut self,
        registry: &Registry,
        buf: &mut [u8],
        requests: &mut Vec<Request>,
    ) -> Result<(), ClientError> {
        let Some(input) = &mut self.input else {
            return Ok(());
        };
        let end = buf.len().min(MAX_READ_BYTES);
        let mut send = |line: &[u8]| {
            self.line_count += 1;
            if self.by_hand && line.trim_ascii_end() == b"/quit" {
                requests.push(Request::Leave);
                return;
            }
            requests.push(Request::Send(line.to_vec()));
        };
        match input.read(registry, &mut buf[..end]) {
            Ok(None) => {}
            Ok(Some(0)) => {
                self.lines.finish(send);
                if let Some(input) = self.input.take() {
                    input.close(registry);
                }
                if !self.stay || self.output.is_none() {
                    requests.push(Request::Finish);
                }
            }
            Ok(Some(read)) => {
                self.lines.feed(&buf[..read], &mut send);
                if self.lines.unfinished() > MAX_PAYLOAD {
                    return Err(ClientError::LineTooLong(self.line_count + 1));
                }
            }
            Err(error) => return Err(ClientError::Input(error)),
        }
        Ok(())
    }

    /// Writes a received message. One from before the client joined is left out where nothing would
    /// distinguish it.
    pub(super) fn message(&mut self, message: &Received<'_>, is_past: bool) -> io::Result<()> {
        let Some(output) = &mut self.output else {
            return Ok(());
        };
        if is_past && self.clock.is_none() && self.format != Format::Json {
            return Ok(());
        }
        let now = || timestamp(SystemTime::now());
        let timed = |clock| (clock, message.time.unwrap_or_else(now));
        let clock = self.clock.as_ref().map(timed);
        write_line(output.buffer(), self.format, clock, message, is_past)
    }

    /// Writes a notice. It is dropped if too many notices before it are unread.
    pub(super) fn notice(&mut self, text: &str) {
        if self.notices.pending() < MAX_PENDING_BYTES {
            // Writing to memory does not fail.
            let _ = writeln!(self.notices.buffer(), "chatloop: {text}");
        }
    }

    pub(super) fn note_notices(&mut self, event: &Event) {
        // A failure cannot be reported, here and below.
        let _ = self.notices.note(event);
    }

    pub(super) fn flush_notices(&mut self, registry: &Registry) {
        if self.notices.flush(registry).is_err() {
            self.notices.take_pending();
        }
    }

    /// Writes what the output accepts.
    pub(super) fn flush(
        &mut self,
        registry: &Registry,
        requests: &mut Vec<Request>,
    ) -> Result<(), ClientError> {
        self.flush_notices(registry);
        match self.output.as_mut().map(|output| output.flush(registry)) {
            Some(Err(error)) if error.kind() == ErrorKind::BrokenPipe => {
                self.close_output(registry, requests);
                Ok(())
            }
            Some(Err(error)) => Err(ClientError::Output(error)),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// Closes an output that has no reader any more, as after `| head`. The input is still sent.
    fn close_output(&mut self, registry: &Registry, requests: &mut Vec<Request>) {
        if let Some(output) = self.output.take() {
            output.close(registry);
        }
        if self.input.is_none() {
            requests.push(Request::Finish);
        }
    }
}
