//! Leases: pieces of quota that a gateway spends by itself for a moment, so that no request waits for the network.
//!
//! Both ends are here, pure: [`ledger`] is what the store does, [`holding`] what a gateway does. They meet in
//! [`Message`] and [`Reply`], and everything in a message is a running total: what was spent *so far*, how far the
//! holder may go. So a message that is lost is made good by the next, one that comes twice changes nothing, and one that
//! comes late is known by its round.
//!
//! The rules that keep limits exact:
//!
//! - Nothing is admitted and nothing granted when `used + held + n > max`; what a lease holds is what it was granted and
//!   has not settled.
//! - A holder never spends beyond what it was granted, nor after its end; its end is before the ledger's.
//! - A holder that wants less says so first and stays below it from then on; only then does the ledger give it away.
//! - Only the answer to a holder's latest message counts.
//! - A lease that is not heard of until its deadline counts as used whole; its holder's last word corrects that.
//! - A ledger that has forgotten a lease in a fail-over takes it over from what its holder tells; unless it may have
//!   closed it so long ago that it does not remember, since then it would count twice.
//! - A lease is asked for in one life of the ledger: one that comes late is void in the next. Last words are kept until
//!   the ledger has lived on for some seconds after it heard them.
//!
//! No limit hangs on a gateway's clock: what a holder spends late is within what was presumed. A clock that is slow by
//! less than half, or jumps ahead, only moves usage to a neighbouring window, or ends leases early. What hangs on clocks
//! is that fail-overs forget nothing: a jump by more than three seconds can make a holder drop a last word too soon.

pub mod holding;
pub mod ledger;

use crate::id::MetricName;
use crate::period::{Timestamp, Window};

/// How long a lease lives before it has to be renewed, in milliseconds, unless its holder asks for longer.
pub const LIFETIME_MS: u64 = 1_000;

/// Longest that a lease may live without being renewed, in milliseconds.
pub const LIFETIME_MAX_MS: u64 = 600_000;

/// How long the ledger waits for a holder's last word after a lease's end, in milliseconds.
pub const GRACE_MS: u64 = 1_000;

/// How long a lease that was presumed used can be corrected by its holder, in milliseconds.
pub const CORRECTABLE_MS: u64 = 72 * 3_600_000;

/// Most metrics in one lease.
pub const LINES_MAX: usize = 16;

/// Names a lease: chosen by the gateway before it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId {
    /// One run of one gateway: random.
    pub boot: [u8; 16],
    /// Counts up from 1 within a boot.
    pub sequence: u64,
}

/// Whose windows a lease counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Those of now.
    Now,
    /// The ones that begin when the shortest of those of now ends.
    Next,
}

/// What a holder tells of one of its leases, and asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which.
    pub id: LeaseId,
    /// Counts up with every message about this lease.
    pub round: u32,
    /// The lease is asked for; `None`: it was granted before.
    pub opens: Option<When>,
    /// Nothing will be spent any more: this is the last word.
    pub closes: bool,
    /// How long the lease is to live without being renewed, in milliseconds: [`LIFETIME_MS`] to [`LIFETIME_MAX_MS`].
    pub lasts_ms: u64,
    /// Of the latest [`Grant`]. When the lease is asked for: which life of the ledger is asked, as far as is known.
    pub declared: Option<Declared>,
    /// In the order in which they were first named.
    pub lines: Vec<Line>,
}

impl Message {
    /// Says what was spent of a lease, and that nothing more will be. The ledger takes it whatever its round is. A gateway
    /// that was killed says it of every lease that its journal has, with what the ledger declared, if it is known: without,
    /// nothing was spent.
    pub fn last_word(
        id: LeaseId,
        declared: Option<Declared>,
        spent: impl IntoIterator<Item = (MetricName, u64)>,
    ) -> Self {
        let line = |(metric, spent)| Line { metric, spent, granted: spent, want: 0, least: 1 };
        let lines = spent.into_iter().map(line).collect();
        Self { id, round: 0, opens: None, closes: true, lasts_ms: LIFETIME_MS, declared, lines }
    }
}

/// What a ledger that has forgotten a lease needs to take it over. Its holder keeps it as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declared {
    /// One life of the ledger: another after a fail-over, which may have forgotten what was written last.
    pub incarnation: u64,
    /// The lease counts in the windows of this moment.
    pub moment: Timestamp,
}

/// One metric of a [`Message`], as requests name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which; usage of a method counts for its ancestors, too.
    pub metric: MetricName,
    /// What was spent so far.
    pub spent: u64,
    /// How far the holder may go until it is granted more; at least what it has spent.
    pub granted: u64,
    /// How much it would like to have before it beyond `spent`.
    pub want: u64,
    /// What one request needs: less is of no use.
    pub least: u64,
}

/// The ledger's answer to a [`Message`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The lease is out.
    Granted(Grant),
    /// It is not, and does not become so; what was spent is counted.
    Closed,
    /// So little is left that single requests are decided one by one.
    Short,
}

/// What may be spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// For the holder's next messages.
    pub declared: Declared,
    /// How far the holder may go, by line.
    pub granted: Vec<u64>,
    /// When it may begin, counted from the arrival of the answer, in milliseconds.
    pub begins_in_ms: u64,
    /// When it must end, counted from the moment of asking, in milliseconds.
    pub ends_in_ms: u64,
    /// When its shortest window ends, counted from the moment of asking, in milliseconds.
    pub window_ends_in_ms: u64,
    /// Where the limits of all lines stand.
    pub standings: Vec<Standing>,
    /// By line: how much a unit adds to which standing.
    pub weights: Vec<Vec<(usize, u64)>>,
}

/// A limit as a lease finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What is limited.
    pub metric: MetricName,
    /// In which window.
    pub window: Window,
    /// Inclusive.
    pub max: u64,
    /// What is used, or held by others: all but what this holder has not settled.
    pub taken: u64,
}
