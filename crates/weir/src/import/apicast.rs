//! Reads the configuration of 3scale's gateway: the document, one service of it, or the portal's list of them.
//! (Reference: gateway, sections 1.1, 1.2, 2 and 3.)

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use weir_core::backend::Mount;
use weir_core::mapping_rule::Pattern;
use weir_core::oidc::SigningAlgorithm;
use weir_core::{HttpMethod, MetricName, ServiceId};

use super::account::Account;
use super::draft::{Backend, Draft, Rule, Service, quoted};

/// Fields that 3scale's gateway does not read, or that say nothing to ours.
const NEEDLESS: [&str; 23] = [
    "account_id",
    "api_test_path",
    "api_test_success",
    "authentication_method",
    "created_at",
    "deployed_at",
    "endpoint",
    "endpoint_port",
    "error_headers",
    "hostname_rewrite_for_sandbox",
    "id",
    "lock_version",
    "oauth_login_url",
    "oidc_issuer_type",
    "policy_chain_version",
    "proxiable?",
    "sandbox_endpoint",
    "service_backend_version",
    "service_id",
    "staging_domain",
    "tenant_id",
    "updated_at",
    "valid?",
];

/// Reads a document; `None`: it is none.
pub(super) fn read(document: &Value, account: &mut Account) -> Option<Draft> {
    let (services, issuers) = match document {
        Value::Object(top) if top.contains_key("services") => {
            (top["services"].as_array()?.iter().collect(), top.get("oidc").and_then(Value::as_array))
        }
        // As the portal lists them.
        Value::Object(top) if top.contains_key("proxy_configs") => {
            let configs = top["proxy_configs"].as_array()?.iter();
            (configs.filter_map(|config| config.pointer("/proxy_config/content")).collect(), None)
        }
        Value::Object(top) if top.contains_key("proxy_config") => {
            (vec![&top["proxy_config"]["content"]], None)
        }
        Value::Object(top) if top.contains_key("proxy") => (vec![document], None),
        _ => (Vec::new(), None),
    };
    let mut draft = Draft::default();
    for (at, service) in services.into_iter().enumerate() {
        let place = format!("services[{at}]");
        let Some(fields) = service.as_object() else {
            account.left_out(&place, "it is no object");
            continue;
        };
        let issuer = issuers.and_then(|issuers| issuers.get(at));
        Reader { account, place, service: Service::default() }.read(fields, issuer, &mut draft);
    }
    (!draft.services.is_empty()).then_some(draft)
}

struct Reader<'a> {
    account: &'a mut Account,
    place: String,
    service: Service,
}

impl Reader<'_> {
    fn at(&self, field: &str) -> String {
        format!("{}.{field}", self.place)
    }

    fn mapped(&mut self, field: &str, to: &str) {
        let place = self.at(field);
        self.account.mapped(&place, to);
    }

    fn changed(&mut self, field: &str, how: &str) {
        let place = self.at(field);
        self.account.changed(&place, how);
    }

    fn left_out(&mut self, field: &str, why: &str) {
        let place = self.at(field);
        self.account.left_out(&place, why);
    }

    fn read(mut self, fields: &Map<String, Value>, issuer: Option<&Value>, draft: &mut Draft) {
        self.read_id(fields, draft);
        if let Some(name) = text(fields, "system_name").or_else(|| text(fields, "name")) {
            self.service.name = Some(name.to_owned());
            self.mapped("system_name", "name");
        }
        let empty = Map::new();
        let proxy = fields.get("proxy").and_then(Value::as_object).unwrap_or(&empty);
        self.read_mode(fields, proxy);
        self.read_authentication(fields, draft);
        self.read_hosts(proxy);
        self.read_upstream(proxy);
        self.read_credentials(proxy);
        self.read_errors(proxy);
        self.read_policies(proxy);
        self.read_rules(proxy);
        if self.service.credentials == "client_id" {
            self.read_oidc(proxy, issuer);
        }
        self.read_rest(fields, proxy);
        draft.services.push(self.service);
    }

    fn read_id(&mut self, fields: &Map<String, Value>, draft: &Draft) {
        let given = fields.get("id").and_then(shown).unwrap_or_else(|| "default".to_owned());
        let mut id: String = given.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
        if id.parse::<ServiceId>().is_err() {
            id = format!("service_{id}");
        }
        let is_taken = |id: &str| draft.services.iter().any(|service| service.id == id);
        if is_taken(&id) {
            let free = (2..).map(|n| format!("{id}_{n}")).find(|id| !is_taken(id));
            self.changed("id", "there is one of that id already, which 3scale's gateway would serve alone");
            id = free.unwrap_or(id);
        } else if id == given {
            self.mapped("id", "id");
        } else {
            self.changed("id", &format!("is {id:?} now: ids have letters, digits, _ - ."));
        }
        self.service.id = id;
    }

    fn read_mode(&mut self, fields: &Map<String, Value>, proxy: &Map<String, Value>) {
        let version = fields.get("backend_version").and_then(shown);
        let method = proxy.get("authentication_method").and_then(shown).or_else(|| version.clone());
        self.service.credentials = match method.as_deref() {
            Some("2") => "app_id_and_key",
            Some("oauth" | "oidc") => "client_id",
            _ => "user_key",
        };
        match method.as_deref() {
            Some("1" | "2" | "oauth" | "oidc") => self.mapped("backend_version", "credentials"),
            _ => self.changed("backend_version", "is not known: credentials are user keys"),
        }
    }

    fn read_authentication(&mut self, fields: &Map<String, Value>, draft: &mut Draft) {
        let field = "backend_authentication_value";
        let Some(value) = text(fields, field) else { return };
        match text(fields, "backend_authentication_type") {
            Some("provider_key") => {
                draft.provider_keys.insert(value.to_owned());
                self.mapped(field, "provider_keys: 3scale's clients and gateways go on using it");
            }
            _ => {
                self.service.tokens.push(value.to_owned());
                self.mapped(field, "service_tokens: 3scale's clients and gateways go on using it");
            }
        }
    }

    fn read_hosts(&mut self, proxy: &Map<String, Value>) {
        let hosts = proxy.get("hosts").and_then(Value::as_array);
        let hosts: Vec<&str> = hosts.into_iter().flatten().filter_map(Value::as_str).collect();
        if hosts.is_empty() {
            self.service.hosts = vec!["localhost".to_owned()];
            self.changed("proxy.hosts", "there are none: it answers to localhost, as it did");
            return;
        }
        for host in hosts {
            let plain = host.to_ascii_lowercase();
            if self.service.hosts.contains(&plain) {
                continue;
            }
            let is_label = |label: &str| {
                !label.is_empty()
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            };
            if plain.split('.').all(is_label) {
                self.service.hosts.push(plain);
            } else {
                self.left_out("proxy.hosts", &format!("{host:?} is no host name"));
            }
        }
        self.mapped(
            "proxy.hosts",
            "proxy.hosts; what is for staging alone belongs into [providers.services.staging]",
        );
    }

    fn read_upstream(&mut self, proxy: &Map<String, Value>) {
        let url = text(proxy, "api_backend").and_then(|url| self.base_url("proxy.api_backend", url));
        self.service.proxy.extend(url.map(|url| ("api_backend", quoted(&url))));
        if let Some(host) = text(proxy, "hostname_rewrite") {
            self.service.proxy.push(("host_rewrite", quoted(host)));
            self.mapped("proxy.hostname_rewrite", "proxy.host_rewrite; it no longer changes the name in TLS");
        }
        if let Some(token) = text(proxy, "secret_token") {
            self.service.proxy.push(("secret_token", quoted(token)));
            self.mapped("proxy.secret_token", "proxy.secret_token");
        }
    }

    fn base_url(&mut self, field: &str, url: &str) -> Option<String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let plain = match scheme {
            "http" | "https" => {
                self.mapped(field, "api_backend");
                url.to_owned()
            }
            "ws" => format!("http://{rest}"),
            "wss" => format!("https://{rest}"),
            _ => {
                self.left_out(field, "it is neither http:// nor https://");
                return None;
            }
        };
        if plain != url {
            self.changed(field, "is http now: upgrades need no scheme of their own");
        }
        Some(plain)
    }

    fn read_credentials(&mut self, proxy: &Map<String, Value>) {
        if let Some(location) = text(proxy, "credentials_location") {
            if matches!(location, "query" | "headers" | "authorization") {
                self.service.proxy.push(("credentials_location", quoted(location)));
                self.mapped("proxy.credentials_location", "proxy.credentials_location");
            } else {
                self.left_out("proxy.credentials_location", "it is none of query, headers and authorization");
            }
        }
        for (field, name) in
            [("auth_user_key", "user_key"), ("auth_app_id", "app_id"), ("auth_app_key", "app_key")]
        {
            let Some(given) = text(proxy, field) else { continue };
            let place = format!("proxy.{field}");
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
            if given.bytes().all(is_plain) {
                self.service.names.push((name, quoted(&given.to_ascii_lowercase())));
                self.mapped(&place, &format!("proxy.credential_names.{name}"));
            } else {
                self.left_out(&place, "names have letters, digits, _ and -");
            }
        }
    }

    fn read_errors(&mut self, proxy: &Map<String, Value>) {
        for name in ["auth_missing", "auth_failed", "no_match", "limits_exceeded"] {
            let mut entries = Vec::new();
            let status = proxy
                .get(&format!("error_status_{name}"))
                .and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
            match status {
                Some(200..=599) => entries.extend(status.map(|status| ("status", status.to_string()))),
                Some(_) => self.left_out(&format!("proxy.error_status_{name}"), "it is none from 200 to 599"),
                None => {}
            }
            if let Some(body) = text(proxy, &format!("error_{name}")) {
                entries.push(("body", quoted(body)));
            }
            if let Some(kind) = text(proxy, &format!("error_headers_{name}")) {
                entries.push(("content_type", quoted(kind)));
            }
            if !entries.is_empty() {
                self.service.errors.push((name, entries));
                self.mapped(&format!("proxy.error_*_{name}"), &format!("proxy.errors.{name}"));
            }
        }
    }

    /// The chain: what of it is built in, the backends of a product, and what there is no policy for.
    fn read_policies(&mut self, proxy: &Map<String, Value>) {
        let Some(chain) = proxy.get("policy_chain").and_then(Value::as_array) else { return };
        let name = |policy: &Value| {
            let name = policy.get("name").and_then(Value::as_str).unwrap_or_default();
            name.strip_prefix("apicast.policy.").unwrap_or(name).to_owned()
        };
        if !chain.is_empty() && !chain.iter().any(|policy| name(policy) == "apicast") {
            self.changed(
                "proxy.policy_chain",
                "it has no apicast policy, so 3scale's gateway asks for no credentials: ours always does",
            );
        }
        for (at, policy) in chain.iter().enumerate() {
            let field = format!("proxy.policy_chain[{at}]");
            match name(policy).as_str() {
                "apicast" => self.mapped(&field, "it is what a gateway does"),
                "routing" => self.read_routing(&field, policy),
                other => self.left_out(&field, &format!("there is no policy {other:?}")),
            }
        }
    }

    fn read_routing(&mut self, field: &str, policy: &Value) {
        let rules = policy.pointer("/configuration/rules").and_then(Value::as_array);
        for (at, rule) in rules.into_iter().flatten().enumerate() {
            let field = format!("{field}.configuration.rules[{at}]");
            let mount = mount_of(rule).filter(|mount| mount.parse::<Mount>().is_ok());
            let Some((mount, url)) = mount.zip(rule.get("url").and_then(Value::as_str)) else {
                self.left_out(&field, "it is no backend under a path that it takes away");
                continue;
            };
            let id = rule.get("owner_id").and_then(shown).unwrap_or_else(|| format!("backend_{at}"));
            let Some(api_backend) = self.base_url(&format!("{field}.url"), url) else { continue };
            let host_rewrite = rule.get("host_header").and_then(Value::as_str).map(str::to_owned);
            self.service.backends.push(Backend { id, mount, api_backend, host_rewrite, rules: vec![] });
            self.mapped(&field, "backends");
        }
    }

    fn read_rules(&mut self, proxy: &Map<String, Value>) {
        let rules = proxy.get("proxy_rules").and_then(Value::as_array);
        for (at, rule) in rules.into_iter().flatten().enumerate() {
            let field = format!("proxy.proxy_rules[{at}]");
            let Some(read) = self.rule(&field, rule) else { continue };
            if !self.service.metrics.contains(&read.metric) {
                self.service.metrics.push(read.metric.clone());
            }
            let owner = rule
                .get("owner_id")
                .and_then(shown)
                .filter(|_| rule.get("owner_type").and_then(Value::as_str) == Some("BackendApi"));
            let backend = owner.and_then(|owner| self.service.backends.iter_mut().find(|b| b.id == owner));
            match backend {
                Some(backend) => {
                    let below = read.pattern.strip_prefix(backend.mount.trim_end_matches('/'));
                    let pattern = match below {
                        Some(below) if below.starts_with('/') => below.to_owned(),
                        _ => {
                            self.left_out(&field, "it is not below the mount of its backend");
                            continue;
                        }
                    };
                    backend.rules.push(Rule { pattern, ..read });
                    self.mapped(&field, "mapping_rules of its backend");
                }
                None => {
                    self.service.rules.push(read);
                    self.mapped(&field, "mapping_rules");
                }
            }
        }
        if !self.service.metrics.is_empty() {
            self.changed(
                "proxy.proxy_rules",
                "metrics are those that rules name: which of them are methods is not said",
            );
        }
    }

    fn rule(&mut self, field: &str, rule: &Value) -> Option<Rule> {
        let text = |name: &str| rule.get(name).and_then(Value::as_str);
        let method = text("http_method").unwrap_or("GET").to_ascii_uppercase();
        if method.parse::<HttpMethod>().is_err() {
            self.left_out(field, &format!("method {method:?} is none that rules have"));
            return None;
        }
        let metric = text("metric_system_name").unwrap_or_default();
        if metric.parse::<MetricName>().is_err() {
            self.left_out(field, &format!("metric {metric:?} is no name of one"));
            return None;
        }
        let delta =
            rule.get("delta").and_then(|delta| delta.as_i64().or_else(|| delta.as_str()?.parse().ok()));
        let Some(delta) = delta.and_then(|delta| u64::try_from(delta).ok()).filter(|delta| *delta > 0) else {
            self.left_out(field, "it counts nothing");
            return None;
        };
        let given = text("pattern").unwrap_or("/");
        let (path, query) = given.split_once('?').map_or((given, None), |(path, query)| (path, Some(query)));
        let conditions = rule.get("querystring_parameters").and_then(Value::as_object);
        let count = conditions.map_or(0, Map::len);
        let conditions: Vec<String> = conditions.into_iter().flatten().filter_map(condition).collect();
        if conditions.len() < count {
            self.left_out(field, "a condition on its query is no text");
            return None;
        }
        if query.is_some() && conditions.is_empty() {
            self.changed(field, "the query in its pattern is dropped: 3scale's gateway does not look at it");
        }
        let joint = if conditions.is_empty() { "" } else { "?" };
        let pattern = format!("{path}{joint}{}", conditions.join("&"));
        if let Err(error) = pattern.parse::<Pattern>() {
            self.left_out(field, &format!("pattern {pattern:?} {error}"));
            return None;
        }
        let last = rule.get("last").and_then(Value::as_bool).unwrap_or(false);
        Some(Rule { method, pattern, metric: metric.to_owned(), delta, last })
    }

    fn read_oidc(&mut self, proxy: &Map<String, Value>, issuer: Option<&Value>) {
        let Some(url) = text(proxy, "oidc_issuer_endpoint") else {
            self.left_out("proxy.oidc_issuer_endpoint", "there is none, so no token is good");
            return;
        };
        let plain = without_user(url);
        if plain == url {
            self.mapped("proxy.oidc_issuer_endpoint", "proxy.oidc.issuer");
        } else {
            self.changed("proxy.oidc_issuer_endpoint", "the client's name and secret in it are not needed");
        }
        self.service.oidc.push(("issuer", quoted(&plain)));
        let claim = text(proxy, "jwt_claim_with_client_id");
        match (claim, text(proxy, "jwt_claim_with_client_id_type")) {
            (None, _) => {}
            (Some(_), Some("liquid")) => {
                self.left_out("proxy.jwt_claim_with_client_id", "templates over claims: name one claim");
            }
            (Some(claim), _) => {
                self.service.oidc.push(("client_id_claim", quoted(claim)));
                self.mapped("proxy.jwt_claim_with_client_id", "proxy.oidc.client_id_claim");
            }
        }
        let named = issuer.and_then(|issuer| issuer.pointer("/config/id_token_signing_alg_values_supported"));
        let named: Vec<&str> =
            named.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let served = named.iter().filter(|name| name.parse::<SigningAlgorithm>().is_ok());
        let served: Vec<String> = served.map(|name| quoted(name)).collect();
        if !served.is_empty() {
            self.service.oidc.push(("algorithms", format!("[{}]", served.join(", "))));
            if served.len() == named.len() {
                self.mapped("oidc.config", "proxy.oidc.algorithms; keys are fetched from the issuer");
            } else {
                self.changed("oidc.config", "proxy.oidc.algorithms, without those that are not served");
            }
        }
    }

    /// Whatever nobody has looked at.
    fn read_rest(&mut self, fields: &Map<String, Value>, proxy: &Map<String, Value>) {
        const OF_SERVICE: [&str; 7] = [
            "id",
            "name",
            "system_name",
            "backend_version",
            "backend_authentication_type",
            "backend_authentication_value",
            "proxy",
        ];
        const OF_PROXY: [&str; 14] = [
            "hosts",
            "api_backend",
            "credentials_location",
            "auth_user_key",
            "auth_app_id",
            "auth_app_key",
            "secret_token",
            "hostname_rewrite",
            "proxy_rules",
            "policy_chain",
            "oidc_issuer_endpoint",
            "jwt_claim_with_client_id",
            "jwt_claim_with_client_id_type",
            "authentication_method",
        ];
        if proxy.contains_key("backend") {
            self.changed("proxy.backend", "gateways ask the listeners that their own files name");
        }
        let is_known = |name: &str| {
            OF_SERVICE.contains(&name)
                || OF_PROXY.contains(&name)
                || NEEDLESS.contains(&name)
                || name == "backend"
        };
        let mut rest: BTreeMap<String, &Value> = BTreeMap::new();
        rest.extend(
            fields.iter().filter(|(name, _)| !is_known(name)).map(|(name, value)| (name.clone(), value)),
        );
        let of_proxy = proxy.iter().filter(|(name, _)| !is_known(name) && !name.starts_with("error_"));
        rest.extend(of_proxy.map(|(name, value)| (format!("proxy.{name}"), value)));
        for (field, value) in rest {
            let is_nothing = match value {
                Value::Null | Value::Bool(false) => true,
                Value::String(text) => text.is_empty(),
                Value::Array(items) => items.is_empty(),
                Value::Object(members) => members.is_empty(),
                _ => false,
            };
            if !is_nothing && field != "error_headers" {
                self.changed(&field, "3scale's gateway does not read it, and neither does ours");
            }
        }
    }
}

/// A text that is not empty.
fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A text or a number, as text.
fn shown(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// A condition on the query; `{name}` in the value means any.
fn condition((name, value): (&String, &Value)) -> Option<String> {
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let value = value.as_str()?;
    let is_any = value.find('{').is_some_and(|open| value[open..].contains('}'));
    Some(format!("{}={}", encode(name), if is_any { "{any}".to_owned() } else { encode(value) }))
}

/// The mount that a rule of the portal's means: one condition on the path, `/a/.*|/a/?` and perhaps anchored, and a path
/// for the upstream without it. `None`: it means something else.
fn mount_of(rule: &Value) -> Option<String> {
    let operations = rule.pointer("/condition/operations").and_then(Value::as_array);
    let replaces = rule.get("replace_path").and_then(Value::as_str);
    let [operation] = operations.map_or(&[][..], Vec::as_slice) else {
        // Without a condition it has every path.
        return (operations.is_none_or(Vec::is_empty) && replaces.is_none()).then(|| "/".to_owned());
    };
    let of = |name: &str| operation.get(name).and_then(Value::as_str);
    let is_path = of("match") == Some("path") && matches!(of("op"), None | Some("matches"));
    let mut alternatives =
        of("value").filter(|_| is_path)?.split('|').map(|text| text.trim_start_matches('^'));
    let mount = alternatives.next()?.strip_suffix("/.*")?.to_owned();
    let is_it = |text: &str| {
        let text = text.trim_end_matches('$');
        text == mount || text.strip_suffix("/?") == Some(mount.as_str())
    };
    if !alternatives.all(is_it) {
        return None;
    }
    if mount.is_empty() {
        return Some("/".to_owned());
    }
    replaces.filter(|text| text.contains(&format!("remove_first: '{mount}'")))?;
    Some(mount)
}

fn without_user(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_means_a_backend_is_one() {
        #[track_caller]
        fn check(op: &str, value: &str, replace: Option<&str>, expected: Option<&str>) {
            let operation = json!({ "match": "path", "op": op, "value": value });
            let rule = json!({ "condition": { "operations": [operation] }, "replace_path": replace });
            assert_eq!(mount_of(&rule).as_deref(), expected, "{rule}");
        }
        let without = |mount: &str| format!("{{{{uri | remove_first: '{mount}'}}}}");
        check("matches", "/a/.*|/a/?", Some(&without("/a")), Some("/a"));
        check("matches", "^/a/b/.*|^/a/b/?$", Some(&without("/a/b")), Some("/a/b"));
        check("matches", "/.*", None, Some("/"));
        check("matches", "/a/.*|/b/.*", Some(&without("/a")), None);
        check("matches", "/a/.*|/a/?", None, None);
        check("matches", "/a/.*|/a/?", Some(&without("/b")), None);
        check("!=", "/a/.*", Some(&without("/a")), None);
        check("matches", "/a", Some(&without("/a")), None);
        assert_eq!(mount_of(&json!({})).as_deref(), Some("/"));
    }
}
