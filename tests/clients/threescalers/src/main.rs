//! Makes one call of 3scale's API with the crate threescalers: threescalers-call ADDRESS CALL
//!
//! CALL is JSON: `service`, `key` or `token`, `kind` (`authorize`, `authrep`, `report`), `options` by name, and
//! `transactions`, each with `user_key`, `app_id` and perhaps `app_key`, or `access_token`, a `usage` by metric and perhaps a
//! `timestamp`. Printed is a line of JSON: status and headers, and what the crate made of the body. The crate builds
//! requests and reads documents; what carries them here is as plain as can be.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use threescalers::api_call::{ApiCall, Kind};
use threescalers::application::Application;
use threescalers::credentials::Credentials;
use threescalers::extensions::{Extension, List};
use threescalers::http::Request;
use threescalers::response::{Authorization, AuthorizationStatus, Period, UsageReport};
use threescalers::service::Service;
use threescalers::transaction::Transaction;
use threescalers::usage::Usage;

const TIMEOUT: Duration = Duration::from_secs(15);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, call] = &arguments[..] else { bail!("threescalers-call ADDRESS CALL") };
    println!("{}", make(address, &serde_json::from_str(call)?)?);
    Ok(())
}

/// What a transaction is made of; the crate's own borrows it.
struct Given {
    application: Application,
    usage: Vec<(String, String)>,
    timestamp: Option<i64>,
}

fn make(address: &str, call: &Value) -> anyhow::Result<Value> {
    let service = Service::new(text(call, "service").context("no service")?, credentials(call)?);
    let given = call["transactions"].as_array().into_iter().flatten().map(given);
    let given = given.collect::<anyhow::Result<Vec<Given>>>()?;
    let usages: Vec<Usage<'_>> = given.iter().map(|given| Usage::new(&given.usage)).collect();
    let transaction = |(given, usage)| {
        let Given { application, timestamp, .. }: &Given = given;
        Transaction::new(application, None, Some(usage), *timestamp)
    };
    let transactions: Vec<Transaction<'_>> = given.iter().zip(&usages).map(transaction).collect();
    let options: List<'_> = call["options"].as_object().into_iter().flatten().map(option).collect();
    let kind = match text(call, "kind") {
        Some("authorize") => Kind::Authorize,
        Some("authrep") => Kind::AuthRep,
        Some("report") => Kind::Report,
        _ => bail!("no kind"),
    };
    let mut builder = ApiCall::builder(&service);
    builder.kind(kind).transactions(&transactions).extensions(&options);
    send(address, &Request::from(&builder.build()?))
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value[key].as_str()
}

fn credentials(call: &Value) -> anyhow::Result<Credentials> {
    match (text(call, "key"), text(call, "token")) {
        (Some(key), None) => Ok(Credentials::from_key(key)),
        (None, Some(token)) => Ok(Credentials::from_token(token)),
        _ => bail!("neither key nor token, or both"),
    }
}

fn given(transaction: &Value) -> anyhow::Result<Given> {
    let named = |key| text(transaction, key);
    let application = match (named("user_key"), named("app_id"), named("app_key")) {
        (Some(key), ..) => Application::from_user_key(key),
        (None, Some(id), Some(key)) => Application::from_app_id_and_key(id, key),
        (None, Some(id), None) => Application::from_app_id(id),
        _ => Application::from_oauth_token(named("access_token").context("no application")?),
    };
    let usage = transaction["usage"].as_object().into_iter().flatten();
    let usage = usage.map(|(metric, by)| (metric.clone(), by.to_string())).collect();
    Ok(Given { application, usage, timestamp: transaction["timestamp"].as_i64() })
}

fn option<'v>((name, value): (&'v String, &'v Value)) -> Extension<'v> {
    let value = value.as_str().unwrap_or_default();
    match (name.as_str(), value) {
        ("hierarchy", "1") => Extension::Hierarchy,
        ("no_body", "1") => Extension::NoBody,
        ("flat_usage", value) => Extension::FlatUsage(value.into()),
        ("list_app_keys", value) => Extension::ListAppKeys(value.into()),
        (name, value) => Extension::Other(name.into(), value.into()),
    }
}

fn send(address: &str, request: &Request) -> anyhow::Result<Value> {
    let (target, body) = request.uri_and_body();
    let (method, body) = (request.method.as_str(), body.unwrap_or_default());
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in request.headers.iter() {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(text.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse::<u16>().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers: Map<String, Value> = headers.map(|(n, v)| (n.to_lowercase(), v.into())).collect();
    Ok(json!({ "status": status, "headers": headers, "body": read(body) }))
}

/// What the crate reads; null where there is nothing to read.
fn read(body: &str) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    match body.parse::<Authorization>().map(Authorization::into_inner) {
        Ok(Ok(status)) => told(&status),
        Ok(Err(error)) => json!({ "code": error.code(), "description": error.description() }),
        Err(error) => json!({ "unread": error.to_string() }),
    }
}

fn told(status: &AuthorizationStatus) -> Value {
    let usage = status.usage_reports().into_iter().flatten().map(report).collect::<Value>();
    let keys = status.app_keys().map(|list| {
        let keys: Vec<&str> = list.keys().iter().map(AsRef::as_ref).collect();
        json!({ "app_id": list.app_id().map(AsRef::as_ref), "keys": keys })
    });
    json!({
        "authorized": status.is_authorized(),
        "reason": status.reason(),
        "plan": status.plan(),
        "usage": usage,
        "children": status.hierarchy().map(|hierarchy| hierarchy.clone().into_inner()),
        "app_keys": keys,
    })
}

fn report(report: &UsageReport) -> Value {
    let period = match report.period() {
        Period::Other(other) => other.clone(),
        known => format!("{known:?}").to_lowercase(),
    };
    let (start, end) = report.period_times();
    json!({
        "limit": format!("{}/{period}", report.metric()),
        "current": report.current_value(),
        "max": report.max_value(),
        "is_limited": report.is_limited(),
        "start": start.0,
        "end": end.0,
    })
}
