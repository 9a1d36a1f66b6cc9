#![no_main]
//! Parameters of 3scale's API, as anybody may send them: a query string or a form, with names that nest.
//!
//! What is read comes from the text: no more values than pairs, no deeper than names are nested, no longer than it was.
//! The same text says the same again, and pairs of nothing in between say nothing.

use libfuzzer_sys::fuzz_target;
use weir_listener::fuzzing::{parameters, timestamp};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = timestamp(text);
    }
    let Some(shape) = parameters(bytes) else { return };
    let pairs = bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).count();
    assert!(shape.values <= pairs, "values out of nothing");
    assert!(shape.depth <= 64, "deeper than a name may be");
    assert!(shape.bytes <= bytes.len() * 2, "longer than it was");
    assert_eq!(parameters(bytes).as_ref(), Some(&shape));
    let spaced: Vec<u8> = [b"&& &", bytes, b"&"].concat();
    assert_eq!(parameters(&spaced), Some(shape));
});
