//! Tells the conformance suite's adapter what a listener has counted, and counts for it.
//!
//! Reads lines `usage ADDRESS TOKEN SERVICE APP_ID` and `report ADDRESS TOKEN SERVICE APP_ID USER_KEY METRIC
//! AMOUNT`; answers each with a line of JSON: metric → total, or `{"error": …}`. Ends with its input.

use std::io::{BufRead, Write};

use anyhow::{Context, bail};
use weir_proto::v1;
use weir_tests::listener::{ListenerClient, usage_entry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let words = line?;
        let words: Vec<&str> = words.split(' ').collect();
        let answer = match answer(&words).await {
            Ok(totals) => totals,
            Err(error) => serde_json::json!({ "error": format!("{error:#}") }),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

async fn answer(words: &[&str]) -> anyhow::Result<serde_json::Value> {
    let [verb, address, token, service, app_id, rest @ ..] = words else { bail!("too few words") };
    let client = ListenerClient::new(address.parse().context("the address")?, token);
    match (*verb, rest) {
        ("usage", []) => {}
        ("report", [user_key, metric, amount]) => {
            let transaction = v1::Transaction {
                application: Some(v1::transaction::Application::UserKey((*user_key).into())),
                usage: vec![usage_entry(metric, amount.parse()?)],
                at_unix_s: None,
            };
            client.report(service, vec![transaction]).await?;
        }
        _ => bail!("not usage or report"),
    }
    Ok(serde_json::json!(client.totals(service, app_id).await?))
}
