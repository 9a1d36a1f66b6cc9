//! What the demo tells people (a page of text) and scripts (`demo.json`).

use anyhow::Context;
use serde_json::{Value, json};

use super::setup::{HOST, OPERATOR_TOKEN_FILE, Ports, Setup, loopback};
use crate::catalog::{self, KeyHashing};
use crate::report::Source;

/// The page.
pub(super) fn text(setup: &Setup, kept: bool) -> String {
    let Ports { production, staging, grpc, http, upstream, .. } = setup.ports;
    let [telemetry_listener, telemetry_production, telemetry_staging] = setup.telemetry();
    let store = &setup.store;
    let api = format!("http://localhost:{production}");
    let weir = std::env::args().next().unwrap_or_else(|| "weir".into());
    let operator = setup.file(OPERATOR_TOKEN_FILE);
    let operator = format!("--gateway {telemetry_production} --token-file '{}'", operator.display());
    let catalog = if kept {
        format!(
            "\nEdit {} and raise its revision: in force within a second.\n",
            setup.file("catalog.toml").display()
        )
    } else {
        String::new()
    };
    format!(
        "\
Weir is ready. Postbote sells e-mail delivery by API; you are its provider and its customers.

  gateway    http://127.0.0.1:{production} (production), :{staging} (staging)    metrics {telemetry_production}/metrics, {telemetry_staging}/metrics
  listener   gRPC 127.0.0.1:{grpc}, HTTP :{http}, {store} store     metrics {telemetry_listener}/metrics
  upstream   http://127.0.0.1:{upstream} (the sample e-mail API)

  customer   plan      api_user   api_key
  Acme       Silver    acme       acme-demo-key-1, acme-demo-key-2
  Globex     Platinum  globex     globex-demo-key
  Initech    Bronze    initech    initech-demo-key     close to its 1,000 mails a day
  Umbrella   Gold      umbrella   umbrella-demo-key    suspended

Try it:
  200  curl -i -X POST '{api}/v3/mail/send?api_user=acme&api_key=acme-demo-key-1'
  401  curl -i -X POST '{api}/v3/mail/send'
  403  curl -i -X POST '{api}/v3/mail/send?api_user=acme&api_key=wrong'
  403  curl -i -X POST '{api}/v3/mail/send?api_user=umbrella&api_key=umbrella-demo-key'
  403  curl -i '{api}/v3/stats?api_user=initech&api_key=initech-demo-key'     (not in Bronze)
  404  curl -i '{api}/v3/unknown?api_user=acme&api_key=acme-demo-key-1'
  429  for n in $(seq 12); do curl -s -o /dev/null -w '%{{http_code}} ' -X POST '{api}/v3/mail/send?api_user=initech&api_key=initech-demo-key'; done; echo
  why  curl -i -X POST -H 'Accept: application/problem+json' '{api}/v3/mail/send?api_user=initech&api_key=initech-demo-key'
       {weir} explain POST '{api}/v3/mail/send' --application initech {operator}
  401  curl -i -X POST 'http://127.0.0.1:{upstream}/v3/mail/send'     (round the gateway)
  200  curl -i 'http://localhost:{http}/transactions/authrep.xml?provider_key=postbote-demo-provider-key&app_id=acme&app_key=acme-demo-key-1&usage%5Bmail_send%5D=1'     (as 3scale's clients ask)
{catalog}
Ctrl-C ends it.
"
    )
}

/// Writes `demo.json`, once everything is ready.
///
/// # Errors
/// When the folder cannot be written.
pub(super) fn write_json(setup: &Setup) -> anyhow::Result<()> {
    let Ports { production, staging, grpc, http, upstream, .. } = setup.ports;
    let [telemetry_listener, telemetry_production, telemetry_staging] = setup.telemetry();
    let value = json!({
        "gateway": { "production": loopback(production), "staging": loopback(staging), "host": HOST },
        "listener": { "grpc": loopback(grpc), "http": loopback(http) },
        "upstream": loopback(upstream),
        "telemetry": {
            "gateway": telemetry_production,
            "gateway_staging": telemetry_staging,
            "listener": telemetry_listener,
        },
        "service_token": setup.token,
        "operator_token_file": setup.file(OPERATOR_TOKEN_FILE),
        "applications": applications(setup)?,
    });
    setup.put("demo.json", &format!("{value:#}\n"))
}

/// The catalog's applications with keys in the clear: the demo's are no secret.
fn applications(setup: &Setup) -> anyhow::Result<Value> {
    let path = setup.file("catalog.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let written: toml::Table = text.parse()?;
    let source = Source { file: path.display().to_string(), text, ..Source::default() };
    let read = catalog::parse(&source, &KeyHashing::for_check());
    let catalog = read.map_err(|_| anyhow::anyhow!("{} is not the demo's", path.display()))?.value.catalog;
    let mut applications = Vec::new();
    for application in &catalog.applications {
        let service = catalog.services.iter().find(|s| s.id == application.reference.service);
        let plan = service.and_then(|service| service.plan(&application.plan).map(|plan| (service, plan)));
        let (service, plan) = plan.context("an application without a plan")?;
        let limits = plan.limits().iter().map(|limit| {
            let metric = &service.metrics.metric(limit.metric).name;
            json!({ "metric": metric.as_str(), "period": limit.period.as_str(), "max": limit.max })
        });
        let app_id = application.reference.application.as_str();
        applications.push(json!({
            "name": app_id,
            "plan": plan.id.as_str(),
            "app_id": app_id,
            "app_keys": keys_of(&written, app_id),
            "limits": limits.collect::<Vec<_>>(),
        }));
    }
    Ok(applications.into())
}

/// The keys of an application as they stand in the file.
fn keys_of(catalog: &toml::Table, app_id: &str) -> Vec<String> {
    let list = |value: &toml::Value, key: &str| {
        value.get(key).and_then(toml::Value::as_array).cloned().unwrap_or_default()
    };
    let providers = list(&toml::Value::Table(catalog.clone()), "providers");
    let services = providers.iter().flat_map(|provider| list(provider, "services"));
    let mut applications = services.flat_map(|service| list(&service, "applications"));
    let found = applications.find(|a| a.get("id").and_then(toml::Value::as_str) == Some(app_id));
    let keys = found.map(|application| list(&application, "app_keys")).unwrap_or_default();
    keys.iter().filter_map(|key| key.as_str().map(str::to_owned)).collect()
}
