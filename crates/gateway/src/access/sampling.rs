//! Which ordinary requests get a line in the access log, when not all of them do.
//!
//! Chosen by a hash of the request id that is the same everywhere, so that gateways which see the same id of a client
//! log the same requests. It is no secret: who picks ids can pick what is logged of what went well.

/// The share of ordinary requests that is logged.
pub(crate) struct Sampling {
    ratio: f64,
}

impl Sampling {
    /// Of 1 all are logged, of 0 none.
    pub(crate) fn new(ratio: f64) -> Self {
        Self { ratio }
    }

    /// Whether the request with this id is among them.
    pub(crate) fn takes(&self, id: &str) -> bool {
        self.ratio >= 1.0 || position(id) < self.ratio
    }

    /// What each line stands for, to scale counts by; `None`: for itself alone.
    pub(crate) fn share(&self) -> Option<f64> {
        (self.ratio < 1.0).then_some(self.ratio)
    }
}

/// Where an id falls between 0 and 1: FNV-1a, mixed once more since ids of one gateway differ in their last bytes only.
fn position(id: &str) -> f64 {
    let fnv = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    // As many bits as a float holds exactly.
    ((mixed ^ (mixed >> 33)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ratio: f64, id: impl Fn(u32) -> String) {
        let sampling = Sampling::new(ratio);
        let taken = (0..100_000).filter(|number| sampling.takes(&id(*number))).count() as f64;
        assert!((taken / 100_000.0 - ratio).abs() < 0.005, "{taken} of 100,000 at {ratio}");
    }

    #[test]
    fn as_many_are_taken_as_wanted() {
        for ratio in [0.0, 0.01, 0.5, 1.0] {
            check(ratio, |number| format!("7c6126a6bd9bdecf{number:016x}"));
            check(ratio, |number| number.to_string());
        }
    }

    #[test]
    fn what_few_take_more_take_too() {
        let [few, more] = [0.1, 0.3].map(Sampling::new);
        assert!((0..1_000).map(|n: u32| n.to_string()).all(|id| !few.takes(&id) || more.takes(&id)));
    }

    /// Other versions have to choose the same.
    #[test]
    fn the_choice_never_changes() {
        let sampling = Sampling::new(0.1);
        let taken: Vec<u32> = (0..60).filter(|n| sampling.takes(&n.to_string())).collect();
        assert_eq!(taken, [8, 10, 14, 18, 31, 34, 53, 57]);
    }

    #[test]
    fn lines_say_what_they_stand_for() {
        assert_eq!(Sampling::new(0.25).share(), Some(0.25));
        assert_eq!(Sampling::new(1.0).share(), None);
    }
}
