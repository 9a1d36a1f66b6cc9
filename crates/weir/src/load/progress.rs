//! How a run goes, in one line that changes, on a terminal; silent elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use weir_load::Live;

/// The line.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Begins.
    pub(super) fn start() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:24} {msg}") {
            bar.set_style(style);
        }
        bar.set_message("connecting");
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    /// Says what is done now.
    pub(super) fn show(&self, what: &'static str) {
        self.0.set_message(what);
    }

    /// Shows the slice that has just ended.
    pub(super) fn slice(&self, live: &Live<'_>) {
        let slice = live.slice;
        let ms = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        self.0.set_length(ms(live.length));
        self.0.set_position(ms(slice.end.min(live.length)));
        let errors = match slice.classes[3] + slice.no_answer {
            0 => String::new(),
            errors => format!(", {errors} failed"),
        };
        self.0.set_message(format!(
            "stage {} of {}: {:.0}/s of {:.0}/s, p50 {:.1} ms, p99 {:.1} ms, {} in flight{errors}",
            slice.stage + 1,
            live.stages,
            slice.answered_rate(),
            slice.rate,
            slice.p50.as_secs_f64() * 1e3,
            slice.p99.as_secs_f64() * 1e3,
            slice.in_flight,
        ));
    }

    /// Takes the line away.
    pub(super) fn end(&self) {
        self.0.finish_and_clear();
    }
}
