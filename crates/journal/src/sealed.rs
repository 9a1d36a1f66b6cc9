//! A number and its check in one word, so that both are always replaced together.
//!
//! Counters and the number of slots are kept so. The check finds each change within 16 neighbouring bits for certain;
//! anything else, and a word that was sealed with another key, passes once in 65,536 times.

/// What a counter can hold: 2^48 - 1. It stays there.
pub const COUNT_MAX: u64 = (1 << 48) - 1;

/// Of the check, and of keys.
const CHECK_MASK: u64 = 0xffff;

/// The number, at most [`COUNT_MAX`], with its check under a key, of which the lower 16 bits count.
pub(crate) fn seal(number: u64, key: u64) -> u64 {
    number << 16 | check(number, key)
}

/// The number, when the check is its own.
pub(crate) fn unseal(word: u64, key: u64) -> Option<u64> {
    let number = number(word);
    (seal(number, key) == word).then_some(number)
}

/// The number, unchecked.
pub(crate) fn number(word: u64) -> u64 {
    word >> 16
}

/// Odd factors: a change within one of the three parts always changes the sum.
fn check(number: u64, key: u64) -> u64 {
    let parts = [number & CHECK_MASK, number >> 16 & CHECK_MASK, number >> 32];
    let sum = parts[0] * 0x9e37 + parts[1] * 0x85eb + parts[2] * 0xc2b3;
    sum.wrapping_add(key) & CHECK_MASK
}

#[cfg(test)]
mod tests {
    use super::{COUNT_MAX, seal, unseal};

    #[test]
    fn only_what_was_sealed_is_read() {
        for number in [0, 1, 0xffff, 0x1_0000, 0x1234_5678_9abc, COUNT_MAX] {
            let word = seal(number, 7);
            assert_eq!(unseal(word, 7), Some(number));
            assert_eq!(unseal(word, 8), None, "another key");
            for bit in 0..64 {
                assert_eq!(unseal(word ^ 1 << bit, 7), None, "{number:x}, bit {bit}");
            }
            for byte in 0..8 {
                assert_eq!(unseal(word ^ 0xff << (8 * byte), 7), None, "{number:x}, byte {byte}");
            }
        }
    }
}
