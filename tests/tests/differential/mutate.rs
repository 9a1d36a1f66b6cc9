//! Makes cases out of the corpus: lines, bytes and digits changed where they matter, two requests spliced into one.
//!
//! A case follows from the seed and its number alone, so that one that failed can be made again.

use crate::corpus::{self, Vector};
use weir_tests::random::Random;

/// What is sent on one connection to every proxy.
pub(crate) struct Case {
    /// Also in its markers.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Where it is cut into pieces.
    pub(crate) cuts: Vec<usize>,
}

/// Bytes that servers disagree about, and parts of numbers and escapes.
const INSERTED: [&[u8]; 24] = [
    b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b"\x0b", b"\x0c", b"\x7f", b"\x80", b"\x85", b"\xa0", b",",
    b";", b":", b"0", b"1", b"f", b"#", b"\\", b"/", b"%2f", b"..", b"\"",
];

/// Lines that say how long a body is, or seem to.
const LINES: [&[u8]; 10] = [
    b"Content-Length: 0\r\n",
    b"Content-Length: 4\r\n",
    b"Content-Length: 40\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b"4\r\nbody\r\n",
    b"0\r\n",
    b"\r\n",
];

const CUTS_MAX: usize = 3;
const MUTATIONS_MAX: usize = 4;

impl Case {
    /// A vector as it stands.
    pub(crate) fn of(text: &[u8], number: usize) -> Self {
        let name = format!("v{number}");
        let bytes = [corpus::render(text, &name), corpus::canary(&name)].concat();
        Self { name, bytes, cuts: vec![] }
    }

    /// One of the mutated cases under a seed.
    pub(crate) fn mutated(seed: u64, number: u64, seeds: &[Vector]) -> Self {
        let mut random = Random::of(seed, number);
        let name = number.to_string();
        let mut bytes = corpus::render(random.one_of(seeds).0, &name);
        for _ in 0..=random.below(MUTATIONS_MAX) {
            let other = corpus::render(random.one_of(seeds).0, &name);
            mutate(&mut bytes, &other, &mut random);
        }
        bytes.extend(corpus::canary(&name));
        let mut cuts: Vec<usize> = match random.below(2 * CUTS_MAX) {
            count @ 1..=CUTS_MAX => (0..count).map(|_| place(&bytes, &mut random)).collect(),
            _ => vec![],
        };
        cuts.sort_unstable();
        Self { name, bytes, cuts }
    }

    /// For a route's own host.
    pub(crate) fn at(&self, host: &str) -> Vec<u8> {
        assert_eq!(host.len(), corpus::HOST.len(), "hosts change nothing else");
        let mut bytes = self.bytes.clone();
        for at in 0..bytes.len().saturating_sub(host.len()) {
            let place = &mut bytes[at..at + host.len()];
            if place.eq_ignore_ascii_case(corpus::HOST.as_bytes()) {
                place.copy_from_slice(host.as_bytes());
            }
        }
        bytes
    }
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = place(bytes, random);
    match random.below(12) {
        0..=3 => drop(bytes.splice(at..at, random.one_of(&INSERTED).iter().copied())),
        4 => change_line_end(bytes, random),
        5 => move_lines(bytes, random),
        6 => {
            let at = *random.one_of(&line_starts(bytes));
            bytes.splice(at..at, random.one_of(&LINES).iter().copied());
        }
        7 => {
            // The start of one request and the end of another.
            bytes.truncate(at);
            bytes.extend_from_slice(&other[place(other, random)..]);
        }
        8 => change_one(bytes, random, u8::is_ascii_digit, |byte, random| {
            *byte = *random.one_of(b"0123456789afFx+-_ ");
        }),
        9 => change_one(bytes, random, u8::is_ascii_alphabetic, |byte, _| *byte ^= 0x20),
        10 if at < bytes.len() => drop(bytes.remove(at)),
        _ => bytes.extend_from_slice(other),
    }
}

/// A place in some bytes, where lines and their parts begin and end more often than elsewhere.
fn place(bytes: &[u8], random: &mut Random) -> usize {
    let is_edge = |at: &usize| {
        let is_sign = |byte: Option<&u8>| byte.is_some_and(|byte| b"\r\n: ;/".contains(byte));
        is_sign(bytes.get(*at)) || is_sign(at.checked_sub(1).and_then(|before| bytes.get(before)))
    };
    if random.once_in(3) {
        return random.below(bytes.len() + 1);
    }
    let edges: Vec<usize> = (0..=bytes.len()).filter(is_edge).collect();
    edges.get(random.below(edges.len())).copied().unwrap_or_default()
}

fn line_starts(bytes: &[u8]) -> Vec<usize> {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    [0].into_iter().chain(ends.map(|(at, _)| at + 1)).collect()
}

fn change_line_end(bytes: &mut Vec<u8>, random: &mut Random) {
    let ends: Vec<usize> =
        bytes.windows(2).enumerate().filter(|(_, pair)| *pair == b"\r\n").map(|(at, _)| at).collect();
    if ends.is_empty() {
        return;
    }
    let at = *random.one_of(&ends);
    let ends: [&[u8]; 6] = [b"\n", b"\r", b"", b"\r\r\n", b"\r\n ", b"\n\r"];
    bytes.splice(at..at + 2, random.one_of(&ends).iter().copied());
}

/// Doubles a line, deletes it or swaps it with another.
fn move_lines(bytes: &mut Vec<u8>, random: &mut Random) {
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    if lines.is_empty() {
        return;
    }
    let (one, other) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(3) {
        0 => lines.insert(other, lines[one]),
        1 => drop(lines.remove(one)),
        _ => lines.swap(one, other),
    }
    *bytes = lines.concat();
}

fn change_one(
    bytes: &mut [u8],
    random: &mut Random,
    is_meant: impl Fn(&u8) -> bool,
    change: impl Fn(&mut u8, &mut Random),
) {
    let places: Vec<usize> =
        bytes.iter().enumerate().filter(|(_, byte)| is_meant(byte)).map(|(at, _)| at).collect();
    if !places.is_empty() {
        change(&mut bytes[*random.one_of(&places)], random);
    }
}

#[test]
fn a_seed_makes_the_same_cases() {
    let seeds: Vec<Vector> = corpus::vectors().collect();
    let all = |seed| (0..100).map(|number| Case::mutated(seed, number, &seeds).bytes).collect::<Vec<_>>();
    assert_eq!(all(7), all(7));
    assert_ne!(all(7), all(8));
}
