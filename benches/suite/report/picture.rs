//! A drawing in SVG, readable on light and on dark ground: it follows what the reader prefers.

use std::fmt::Display;

/// Colours are named here and nowhere else. Ours is blue, what it stands beside is grey.
const STYLE: &str = "\
:root { --ground: #ffffff; --ink: #1b1f24; --muted: #59636e; --rule: #d8dee4;
        --ours: #1f6feb; --ours-too: #9ec5ff; --peer: #8c959f; --peer-too: #cdd3da; --target: #b35900; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0d1117; --ink: #e6edf3; --muted: #9198a1; --rule: #30363d;
          --ours: #4493f8; --ours-too: #1f4f8f; --peer: #7d8590; --peer-too: #454c54; --target: #f0a35e; }
}
text { font: 13px system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif; fill: var(--ink); }
.title { font-size: 16px; font-weight: 600; }
.small { font-size: 11.5px; fill: var(--muted); }
.on-curve { font-size: 11.5px; paint-order: stroke; stroke: var(--ground); stroke-width: 3px; }
.ground { fill: var(--ground); }
.rule { stroke: var(--rule); stroke-width: 1; fill: none; }
.target { stroke: var(--target); stroke-width: 2.5; }
.target-edge { stroke: var(--ground); stroke-width: 6; }
.ours { fill: var(--ours); } .ours-too { fill: var(--ours-too); }
.peer { fill: var(--peer); } .peer-too { fill: var(--peer-too); }
.curve { fill: none; stroke: var(--ours); stroke-width: 2.5; stroke-linejoin: round; }
.curve-peer { fill: none; stroke: var(--peer); stroke-width: 2.5; stroke-linejoin: round; }
";

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// A drawing in progress. Coordinates are pixels from the upper left.
pub(super) struct Picture {
    width: f64,
    height: f64,
    body: String,
}

impl Picture {
    /// Empty ground.
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// A filled box.
    pub(super) fn rectangle(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64) {
        self.body += &format!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>\n"
        );
    }

    /// A straight line.
    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.body += &format!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\n"
        );
    }

    /// A line through points.
    pub(super) fn curve(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.body += &format!("<polyline class=\"{class}\" points=\"{}\"/>\n", points.join(" "));
    }

    /// A dot.
    pub(super) fn dot(&mut self, class: &str, (x, y): (f64, f64)) {
        self.body += &format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>\n");
    }

    /// A line of text on a base line.
    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: impl Display) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = text.to_string().replace('&', "&amp;").replace('<', "&lt;");
        self.body += &format!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"
        );
    }

    /// The file.
    pub(super) fn finish(self) -> String {
        let Self { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n\
             <style>\n{STYLE}</style>\n<rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>\n{body}</svg>\n"
        )
    }
}

/// The least of 1, 2, 2.5, 5, 10, 20, … that is not below a value.
pub(super) fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-9).log10().floor());
    let steps = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, expected) in [(0.9, 1.0), (1.0, 1.0), (7.1, 8.0), (22.0, 25.0), (31.0, 40.0)] {
            assert!((round_up(value) - expected).abs() < 1e-9, "{value}: {}", round_up(value));
        }
    }

    #[test]
    fn text_is_escaped() {
        let mut picture = Picture::new(10.0, 10.0);
        picture.text("small", (0.0, 0.0), Anchor::Start, "a < b & c");
        assert!(picture.finish().contains("a &lt; b &amp; c"));
    }
}
