//! Leases as Redis has them, read: `leases.lua` says what is where.

use std::sync::Arc;

use rmp::decode::{read_array_len, read_int, read_str_len};
use weir_core::counter::Ceiling;
use weir_core::lease::LeaseId;
use weir_core::lease::ledger::{Lease, Line};
use weir_core::{AlertBins, Increment, Period, Timestamp, UsageValue};

/// Values of a lease before its lines.
const HEAD: usize = 6;
/// Values of a line.
const PER_LINE: usize = 3;
/// Values of an increment before its ceilings.
const INCREMENT_HEAD: usize = 4;

/// A lease's name: its boot, then its sequence.
pub(super) fn lease_id_bytes(id: LeaseId) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&id.boot);
    bytes[16..].copy_from_slice(&id.sequence.to_be_bytes());
    bytes
}

fn read_lease_id(bytes: &[u8]) -> Option<LeaseId> {
    let (boot, sequence) = bytes.split_first_chunk()?;
    Some(LeaseId { boot: *boot, sequence: u64::from_be_bytes(sequence.try_into().ok()?) })
}

/// All leases of an application.
pub(super) fn read_leases(from: &mut &[u8]) -> Option<Vec<Lease>> {
    (0..read_length(from)?).map(|_| read_lease(from)).collect()
}

/// One of them.
pub(super) fn read_lease(from: &mut &[u8]) -> Option<Lease> {
    let lines = read_length(from)?.checked_sub(HEAD)? / PER_LINE;
    Some(Lease {
        id: read_lease_id(read_text(from)?)?,
        holder: Arc::from(std::str::from_utf8(read_text(from)?).ok()?),
        round: read_int(from).ok()?,
        moment: read_moment(from)?,
        deadline: read_moment(from)?,
        is_presumed: read_int::<u8, _>(from).ok()? == 1,
        lines: (0..lines).map(|_| read_line(from)).collect::<Option<_>>()?,
    })
}

fn read_line(from: &mut &[u8]) -> Option<Line> {
    let unit = read_unit(&mut read_text(from)?)?;
    Some(Line { unit, granted: read_int(from).ok()?, settled: read_int(from).ok()? })
}

/// What a unit adds, as the wire form of a batch has usages.
fn read_unit(from: &mut &[u8]) -> Option<Vec<Increment>> {
    (0..read_length(from)?).map(|_| read_increment(from)).collect()
}

fn read_increment(from: &mut &[u8]) -> Option<Increment> {
    let ceilings = read_length(from)?.checked_sub(INCREMENT_HEAD)? / 2;
    let metric = std::str::from_utf8(read_text(from)?).ok()?.parse().ok()?;
    // The lowest bit says that it sets, which no unit does.
    let alert_bins = AlertBins::of_bits(u8::try_from(read_int::<u16, _>(from).ok()? >> 1).ok()?);
    let value = UsageValue::Add(read_int(from).ok()?);
    let _first_period: u8 = read_int(from).ok()?;
    let ceiling = |_| {
        let place: usize = read_int(from).ok()?;
        let period = *Period::ALL.get(place.checked_sub(1)?)?;
        Some(Ceiling { period, max: read_int(from).ok()? })
    };
    let ceilings = (0..ceilings).map(ceiling).collect::<Option<_>>()?;
    Some(Increment { metric, value, ceilings, alert_bins })
}

fn read_moment(from: &mut &[u8]) -> Option<Timestamp> {
    read_int(from).ok().map(Timestamp::from_unix_ms)
}

fn read_length(from: &mut &[u8]) -> Option<usize> {
    usize::try_from(read_array_len(from).ok()?).ok()
}

/// A text of any bytes.
pub(super) fn read_text<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let bytes = usize::try_from(read_str_len(from).ok()?).ok()?;
    let (text, rest) = from.split_at_checked(bytes)?;
    *from = rest;
    Some(text)
}
