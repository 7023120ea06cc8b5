//! `chatloop judge`: a relay passes, the tutorials' server fails, and no server makes the judge wait for ever.
//! The steps of the ladder are judged in `tests/harness/ladder.rs`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use socket2::SockRef;

use crate::common::process::{Relay, chatloop, chatloop_after, run};
use crate::common::python::PythonServer;

/// How long the judge waits for what does not come, and for what comes.
const IN_VAIN: &str = "1s";
const LONG: &str = "60s";

/// Runs the judge. Returns its exit code, and standard output or, where that is empty, standard error.
fn judge(addr: SocketAddr, args: &[&str]) -> (i32, String) {
    let addr = addr.to_string();
    let args = [&["judge", &addr], args].concat();
    let (code, output, errors) = run(&mut chatloop(&args));
    assert!(output.is_empty() || errors.is_empty(), "{output}{errors}");
    (code, output + &errors)
}

#[track_caller]
fn assert_fails_stage(server: &PythonServer, stage: &str, patience: &str, expected: &[&str]) {
    let (code, output) = judge(server.addr(), &["--stage", stage, "--patience", patience]);
    assert_eq!(code, 5, "{output}");
    assert!(
        output.starts_with(&format!("{stage}  failed  ")),
        "{output}"
    );
    for text in expected {
        assert!(output.contains(text), "no {text:?} in\n{output}");
    }
}

/// A server that does this with each connection, until the test's process ends.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(serve));
    addr
}

/// What the judge reports of a server in its first stage.
#[track_caller]
fn first_failure(addr: SocketAddr) -> String {
    let (code, output) = judge(addr, &["--patience", IN_VAIN]);
    assert_eq!(code, 5, "{output}");
    assert!(output.starts_with("1  failed  "), "{output}");
    assert!(
        output.contains("\n   read      docs/guide/01_blocking.md\n"),
        "{output}"
    );
    let came = output
        .lines()
        .find_map(|line| line.strip_prefix("   came      "));
    came.unwrap().to_owned()
}

#[test]
fn relay_passes_all_stages_of_the_help() {
    // By default it would wait 20 s for each of two slow readers.
    let relay = Relay::start(&["--slow-timeout", "4s"]);
    let (code, output) = judge(relay.addr, &["--patience", LONG]);
    assert_eq!(code, 0, "{output}");
    assert_eq!(output.lines().count(), 9, "{output}");
    let (_, help, _) = run(&mut chatloop(&["judge", "--help"]));
    for (index, line) in output.lines().enumerate() {
        assert!(
            line.starts_with(&format!("{}  ok      ", index + 1)),
            "{output}"
        );
        let line = line.replacen("  ok      ", "  ", 1);
        assert!(
            help.contains(&format!(
                "
  {line}
"
            )),
            "{line} is not in
{help}"
        );
    }
}

#[test]
fn tutorial_server_passes_the_first_stage_and_fails_the_second() {
    let Some(server) = PythonServer::start() else {
        return;
    };
    let (code, output) = judge(server.addr(), &["--stage", "1", "--patience", LONG]);
    assert_eq!(code, 0, "{output}");
    let (code, output) = judge(server.addr(), &["--stage", "3", "--patience", LONG]);
    assert_eq!(code, 0, "{output}");
    assert_fails_stage(
        &server,
        "2",
        IN_VAIN,
        &[
            "   sent      each client: its name, byte by byte; then alice: b'16        are you",
            "   expected  bob: b'5         alice16        are you there? ",
            "   read      docs/guide/04_level.md",
        ],
    );
}

#[test]
fn tutorial_server_cuts_a_long_message() {
    let Some(server) = PythonServer::start() else {
        return;
    };
    let expected = [
        "   sent      Zoë: b'",
        "   expected  alice: b'4         Zo\\xc3\\xab",
    ];
    assert_fails_stage(&server, "4", IN_VAIN, &expected);
}

#[test]
fn tutorial_server_waits_for_a_client_that_does_not_read() {
    let Some(server) = PythonServer::start() else {
        return;
    };
    let expected = [
        "   came      nothing, and no more within 1s",
        "docs/guide/02_threads.md",
    ];
    assert_fails_stage(&server, "5", IN_VAIN, &expected);
}

#[test]
fn tutorial_server_ends_with_a_connection_that_is_reset() {
    let Some(server) = PythonServer::start() else {
        return;
    };
    let expected = ["   came      ", "docs/guide/02_threads.md"];
    assert_fails_stage(&server, "6", LONG, &expected);
}

#[test]
fn tutorial_server_ends_at_1024_descriptors() {
    let Some(server) = PythonServer::start() else {
        return;
    };
    let expected = ["docs/guide/10_accept.md"];
    assert_fails_stage(&server, "8", LONG, &expected);
}

#[test]
fn tutorial_server_waits_for_a_client_without_a_name() {
    let Some(server) = PythonServer::start() else {
        return;
    };
    let expected = [
        "   came      nothing, and no more within 1s",
        "docs/guide/11_timers.md",
    ];
    assert_fails_stage(&server, "9", IN_VAIN, &expected);
}

#[test]
fn server_that_never_answers_fails_the_first_stage() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let came = first_failure(listener.local_addr().unwrap());
    assert_eq!(came, "nothing, and no more within 1s");
}

#[test]
fn server_that_closes_at_once_fails_the_first_stage() {
    let came = first_failure(server(drop));
    let ends = ["the end of the connection", "a reset of the connection"];
    assert!(ends.iter().any(|end| came.ends_with(end)), "{came}");
}

#[test]
fn server_that_resets_after_the_name_fails_the_first_stage() {
    let came = first_failure(server(|mut stream| {
        stream.read_exact(&mut [0; 13]).unwrap();
        SockRef::from(&stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
    }));
    assert!(came.contains("a reset of the connection"), "{came}");
}

#[test]
fn server_that_sends_without_end_fails_the_first_stage() {
    // Half of a frame that is announced as longer than everything that the judge keeps.
    let came = first_failure(server(|mut stream| {
        thread::spawn(move || {
            stream.write_all(b"4000000000").unwrap();
            while stream.write_all(&vec![b'x'; 100_000]).is_ok() {}
        });
    }));
    assert!(came.contains("more than 16 MiB"), "{came}");
}

#[test]
fn server_that_sends_one_byte_after_the_other_does_not_hold_the_judge_up() {
    let came = first_failure(server(|mut stream| {
        thread::spawn(move || {
            while stream.write_all(b" ").is_ok() && stream.take_error().is_ok() {
                thread::yield_now();
                let mut wait = [0; 1];
                stream
                    .set_read_timeout(Some(std::time::Duration::from_millis(300)))
                    .unwrap();
                let _ = stream.read(&mut wait);
            }
        });
    }));
    assert!(
        came.contains("no more within 1s") || came.contains("does not begin"),
        "{came}"
    );
}

#[test]
fn server_that_returns_what_it_receives_fails_with_the_bytes_that_came() {
    let came = first_failure(server(|stream| {
        thread::spawn(move || {
            let mut output = stream.try_clone().unwrap();
            let mut input = BufReader::new(stream);
            while let Ok(bytes @ [_, ..]) = input.fill_buf() {
                let len = bytes.len();
                output.write_all(bytes).unwrap();
                input.consume(len);
            }
        });
    }));
    assert_eq!(came, "b'3         bob', and no more within 1s");
}

#[test]
fn address_without_a_server_is_exit_code_4() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = unused.local_addr().unwrap();
    drop(unused);
    let (code, output) = judge(addr, &[]);
    let expected = format!("chatloop: cannot connect to {addr}: Connection refused");
    assert!(
        code == 4 && output.starts_with(&expected),
        "{code}: {output}"
    );
}

#[test]
fn end_of_the_server_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let streams: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
        drop(listener);
        drop(streams);
    });
    let came = first_failure(addr);
    let end = "; now the server does not accept connections: Connection refused";
    assert!(came.contains(end), "{came}");
}

#[test]
fn stage_that_does_not_exist_is_a_usage_error() {
    for args in [
        &["judge"][..],
        &["judge", "--stage", "0", "1234"],
        &["judge", "--stage", "10", "1234"],
        &["judge", "--patience", "2h", "1234"],
        &["judge", "0"],
        &["judge", "http://127.0.0.1"],
    ] {
        let (code, output, errors) = run(&mut chatloop(args));
        assert_eq!((code, output.as_str()), (2, ""), "{args:?}: {errors}");
    }
}

#[test]
fn crowd_without_descriptors_is_a_usage_error_that_says_so() {
    let (code, output, errors) = run(&mut chatloop_after("ulimit -n 1000;", &["judge", "1"]));
    assert_eq!((code, output.as_str()), (2, ""), "{errors}");
    assert!(errors.contains("ulimit -Hn"), "{errors}");
}
