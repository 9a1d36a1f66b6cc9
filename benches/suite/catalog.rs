//! The catalogs of the suite: as files for the gateway's cases, published in bulk for a million applications.
//!
//! Every service counts the same metrics and has the same plan, so that cases differ in nothing but what they vary.

use std::fmt::Write;
use std::net::SocketAddr;

use anyhow::Context;
use weir_core::{KeyHasher, Secret};
use weir_proto::v1;
use weir_proto::v1::catalog_client::CatalogClient;

use crate::question::{SERVICE, USED, connect, signed_with, user_key};

/// More than any run uses.
pub(crate) const LIMIT: u64 = 1_000_000_000_000;
/// The secret under which listeners of the suite hash keys, by its id.
pub(crate) const KEY_HASH_SECRET: (&str, &str) = ("bench", "bench-server-secret");
/// Proves the loader to listeners.
pub(crate) const PUBLISH_TOKEN: &str = "bench-publish-token";

/// What is counted, with the parent of each.
const METRICS: [(&str, &str); 3] = [("hits", ""), (USED[0], "hits"), (USED[1], "")];
/// The three limits that a call touches.
const LIMITS: [(&str, &str, v1::Period); 3] = [
    ("hits", "minute", v1::Period::Minute),
    (USED[1], "day", v1::Period::Day),
    (USED[1], "month", v1::Period::Month),
];
/// Most changes that a listener takes at once.
const CHANGES_MAX: usize = 10_000;

/// A service of a catalog file.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    /// Its id; its host is `<id>.test`.
    pub(crate) id: String,
    /// How many mapping rules.
    pub(crate) rules: usize,
    /// How many applications: `app-0` and so on.
    pub(crate) applications: usize,
    /// Whether gateways decide within leases; else listeners decide each call.
    pub(crate) is_leased: bool,
    /// Of each of its limits.
    pub(crate) limit: u64,
    /// The token of 3scale's API; with one, there is a fourth limit.
    pub(crate) token: Option<String>,
    /// Whose access tokens are its applications' credentials, in place of user keys.
    pub(crate) issuer: Option<String>,
    /// Further lines of how gateways serve it.
    pub(crate) proxy: String,
}

impl Api {
    /// The service that everybody asks about.
    pub(crate) fn usual(rules: usize, applications: usize) -> Self {
        Self::new(SERVICE, rules, applications)
    }

    /// One whose calls listeners decide.
    pub(crate) fn new(id: &str, rules: usize, applications: usize) -> Self {
        Self {
            id: id.into(),
            rules,
            applications,
            is_leased: false,
            limit: LIMIT,
            token: None,
            issuer: None,
            proxy: String::new(),
        }
    }

    /// One that is asked about by 3scale's API, under four limits.
    pub(crate) fn with_token(id: &str, applications: usize) -> Self {
        Self { token: Some(format!("{id}-service-token")), ..Self::new(id, 1, applications) }
    }

    /// One whose calls gateways decide.
    pub(crate) fn leased(id: &str, rules: usize, applications: usize) -> Self {
        Self { is_leased: true, ..Self::new(id, rules, applications) }
    }

    /// The host it answers to.
    pub(crate) fn host(&self) -> String {
        format!("{}.test", self.id)
    }

    /// A request that one of its rules is made for, by one of its applications.
    pub(crate) fn target(&self, rule: usize, application: usize) -> String {
        let rule = rule % self.rules;
        let key = user_key(application % self.applications);
        format!("/v3/resource{rule}/3f2c9a71/part{}?user_key={key}", rule % 7)
    }

    fn write(&self, text: &mut String, origin: SocketAddr) -> std::fmt::Result {
        let Self { id, rules, applications, is_leased, limit, token, issuer, proxy } = self;
        let mode = if issuer.is_some() { "client_id" } else { "user_key" };
        writeln!(text, "[[providers.services]]\nid = \"{id}\"\ncredentials = \"{mode}\"")?;
        if let Some(token) = token {
            writeln!(text, "service_tokens = [\"{token}\"]")?;
        }
        writeln!(text, "metrics = [")?;
        for (name, parent) in METRICS {
            let parent = if parent.is_empty() { String::new() } else { format!(", parent = \"{parent}\"") };
            writeln!(text, "  {{ name = \"{name}\"{parent} }},")?;
        }
        writeln!(text, "]\nmapping_rules = [")?;
        for rule in 0..*rules {
            let pattern = format!("/v3/resource{rule}/{{id}}/part{}$", rule % 7);
            let metrics = format!("{{ {} = 1, {} = 1 }}", USED[0], USED[1]);
            writeln!(text, "  {{ method = \"GET\", pattern = \"{pattern}\", metrics = {metrics} }},")?;
        }
        writeln!(text, "]\n[providers.services.proxy]\nhosts = [\"{}\"]", self.host())?;
        writeln!(text, "api_backend = \"http://{origin}\"")?;
        let decisions = if *is_leased { "leased" } else { "synchronous" };
        writeln!(text, "decisions = \"{decisions}\"")?;
        if let Some(issuer) = issuer {
            writeln!(text, "oidc = {{ issuer = \"{issuer}\" }}")?;
        }
        writeln!(text, "{proxy}")?;
        writeln!(text, "[[providers.services.plans]]\nid = \"plan\"\nlimits = [")?;
        for (metric, period, _) in LIMITS {
            writeln!(text, "  {{ metric = \"{metric}\", period = \"{period}\", max = {limit} }},")?;
        }
        if token.is_some() {
            writeln!(text, "  {{ metric = \"hits\", period = \"hour\", max = {limit} }},")?;
        }
        writeln!(text, "]")?;
        for number in 0..*applications {
            writeln!(text, "[[providers.services.applications]]\nid = \"app-{number}\"\nplan = \"plan\"")?;
            if issuer.is_none() {
                writeln!(text, "user_key = \"{}\"", user_key(number))?;
            }
        }
        Ok(())
    }
}

/// A catalog file.
pub(crate) fn text(origin: SocketAddr, apis: &[Api]) -> String {
    let mut text = "revision = 1\n[[providers]]\nname = \"Bench\"\n".to_owned();
    for api in apis {
        api.write(&mut text, origin).expect("a string takes all text");
    }
    text
}

/// Publishes the usual service with as many applications to a listener that takes publications.
///
/// # Errors
/// When the listener does not take it.
pub(crate) async fn publish(listener: SocketAddr, applications: usize) -> anyhow::Result<()> {
    let mut client = CatalogClient::new(connect(listener).await?);
    let secret = Secret::new(KEY_HASH_SECRET.1);
    let hasher = KeyHasher::new((KEY_HASH_SECRET.0, &secret), &[]);
    let service = v1::catalog_change::Change::PutService(service());
    let all = (0..applications).map(|number| application(number, &hasher));
    let mut changes =
        [service].into_iter().chain(all).map(|change| v1::CatalogChange { change: Some(change) });
    for revision in 1.. {
        let changes: Vec<_> = changes.by_ref().take(CHANGES_MAX).collect();
        if changes.is_empty() {
            break;
        }
        let message = signed_with(PUBLISH_TOKEN, v1::PublishRequest { revision, changes })?;
        client.publish(message).await.context("the listener does not take the catalog")?;
    }
    Ok(())
}

fn service() -> v1::Service {
    let limit = |(metric, _, period): (&str, &str, v1::Period)| v1::UsageLimit {
        metric: metric.into(),
        period: period.into(),
        max: LIMIT,
    };
    let metric = |(name, parent): (&str, &str)| v1::Metric { name: name.into(), parent: parent.into() };
    v1::Service {
        id: SERVICE.into(),
        name: SERVICE.into(),
        credentials: v1::CredentialKind::UserKey.into(),
        metrics: METRICS.map(metric).into(),
        plans: vec![v1::Plan {
            id: "plan".into(),
            name: "Plan".into(),
            limits: LIMITS.map(limit).into(),
            free_answers: vec![],
        }],
        ..v1::Service::default()
    }
}

fn application(number: usize, hasher: &KeyHasher) -> v1::catalog_change::Change {
    v1::catalog_change::Change::PutApplication(v1::Application {
        service_id: SERVICE.into(),
        app_id: format!("app-{number}"),
        state: v1::ApplicationState::Active.into(),
        plan_id: "plan".into(),
        user_key: hasher.hash(&Secret::new(&user_key(number))).to_string(),
        ..v1::Application::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_within_rules_and_applications() {
        let api = Api::new("a", 10, 3);
        assert_eq!(api.target(19, 4), "/v3/resource9/3f2c9a71/part2?user_key=key-1");
    }

    #[test]
    fn a_catalog_names_everything() {
        let origin = "127.0.0.1:80".parse().unwrap();
        let text = text(origin, &[Api::usual(2, 3), Api::new("b", 1, 1)]);
        for (part, times) in [
            ("[[providers.services]]", 2),
            ("pattern =", 3),
            ("user_key = \"key-", 4),
            ("period = \"month\", max = 1000000000000", 2),
            ("hosts = [\"b.test\"]", 1),
        ] {
            assert_eq!(text.matches(part).count(), times, "{part}");
        }
    }
}
