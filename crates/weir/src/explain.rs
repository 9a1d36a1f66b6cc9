//! `weir explain` and `weir why`: why a gateway answers a call as it does, before it is made and after it was refused.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use weir_core::{ApplicationId, Secret};
use weir_gateway::Explanation;

use crate::argument_file;
use crate::explain_route::REQUEST_TYPE;
use crate::failure::Failure;
use crate::problem::Problem;

/// Longest wait for the gateway.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest explanation.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Where to ask.
#[derive(Debug, Args)]
struct Asked {
    /// The gateway's telemetry address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9080")]
    gateway: Uri,
    /// Its operator_token.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weir explain GET 'http://api.example.org/v3/mails?user_key=…' --token-file operator.token\n  \
    weir explain POST https://api.example.org/v3/send -H 'Authorization: Bearer …' --token-file operator.token\n  \
    weir explain GET http://api.example.org/v3/mails --application globex --token-file operator.token\n\n\
    Says which service, credentials, rules, usage, limits and upstream apply, and what the answer\n\
    would be. Nothing is counted, and nothing goes upstream.\n\n\
    Exit codes: 0 the call would pass, 1 the gateway cannot be asked, 2 the command line is wrong,\n\
    3 the gateway would refuse the call.")]
pub(crate) struct Arguments {
    /// The call's method.
    method: String,
    /// Its URL, as its client would use it.
    url: Uri,
    /// A header: 'Name: value'. May be given several times.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// A body, such as a form.
    #[arg(short, long, value_name = "TEXT")]
    data: Option<String>,
    /// As if this application called, whatever credentials are shown.
    #[arg(long, value_name = "ID")]
    application: Option<ApplicationId>,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    weir why 8f14e45fceea167a0000000000000007 --token-file operator.token\n\n\
    The id is in the answer's X-Request-Id, in problem documents and in the access log. A gateway\n\
    keeps its last 4,096 refusals in memory; [refusals] in gateway.toml keeps them longer, in a file.")]
pub(crate) struct WhyArguments {
    /// The refused request's id.
    id: String,
    #[command(flatten)]
    asked: Asked,
}

/// Runs `weir explain`.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let request = wire(arguments).map_err(|problem| Failure::BadInput(vec![problem]))?;
    let query = arguments.application.as_ref().map(|id| {
        let id = percent_encoding::utf8_percent_encode(id.as_str(), percent_encoding::NON_ALPHANUMERIC);
        format!("?application={id}")
    });
    let target = format!("/explain{}", query.unwrap_or_default());
    let explanation = ask(&arguments.asked, "POST", &target, request)?;
    if explanation.answer.from == "upstream" { Ok(()) } else { Err(Failure::Said(3)) }
}

/// Runs `weir why`.
pub(crate) fn why(arguments: &WhyArguments) -> Result<(), Failure> {
    let id = percent_encoding::utf8_percent_encode(&arguments.id, percent_encoding::NON_ALPHANUMERIC);
    ask(&arguments.asked, "GET", &format!("/why/{id}"), Bytes::new()).map(|_| ())
}

/// The request as it goes over the wire.
fn wire(arguments: &Arguments) -> Result<Bytes, Problem> {
    let Arguments { method, url, headers, data, .. } = arguments;
    let problem = |name: &str, what: &str| Problem::of_argument(name, what);
    let host = url.authority().filter(|_| matches!(url.scheme_str(), Some("http" | "https")));
    let host = host.ok_or_else(|| problem("URL", "is not http://host/… or https://host/…"))?;
    if method.is_empty() || !method.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(problem("METHOD", "is not a method"));
    }
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    let named = |name: &str| {
        let is = |header: &&String| {
            header.split_once(':').is_some_and(|(n, _)| n.trim().eq_ignore_ascii_case(name))
        };
        headers.iter().any(|header| is(&header))
    };
    if !named("host") {
        let _ = write!(text, "Host: {host}\r\n");
    }
    for header in headers {
        let parts = header.split_once(':').filter(|(name, _)| !name.trim().is_empty());
        let (name, value) = parts.ok_or_else(|| problem("--header", "is not 'Name: value'"))?;
        if header.contains(['\r', '\n']) {
            return Err(problem("--header", "has a line break"));
        }
        let _ = write!(text, "{}: {}\r\n", name.trim(), value.trim());
    }
    if let Some(data) = data {
        if !named("content-type") {
            text.push_str("Content-Type: application/x-www-form-urlencoded\r\n");
        }
        let _ = write!(text, "Content-Length: {}\r\n", data.len());
    }
    let _ = write!(text, "\r\n{}", data.as_deref().unwrap_or_default());
    Ok(text.into())
}

/// Asks the gateway, and prints what it says.
fn ask(asked: &Asked, method: &str, target: &str, body: Bytes) -> Result<Explanation, Failure> {
    const OPTION: &str = "--token-file";
    let token = argument_file::read(&asked.token_file, OPTION)
        .and_then(|bytes| argument_file::token(OPTION, &String::from_utf8(bytes).unwrap_or_default()))
        .map_err(|problem| Failure::BadInput(vec![problem]))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let asking = async {
        let sending = send(&asked.gateway, &token, method, target, body);
        tokio::time::timeout(TIMEOUT, sending).await.context("the gateway does not answer")?
    };
    let answer = runtime.block_on(asking)?;
    let explanation: Explanation =
        serde_json::from_slice(&answer).context("the gateway's answer cannot be read")?;
    if asked.json {
        println!("{}", String::from_utf8_lossy(&answer));
    } else {
        print!("{}", told(&explanation));
    }
    Ok(explanation)
}

async fn send(
    gateway: &Uri,
    token: &Secret,
    method: &str,
    target: &str,
    body: Bytes,
) -> anyhow::Result<Bytes> {
    let authority = gateway.authority().filter(|_| gateway.scheme_str() == Some("http"));
    let authority = authority.context("--gateway is not http://host:port")?.as_str();
    let address = if gateway.port().is_some() { authority.to_owned() } else { format!("{authority}:9080") };
    let stream = TcpStream::connect(&address).await.with_context(|| format!("cannot reach {address}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", authority)
        .header("authorization", format!("Bearer {}", token.expose()))
        .header("content-type", REQUEST_TYPE)
        .body(Full::<Bytes>::from(body))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let collected = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = collected.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes();
    anyhow::ensure!(status.is_success(), "{} ({})", String::from_utf8_lossy(&body).trim(), status.as_u16());
    Ok(body)
}

/// For people: a line for each phase, as far as the call came.
fn told(explanation: &Explanation) -> String {
    let Explanation { method, host, path, answer, .. } = explanation;
    let mut text = format!("{method} {host}{path}\n\n");
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<12} {value}");
    };
    if let Some(id) = &explanation.request_id {
        row("request", id);
    }
    row("service", explanation.service.as_deref().unwrap_or("none"));
    if let Some(backend) = &explanation.backend {
        row("backend", backend);
    }
    if let Some(credentials) = &explanation.credentials {
        row("credentials", &format!("{}, in {}", credentials.mode, credentials.location));
    }
    if let Some(application) = &explanation.application {
        row("application", application);
    }
    for (at, rule) in explanation.rules.iter().enumerate() {
        let last = if rule.last { ", the last" } else { "" };
        let free = match rule.free_answers.as_slice() {
            [] => String::new(),
            answers => format!(", free with {}", answers.join(" ")),
        };
        let name = if at == 0 { "rules" } else { "" };
        row(name, &format!("{} {}  {} +{}{last}{free}", rule.method, rule.pattern, rule.metric, rule.delta));
    }
    if !explanation.usage.is_empty() {
        let used = explanation.usage.iter().map(|used| format!("{} {}", used.metric, used.amount));
        row("usage", &used.collect::<Vec<_>>().join(", "));
    }
    for (at, limit) in explanation.limits.iter().enumerate() {
        let resets = limit.resets_in_s.map_or_else(|| "never ends".to_owned(), |s| format!("ends in {s} s"));
        let name = if at == 0 { "limits" } else { "" };
        let (metric, period) = (&limit.metric, &limit.period);
        row(
            name,
            &format!(
                "{metric} per {period}: {} of {} used, {} held, {} left, {resets}",
                limit.used, limit.max, limit.held, limit.left
            ),
        );
    }
    if let Some(decided_by) = &explanation.decided_by {
        row("decided by", decided_by);
    }
    if let Some(upstream) = &explanation.upstream {
        row("upstream", upstream);
    }
    let code = answer.code.as_deref().map_or_else(String::new, |code| format!(" ({code})"));
    let status = answer.status.map_or_else(|| "the upstream's".to_owned(), |status| status.to_string());
    let again = answer.retry_after_s.map_or_else(String::new, |s| format!(" Again in {s} s."));
    let _ = write!(text, "\n  answer       {status}{code}: {}{again}\n", answer.detail);
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[track_caller]
    fn check(line: &[&str], expected: Result<&str, &str>) {
        let all = ["explain"].iter().chain(line).chain(&["--token-file", "t"]);
        let found = wire(&Line::try_parse_from(all).unwrap().arguments);
        let found = found.map_err(|problem| problem.to_string());
        let found = found.as_ref().map(|bytes| std::str::from_utf8(bytes).unwrap()).map_err(String::as_str);
        assert_eq!(found, expected);
    }

    #[test]
    fn calls_are_explained_as_they_would_be_sent() {
        check(&["GET", "http://a.test/x?y=1"], Ok("GET /x?y=1 HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        check(
            &["POST", "https://a.test:8443", "-H", "host: b.test", "-H", "X-Y:z", "-d", "a=1"],
            Ok("POST / HTTP/1.1\r\nhost: b.test\r\nX-Y: z\r\n\
                Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\na=1"),
        );
        check(&["GET", "/x"], Err("URL: is not http://host/… or https://host/…"));
        check(&["GET", "http://a.test", "-H", "x"], Err("--header: is not 'Name: value'"));
    }
}
