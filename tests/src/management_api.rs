//! Calls of 3scale's Service Management API, and what their answers come to in a few words.

use std::net::SocketAddr;

use crate::http::{Answer, call};
use crate::stack::{Plan, Stack};

/// The key of the provider `Postbote`.
pub const PROVIDER_KEY: &str = "postbote-provider-key";
/// A token of its service `keys`.
pub const SERVICE_TOKEN: &str = "keys-service-token";

/// Two providers; services in every credential mode, one of them suspended; applications in every state.
pub const CATALOG: &str = r#"
revision = 1
[[providers]]
name = "Postbote"
provider_keys = ["postbote-provider-key"]

[[providers.services]]
id = "pair"
credentials = "app_id_and_key"
referrer_filters_required = true
metrics = [{ name = "hits" }, { name = "read", parent = "hits" }, { name = "page", parent = "read" }, { name = "mail" }]
plans = [
  { id = "gold", name = "Gold & <Silver>", limits = [
    { metric = "hits", period = "eternity", max = 10 },
    { metric = "hits", period = "day", max = 8 },
    { metric = "mail", period = "eternity", max = 0 },
  ] },
  { id = "free" },
]
applications = [
  { id = "open", plan = "gold" },
  { id = "other", plan = "gold" },
  { id = "third", plan = "gold" },
  { id = "locked", plan = "gold", app_keys = ["first", "second"] },
  { id = "pending", plan = "gold", state = "pending" },
  { id = "suspended", plan = "gold", state = "suspended" },
  { id = "filtered", plan = "gold", referrer_filters = ["*.example.org"] },
  { id = "everything", plan = "gold", state = "suspended", app_keys = ["first"], referrer_filters = ["a.example"] },
  { id = "free", plan = "free" },
]

[[providers.services]]
id = "keys"
service_tokens = ["keys-service-token"]
metrics = [{ name = "hits" }]
plans = [{ id = "gold", limits = [{ metric = "hits", period = "eternity", max = 3 }] }]
applications = [{ id = "holder", plan = "gold", user_key = "uk" }]

[[providers.services]]
id = "oauth"
credentials = "client_id"
metrics = [{ name = "hits" }]
plans = [{ id = "gold" }]
applications = [
  { id = "client", plan = "gold", app_keys = ["secret"], redirect_url = "https://a.example/?x=1&y=2" },
]

[[providers.services]]
id = "closed"
state = "suspended"
credentials = "app_id_and_key"
metrics = [{ name = "hits" }]
plans = [{ id = "gold" }]
applications = [{ id = "open", plan = "gold" }]

[[providers]]
name = "Else"
provider_keys = ["other-provider-key"]
services = [{ id = "foreign" }]
"#;

/// A listener that serves [`CATALOG`].
pub async fn start(plan: Plan) -> (Stack, SocketAddr) {
    let stack = Stack::start(&Plan { gateways: 0, catalog: CATALOG.into(), ..plan }).await;
    let http = stack.listeners[0].http.expect("a listener has an HTTP port");
    (stack, http)
}

/// Calls an endpoint under `/transactions/`, as the provider, about `pair` unless the query says otherwise.
pub fn ask(address: SocketAddr, endpoint: &str, query: &str, options: &str) -> Answer {
    let mut all = query.to_owned();
    if !query.contains("provider_key") && !query.contains("service_token") {
        all = format!("provider_key={PROVIDER_KEY}&{all}");
    }
    let headers = if options.is_empty() { vec![] } else { vec![("3scale-options", options)] };
    call(address, "GET", &format!("/transactions/{endpoint}.xml?{all}"), &headers, "")
}

/// Reports a form, as the provider.
pub fn report(address: SocketAddr, form: &str, headers: &[(&str, &str)]) -> Answer {
    let form = if form.contains("provider_key") || form.contains("service_token") {
        form.to_owned()
    } else {
        format!("provider_key={PROVIDER_KEY}&{form}")
    };
    let mut all = vec![];
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        all.push(("Content-Type", "application/x-www-form-urlencoded"));
    }
    all.extend(headers);
    call(address, "POST", "/transactions.xml", &all, &form)
}

/// Status and code: of an error document, or of a rejection's header.
pub fn outcome(answer: &Answer) -> String {
    let code = answer.body.split_once("<error code=\"").and_then(|(_, rest)| rest.split('"').next());
    let reason = answer.header("3scale-rejection-reason");
    format!("{} {}", answer.status, code.unwrap_or(&reason)).trim_end().to_owned()
}

/// What a status document says of a limit: `current/max`, with `!` behind it where it is exceeded.
pub fn usage(answer: &Answer, metric: &str, period: &str) -> String {
    let start = format!("<usage_report metric=\"{metric}\" period=\"{period}\"");
    let Some((_, report)) = answer.body.split_once(&start) else { return "none".into() };
    let element = |name: &str| {
        let text = report.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split('<').next());
        text.unwrap_or("?").to_owned()
    };
    let exceeded = if report.starts_with(" exceeded=\"true\"") { "!" } else { "" };
    format!("{}/{}{exceeded}", element("current_value"), element("max_value"))
}
