//! What a gateway spent of its leases, in a memory-mapped file that survives `kill -9`.
//!
//! The gateway claims a [`Slot`] for each lease in use and adds to its counters before a call goes on. After the
//! lease is settled it releases the slot. What an earlier run left is handed out by [`Journal::open`] to be settled,
//! and stays in the file until that is done. Adding is one compare-and-swap: no system call, no lock, no allocation.
//!
//! It knows nothing of leases: a record is bytes that its owner writes and reads.
//!
//! # What is lost
//!
//! A killed process loses nothing, since the pages belong to the kernel: each call of [`Slot::add`] that returned is
//! found again. A kill amid the counters of one call finds some of them added. A power cut loses what came since the
//! last [`Journal::sync`], and parts of it may be there: each part carries a check, so that what does not belong
//! together is reported as [`Corrupt`] and never counted. What does belong together may be old: each slot has the id of
//! the kernel's run that it was claimed under, and [`Left::machine_restarted`] says that it was another one. All blocks
//! of the file are allocated when it is opened: a full disk is an error then, and no signal later. (A file system that
//! copies what is overwritten, such as btrfs after a snapshot, cannot promise that.)
//!
//! # Layout
//!
//! The file is a head of 4 KiB and then slots of 1 KiB. Everything is made of words of 64 bits in the machine's order
//! of bytes, and is read and written by whole words.
//!
//! | byte of the head | what |
//! |---|---|
//! | 0 | `WEIRJNL`, and the version of this layout, now 1 |
//! | 8 | how many slots, sealed |
//!
//! | byte of a slot | what |
//! |---|---|
//! | 0 | state: 0 is free, `CLAIMED!` is claimed |
//! | 8 | a number that no other claim has |
//! | 16 | bytes of the record, and above 32 bits: how many counters |
//! | 24 | CRC-32 of the slot's number, of its bytes 8 to 24 and 32 to 48, and of the record |
//! | 32 | id of the kernel's run that it was claimed under, 16 bytes |
//! | 48 | up to 18 counters, sealed |
//! | 192 | the record, up to 832 bytes, zeros up to a whole word |
//!
//! A *sealed* word has its number in the lower 48 bits. The upper 16 are a check over the number, and in a counter over
//! the slot's CRC and the counter's index as well: a counter of an earlier claim does not pass.
//!
//! A slot is claimed by one store of its state, after everything else is in place, and released by another. Where
//! a slot is claimed and its parts do not agree, or where its state is neither, it is corrupt.

mod journal;
mod map;
mod open;
mod sealed;
mod slot;

pub use journal::{ClaimError, Journal};
pub use open::{Corrupt, Left, OpenError, Opened, SLOTS_MAX};
pub use sealed::COUNT_MAX;
pub use slot::{COUNTERS_MAX, RECORD_BYTES_MAX, Slot};
