//! The load tool through TLS.

#![cfg(target_os = "linux")]

use crate::common::load::{assert_fits_schema, load, measure};
use crate::common::process::{Relay, run};
use crate::common::tls::Authority;
use crate::load::{SCENARIOS, assert_sound};

fn relay(authority: &Authority) -> Relay {
    let file = |name| authority.path(name).display().to_string();
    let (certificate, key) = (file("server.crt"), file("server.key"));
    let flags = ["--cert", &certificate, "--key", &key];
    Relay::serving(&["chat10", "tls+chat10", "wss"], &flags)
}

#[test]
fn relay_is_measured_through_tls() {
    let authority = Authority::new();
    let relay = relay(&authority);
    let ca = authority.path("ca.crt").display().to_string();
    for (protocol, dialect, name) in [
        ("tls", "tls+chat10", "tls+chat10"),
        ("wss", "wss", "tls+ws"),
        ("tls+ws-chat10", "wss", "tls+ws-chat10"),
    ] {
        let target = format!("{protocol}://{}", relay.addr_of(dialect));
        for scenario in SCENARIOS {
            let flags = ["--members", "6", "--target", &target, "--ca", &ca];
            let measured = measure(&[scenario, &flags].concat());
            assert_sound(&measured);
            assert_fits_schema(&measured.report);
            assert_eq!(measured.report["protocol"], name);
        }
    }
}

#[test]
fn relay_is_soaked_through_tls() {
    let authority = Authority::new();
    let relay = relay(&authority);
    let ca = authority.path("ca.crt").display().to_string();
    let target = format!("tls://{}", relay.addr_of("tls+chat10"));
    let plan = [
        "soak",
        "--members",
        "10",
        "--faults",
        "10",
        "--rate",
        "200",
        "--churn",
        "20",
        "--for",
        "2s",
        "--seed",
        "7",
        "--target",
        &target,
        "--ca",
        &ca,
    ];
    let measured = measure(&plan);
    assert_sound(&measured);
    assert_fits_schema(&measured.report);
    assert!(measured.number("/deliveries") > 0.0);
}

#[test]
fn server_that_is_not_trusted_is_not_measured() {
    let authority = Authority::new();
    let relay = relay(&authority);
    let none = authority.path("none").display().to_string();
    let target = format!("tls://{}", relay.addr_of("tls+chat10"));
    let mut command = load(&[
        "chat",
        "--members",
        "3",
        "--for",
        "100ms",
        "--target",
        &target,
    ]);
    command.args(["--known-hosts", &none]);
    command
        .env("SSL_CERT_FILE", &none)
        .env("SSL_CERT_DIR", &none);
    let (code, _, err) = run(&mut command);
    assert_eq!((code, err.lines().count()), (7, 1), "{err}");
    assert!(
        err.contains("is not trusted: its certificate is from an unknown issuer"),
        "{err}"
    );
    assert!(err.contains("add --pin sha256:"), "{err}");
    let plain = format!("tls://{}", relay.addr_of("chat10"));
    let mut command = load(&[
        "chat",
        "--members",
        "3",
        "--for",
        "100ms",
        "--target",
        &plain,
    ]);
    let (code, _, err) = run(command.args(["--known-hosts", &none]));
    assert_eq!((code, err.lines().count()), (4, 1), "{err}");
}
