//! A relay whose system calls fail: each of them, in a session with everything in it, with each
//! error that it can give. No client but those whom the failed call was about may notice.
//!
//! `TORTURE='recv 7 ECONNRESET 1' cargo test --test program torture:: -- --nocapture` has the session in
//! which the seventh `recv`, and it alone, fails with that error, and shows what the relay did. With
//! `SESSION=web` it is the session of the browsers.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;

use crate::common::shim::compiled;
use crate::common::torture::traced::{Call, Errno, Failure};
use crate::common::torture::{Script, Session, session};

/// How many calls in a row fail in a shortage.
const LASTING: usize = 50;

/// How many undisturbed sessions are recorded.
const RECORDINGS: usize = 3;

/// How many failed sessions are shown.
const SHOWN: usize = 10;

/// What a function may say.
struct Errors {
    function: &'static str,
    /// What one call may say.
    once: &'static [Errno],
    /// What it may go on to say for a while.
    lasting: &'static [Errno],
}

macro_rules! errors {
    ($($function:ident: $($once:ident)*, lasting: $($lasting:ident)*;)*) => {
        &[$(Errors {
            function: stringify!($function),
            once: &[$((stringify!($once), libc::$once)),*],
            lasting: &[$((stringify!($lasting), libc::$lasting)),*],
        }),*]
    };
}

/// From the manual pages, what Linux may say to a relay, whatever the reason: a limit, no memory, a
/// security policy, a filter of system calls, or what the network has reported. Without what only a
/// bug in the relay could bring about, such as a bad descriptor; but a poll's errors are all
/// such, so they are here. What happens only before the relay serves cannot last.
const ERRORS: &[Errors] = errors! {
    getrlimit64: EPERM ENOSYS, lasting: ;
    setrlimit64: EPERM EINVAL ENOSYS, lasting: ;
    epoll_create1: EMFILE ENFILE ENOMEM ENOSYS, lasting: ;
    socket: EACCES EAFNOSUPPORT EINVAL EMFILE ENFILE ENOBUFS ENOMEM EPERM EPROTONOSUPPORT,
        lasting: ;
    fcntl: EACCES EAGAIN EINVAL ENOMEM EPERM, lasting: ;
    setsockopt: EINVAL ENOBUFS ENOMEM ENOPROTOOPT EPERM, lasting: ;
    bind: EACCES EADDRINUSE EADDRNOTAVAIL EINVAL ENOBUFS ENOMEM EPERM, lasting: ;
    listen: EACCES EADDRINUSE EINVAL ENOBUFS ENOMEM EOPNOTSUPP, lasting: ;
    getsockname: ENOBUFS ENOMEM EPERM, lasting: ;
    socketpair: EAFNOSUPPORT EMFILE ENFILE ENOBUFS ENOMEM EOPNOTSUPP, lasting: ;
    sigaction: EINVAL ENOSYS EPERM, lasting: ;
    open64: EACCES EINTR EMFILE ENFILE ENODEV ENOENT ENOMEM ENXIO EPERM,
        lasting: EINTR EMFILE ENFILE;
    epoll_ctl: EEXIST ENOMEM ENOSPC EPERM, lasting: ENOMEM ENOSPC;
    epoll_wait: EBADF EFAULT EINTR EINVAL ENOMEM, lasting: EINTR;
    accept4: EAGAIN ECONNABORTED EHOSTDOWN EHOSTUNREACH EINTR EMFILE ENETDOWN ENETUNREACH ENFILE
        ENOBUFS ENOMEM ENONET ENOPROTOOPT ENOSR EOPNOTSUPP EPERM EPROTO EPROTONOSUPPORT
        ESOCKTNOSUPPORT ETIMEDOUT, lasting: ECONNABORTED EINTR EMFILE ENFILE ENOBUFS ENOMEM EPERM;
    recv: EAGAIN ECONNABORTED ECONNREFUSED ECONNRESET EHOSTUNREACH EINTR EIO ENETDOWN ENETUNREACH
        ENOBUFS ENOMEM EPIPE ETIMEDOUT, lasting: EINTR ENOBUFS ENOMEM;
    send: EACCES EAGAIN ECONNABORTED ECONNRESET EHOSTUNREACH EINTR EIO ENETDOWN ENETUNREACH ENOBUFS
        ENOMEM EPERM EPIPE ETIMEDOUT, lasting: EINTR ENOBUFS ENOMEM EPERM;
    writev: EACCES EAGAIN ECONNABORTED ECONNRESET EHOSTUNREACH EINTR EIO ENETDOWN ENETUNREACH
        ENOBUFS ENOMEM EPERM EPIPE ETIMEDOUT, lasting: EINTR ENOBUFS ENOMEM EPERM;
    write: EAGAIN EBADF EDQUOT EFBIG EINTR EIO ENOSPC EPIPE, lasting: EAGAIN EINTR EIO ENOSPC;
    shutdown: EINTR EIO ENOBUFS ENOTCONN EPERM, lasting: ENOBUFS;
    close: EDQUOT EINTR EIO ENOSPC, lasting: EINTR EIO;
};

/// The number of calls of each function.
fn count(calls: &[Call]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for call in calls {
        *counts.entry(call.function.clone()).or_insert(0) += 1;
    }
    counts
}

/// Records undisturbed sessions. Returns the smallest number of calls of each function: on a busy
/// machine, the kernel may deliver in two parts what one call returns elsewhere.
fn recorded_counts(script: Script, shim: &Path) -> BTreeMap<String, usize> {
    let mut smallest = BTreeMap::new();
    for _ in 0..RECORDINGS {
        let undisturbed = session(script, shim, None, 100_000);
        assert_eq!(undisturbed.fault, None);
        let log = undisturbed.log;
        assert!(
            script == Script::Web || log.contains(", 1 of them with output pending, "),
            "no member lags: {log}"
        );
        for (function, count) in count(&undisturbed.calls) {
            let known = smallest.entry(function).or_insert(count);
            *known = count.min(*known);
        }
    }
    smallest
}

/// Each call of a session with each error.
fn every_failure(counts: &BTreeMap<String, usize>) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (function, &count) in counts {
        let errors = ERRORS.iter().find(|errors| errors.function == *function);
        let errors = errors.unwrap_or_else(|| panic!("what may {function} say? See ERRORS"));
        for first in 1..=count {
            for (list, times) in [(errors.once, 1), (errors.lasting, LASTING)] {
                failures.extend(list.iter().map(|&error| Failure {
                    function: errors.function,
                    first,
                    error,
                    times,
                }));
            }
        }
    }
    failures
}

/// What `TORTURE` asks for.
fn parse(asked: &str) -> Option<Failure> {
    let mut words = asked.split_whitespace();
    let (function, first) = (words.next()?, words.next()?.parse().ok()?);
    let (error, times) = (words.next()?, words.next()?.parse().ok()?);
    let errors = ERRORS.iter().find(|errors| errors.function == function)?;
    let mut known = errors.once.iter().chain(errors.lasting);
    Some(Failure {
        function: errors.function,
        first,
        error: *known.find(|(name, _)| *name == error)?,
        times,
    })
}

/// Has a session for each failure, as many at a time as there are cores.
fn torture(script: Script, shim: &Path) {
    let counts = &recorded_counts(script, shim);
    let failures = &every_failure(counts);

    let calls: usize = counts.values().sum();
    // More calls than the reconnections after a lasting failure take.
    let most_calls = 10 * calls + 1000;
    let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(failure) = failures.get(next.fetch_add(1, Ordering::Relaxed)) {
            let is_last = failure.first == counts[failure.function];
            if let Some(fault) = fault_of(script, shim, failure, is_last, most_calls) {
                faults.lock().unwrap().push(format!(
                    "{fault}\n    SESSION={script:?} TORTURE='{failure}' cargo test --test program torture:: -- --nocapture"
                ));
            }
            if faults.lock().unwrap().len() >= SHOWN {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let faults = faults.into_inner().unwrap();
    for (function, count) in counts {
        let is_of_it = |failure: &&Failure| failure.function == *function;
        let failures = failures.iter().filter(is_of_it).count();
        println!("{function}: {count} calls, {failures} failures");
    }
    println!(
        "all: {calls} calls, {} failures, {} of which matter",
        failures.len(),
        faults.len()
    );
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// The fault of the session in which these calls fail.
fn fault_of(
    script: Script,
    shim: &Path,
    failure: &Failure,
    is_last: bool,
    most_calls: usize,
) -> Option<String> {
    // On a busy machine, the kernel may deliver in one part what came in two when the session was
    // recorded. Then a function has one call less.
    for _ in 0..3 {
        let session = session(script, shim, Some(failure), most_calls);
        if session.fault.is_some() || session.calls.iter().any(|call| call.has_failed) {
            return session.fault;
        }
    }
    // So the last call that was recorded need not come. Each call before it must.
    (!is_last).then(|| "there is no such call".to_owned())
}

/// A session of which all is shown.
fn show(session: &Session) {
    for call in &session.calls {
        println!("{call}");
    }
    println!("{}", session.log);
}

#[test]
fn failed_system_call_affects_only_its_own_connection() {
    fail_each_call(Script::Tutorials);
}

#[test]
fn failed_system_call_of_a_relay_with_browsers_affects_only_its_own_connection() {
    fail_each_call(Script::Web);
}

/// Fails each call of a session, or the one that the environment asks for.
fn fail_each_call(script: Script) {
    static SHIM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let Some(shim) = SHIM.get_or_init(|| compiled("torture_shim")) else {
        return;
    };
    let Ok(asked) = env::var("TORTURE") else {
        return torture(script, shim);
    };
    let is_web = env::var("SESSION").is_ok_and(|name| name.eq_ignore_ascii_case("web"));
    if is_web == (script == Script::Web) {
        let failure = parse(&asked).expect("TORTURE='function first error times'");
        let session = session(script, shim, Some(&failure), 100_000);
        show(&session);
        assert_eq!(session.fault, None);
    }
}
