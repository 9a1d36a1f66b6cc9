//! Reads the policies of 3scale's chain into those that Weir has, in their order.
//!
//! Called for each entry of `proxy.policy_chain` that is neither `apicast` nor the portal's `routing`. Whether a setting
//! can be written is not known here: core's own reader of policies is asked, about each piece by itself, so that one
//! bad piece costs no more than that piece and the catalog can be read. (Reference: gateway, section 6.)
//!
//! What only lets calls pass when it is missing, such as a check, is left out with that said.

mod answers;
mod callers;
mod changes;
mod claims;
mod cors;
mod edge;
mod expression;
mod upstream;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use weir_core::CredentialKind;
use weir_core::policy::form::Value;
use weir_core::policy::{AUTHORISE, Chain, Kind, Place, STEPS_MAX, ServiceOf};

use super::account::Account;
use super::apicast::is_nothing;

/// What is said of a check that is not there any more.
const OPENS: &str = "this opens a door: calls that it refused pass now";

/// Settings of a policy, or a table within.
type Table = BTreeMap<String, Value>;

/// What policies are judged against.
#[derive(Debug)]
pub(super) struct Of {
    pub(super) credentials: CredentialKind,
    /// The names that carry credentials and the secret token.
    pub(super) secret_names: Vec<String>,
    /// The claim that names the application.
    pub(super) client_id_claim: String,
    /// Where `apicast` stands in the chain.
    pub(super) apicast_at: Option<usize>,
    /// Whether the chain has calls go to backends under mounts.
    pub(super) has_backends: bool,
}

/// The policies of a service, as far as they have been read.
#[derive(Debug)]
pub(super) struct Policies {
    of: Of,
    front: Vec<Table>,
    behind: Vec<Table>,
    /// Whether one that could stand on either side stands in front of `authorise`.
    is_divided: bool,
    /// The application whose calls are those without credentials.
    pub(super) anonymous: Option<String>,
}

impl Policies {
    pub(super) fn new(of: Of) -> Self {
        Self { of, front: vec![], behind: vec![], is_divided: false, anonymous: None }
    }

    /// Reads an entry of the chain that 3scale's gateway would carry out.
    pub(super) fn read(&mut self, at: usize, name: &str, policy: &Json, place: &str, account: &mut Account) {
        let empty = Map::new();
        let configuration = policy.get("configuration").and_then(Json::as_object).unwrap_or(&empty);
        let is_front = self.of.apicast_at.is_some_and(|apicast_at| at < apicast_at);
        let mut reading =
            Reading { account, written: self, place, is_front, configuration, is_move_told: false };
        match policy.get("version").and_then(Json::as_str) {
            None | Some("builtin") => reading.read(name),
            Some(other) => reading.account.left_out(
                place,
                &format!("its version is {other:?}: policies of one's own are not taken over"),
            ),
        }
    }

    /// The list, in the order in which it is written.
    pub(super) fn into_list(self) -> Vec<Table> {
        let authorise = table([("policy", text(AUTHORISE))]);
        let between = self.is_divided.then_some(authorise);
        self.front.into_iter().chain(between).chain(self.behind).collect()
    }

    /// What is wrong with a policy, looked at by itself.
    fn judge(&self, entry: Table) -> Result<(), String> {
        let problems = match Chain::read(&[Value::Table(entry)]) {
            Ok(chain) => chain.problems_for(&ServiceOf {
                credentials: self.of.credentials,
                secret_names: self.of.secret_names.iter().map(String::as_str).collect(),
                has_api_backend: true,
            }),
            Err(problems) => problems,
        };
        problems.into_iter().next().map_or(Ok(()), |problem| Err(problem.message))
    }

    fn has(&self, kind: &Kind) -> bool {
        let is_it = |entry: &Table| entry.get("policy") == Some(&text(kind.name));
        self.front.iter().chain(&self.behind).any(is_it)
    }
}

/// One policy while it is read.
struct Reading<'a> {
    account: &'a mut Account,
    written: &'a mut Policies,
    /// Where the policy stands in the document.
    place: &'a str,
    /// Whether it stands in front of `apicast` there.
    is_front: bool,
    configuration: &'a Map<String, Json>,
    /// Whether it has been said that it stands elsewhere now.
    is_move_told: bool,
}

impl<'a> Reading<'a> {
    fn read(&mut self, name: &str) {
        let single = [("cors", "cors"), ("default_credentials", "anonymous"), ("retry", "retry")];
        let ours = single.iter().find(|(theirs, _)| *theirs == name).and_then(|(_, ours)| Kind::find(ours));
        if ours.is_some_and(|kind| self.written.has(kind)) {
            let why =
                format!("{name} stands here a second time, and a list has one: the first is taken over");
            return self.account.left_out(self.place, &why);
        }
        match name {
            "cors" => self.cors(),
            "default_credentials" => self.default_credentials(),
            "headers" => self.headers(),
            "ip_check" => self.ip_check(),
            "jwt_claim_check" => self.jwt_claim_check(),
            "logging" => self.logging(),
            "maintenance_mode" => self.maintenance_mode(),
            "payload_limits" => self.payload_limits(),
            "rate_limit" => self.rate_limit(),
            "retry" => self.retry(),
            "statuscode_overwrite" => self.statuscode_overwrite(),
            "upstream" => self.upstream(),
            "upstream_connection" => self.upstream_connection(),
            "url_rewriting" => self.url_rewriting(),
            other => {
                let way_out = way_out(other).map(|way_out| format!("; {way_out}")).unwrap_or_default();
                self.account.left_out(self.place, &format!("there is no policy {other:?}{way_out}"));
            }
        }
    }

    fn at(&self, field: &str) -> String {
        format!("{}.configuration.{field}", self.place)
    }

    fn mapped(&mut self, field: &str, to: &str) {
        self.account.mapped(&self.at(field), &format!("policies: {to}"));
    }

    fn changed(&mut self, field: &str, how: &str) {
        self.account.changed(&self.at(field), how);
    }

    fn left_out(&mut self, field: &str, why: &str) {
        self.account.left_out(&self.at(field), why);
    }

    /// What is given; what says nothing is not.
    fn field(&self, name: &str) -> Option<&'a Json> {
        self.configuration.get(name).filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.field(name).and_then(Json::as_str)
    }

    fn list(&self, name: &str) -> &'a [Json] {
        self.field(name).and_then(Json::as_array).map_or(&[], Vec::as_slice)
    }

    /// Accounts for what nobody has looked at.
    fn rest(&mut self, known: &[&str]) {
        for (name, value) in self.configuration {
            if !known.contains(&name.as_str()) && !is_nothing(value) {
                self.left_out(name, "there is nothing like it here");
            }
        }
    }

    /// What is wrong with these settings of a policy, looked at by themselves.
    fn judge(&self, policy: &str, settings: &Table) -> Result<(), String> {
        self.written.judge(named(policy, settings.clone()))
    }

    /// Puts a policy where it belongs; whether there was room.
    fn write(&mut self, policy: &'static str, settings: Table) -> bool {
        let entry = named(policy, settings);
        let kind = Kind::find(policy);
        let (front, behind) = (self.written.front.len(), self.written.behind.len());
        // One step is for `authorise`.
        let why = match front + behind + 1 < STEPS_MAX {
            true => self.written.judge(entry.clone()).err(),
            false => Some(format!("a list has {STEPS_MAX} steps at most")),
        };
        if let Some(why) = why {
            let is_check = ["claim_check", "edge_limits", "ip_check"].contains(&policy);
            let opens = if is_check { format!("; {OPENS}") } else { String::new() };
            self.account.left_out(self.place, &format!("{policy}: {why}{opens}"));
            return false;
        }
        let is_front = match kind.map(|kind| kind.place) {
            Some(Place::Front) => true,
            Some(Place::Behind) => false,
            Some(Place::Either) | None => self.is_front && !asks_who_calls(&entry),
        };
        self.tell_move(is_front);
        self.written.is_divided |= is_front && kind.is_some_and(|kind| kind.place == Place::Either);
        if is_front {
            self.written.front.push(entry)
        } else {
            self.written.behind.push(entry)
        }
        true
    }

    fn tell_move(&mut self, is_front: bool) {
        let how = match (self.written.of.apicast_at, self.is_front, is_front) {
            (Some(_), true, false) => {
                "it stands behind authorise, as it has to, and sees what those in front make of the call"
            }
            (Some(_), false, true) => {
                "it stands in front of authorise, as it has to: it is carried out before anybody is asked who calls"
            }
            _ => return,
        };
        if !std::mem::replace(&mut self.is_move_told, true) {
            self.account.changed(self.place, how);
        }
    }
}

/// Whether a limit counts by what is known behind `authorise` alone.
fn asks_who_calls(entry: &Table) -> bool {
    let Some(Value::List(limits)) = entry.get("limits") else { return false };
    limits.iter().any(|limit| {
        let Value::Table(limit) = limit else { return false };
        matches!(limit.get("per"), Some(Value::Text(per)) if per == "application" || per == "client")
    })
}

/// What to do without a policy that there is not.
fn way_out(name: &str) -> Option<&'static str> {
    Some(match name {
        "3scale_batcher" | "caching" => "gateways hold leases, so they ask and report seldom without one",
        "websocket" => "upgrades pass without one",
        "on_failed" => "a policy that fails refuses the call without one",
        "upstream_mtls" => {
            "give gateways the certificate as [[upstream_tls]] of gateway.toml, and write the policy upstream_tls"
        }
        "keycloak_role_check" => {
            "this opens a door: calls that it refused pass now, until claim_check asks for the roles"
        }
        "fapi" | "oauth_mtls" | "tls_validation" | "token_introspection" => OPENS,
        _ => return None,
    })
}

fn named(policy: &str, mut settings: Table) -> Table {
    settings.insert("policy".to_owned(), text(policy));
    settings
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

/// A number as large as settings have them.
fn whole(number: u64) -> Value {
    Value::Whole(i64::try_from(number).unwrap_or(i64::MAX))
}

fn texts<'t>(items: impl IntoIterator<Item = &'t str>) -> Value {
    Value::List(items.into_iter().map(text).collect())
}

/// A list of one table.
fn one(entry: Table) -> Value {
    Value::List(vec![Value::Table(entry)])
}

/// A whole number, also as text.
fn number(value: &Json) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// A plain text, or a number as text; `liquid` without anything to fill in is plain. `Err`: it is neither.
fn plain(fields: &Json, name: &str) -> Result<Option<String>, String> {
    let value = match fields.get(name) {
        None | Some(Json::Null) => return Ok(None),
        Some(value) => super::apicast::shown(value).ok_or_else(|| format!("its {name} is no text"))?,
    };
    let is_liquid = fields.get(format!("{name}_type")).and_then(Json::as_str) == Some("liquid");
    if is_liquid && (value.contains("{{") || value.contains("{%")) {
        return Err(format!("its {name} is a liquid template: write what is meant"));
    }
    Ok(Some(value))
}

/// Whether a condition of 3scale's asks for anything.
fn has_condition(fields: &Json) -> bool {
    let operations = fields.pointer("/condition/operations");
    operations.is_some_and(|operations| !is_nothing(operations))
}

#[cfg(test)]
mod tests;
