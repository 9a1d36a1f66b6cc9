//! The policy chain: what of it is built in, the backends of a product, and what there are policies for.

use serde_json::{Map, Value};
use weir_core::CredentialKind;
use weir_core::backend::Mount;
use weir_core::proxy::SECRET_TOKEN_HEADER;

use super::{Reader, shown, text};
use crate::import::draft::Backend;
use crate::import::policies::{Of, Policies};

impl Reader<'_> {
    /// Reads it, in its order.
    pub(super) fn read_policies(&mut self, proxy: &Map<String, Value>) {
        let Some(chain) = proxy.get("policy_chain").and_then(Value::as_array) else { return };
        let is_enabled = |policy: &Value| policy.get("enabled") != Some(&Value::Bool(false));
        let apicast_at =
            chain.iter().position(|policy| policy_name(policy) == "apicast" && is_enabled(policy));
        if !chain.is_empty() && apicast_at.is_none() {
            self.changed(
                "proxy.policy_chain",
                "it has no apicast policy, so 3scale's gateway asks for no credentials: ours always does",
            );
        }
        let has_backends = chain.iter().any(|policy| policy_name(policy) == "routing" && is_enabled(policy));
        let of = Of { has_backends, ..self.judged_against(proxy, apicast_at) };
        let mut policies = Policies::new(of);
        for (at, policy) in chain.iter().enumerate() {
            let field = format!("proxy.policy_chain[{at}]");
            match policy_name(policy) {
                _ if !is_enabled(policy) => self.left_out(&field, "it is switched off"),
                "apicast" => self.mapped(&field, "it is what a gateway does"),
                "routing" => self.read_routing(&field, policy),
                other => {
                    let place = self.at(&field);
                    policies.read(at, other, policy, &place, self.account);
                }
            }
        }
        self.service.anonymous = policies.anonymous.take();
        self.service.policies = policies.into_list();
    }

    /// What of the service says which policies it can have; its credentials have been read.
    fn judged_against(&self, proxy: &Map<String, Value>, apicast_at: Option<usize>) -> Of {
        let named = |name: &str, field: &str| text(proxy, field).unwrap_or(name).to_ascii_lowercase();
        let mut secret_names = [
            named("user_key", "auth_user_key"),
            named("app_id", "auth_app_id"),
            named("app_key", "auth_app_key"),
        ]
        .to_vec();
        secret_names.extend(["access_token", "authorization", SECRET_TOKEN_HEADER].map(str::to_owned));
        let claim = text(proxy, "jwt_claim_with_client_id").unwrap_or("azp");
        Of {
            credentials: match self.service.credentials {
                "app_id_and_key" => CredentialKind::AppIdAndKey,
                "client_id" => CredentialKind::ClientId,
                _ => CredentialKind::UserKey,
            },
            secret_names,
            client_id_claim: claim.to_owned(),
            apicast_at,
            has_backends: false,
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
}

/// The name of a policy, whichever way the chain writes it.
fn policy_name(policy: &Value) -> &str {
    let name = policy.get("name").and_then(Value::as_str).unwrap_or_default();
    name.strip_prefix("apicast.policy.").unwrap_or(name)
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
