//! The page: what a browser gets that asks for the relay.

use super::http::{self, Request};

/// The page, with one style and one script in it.
const PAGE: &str = include_str!("web/page.html");

/// The viewer of the loop, which the documents have as a file.
const VIEWER: &str = include_str!("../../docs/loop.html");

/// The hashes of the style and the script, which are all that the page may run. A test compares them.
const STYLE_HASH: &str = "sha256-fKRSX75DLZbPu4BlBMOFjKq5/BBE6Y/AmIZ76HJ+1Yw=";
const SCRIPT_HASH: &str = "sha256-j+hDldciee38zgRRMk42uO8As/WIghGKweN2LuGzksQ=";

/// The response with the page.
pub(super) fn response(request: &Request) -> Vec<u8> {
    let host = request.host.as_deref().unwrap_or_default();
    // Safari before 15.4 does not count the page's own host as 'self' for WebSocket.
    let policy = format!(
        "default-src 'none'; script-src '{SCRIPT_HASH}'; style-src '{STYLE_HASH}'; connect-src \
         'self' ws://{host} wss://{host}; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'"
    );
    document(request, PAGE, &policy, SCRIPT_HASH)
}

/// The response with the viewer of the loop.
pub(super) fn viewer(request: &Request) -> Vec<u8> {
    let policy = format!("{}; frame-ancestors 'none'", viewer_policy());
    document(request, VIEWER, &policy, &policy)
}

/// The policy that the viewer states itself, since it can be opened from a disk as well.
fn viewer_policy() -> &'static str {
    let (_, rest) = VIEWER
        .split_once("Content-Security-Policy\" content=\"")
        .unwrap_or_default();
    rest.split('"').next().unwrap_or_default()
}

/// The response with a document, or with the news that the client has it already.
fn document(request: &Request, html: &str, policy: &str, version: &str) -> Vec<u8> {
    let etag = format!("\"{}-{}\"", env!("CARGO_PKG_VERSION"), version);
    if request.if_none_match.as_deref() == Some(&etag) {
        return http::response("304 Not Modified", &[("ETag", &etag)], b"");
    }
    let fields = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-cache"),
        ("ETag", &etag),
    ];
    http::response("200 OK", &fields, html.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::BASE64;
    use sha2::{Digest, Sha256};

    /// The hash of what stands in the only element of this name without attributes.
    fn hash_of(name: &str, html: &str) -> String {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let (_, rest) = html.split_once(&open).unwrap();
        assert!(!rest.contains(&open), "one {name}");
        let (element, _) = rest.split_once(&close).unwrap();
        format!("sha256-{}", BASE64.encode(&Sha256::digest(element)))
    }

    #[test]
    fn hashes_of_the_policy_are_those_of_the_page() {
        for (name, hash) in [("style", STYLE_HASH), ("script", SCRIPT_HASH)] {
            assert_eq!(hash, hash_of(name, PAGE), "of the {name}");
            let in_viewer = format!("{name}-src '{}'", hash_of(name, VIEWER));
            let policy = viewer_policy();
            assert!(policy.contains(&in_viewer), "{in_viewer}, not {policy}");
        }
    }

    #[test]
    fn viewer_is_small_and_asks_for_nothing_from_elsewhere() {
        assert!(VIEWER.len() <= 80_000, "{}", VIEWER.len());
        let rest = VIEWER.replace("xmlns='http://www.w3.org/2000/svg'", "");
        for part in ["http:", "https:", "stylesheet", " onclick", "innerHTML"] {
            assert!(!rest.contains(part), "{part}");
        }
    }

    #[test]
    fn page_is_small_and_asks_for_nothing_from_elsewhere() {
        assert!(PAGE.len() <= 16_384, "{}", PAGE.len());
        // The icon names its own kind.
        let rest = PAGE.replace("xmlns='http://www.w3.org/2000/svg'", "");
        for part in ["http:", "https:", "stylesheet", " onclick", "innerHTML"] {
            assert!(!rest.contains(part), "{part}");
        }
    }
}
