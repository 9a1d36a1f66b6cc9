//! A number and its check in one word, so that both are always replaced together.
//!
//! Counters and the number of slots are kept so. The check finds each change within 16 neighbouring bits for certain;
//! anything else, and a word that was sealed with another key, passes once in 65,536 times.

/// What a counter can hold: 2^48 - 1. It stays there.
pub const COUNT_MAX: u64 = (1 << 48) - 1;

/// Of the check, of keys, and of each third of the number.
const PART_MASK: u64 = 0xffff;

/// For each third of the number. They are odd: a change within one third always changes the check.
const FACTORS: [u64; 3] = [0x9e37, 0x85eb, 0xc2b3];

/// The number, at most [`COUNT_MAX`], with its check under a key, of which the lower 16 bits count.
pub(crate) fn seal(number: u64, key: u64) -> u64 {
    let thirds = [number & PART_MASK, number >> 16 & PART_MASK, number >> 32];
    let sum = thirds[0] * FACTORS[0] + thirds[1] * FACTORS[1] + thirds[2] * FACTORS[2];
    sum.wrapping_add(key) << 48 | number
}

/// The number, when the check is its own.
pub(crate) fn unseal(word: u64, key: u64) -> Option<u64> {
    let number = number(word);
    (seal(number, key) == word).then_some(number)
}

/// The number, unchecked.
pub(crate) fn number(word: u64) -> u64 {
    word & COUNT_MAX
}

/// The word for a number that is larger by so much, at most [`COUNT_MAX`].
pub(crate) fn add(word: u64, by: u64, key: u64) -> u64 {
    /// What one more changes while only the lowest third does: the check grows in proportion, and out of the word.
    const ONE: u64 = FACTORS[0] << 48 | 1;
    // Nearly always. One addition instead of a check made anew: it takes a quarter less time.
    if (word & PART_MASK).saturating_add(by) <= PART_MASK {
        return word.wrapping_add(by.wrapping_mul(ONE));
    }
    seal(number(word).saturating_add(by).min(COUNT_MAX), key)
}

#[cfg(test)]
mod tests {
    use super::{COUNT_MAX, add, seal, unseal};

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

    #[test]
    fn adding_is_the_same_as_sealing_the_sum() {
        let numbers =
            [0, 1, 0xfffe, 0xffff, 0x1_0000, 0xffff_ffff, 0x1234_5678_9abc, COUNT_MAX - 1, COUNT_MAX];
        for (number, by) in numbers.iter().flat_map(|n| numbers.map(|by| (*n, by))).chain([(3, u64::MAX)]) {
            let sum = number.saturating_add(by).min(COUNT_MAX);
            for key in [0, 7, 0xffff, u64::MAX] {
                assert_eq!(
                    add(seal(number, key), by, key),
                    seal(sum, key),
                    "{number:x} + {by:x}, key {key:x}"
                );
            }
        }
    }
}
