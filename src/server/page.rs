//! The page: what a browser gets that asks for the relay.

use crate::wire::http::{self, Request};

/// The page, with one style and one script in it.
const PAGE: &str = include_str!("page.html");

/// The hashes of the style and the script, which are all that the page may run. A test compares them.
const STYLE_HASH: &str = "sha256-STYLE";
const SCRIPT_HASH: &str = "sha256-SCRIPT";

/// The response with the page, or with the news that the client has it already.
pub(super) fn response(request: &Request) -> Vec<u8> {
    let etag = format!("\"{}-{SCRIPT_HASH}\"", env!("CARGO_PKG_VERSION"));
    if request.if_none_match.as_deref() == Some(&etag) {
        return http::response("304 Not Modified", &[("ETag", &etag)], b"");
    }
    let host = request.host.as_deref().unwrap_or_default();
    // Safari before 15.4 does not count the page's own host as 'self' for WebSocket.
    let policy = format!(
        "default-src 'none'; script-src '{SCRIPT_HASH}'; style-src '{STYLE_HASH}'; connect-src \
         'self' ws://{host} wss://{host}; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'"
    );
    let fields = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Security-Policy", &policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-cache"),
        ("ETag", &etag),
    ];
    http::response("200 OK", &fields, PAGE.as_bytes())
}
