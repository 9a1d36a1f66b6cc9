//! The plots of a run: latency and throughput over rate, answers and latency over time, latency by percentile.
//!
//! The page shows them in this order. Those that a run has nothing for are left out.

use std::time::Duration;

use super::plot::{Plot, Scale, Series};
use super::{Report, format};
use crate::answer::Class;
use crate::latency::Latencies;
use crate::outcome::{Slice, StageOutcome};

/// A rate that was kept up for a while: a stage, or a slice of a ramp.
struct Held {
    rate: f64,
    achieved: f64,
    /// p50, p90, p99; slices have no p90.
    percentiles: [Option<f64>; 3],
}

/// Latency and throughput over rate, where there was more than one.
pub(super) fn knee(report: &Report<'_>) -> String {
    let judged = judged(report);
    let is_ramp = judged.len() == 1 && judged[0].stage.from != judged[0].stage.to;
    let slices = report.outcome.slices.iter().filter(|slice| slice.rate > 0.0 && slice.answered() > 0);
    let mut held: Vec<Held> = if is_ramp {
        slices.map(of_slice).collect()
    } else {
        judged.iter().map(|stage| of_stage(stage)).collect()
    };
    held.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    if held.len() < 2 {
        return String::new();
    }
    let failed = report.first_failed().filter(|_| !is_ramp);
    let event = failed.map(|at| (report.outcome.stages[at].intended_rate(), "first rate that fails"));
    let x = Scale::linear(held.iter().map(|held| held.rate));
    let line = |class, name: &str, of: &dyn Fn(&Held) -> Option<f64>| Series {
        class,
        name: name.into(),
        points: held.iter().map(|held| (held.rate, of(held))).collect(),
        dots: !is_ramp && class != "line-2",
    };
    let percentiles = [("line-1", "p50", 0), ("line-4", "p90", 1), ("line-3", "p99", 2)];
    let percentiles = percentiles.into_iter().filter(|(_, _, at)| held[0].percentiles[*at].is_some());
    let latency = Plot {
        label: "Latency in milliseconds over the rate of requests".into(),
        x,
        y: Scale::log(held.iter().flat_map(|held| held.percentiles).flatten()),
        x_labels: None,
        series: percentiles
            .map(|(class, name, at)| line(class, name, &|held| held.percentiles[at]))
            .collect(),
        event,
        bands: vec![],
    };
    let throughput = Plot {
        label: "Answers per second over requests per second".into(),
        x,
        y: Scale::linear(held.iter().flat_map(|held| [held.rate, held.achieved])),
        x_labels: None,
        series: vec![
            line("line-2", "intended", &|held| Some(held.rate)),
            line("line-1", "answered", &|held| Some(held.achieved)),
        ],
        event,
        bands: vec![],
    };
    let (latency, throughput) = (
        card("Latency over rate", "ms; requests per second", &latency),
        card("Throughput over rate", "answers per second; requests per second", &throughput),
    );
    format!("<div class=\"cols\">{latency}{throughput}</div>\n")
}

/// Stages with answers, without warm-ups.
fn judged<'a>(report: &Report<'a>) -> Vec<&'a StageOutcome> {
    let stages = report.outcome.stages.iter();
    stages.filter(|stage| !stage.stage.is_warm_up && stage.latency.count() > 0).collect()
}

fn of_stage(stage: &StageOutcome) -> Held {
    Held {
        rate: stage.intended_rate(),
        achieved: stage.achieved_rate,
        percentiles: [50.0, 90.0, 99.0].map(|percent| positive(ms(stage.latency.percentile(percent)))),
    }
}

fn of_slice(slice: &Slice) -> Held {
    let percentiles = [positive(ms(slice.p50)), None, positive(ms(slice.p99))];
    Held { rate: slice.rate, achieved: slice.answered_rate(), percentiles }
}

/// Answers by class and latency, slice by slice.
pub(super) fn over_time(report: &Report<'_>) -> String {
    let slices = &report.outcome.slices;
    let Some(last) = slices.last() else { return String::new() };
    // The last answers come a moment after the last stage, which is no reason for a longer axis.
    let x = Scale::linear([last.end.as_secs_f64() * 0.98].into_iter());
    let seconds = |slice: &Slice| (slice.end.saturating_sub(slice.length / 2)).as_secs_f64();
    let line = |class, name: &str, of: &dyn Fn(&Slice) -> Option<f64>| Series {
        class,
        name: name.into(),
        points: slices.iter().map(|slice| (seconds(slice), of(slice))).collect(),
        dots: false,
    };
    let rate = |slice: &Slice, n: u64| n as f64 / slice.length.as_secs_f64().max(1e-9);
    let refused =
        |slice: &Slice| slice.classes[Class::Limited as usize] + slice.classes[Class::Refused as usize];
    let failed = |slice: &Slice| slice.classes[Class::Failed as usize] + slice.no_answer;
    let mut series = vec![
        line("line-2", "due", &|slice| Some(rate(slice, slice.due))),
        line("line-1", "ok", &|slice| Some(rate(slice, slice.classes[Class::Ok as usize]))),
    ];
    if slices.iter().any(|slice| refused(slice) > 0) {
        series.push(line("line-3", "limited or refused", &|slice| Some(rate(slice, refused(slice)))));
    }
    if slices.iter().any(|slice| failed(slice) > 0) {
        series.push(line("line-bad", "failed or no answer", &|slice| Some(rate(slice, failed(slice)))));
    }
    let bands: Vec<(f64, f64, String)> = slices.iter().map(band).collect();
    let answers = Plot {
        label: "Answers per second over time, by class".into(),
        x,
        y: Scale::linear(slices.iter().flat_map(|slice| [slice.answered_rate(), rate(slice, slice.due)])),
        x_labels: None,
        series,
        event: None,
        bands: bands.clone(),
    };
    let times = slices.iter().flat_map(|slice| [ms(slice.p50), ms(slice.p99), ms(slice.max)]);
    let latency = Plot {
        label: "Latency in milliseconds over time".into(),
        x,
        y: Scale::log(times),
        x_labels: None,
        series: vec![
            line("line-1", "p50", &|slice| positive(ms(slice.p50))),
            line("line-3", "p99", &|slice| positive(ms(slice.p99))),
            line("line-2", "max", &|slice| positive(ms(slice.max))),
        ],
        event: None,
        bands,
    };
    format!(
        "<div class=\"cols\">{}{}</div>\n",
        card("Answers over time", "per second; seconds", &answers),
        card("Latency over time", "ms; seconds", &latency)
    )
}

fn band(slice: &Slice) -> (f64, f64, String) {
    let end = slice.end.as_secs_f64();
    let text = format!(
        "{end:.1} s: {}/s of {}/s, p50 {} ms, p99 {} ms, {} in flight, {} not sent",
        format::number(slice.answered_rate().round()),
        format::number(slice.rate.round()),
        format::ms(slice.p50),
        format::ms(slice.p99),
        format::count(slice.in_flight as u64),
        format::count(slice.not_sent)
    );
    (end - slice.length.as_secs_f64(), end, text)
}

/// Latency by percentile, each step to the right a tenth of the requests that are left.
pub(super) fn distribution(report: &Report<'_>) -> String {
    let judged = judged(report);
    let (Some(first), Some(last)) = (judged.first(), judged.last()) else { return String::new() };
    let mut lines = vec![(format!("{}/s", format::rate(&first.stage)), "line-1", first.latency.clone())];
    if judged.len() > 1 {
        lines.push((format!("{}/s", format::rate(&last.stage)), "line-3", last.latency.clone()));
        lines.push(("all stages".into(), "line-2", report.outcome.latency()));
    }
    let count = lines.iter().map(|(_, _, latency)| latency.count()).max().unwrap_or_default();
    let decades = (count as f64).log10().floor().clamp(1.0, 6.0);
    let steps = 40;
    let curve = |latency: &Latencies| {
        // One answer of a thousand is not known from a hundred.
        let known = (latency.count() as f64).log10();
        let at = |step: i32| {
            let x = decades * f64::from(step) / f64::from(steps);
            let time = ms(latency.percentile(100.0 - 100.0 / 10_f64.powf(x)));
            (x, positive(time).filter(|_| x <= known))
        };
        (0..=steps).map(at).collect()
    };
    let series: Vec<Series> = lines
        .into_iter()
        .map(|(name, class, latency)| Series { class, name, points: curve(&latency), dots: false })
        .collect();
    let values: Vec<f64> = series.iter().flat_map(|series| &series.points).filter_map(|(_, y)| *y).collect();
    let labels = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"];
    let labels = labels.into_iter().zip(0..).take_while(|(_, at)| f64::from(*at) <= decades);
    let plot = Plot {
        label: "Latency in milliseconds by percentile".into(),
        x: Scale::Linear { end: decades, steps: 1 },
        y: Scale::log(values.iter().copied()),
        x_labels: Some(labels.map(|(label, _)| label.to_owned()).collect()),
        series,
        event: None,
        bands: vec![],
    };
    card("Latency by percentile", "ms; share of the answers that took no longer", &plot) + "\n"
}

fn card(title: &str, note: &str, plot: &Plot) -> String {
    format!(
        "<section class=\"card\"><div class=\"card-head\"><h2>{title}</h2><p>{note}</p></div>\
         <div class=\"card-body\">{}{}</div></section>",
        plot.legend(),
        plot.html()
    )
}

fn ms(length: Duration) -> f64 {
    length.as_secs_f64() * 1e3
}

/// A logarithm has no place for 0.
fn positive(value: f64) -> Option<f64> {
    Some(value).filter(|value| *value > 0.0)
}
