//! A response in HTTP/1.1, as it comes in.

use super::error::SampleError;
use crate::handshake::{MAX_FIELDS, MAX_HEAD, head_len};

/// A `Response` keeps what has come of a response.
#[derive(Debug)]
pub(super) struct Response {
    bytes: Vec<u8>,
    /// The most bytes of the body.
    max_body: usize,
    head: Option<Head>,
}

/// The contents of the head.
#[derive(Clone, Copy, Debug)]
struct Head {
    len: usize,
    /// The length of the body; without one, it ends with the connection.
    body_len: Option<usize>,
}

impl Response {
    pub(super) const fn new(max_body: usize) -> Self {
        Self {
            bytes: Vec::new(),
            max_body,
            head: None,
        }
    }

    /// Whether nothing has come of it.
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes bytes of the response. Returns the body once all of it is here.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, SampleError> {
        let seen = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        let head = match self.head {
            Some(head) => head,
            None => match head_len(&self.bytes, seen) {
                Some(len) => *self.head.insert(parse(&self.bytes[..len])?),
                None if self.bytes.len() > MAX_HEAD => return Err(SampleError::NotHttp),
                None => return Ok(None),
            },
        };
        let here = self.bytes.len() - head.len;
        if here.max(head.body_len.unwrap_or_default()) > self.max_body {
            return Err(SampleError::TooLong(self.max_body));
        }
        if head.body_len.is_some_and(|len| here >= len) {
            return self.finish().map(Some);
        }
        Ok(None)
    }

    /// The body, since the connection has ended.
    pub(super) fn finish(&mut self) -> Result<Vec<u8>, SampleError> {
        let head = self.head.ok_or(SampleError::CutShort)?;
        let mut body = self.bytes.split_off(head.len);
        match head.body_len {
            Some(len) if body.len() < len => return Err(SampleError::CutShort),
            Some(len) => body.truncate(len),
            None => {}
        }
        Ok(body)
    }
}

fn parse(head: &[u8]) -> Result<Head, SampleError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let is_complete = matches!(parsed.parse(head), Ok(status) if status.is_complete());
    let (true, Some(code)) = (is_complete, parsed.code) else {
        return Err(SampleError::NotHttp);
    };
    if code != 200 {
        return Err(SampleError::Status(code));
    }
    let mut body_len = None;
    for field in parsed.headers.iter() {
        let value = str::from_utf8(field.value).unwrap_or_default().trim();
        if field.name.eq_ignore_ascii_case("Content-Length") {
            body_len = Some(value.parse().map_err(|_| SampleError::NotHttp)?);
        } else if field.name.eq_ignore_ascii_case("Transfer-Encoding") {
            // A relay sends none, and no proxy may stand before it.
            return Err(SampleError::NotHttp);
        }
    }
    Ok(Head {
        len: head.len(),
        body_len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result of a response that comes in two pieces, of which the second may be empty, and then ends.
    fn received(bytes: &[u8], cut: usize, max: usize) -> Result<Vec<u8>, SampleError> {
        let mut response = Response::new(max);
        for piece in [&bytes[..cut], &bytes[cut..]] {
            if let Some(body) = response.feed(piece)? {
                return Ok(body);
            }
        }
        response.finish()
    }

    #[test]
    fn body_is_complete_by_its_length_or_by_the_end_however_it_is_cut() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        ] {
            let bytes = [head.as_bytes(), b"hello"].concat();
            for cut in 0..=bytes.len() {
                assert_eq!(received(&bytes, cut, 5).unwrap(), b"hello", "{head} {cut}");
            }
            let is_too_long = received(&bytes, 3, 4);
            assert!(matches!(is_too_long, Err(SampleError::TooLong(4))));
        }
    }

    #[test]
    fn response_that_is_none_is_refused() {
        for (bytes, what) in [
            ("", "CutShort"),
            ("HTTP/1.1 200 OK\r\n", "CutShort"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
                "CutShort",
            ),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "Status(503)"),
            ("SSH-2.0-OpenSSH\r\n\r\n", "NotHttp"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "NotHttp"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "NotHttp",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
                "TooLong(1000)",
            ),
        ] {
            let error = received(bytes.as_bytes(), 0, 1000).unwrap_err();
            assert_eq!(format!("{error:?}"), what, "{bytes}");
        }
        let endless = vec![b'x'; MAX_HEAD + 1];
        let error = received(&endless, 0, 1000).unwrap_err();
        assert!(matches!(error, SampleError::NotHttp));
    }
}
