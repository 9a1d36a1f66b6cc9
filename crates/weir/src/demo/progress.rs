//! What the demo is doing at the moment, on a terminal; silent elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A spinner with a line of text.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Begins.
    pub(super) fn start() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    /// Says what is done now.
    pub(super) fn show(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    /// Prints a line above the spinner.
    pub(super) fn line(&self, text: &str) {
        // The bar hides its own lines where there is no terminal.
        self.0.suspend(|| println!("{text}"));
    }

    /// Takes the spinner away.
    pub(super) fn end(&self) {
        self.0.finish_and_clear();
    }
}
