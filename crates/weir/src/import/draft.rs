//! A catalog that is being written: what an import found, and its text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use weir_core::policy::form::Value;

/// One provider's services.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) provider_keys: BTreeSet<String>,
    pub(super) services: Vec<Service>,
}

/// A service.
#[derive(Debug, Default)]
pub(super) struct Service {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) credentials: &'static str,
    pub(super) tokens: Vec<String>,
    /// In the order in which rules name them.
    pub(super) metrics: Vec<String>,
    pub(super) rules: Vec<Rule>,
    pub(super) backends: Vec<Backend>,
    pub(super) hosts: Vec<String>,
    /// Of `proxy`, with the values as TOML.
    pub(super) proxy: Vec<(&'static str, String)>,
    /// Of `proxy.credential_names`.
    pub(super) names: Vec<(&'static str, String)>,
    /// Of `proxy.oidc`, with the values as TOML.
    pub(super) oidc: Vec<(&'static str, String)>,
    /// Of `proxy.errors`: name, and keys with the values as TOML.
    pub(super) errors: Vec<(&'static str, Vec<(&'static str, String)>)>,
    /// Of `proxy.policies`, in their order.
    pub(super) policies: Vec<BTreeMap<String, Value>>,
    /// The application that policies take calls without credentials for.
    pub(super) anonymous: Option<String>,
}

/// A mapping rule.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) method: String,
    pub(super) pattern: String,
    pub(super) metric: String,
    pub(super) delta: u64,
    pub(super) last: bool,
}

/// A backend of a product.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) id: String,
    pub(super) mount: String,
    pub(super) api_backend: String,
    pub(super) host_rewrite: Option<String>,
    pub(super) rules: Vec<Rule>,
}

/// A text as TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", "))
}

fn table(entries: &[(&'static str, String)]) -> String {
    let entries: Vec<String> = entries.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", entries.join(", "))
}

impl Draft {
    pub(super) fn to_toml(&self) -> String {
        let mut text = String::from(
            "# Made by `weir import apicast`. Plans, limits and applications have to be added: docs/catalog.md has\n\
             # every key. Metrics that are methods of another want `parent`.\n\
             revision = 1\n\n[[providers]]\nname = \"Imported\"\n",
        );
        if !self.provider_keys.is_empty() {
            let keys: Vec<&String> = self.provider_keys.iter().collect();
            let _ = writeln!(text, "provider_keys = {}", list(&keys, |key| quoted(key)));
        }
        self.services.iter().for_each(|service| service.write(&mut text));
        text
    }
}

impl Service {
    fn write(&self, text: &mut String) {
        let _ = write!(text, "\n[[providers.services]]\nid = {}\n", quoted(&self.id));
        if let Some(name) = &self.name {
            let _ = writeln!(text, "name = {}", quoted(name));
        }
        let _ = writeln!(text, "credentials = \"{}\"", self.credentials);
        if !self.tokens.is_empty() {
            let _ = writeln!(text, "service_tokens = {}", list(&self.tokens, |token| quoted(token)));
        }
        let metrics = list(&self.metrics, |name| format!("{{ name = {} }}", quoted(name)));
        let _ = writeln!(text, "metrics = {metrics}");
        write_rules(text, &self.rules);
        let _ = write!(
            text,
            "\n[providers.services.proxy]\nhosts = {}\n",
            list(&self.hosts, |host| quoted(host))
        );
        for (key, value) in &self.proxy {
            let _ = writeln!(text, "{key} = {value}");
        }
        for (key, entries) in [("credential_names", &self.names), ("oidc", &self.oidc)] {
            if !entries.is_empty() {
                let _ = writeln!(text, "{key} = {}", table(entries));
            }
        }
        if !self.errors.is_empty() {
            let _ = writeln!(text, "\n[providers.services.proxy.errors]");
            for (name, entries) in &self.errors {
                let _ = writeln!(text, "{name} = {}", table(entries));
            }
        }
        self.policies.iter().for_each(|policy| write_policy(text, policy));
        self.backends.iter().for_each(|backend| write_backend(text, backend));
        if let Some(id) = &self.anonymous {
            write_anonymous(text, id);
        }
    }
}

fn write_backend(text: &mut String, backend: &Backend) {
    let Backend { id, mount, api_backend, host_rewrite, rules } = backend;
    let _ = write!(
        text,
        "\n[[providers.services.backends]]\nid = {}\nmount = {}\napi_backend = {}\n",
        quoted(id),
        quoted(mount),
        quoted(api_backend)
    );
    if let Some(host) = host_rewrite {
        let _ = writeln!(text, "host_rewrite = {}", quoted(host));
    }
    write_rules(text, rules);
}

/// A policy as a table of its own. Keys are ours; all that comes from the document is text.
fn write_policy(text: &mut String, policy: &BTreeMap<String, Value>) {
    text.push_str("\n[[providers.services.proxy.policies]]\n");
    let (name, settings): (Vec<_>, Vec<_>) = policy.iter().partition(|(key, _)| *key == "policy");
    for (key, value) in name.into_iter().chain(settings) {
        let _ = match value {
            Value::List(items) if items.iter().any(|item| matches!(item, Value::Table(_))) => {
                let lines: String = items.iter().map(|item| format!("  {},\n", as_toml(item))).collect();
                writeln!(text, "{key} = [\n{lines}]")
            }
            other => writeln!(text, "{key} = {}", as_toml(other)),
        };
    }
}

fn as_toml(value: &Value) -> String {
    match value {
        Value::Flag(flag) => flag.to_string(),
        Value::Whole(number) => number.to_string(),
        Value::Text(text) => quoted(text),
        Value::List(items) => list(items, as_toml),
        Value::Table(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{key} = {}", as_toml(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

/// The application that a policy names has to be there. Suspended, it lets nobody in before somebody has looked at it:
/// what it may use is not in the document.
fn write_anonymous(text: &mut String, id: &str) {
    let _ = write!(
        text,
        "\n# Calls without credentials are those of this application, which the policy anonymous names.\n\
         # They are refused until it has a plan with limits and is active.\n\
         [[providers.services.plans]]\nid = \"anonymous\"\n\n\
         [[providers.services.applications]]\nid = {}\nplan = \"anonymous\"\nstate = \"suspended\"\n",
        quoted(id)
    );
}

fn write_rules(text: &mut String, rules: &[Rule]) {
    if rules.is_empty() {
        return;
    }
    text.push_str("mapping_rules = [\n");
    for Rule { method, pattern, metric, delta, last } in rules {
        let last = if *last { ", last = true" } else { "" };
        let _ = writeln!(
            text,
            "  {{ method = {}, pattern = {}, metrics = {{ {} = {delta} }}{last} }},",
            quoted(method),
            quoted(pattern),
            quoted(metric)
        );
    }
    text.push_str("]\n");
}
