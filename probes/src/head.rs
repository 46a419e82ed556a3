//! How the head of an answer over HTTP/1.1 is read, wherever it was asked: bounded, and as leniently as users' programs read it.

use hyper::client::conn::http1;

/// Largest head of a response, in bytes: servers send a few kilobytes, browsers give up at about 256 KiB.
pub(crate) const BYTES_MAX: usize = 32 * 1024;
/// Most headers of a response.
const HEADERS_MAX: usize = 128;

/// A connection that reads heads so. What old and small servers write beside the rules (a blank before the colon, a value over
/// several lines, a line that is no header), users never notice: nobody is to be restarted for it. Nothing is passed on to others,
/// whom two readings of one head could deceive (RFC 9112, 5.1 and 5.2).
pub(crate) fn reading() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    builder
}
