//! `weir ledger show`: what an application has used, what gateways hold of it, and until when.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, Subcommand};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use weir_core::{ApplicationRef, Period, Secret};
use weir_proto::v1;
use weir_proto::v1::authorization_client::AuthorizationClient;

use crate::argument_file;
use crate::failure::Failure;
use crate::problem::Problem;

/// Longest wait for the listener.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print what an application has used of its limits, what gateways hold on lease, and what remains.
    Show(Show),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  weir ledger show mail_api/globex --listener http://127.0.0.1:8090 --token-file gateway.token"
)]
struct Show {
    /// Service and application: mail_api/globex.
    application: ApplicationRef,
    /// A listener's gRPC port: http://host:port or https://host:port.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8090")]
    listener: String,
    /// A gateway's token, which says who asks.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// Trust only certificates under the authorities of this PEM file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Counters without a limit, too.
    #[arg(long)]
    all: bool,
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Command::Show(show) = &arguments.command;
    let (token, authorities) = read_files(show).map_err(|problem| Failure::BadInput(vec![problem]))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asking = async {
        let asking = ask(show, &token, authorities);
        tokio::time::timeout(TIMEOUT, asking).await.context("the listener does not answer")?
    };
    let answer = runtime.context("cannot start")?.block_on(asking)?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
    if show.json {
        println!("{:#}", json(&show.application, &answer));
    } else {
        print!("{}", table(&show.application, &answer, show.all, now_ms));
    }
    Ok(())
}

/// The token, and the authorities to trust.
fn read_files(show: &Show) -> Result<(Secret, Option<Vec<u8>>), Problem> {
    const OPTION: &str = "--token-file";
    let bytes = argument_file::read(&show.token_file, OPTION)?;
    let token = argument_file::token(OPTION, &String::from_utf8(bytes).unwrap_or_default())?;
    let authorities = show.ca.as_deref().map(|path| argument_file::read(path, "--ca")).transpose()?;
    Ok((token, authorities))
}

async fn ask(show: &Show, token: &Secret, authorities: Option<Vec<u8>>) -> anyhow::Result<v1::UsageResponse> {
    let mut endpoint = Endpoint::from_shared(show.listener.clone()).context("--listener is no URL")?;
    if let Some(pem) = authorities {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        endpoint = endpoint.tls_config(tls).context("--ca cannot be used")?;
    }
    let channel = endpoint.connect().await.context("cannot reach the listener")?;
    let mut request = tonic::Request::new(v1::UsageRequest {
        service_id: show.application.service.to_string(),
        app_id: show.application.application.to_string(),
        metrics: vec![],
    });
    let bearer = format!("Bearer {}", token.expose()).parse().context("--token-file cannot be sent")?;
    request.metadata_mut().insert("authorization", bearer);
    let answer = AuthorizationClient::new(channel).usage(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| {
        anyhow::anyhow!("the listener does not tell: {:?}: {}", status.code(), status.message())
    })
}

fn period(counter: &v1::Counter) -> &'static str {
    Period::try_from(counter.period()).map_or("?", Period::as_str)
}

fn remaining(counter: &v1::Counter) -> Option<u64> {
    counter.max.map(|max| max.saturating_sub(counter.used).saturating_sub(counter.held))
}

fn table(application: &ApplicationRef, answer: &v1::UsageResponse, all: bool, now_ms: i64) -> String {
    let mut text = format!("{application}\n\n");
    let shown = answer.counters.iter().filter(|counter| all || counter.max.is_some());
    let counters: Vec<[String; 7]> = shown
        .map(|counter| {
            let number = |n: Option<u64>| n.map_or_else(|| "–".to_owned(), |n| n.to_string());
            let left = counter.window_end_unix_ms.map(|end| seconds(end - now_ms));
            [
                counter.metric.clone(),
                period(counter).to_owned(),
                counter.used.to_string(),
                counter.held.to_string(),
                number(counter.max),
                number(remaining(counter)),
                left.unwrap_or_else(|| "never".to_owned()),
            ]
        })
        .collect();
    let head = ["metric", "per", "used", "held", "limit", "remaining", "window ends in"];
    write_rows(&mut text, head, &counters, 2);
    let leases: Vec<[String; 5]> = answer
        .leases
        .iter()
        .flat_map(|lease| {
            lease.lines.iter().map(move |line| {
                let held = if lease.is_presumed { 0 } else { line.granted.saturating_sub(line.settled) };
                let is_limited = line.granted.saturating_sub(line.settled) < weir_core::COUNT_MAX / 2;
                let until = match lease.is_presumed {
                    true => "counted as used".to_owned(),
                    false => seconds(lease.deadline_unix_ms - now_ms),
                };
                [
                    lease.gateway.clone(),
                    line.metric.clone(),
                    if is_limited { held.to_string() } else { "no limit".to_owned() },
                    line.settled.to_string(),
                    until,
                ]
            })
        })
        .collect();
    if leases.is_empty() {
        text.push_str("\nNothing is out on lease.\n");
    } else {
        text.push('\n');
        write_rows(&mut text, ["gateway", "metric", "holds", "settled", "presumed used in"], &leases, 2);
    }
    text
}

/// Columns from `right_from` on hold numbers.
fn write_rows<const N: usize>(text: &mut String, head: [&str; N], rows: &[[String; N]], right_from: usize) {
    let head = head.map(str::to_owned);
    let mut widths = [0; N];
    for row in std::iter::once(&head).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            // Writing to a text cannot fail.
            let _ =
                if at < right_from { write!(line, "{cell}{pad}  ") } else { write!(line, "{pad}{cell}  ") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn seconds(ms: i64) -> String {
    let ms = ms.max(0);
    if ms < 60_000 { format!("{}.{} s", ms / 1_000, ms % 1_000 / 100) } else { format!("{} s", ms / 1_000) }
}

fn json(application: &ApplicationRef, answer: &v1::UsageResponse) -> serde_json::Value {
    let counter = |counter: &v1::Counter| {
        serde_json::json!({
            "metric": counter.metric,
            "period": period(counter),
            "used": counter.used,
            "held": counter.held,
            "limit": counter.max,
            "remaining": remaining(counter),
            "window_end_unix_ms": counter.window_end_unix_ms,
        })
    };
    let line = |line: &v1::LineOut| serde_json::json!({ "metric": line.metric, "granted": line.granted, "settled": line.settled });
    let lease = |lease: &v1::LeaseOut| {
        serde_json::json!({
            "gateway": lease.gateway,
            "sequence": lease.sequence,
            "is_presumed": lease.is_presumed,
            "deadline_unix_ms": lease.deadline_unix_ms,
            "lines": lease.lines.iter().map(line).collect::<Vec<_>>(),
        })
    };
    serde_json::json!({
        "application": application.to_string(),
        "counters": answer.counters.iter().map(counter).collect::<Vec<_>>(),
        "leases": answer.leases.iter().map(lease).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_neither_used_nor_held() {
        let counter = v1::Counter {
            metric: "hits".into(),
            period: v1::Period::Minute.into(),
            used: 12,
            window_start_unix_ms: 0,
            window_end_unix_ms: Some(60_000),
            held: 30,
            max: Some(60),
        };
        let free = v1::Counter { max: None, held: 0, ..counter.clone() };
        let lease = v1::LeaseOut {
            gateway: "berlin-1".into(),
            deadline_unix_ms: 38_440,
            lines: vec![v1::LineOut { metric: "search".into(), granted: 42, settled: 12 }],
            ..v1::LeaseOut::default()
        };
        let answer = v1::UsageResponse { counters: vec![counter, free], leases: vec![lease] };
        let application = "mail_api/globex".parse().unwrap();
        let expected = "\
mail_api/globex

metric  per     used  held  limit  remaining  window ends in
hits    minute    12    30     60         18          23.0 s

gateway   metric  holds  settled  presumed used in
berlin-1  search     30       12             1.4 s
";
        assert_eq!(table(&application, &answer, false, 37_000), expected);
        assert!(table(&application, &answer, true, 0).contains("hits    minute    12     0      –"));
    }
}
