//! What a run came to, for people and machines: a table, JSON and a page.
//!
//! All three are made from the same [`Report`] and say the same. They return text; printing and writing files is the
//! binary's part.

mod charts;
pub(crate) mod format;
mod html;
mod json;
mod plot;
mod table;

use crate::outcome::{Outcome, StageOutcome};
use crate::plan::Plan;
use crate::threshold::Judgement;
use crate::usage::Verdict;

pub use html::html;
pub use json::json;
pub use table::table;

/// All that there is to report.
pub struct Report<'a> {
    /// What was to be done.
    pub plan: &'a Plan,
    /// What came of it.
    pub outcome: &'a Outcome,
    /// How it stands to the thresholds that were given.
    pub judgements: &'a [Judgement],
    /// How counters compare; none where that was not asked for.
    pub usage: Option<&'a [Verdict]>,
}

/// A thread that wanted a core for more of the time than this was probably what limited the run.
const BUSY: f64 = 0.9;
/// Sends that were later than this, in one of a hundred cases, blur what was measured.
const LATE_MS: f64 = 2.0;
/// More waiting for a connection than this is worth a word, in per cent.
const WAITED_PERCENT: f64 = 1.0;

impl Report<'_> {
    /// Whether nothing has failed: all thresholds hold and all counters are explained.
    pub fn is_passed(&self) -> bool {
        self.judgements.iter().all(|judgement| judgement.failed.is_none())
            && self.usage.is_none_or(|verdicts| verdicts.iter().all(Verdict::is_explained))
    }

    /// What a reader must know before believing the numbers, a line for each kind.
    fn warnings(&self) -> Vec<String> {
        let number = format::number;
        let busy =
            self.worst(|stage| Some(stage.busiest_thread * 100.0).filter(|_| stage.busiest_thread > BUSY));
        let late = self.worst(|stage| {
            let ms = stage.late.percentile(99.0).as_secs_f64() * 1e3;
            Some(ms).filter(|ms| *ms > LATE_MS)
        });
        let waited = self.worst(|stage| {
            let percent = stage.waited as f64 / stage.due.max(1) as f64 * 100.0;
            Some(percent).filter(|percent| *percent > WAITED_PERCENT)
        });
        let not_sent = self.worst(|stage| Some(stage.not_sent as f64).filter(|_| stage.not_sent > 0));
        let busy_line = busy.as_ref().map(|(stages, percent)| {
            format!(
                "{stages}: weir load itself ran or waited for a core {} % of the time, so this is its limit or this \
                 machine's; more --threads help where cores are free",
                number(percent.min(100.0))
            )
        });
        let late_line = late.map(|(stages, ms)| {
            format!(
                "{stages}: 1 of 100 requests was sent {} ms late or more, since this machine was busy",
                number(ms)
            )
        });
        // Where this program is the limit, more connections are no help.
        let waited_line = waited.filter(|_| busy.is_none()).map(|(stages, percent)| {
            format!(
                "{stages}: {} % of the requests waited for a free connection, and their latency shows it; with more \
                 --connections they wait in the deployment instead",
                number(percent)
            )
        });
        let not_sent_line = not_sent.map(|(stages, count)| {
            format!("{stages}: {} requests were not sent; no percentile knows of them", number(count))
        });
        [busy_line, late_line, waited_line, not_sent_line].into_iter().flatten().collect()
    }

    /// In which stages something is so, and the highest value it has in one: `stage 3`, or `4 stages, most in stage 7`.
    fn worst(&self, of: impl Fn(&StageOutcome) -> Option<f64>) -> Option<(String, f64)> {
        let stages = self.outcome.stages.iter().enumerate();
        let found: Vec<(usize, f64)> = stages.filter_map(|(at, stage)| Some((at, of(stage)?))).collect();
        let (at, value) = found.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1))?;
        let name = self.stage_name(at);
        Some((if found.len() == 1 { name } else { format!("{} stages, most in {name}", found.len()) }, value))
    }

    /// `stage 3`, or `warm-up`.
    fn stage_name(&self, at: usize) -> String {
        if self.outcome.stages[at].stage.is_warm_up {
            "warm-up".into()
        } else {
            format!("stage {}", self.number(at))
        }
    }

    /// Stages are counted from 1, warm-ups left out.
    fn number(&self, at: usize) -> usize {
        self.outcome.stages[..=at].iter().filter(|stage| !stage.stage.is_warm_up).count()
    }

    /// `stage 3 (6,000/s)`.
    fn stage_with_rate(&self, at: usize) -> String {
        format!("{} ({}/s)", self.stage_name(at), format::rate(&self.outcome.stages[at].stage))
    }

    /// Where the thresholds end to hold, in a run of rising rates.
    fn knee(&self) -> Option<String> {
        let rate = |at: usize| format::rate(&self.outcome.stages[at].stage);
        Some(match self.knee_stages()? {
            (Some(held), None) => format!("all thresholds hold up to {}/s", rate(held)),
            (Some(held), Some(failed)) => format!("between {}/s and {}/s", rate(held), rate(failed)),
            (None, failed) => format!("below {}/s", rate(failed?)),
        })
    }

    /// The last stage before the first that fails a threshold, and that one; in a run of rising rates.
    fn knee_stages(&self) -> Option<(Option<usize>, Option<usize>)> {
        let stages = &self.outcome.stages;
        let judged: Vec<usize> = (0..stages.len()).filter(|at| !stages[*at].stage.is_warm_up).collect();
        let is_rising = judged.windows(2).all(|pair| stages[pair[0]].stage.to <= stages[pair[1]].stage.to);
        if judged.len() < 2 || !is_rising || self.judgements.is_empty() {
            return None;
        }
        let failed = self.first_failed();
        let held = judged.into_iter().rfind(|at| failed.is_none_or(|failed| *at < failed));
        Some((held, failed))
    }

    /// The first stage that fails a threshold.
    fn first_failed(&self) -> Option<usize> {
        self.judgements.iter().filter_map(|judgement| judgement.failed.as_ref().map(|(at, _)| *at)).min()
    }
}
