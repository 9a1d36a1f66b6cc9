#![no_main]
//! A report of 3scale's API: a line with `3scale-options`, a line with the Content-Type, then the body.
//!
//! It is read, or refused with one of the statuses that there are, and holds no more than was sent.

use libfuzzer_sys::fuzz_target;
use weir_fuzz::cut;
use weir_listener::fuzzing::report;

fuzz_target!(|bytes: &[u8]| {
    let Some((options, rest)) = cut(bytes, b"\n") else { return };
    let Some((content_type, body)) = cut(rest, b"\n") else { return };
    match report(options, content_type, body) {
        Ok((transactions, metrics)) => {
            assert!(transactions <= body.len() && metrics <= body.len(), "more than was sent");
        }
        Err(status) => assert!(matches!(status, 400 | 422), "refused with {status}"),
    }
});
