//! Plots as inline SVG: the drawing stretches to any width, the text around it is HTML and does not.
//!
//! The page makes them from series of points. Scales are linear from 0, or logarithmic by powers of ten; gaps in a series
//! stay gaps.

use std::fmt::Write;

use super::format;
use super::html::escaped;

/// How values become places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// From 0 to a round number, in round steps.
    Linear {
        /// The round number.
        end: f64,
        /// How many steps.
        steps: u32,
    },
    /// Between powers of ten.
    Log {
        /// Exponent of the lowest.
        from: i32,
        /// Exponent of the highest.
        to: i32,
    },
}

impl Scale {
    /// From 0, to hold all of these: of 4 to 8 round steps those that leave the least room.
    pub(super) fn linear(values: impl Iterator<Item = f64>) -> Self {
        let most = values.fold(0.0, f64::max).max(1e-9);
        let fitting = |steps: u32| {
            let least = most * (1.0 - 1e-9) / f64::from(steps);
            let power = 10_f64.powf(least.log10().floor());
            let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power);
            let step = step.into_iter().find(|step| *step >= least).unwrap_or(least);
            (step * f64::from(steps), steps)
        };
        let (end, steps) =
            (5..=8).map(fitting).fold(fitting(4), |best, other| if other.0 < best.0 { other } else { best });
        Self::Linear { end, steps }
    }

    /// By powers of ten, to hold all of these that are more than 0.
    pub(super) fn log(values: impl Iterator<Item = f64> + Clone) -> Self {
        let positive = || values.clone().filter(|value| *value > 0.0);
        let least = positive().fold(f64::INFINITY, f64::min);
        let most = positive().fold(0.0, f64::max);
        if most <= 0.0 {
            return Self::Log { from: 0, to: 1 };
        }
        let from = exponent(least.log10().floor());
        Self::Log { from, to: exponent(most.log10().ceil()).max(from + 1) }
    }

    /// 0 at its beginning, 1 at its end.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear { end, .. } => value / end,
            Self::Log { from, to } => (value.log10() - f64::from(from)) / f64::from(to - from),
        }
        .clamp(0.0, 1.0)
    }

    /// What stands at its steps, from low to high, evenly apart.
    fn labels(self) -> Vec<String> {
        match self {
            Self::Linear { end, steps } => {
                let label = |step| format::number(end / f64::from(steps) * f64::from(step));
                (0..=steps).map(label).collect()
            }
            Self::Log { from, to } => (from..=to).map(power_of_ten).collect(),
        }
    }
}

/// Rounded already; milliseconds and rates have small ones.
fn exponent(rounded: f64) -> i32 {
    (-9..=9).find(|power| f64::from(*power) >= rounded).unwrap_or(9)
}

fn power_of_ten(power: i32) -> String {
    match u32::try_from(power) {
        Ok(power) => format::count(10_i128.pow(power)),
        Err(_) => format!("0.{}1", "0".repeat(power.unsigned_abs() as usize - 1)),
    }
}

/// A line of a plot.
pub(super) struct Series {
    /// Its class in the style sheet: `line-1`, …
    pub(super) class: &'static str,
    /// What the legend calls it.
    pub(super) name: String,
    /// Without a value, the line has a gap.
    pub(super) points: Vec<(f64, Option<f64>)>,
    /// Whether each point is marked: where there are few.
    pub(super) dots: bool,
}

/// A plot.
pub(super) struct Plot {
    /// What it shows, in a sentence, for those who do not see it.
    pub(super) label: String,
    pub(super) x: Scale,
    pub(super) y: Scale,
    /// Replaces the labels of the x axis.
    pub(super) x_labels: Option<Vec<String>>,
    pub(super) series: Vec<Series>,
    /// A dotted upright, and what it is.
    pub(super) event: Option<(f64, &'static str)>,
    /// From, to, and what is shown there.
    pub(super) bands: Vec<(f64, f64, String)>,
}

impl Plot {
    /// The plot with its axes.
    pub(super) fn html(&self) -> String {
        let mut svg = String::new();
        let steps = self.y.labels().len() - 1;
        for step in 0..steps {
            let y = 100.0 * step as f64 / steps as f64;
            let _ = write!(svg, "<path class=\"gridline\" d=\"M0 {y:.2}H1000\"/>");
        }
        svg += "<path class=\"axis\" d=\"M0 100H1000\"/>";
        if let Some((event, _)) = self.event {
            let _ = write!(svg, "<path class=\"event\" d=\"M{:.1} 0V100\"/>", self.x.place(event) * 1_000.0);
        }
        for series in &self.series {
            let _ = write!(svg, "<path class=\"{}\" d=\"{}\"/>", series.class, self.line(series));
            if series.dots {
                let _ = write!(svg, "<path class=\"{} dots\" d=\"{}\"/>", series.class, self.dots(series));
            }
        }
        for (from, to, title) in &self.bands {
            let (from, to) = (self.x.place(*from) * 1_000.0, self.x.place(*to) * 1_000.0);
            let _ = write!(
                svg,
                "<rect class=\"band\" x=\"{from:.1}\" width=\"{:.1}\" height=\"100\"><title>{}</title></rect>",
                to - from,
                escaped(title)
            );
        }
        let spans = |labels: Vec<String>| {
            labels.iter().map(|label| format!("<span>{}</span>", escaped(label))).collect()
        };
        let y_labels: String = spans(self.y.labels().into_iter().rev().collect());
        let x_labels: String = spans(self.x_labels.clone().unwrap_or_else(|| self.x.labels()));
        format!(
            "<div class=\"chart\"><div class=\"chart-y\" aria-hidden=\"true\">{y_labels}</div><div class=\"chart-plot\">\
             <svg viewBox=\"0 0 1000 100\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">{svg}</svg></div>\
             <div class=\"chart-x\" aria-hidden=\"true\">{x_labels}</div></div>\n",
            escaped(&self.label)
        )
    }

    /// What the lines are.
    pub(super) fn legend(&self) -> String {
        let entry = |class: &str, name: &str| {
            format!(
                "<li><svg class=\"swatch\" viewBox=\"0 0 18 8\" aria-hidden=\"true\"><path class=\"{class}\" \
                 d=\"M0 4H18\"/></svg>{}</li>",
                escaped(name)
            )
        };
        let entries = self.series.iter().map(|series| entry(series.class, &series.name));
        let event = self.event.map(|(_, name)| entry("event", name));
        format!("<ul class=\"legend\">{}</ul>", entries.chain(event).collect::<String>())
    }

    fn line(&self, series: &Series) -> String {
        let mut path = String::new();
        let mut pen_is_down = false;
        for (x, y) in &series.points {
            if let Some(y) = y {
                let (x, y) = self.place(*x, *y);
                let _ = write!(path, "{}{x:.1} {y:.2}", if pen_is_down { 'L' } else { 'M' });
            }
            pen_is_down = y.is_some();
        }
        path
    }

    /// Lines of no length, whose round ends are dots that do not stretch.
    fn dots(&self, series: &Series) -> String {
        let places = series.points.iter().filter_map(|(x, y)| Some(self.place(*x, (*y)?)));
        places.map(|(x, y)| format!("M{x:.1} {y:.2}h0")).collect()
    }

    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        (self.x.place(x) * 1_000.0, (1.0 - self.y.place(y)) * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        let linear = |most: f64| Scale::linear([most].into_iter()).labels().pop().unwrap();
        for (most, end) in
            [(0.0, "0.00"), (3.0, "3"), (7.9, "8"), (9.0, "10"), (20_000.0, "20,000"), (10_100.0, "12,000")]
        {
            assert_eq!(linear(most), end, "{most}");
        }
        let log = |values: &[f64]| Scale::log(values.iter().copied()).labels().join(" ");
        assert_eq!(log(&[0.0, 0.4, 212.0]), "0.1 1 10 100 1,000");
        assert_eq!(log(&[1.0]), "1 10");
        assert_eq!(log(&[]), "1 10");
    }

    #[test]
    fn gaps_stay_gaps() {
        let series = Series {
            class: "line-1",
            name: "<p99>".into(),
            points: vec![(0.0, Some(0.0)), (1.0, Some(4.0)), (2.0, None), (4.0, Some(2.0))],
            dots: false,
        };
        let scale = Scale::Linear { end: 4.0, steps: 4 };
        let plot = Plot {
            label: "a & b".into(),
            x: scale,
            y: scale,
            x_labels: None,
            series: vec![series],
            event: Some((2.0, "here")),
            bands: vec![(0.0, 1.0, "t".into())],
        };
        let html = plot.html();
        assert!(html.contains("d=\"M0.0 100.00L250.0 0.00M1000.0 50.00\""), "{html}");
        assert!(html.contains("aria-label=\"a &amp; b\""), "{html}");
        assert!(html.contains("<rect class=\"band\" x=\"0.0\" width=\"250.0\""), "{html}");
        assert!(plot.legend().contains("&lt;p99&gt;"));
    }
}
