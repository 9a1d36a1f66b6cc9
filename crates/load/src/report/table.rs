//! The table that a run ends with, for a terminal.

use crate::answer::{Class, Fault};
use crate::counts::Counts;
use crate::outcome::StageOutcome;
use crate::report::{Report, format};
use crate::span::Span;
use crate::usage::Verdict;

/// Columns of the stages; the first is left-aligned, the others are right-aligned.
const STAGE_COLUMNS: [&str; 15] = [
    "stage",
    "rate/s",
    "achieved",
    "p50 ms",
    "p90",
    "p99",
    "p99.9",
    "max",
    "ok",
    "limited",
    "refused",
    "failed",
    "no answer",
    "errors",
    "not sent",
];
/// Columns of the calls.
const CALL_COLUMNS: [&str; 10] =
    ["call", "answers", "p50 ms", "p99", "max", "ok", "limited", "refused", "failed", "no answer"];
/// Most lines about single counters.
const COUNTER_LINES_MAX: usize = 12;

/// All of a report as lines of text.
pub fn table(report: &Report<'_>) -> String {
    let mut text = head(report);
    let stages = report.outcome.stages.iter().enumerate();
    let rows = stages.map(|(at, stage)| stage_row(report.stage_name(at), stage)).collect();
    text += &columns(&STAGE_COLUMNS, rows);
    if report.outcome.calls.len() > 1 {
        let rows = report.outcome.calls.iter().map(|call| {
            let latency = &call.latency;
            let times = [latency.percentile(50.0), latency.percentile(99.0), latency.max()].map(format::ms);
            let counts = &call.counts;
            let classes = Class::ALL.map(|class| format::count(counts.of(class)));
            let mut row = vec![call.name.clone(), format::count(counts.answered())];
            row.extend(times.into_iter().chain(classes));
            row.push(format::count(counts.no_answer()));
            row
        });
        text += &format!("\n{}", columns(&CALL_COLUMNS, rows.collect()));
    }
    text.push('\n');
    for (name, lines) in facts(report) {
        for (at, line) in lines.iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            text += &format!("{name:<10}{line}\n");
        }
    }
    text
}

fn head(report: &Report<'_>) -> String {
    let plan = report.plan;
    let targets: Vec<&str> = plan.targets.iter().map(|target| target.authority.as_str()).collect();
    let interrupted = if report.outcome.is_interrupted { ", interrupted" } else { "" };
    format!(
        "{} against {} over {} connections, {} arrivals, seed {}{interrupted}\n\
         latency counts from when a request was due\n\n",
        plan.protocol.as_str(),
        targets.join(", "),
        format::count(plan.limits.connections as u64),
        plan.arrivals.as_str(),
        plan.seed
    )
}

fn stage_row(name: String, stage: &StageOutcome) -> Vec<String> {
    let name = format!("{name}, {}", Span(stage.length.max(std::time::Duration::from_millis(1))));
    let mut row = vec![name, format::rate(&stage.stage), format::number(stage.achieved_rate.round())];
    row.extend([50.0, 90.0, 99.0, 99.9].map(|percent| format::ms(stage.latency.percentile(percent))));
    row.push(format::ms(stage.latency.max()));
    row.extend(Class::ALL.map(|class| format::count(stage.counts.of(class))));
    row.push(format::count(stage.counts.no_answer()));
    row.push(format::count(stage.counts.errors()));
    row.push(format::count(stage.not_sent));
    row
}

/// What stands below the tables, by name.
fn facts(report: &Report<'_>) -> Vec<(&'static str, Vec<String>)> {
    let late = report.outcome.late();
    let busiest = report.outcome.stages.iter().map(|stage| stage.busiest_thread).fold(0.0, f64::max);
    let cut_off: u64 = report.outcome.stages.iter().map(|stage| stage.cut_off).sum();
    let mut facts = vec![
        ("answers", vec![answers(&report.outcome.counts(), cut_off)]),
        (
            "itself",
            vec![format!(
                "sent late by p50 {} ms, p99 {} ms; its busiest thread wanted a core {} % of the time",
                format::ms(late.percentile(50.0)),
                format::ms(late.percentile(99.0)),
                format::number((busiest * 100.0).round())
            )],
        ),
    ];
    if let Some(verdicts) = report.usage {
        facts.push(("usage", usage(verdicts)));
    }
    let judged = report.judgements.iter().map(|judgement| match &judgement.failed {
        None => format!("held    {}", judgement.threshold),
        Some((at, found)) => {
            format!("FAILED  {} in {}: {found}", judgement.threshold, report.stage_with_rate(*at))
        }
    });
    facts.push(("fail if", judged.collect()));
    facts.push(("knee", report.knee().into_iter().collect()));
    facts.push(("warning", report.warnings()));
    facts
}

fn answers(counts: &Counts, cut_off: u64) -> String {
    let answers = counts.answers.iter().map(|(answer, n)| format!("{answer} {}", format::count(*n)));
    let faults = Fault::ALL.into_iter().zip(counts.faults).filter(|(_, n)| *n > 0);
    let faults = faults.map(|(fault, n)| format!("no answer ({}) {}", fault.as_str(), format::count(n)));
    let cut_off = (cut_off > 0).then(|| format!("cut off {}", format::count(cut_off)));
    let all: Vec<String> = answers.chain(faults).chain(cut_off).collect();
    if all.is_empty() { "none".into() } else { all.join(" · ") }
}

/// All counters together, then those that are not exact.
fn usage(verdicts: &[Verdict]) -> Vec<String> {
    let sums = |of: fn(&Verdict) -> i128| verdicts.iter().map(of).sum::<i128>();
    let (admitted, unclear) = (sums(|v| v.admitted.into()), sums(|v| v.unclear.into()));
    let all = compared(admitted, unclear, sums(|v| v.counted), verdict_word(verdicts));
    let [_, _, ..] = verdicts else { return vec![all] };
    let mut lines = vec![format!("{} counters: {all}", verdicts.len())];
    let mut inexact: Vec<&Verdict> = verdicts.iter().filter(|verdict| !verdict.is_exact()).collect();
    inexact.sort_by_key(|verdict| verdict.is_explained());
    lines.extend(inexact.iter().take(COUNTER_LINES_MAX).map(|verdict| {
        let word = verdict_word(std::slice::from_ref(*verdict));
        let words = compared(verdict.admitted.into(), verdict.unclear.into(), verdict.counted, word);
        format!("  {} {}: {words}", verdict.application, verdict.metric)
    }));
    let left_out = inexact.len().saturating_sub(COUNTER_LINES_MAX);
    if left_out > 0 {
        lines.push(format!("  and {left_out} further counters"));
    }
    lines
}

fn compared(admitted: i128, unclear: i128, counted: i128, word: &str) -> String {
    let unclear =
        if unclear > 0 { format!(" (and up to {} unclear)", format::count(unclear)) } else { String::new() };
    let difference = counted - admitted;
    let word = match (word, difference) {
        ("exact", _) => "exact".to_owned(),
        (word, 0) => word.to_owned(),
        (word, _) => {
            format!("{word} by {}{}", if difference > 0 { "+" } else { "" }, format::count(difference))
        }
    };
    format!("admitted {}{unclear} · counted {} · {word}", format::count(admitted), format::count(counted))
}

fn verdict_word(verdicts: &[Verdict]) -> &'static str {
    if verdicts.iter().all(Verdict::is_exact) {
        "exact"
    } else if verdicts.iter().all(Verdict::is_explained) {
        "differs as unclear requests may"
    } else {
        "DIFFERS"
    }
}

/// Lines up rows under their heads.
fn columns(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let heads = heads.iter().map(|head| (*head).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let cell = if at == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
            text += &cell;
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use weir_core::{ApplicationId, MetricName, ServiceId};

    use super::*;

    #[track_caller]
    fn check(counters: &[(u64, u64, i128)], expected: &str) {
        let verdict = |(admitted, unclear, counted): &(u64, u64, i128)| Verdict {
            service: ServiceId::parse("api").unwrap(),
            application: ApplicationId::parse("app").unwrap(),
            metric: MetricName::parse("hits").unwrap(),
            admitted: *admitted,
            unclear: *unclear,
            counted: *counted,
        };
        let verdicts: Vec<Verdict> = counters.iter().map(verdict).collect();
        assert_eq!(usage(&verdicts).join("\n"), expected);
    }

    #[test]
    fn counters_are_told_in_a_line() {
        check(&[(41_230, 0, 41_230)], "admitted 41,230 · counted 41,230 · exact");
        check(&[(10, 0, 8)], "admitted 10 · counted 8 · DIFFERS by -2");
        check(
            &[(10, 3, 12)],
            "admitted 10 (and up to 3 unclear) · counted 12 · differs as unclear requests may by +2",
        );
        check(
            &[(5, 0, 5), (5, 0, 6)],
            "2 counters: admitted 10 · counted 11 · DIFFERS by +1\n  app hits: admitted 5 · counted 6 · DIFFERS by +1",
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".into(), "1,000".into()], vec!["long".into(), "2".into()]];
        assert_eq!(columns(&["name", "n"], rows), "name      n\na     1,000\nlong      2\n");
    }
}
