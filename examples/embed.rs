//! A program around the server: it keeps some names for itself, greets each new member, answers one
//! command, and has what is typed on its standard input said in the room.
//!
//! ```text
//! cargo run --example embed
//! chatloop join 1234 alice        in another terminal
//! ```

use std::io::{self, BufRead};
use std::sync::mpsc;
use std::thread;

use chatloop::relay::RoomEvent;
use chatloop::server::{Config, Endpoint, Handle, Server};
use chatloop::wire::Dialect;

/// The name under which the program speaks.
const NAME: &[u8] = b"host";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = Endpoint {
        dialect: Dialect::Chat10,
        addr: "127.0.0.1:1234".parse()?,
    };
    let mut server = Server::bind(&Config::new(vec![endpoint]))?;
    server.handle_signals(false)?;
    server.set_name_filter(|name| !name.eq_ignore_ascii_case(NAME));
    server.record_events();
    println!("listening on {}", server.local_addrs()?[0]);

    let lines = lines_of_input(server.handle()?);
    server.run_with(|server| {
        for event in server.drain_events() {
            if let Some(answer) = answer(&event) {
                say(server, &answer);
            }
        }
        for line in lines.try_iter() {
            say(server, &line);
        }
    })?;
    Ok(())
}

/// What the program says to an event.
fn answer(event: &RoomEvent) -> Option<String> {
    match event {
        RoomEvent::Joined { member, members } => {
            let name = String::from_utf8_lossy(member.name.as_deref()?);
            Some(format!("welcome, {name}: {} here", members.total()))
        }
        RoomEvent::Published {
            sender: Some(_),
            message,
            ..
        } if &**message == b"!ping" => Some("pong".to_owned()),
        _ => None,
    }
}

/// Publishes a line. One that is too long is not said, and its error shown.
fn say(server: &mut Server, line: &str) {
    if let Err(error) = server.publish(NAME, line.as_bytes()) {
        eprintln!("{error}");
    }
}

/// The lines of the standard input. Reading them blocks, so a thread does it, and wakes the server for
/// each; at the end of the input the server stops.
fn lines_of_input(handle: Handle) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() || handle.wake().is_err() {
                return;
            }
        }
        let _ = handle.stop();
    });
    lines
}
