//! A run as a page: one file without script and without anything to load, for light and dark, for screen and print.
//!
//! The first card answers the question people come with, the plots show the knee, the tables have the numbers behind
//! both. Everything that comes from a mix is escaped.

use std::fmt::Write;
use std::time::Duration;

use super::{Report, charts, format};
use crate::answer::Class;
use crate::span::Span;
use crate::usage::Verdict;

const STYLE: &str = include_str!("page.css");
const MARK: &str = "<svg class=\"mark\" viewBox=\"0 0 24 24\" aria-hidden=\"true\"><path class=\"mark-plate\" \
    d=\"M2 3.5h5.6L12 14l4.4-10.5H22V18a3.5 3.5 0 0 1-3.5 3.5h-13A3.5 3.5 0 0 1 2 18z\"/><path class=\"mark-water\" \
    d=\"M8.9 6.6c1 .8 2 .8 3.1 0s2.1-.8 3.1 0L12 14z\"/><path class=\"mark-tick\" \
    d=\"M16.6 11.2H19M15.2 14.6H19M13.8 18H19\"/></svg>";
/// Most counters in the table of usage; differing ones come first.
const COUNTER_ROWS_MAX: usize = 200;

/// The page.
pub fn html(report: &Report<'_>) -> String {
    let (badge, word) = match (report.is_passed(), report.outcome.is_interrupted) {
        (_, true) => ("warn", "interrupted"),
        (true, _) => ("ok", "passed"),
        (false, _) => ("bad", "failed"),
    };
    let plan = report.plan;
    let targets: Vec<&str> = plan.targets.iter().map(|target| target.authority.as_str()).collect();
    let mut body = format!(
        "<header><div class=\"title\">{MARK}<h1>Load on {}</h1><span class=\"badge badge-{badge}\">{word}</span></div>\
         <p class=\"meta\"><span>{}</span><span>{} connections</span><span>{} arrivals, seed {}</span>\
         <span>latency counts from when a request was due</span></p></header>\n",
        escaped(&targets.join(", ")),
        plan.protocol.as_str(),
        plan.limits.connections,
        plan.arrivals.as_str(),
        plan.seed
    );
    body += &summary(report);
    body += &charts::knee(report);
    body += &charts::over_time(report);
    body += &charts::distribution(report);
    body += &stages(report);
    body += &calls(report);
    body += &report.usage.map(usage).unwrap_or_default();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>Load on {}</title><style>\n{STYLE}</style></head>\n\
         <body><main>\n{body}<footer>Made by weir load {}.</footer>\n</main></body></html>\n",
        escaped(&targets.join(", ")),
        env!("CARGO_PKG_VERSION")
    )
}

/// Text as HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            other => html.push(other),
        }
    }
    html
}

/// The answer first: four figures, then what failed and what to mind.
fn summary(report: &Report<'_>) -> String {
    let counts = report.outcome.counts();
    let due: u64 = report.outcome.stages.iter().map(|stage| stage.due).sum();
    let not_sent: u64 = report.outcome.stages.iter().map(|stage| stage.not_sent).sum();
    let share = |n: u64| format!("{} % of those due", format::number(n as f64 / due.max(1) as f64 * 100.0));
    let best = report.outcome.stages.iter().map(|stage| stage.achieved_rate).fold(0.0, f64::max);
    let of_best =
        report.knee().map_or_else(|| "in the best stage".to_owned(), |knee| format!("knee: {knee}"));
    // Of a run beyond the knee, the time that the deployment takes below it.
    let held = report.knee_stages().and_then(|(held, _)| Some(&report.outcome.stages[held?]));
    let (name, latency) = match held {
        Some(stage) => (format!("p99 at {}/s", format::rate(&stage.stage)), stage.latency.clone()),
        None => ("p99".to_owned(), report.outcome.latency()),
    };
    let ok = counts.of(Class::Ok);
    let of_errors = match not_sent {
        0 => share(counts.errors()),
        not_sent => format!("and {} requests not sent", format::count(not_sent)),
    };
    let figures = [
        ("Highest rate achieved".to_owned(), format!("{}/s", format::number(best.round())), of_best),
        (
            name,
            format!("{} ms", format::ms(latency.percentile(99.0))),
            format!("p50 {} ms", format::ms(latency.percentile(50.0))),
        ),
        ("Answers below 400".to_owned(), format::count(ok), share(ok)),
        ("Errors".to_owned(), format::count(counts.errors()), of_errors),
    ];
    let stats: String = figures
        .iter()
        .map(|(name, figure, note)| {
            let (figure, note) = (escaped(figure), escaped(note));
            format!(
                "<div class=\"stat\"><dt>{name}</dt><dd>{figure}</dd><dd class=\"note\">{note}</dd></div>"
            )
        })
        .collect();
    let mut notes = String::new();
    for judgement in report.judgements {
        let text = match &judgement.failed {
            None => format!("<span class=\"badge badge-ok\">held</span> {}", escaped(&judgement.threshold)),
            Some((at, found)) => format!(
                "<span class=\"badge badge-bad\">failed</span> {} in {}: {}",
                escaped(&judgement.threshold),
                report.stage_with_rate(*at),
                escaped(found)
            ),
        };
        let _ = write!(notes, "<li>{text}</li>");
    }
    for warning in report.warnings() {
        let _ = write!(notes, "<li><span class=\"badge badge-warn\">mind</span> {}</li>", escaped(&warning));
    }
    let notes = if notes.is_empty() { notes } else { format!("<ul class=\"notes\">{notes}</ul>") };
    let gap = if notes.is_empty() { "" } else { "<div class=\"card-head\"><h2>What to know</h2></div>" };
    format!("<section class=\"card\"><dl class=\"stats\">{stats}</dl>{gap}{notes}</section>\n")
}

fn stages(report: &Report<'_>) -> String {
    let heads = [
        "Stage",
        "Rate/s",
        "Achieved",
        "p50 ms",
        "p90",
        "p99",
        "p99.9",
        "Max",
        "Ok",
        "Limited",
        "Refused",
        "Failed",
        "No answer",
        "Errors",
        "Not sent",
    ];
    let rows = report.outcome.stages.iter().enumerate().map(|(at, stage)| {
        let length = Span(stage.length.max(Duration::from_millis(1)));
        let mut row = vec![
            format!("{}, {length}", report.stage_name(at)),
            format::rate(&stage.stage),
            format::number(stage.achieved_rate.round()),
        ];
        row.extend([50.0, 90.0, 99.0, 99.9].map(|percent| format::ms(stage.latency.percentile(percent))));
        row.push(format::ms(stage.latency.max()));
        row.extend(Class::ALL.map(|class| format::count(stage.counts.of(class))));
        row.extend([stage.counts.no_answer(), stage.counts.errors(), stage.not_sent].map(format::count));
        row
    });
    table("Stages", "Latency of all answers, in ms", &heads, rows)
}

fn calls(report: &Report<'_>) -> String {
    let heads =
        ["Call", "Answers", "p50 ms", "p90", "p99", "Max", "Ok", "Limited", "Refused", "Failed", "No answer"];
    let rows = report.outcome.calls.iter().map(|call| {
        let mut row = vec![call.name.clone(), format::count(call.counts.answered())];
        row.extend([50.0, 90.0, 99.0].map(|percent| format::ms(call.latency.percentile(percent))));
        row.push(format::ms(call.latency.max()));
        row.extend(Class::ALL.map(|class| format::count(call.counts.of(class))));
        row.push(format::count(call.counts.no_answer()));
        row
    });
    table("Calls", "All stages together, warm-ups included", &heads, rows)
}

fn usage(verdicts: &[Verdict]) -> String {
    let mut sorted: Vec<&Verdict> = verdicts.iter().collect();
    sorted.sort_by_key(|verdict| (verdict.is_explained(), verdict.is_exact()));
    let heads = ["Application", "Service", "Metric", "Admitted", "Unclear", "Counted", "Verdict"];
    let rows = sorted.into_iter().take(COUNTER_ROWS_MAX).map(|verdict| {
        let word = match (verdict.is_exact(), verdict.is_explained()) {
            (true, _) => "exact",
            (false, true) => "explained",
            (false, false) => "differs",
        };
        vec![
            verdict.application.to_string(),
            verdict.service.to_string(),
            verdict.metric.to_string(),
            format::count(verdict.admitted),
            format::count(verdict.unclear),
            format::count(verdict.counted),
            word.to_owned(),
        ]
    });
    table("Counters", "What was admitted, and what the listener counted", &heads, rows)
}

/// Cells that begin with a digit are numbers.
fn table(title: &str, note: &str, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.collect();
    let is_number = |cell: &str| cell.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
    let class =
        |at: usize| rows.first().filter(|row| at > 0 && is_number(&row[at])).map_or("", |_| " class=\"n\"");
    let head: String = heads
        .iter()
        .enumerate()
        .map(|(at, head)| format!("<th scope=\"col\"{}>{head}</th>", class(at)))
        .collect();
    let mut body = String::new();
    for row in &rows {
        let _ = write!(body, "<tr><th scope=\"row\">{}</th>", escaped(&row[0]));
        for (at, cell) in row.iter().enumerate().skip(1) {
            let _ = write!(body, "<td{}>{}</td>", class(at), escaped(cell));
        }
        body += "</tr>";
    }
    format!(
        "<section class=\"card\"><div class=\"card-head\"><h2>{title}</h2><p>{note}</p></div><div class=\"scroll\" \
         tabindex=\"0\" role=\"group\" aria-label=\"{title}\"><table class=\"table\"><thead><tr>{head}</tr></thead>\
         <tbody>{body}</tbody></table></div></section>\n"
    )
}
