//! Reads the configuration of 3scale's gateway: the document, one service of it, or the portal's list of them.
//! (Reference: gateway, sections 1.1, 1.2, 2 and 3.)

mod chain;
mod rules;

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use weir_core::ServiceId;
use weir_core::oidc::SigningAlgorithm;

use super::account::Account;
use super::draft::{Draft, Service, quoted};

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
            if !is_nothing(value) && field != "error_headers" {
                self.changed(&field, "3scale's gateway does not read it, and neither does ours");
            }
        }
    }
}

/// Whether a value says nothing.
pub(super) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// A text that is not empty.
fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A text or a number, as text.
pub(super) fn shown(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
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
