//! A run as JSON, for scripts: times in milliseconds, rates per second, shares from 0 to 1.
//!
//! `docs/load-testing.md` describes it. `version` rises when a field changes its meaning or goes.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::answer::{Class, Fault};
use crate::counts::Counts;
use crate::latency::Latencies;
use crate::outcome::{Slice, StageOutcome};
use crate::report::Report;
use crate::usage::Verdict;

/// All of a report.
pub fn json(report: &Report<'_>) -> Value {
    let plan = report.plan;
    let targets: Vec<&str> = plan.targets.iter().map(|target| target.authority.as_str()).collect();
    let stages = report.outcome.stages.iter().map(stage);
    let calls = report.outcome.calls.iter().map(|call| {
        let mut value = counts(&call.counts);
        value.insert("name".into(), json!(call.name));
        value.insert("latency_ms".into(), latency(&call.latency));
        Value::Object(value)
    });
    json!({
        "version": 1,
        "targets": targets,
        "protocol": plan.protocol.as_str(),
        "connections": plan.limits.connections,
        "arrivals": plan.arrivals.as_str(),
        "seed": plan.seed,
        "interrupted": report.outcome.is_interrupted,
        "passed": report.is_passed(),
        "stages": stages.collect::<Vec<_>>(),
        "calls": calls.collect::<Vec<_>>(),
        "slices": report.outcome.slices.iter().map(slice).collect::<Vec<_>>(),
        "usage": report.usage.map(usage),
        "thresholds": report.judgements.iter().map(|judgement| json!({
            "threshold": judgement.threshold,
            "held": judgement.failed.is_none(),
            "stage": judgement.failed.as_ref().map(|(at, _)| at),
            "found": judgement.failed.as_ref().map(|(_, found)| found),
        })).collect::<Vec<_>>(),
        "knee": report.knee(),
        "warnings": report.warnings(),
    })
}

fn stage(stage: &StageOutcome) -> Value {
    let mut value = counts(&stage.counts);
    let mut add = |name: &str, field: Value| value.insert(name.into(), field);
    add("warm_up", json!(stage.stage.is_warm_up));
    add("rate_from", json!(stage.stage.from));
    add("rate_to", json!(stage.stage.to));
    add("length_ms", json!(ms(stage.length)));
    add("rate_intended", json!(stage.intended_rate()));
    add("rate_achieved", json!(stage.achieved_rate));
    add("due", json!(stage.due));
    add("sent", json!(stage.sent()));
    add("not_sent", json!(stage.not_sent));
    add("cut_off", json!(stage.cut_off));
    add("waited_for_connection", json!(stage.waited));
    add("latency_ms", latency(&stage.latency));
    add("latency_ok_ms", latency(&stage.latency_ok));
    add("late_ms", latency(&stage.late));
    add("busiest_thread", json!(stage.busiest_thread));
    Value::Object(value)
}

fn counts(counts: &Counts) -> Map<String, Value> {
    let answers: Map<String, Value> =
        counts.answers.iter().map(|(answer, n)| (answer.to_string(), json!(n))).collect();
    let classes: Map<String, Value> =
        Class::ALL.iter().map(|class| (class.as_str().to_owned(), json!(counts.of(*class)))).collect();
    let faults = Fault::ALL.into_iter().zip(counts.faults);
    let faults: Map<String, Value> = faults.map(|(fault, n)| (fault.as_str().to_owned(), json!(n))).collect();
    Map::from_iter([
        ("answered".to_owned(), json!(counts.answered())),
        ("answers".to_owned(), Value::Object(answers)),
        ("classes".to_owned(), Value::Object(classes)),
        ("no_answer".to_owned(), Value::Object(faults)),
        ("unexpected".to_owned(), json!(counts.unexpected)),
        ("errors".to_owned(), json!(counts.errors())),
    ])
}

fn latency(latency: &Latencies) -> Value {
    json!({
        "count": latency.count(),
        "mean": ms(latency.mean()),
        "p50": ms(latency.percentile(50.0)),
        "p90": ms(latency.percentile(90.0)),
        "p95": ms(latency.percentile(95.0)),
        "p99": ms(latency.percentile(99.0)),
        "p99.9": ms(latency.percentile(99.9)),
        "p99.99": ms(latency.percentile(99.99)),
        "max": ms(latency.max()),
    })
}

fn slice(slice: &Slice) -> Value {
    let classes: Map<String, Value> = Class::ALL
        .iter()
        .zip(slice.classes)
        .map(|(class, n)| (class.as_str().to_owned(), json!(n)))
        .collect();
    json!({
        "end_ms": ms(slice.end),
        "length_ms": ms(slice.length),
        "stage": slice.stage,
        "rate_intended": slice.rate,
        "due": slice.due,
        "not_sent": slice.not_sent,
        "in_flight": slice.in_flight,
        "classes": classes,
        "no_answer": slice.no_answer,
        "p50_ms": ms(slice.p50),
        "p99_ms": ms(slice.p99),
        "max_ms": ms(slice.max),
        "busiest_thread": slice.busiest_thread,
    })
}

fn usage(verdicts: &[Verdict]) -> Value {
    let counters = verdicts.iter().map(|verdict| {
        json!({
            "service": verdict.service.as_str(),
            "application": verdict.application.as_str(),
            "metric": verdict.metric.as_str(),
            "admitted": verdict.admitted,
            "unclear": verdict.unclear,
            "counted": i64::try_from(verdict.counted).ok(),
            "exact": verdict.is_exact(),
            "explained": verdict.is_explained(),
        })
    });
    json!({
        "exact": verdicts.iter().all(Verdict::is_exact),
        "explained": verdicts.iter().all(Verdict::is_explained),
        "counters": counters.collect::<Vec<_>>(),
    })
}

/// Microseconds are what is measured.
fn ms(length: Duration) -> f64 {
    (length.as_secs_f64() * 1e6).round() / 1e3
}
