//! What a catalog makes: calls of its rules, callers of its applications.

use weir_core::COUNT_MAX;

use super::*;

const CATALOG: &str = r#"
revision = 1
[[providers]]
name = "P"
[[providers.services]]
id = "api"
credentials = "app_id_and_key"
metrics = [{ name = "hits" }, { name = "send", parent = "hits" }, { name = "mail" }, { name = "closed" }]
mapping_rules = [
  { method = "POST", pattern = "/send$", metrics = { send = 1, mail = 10 } },
  { method = "GET", pattern = "/closed", metrics = { closed = 1 } },
  { method = "ANY", pattern = "/items/{id}/x?kind={any}", metrics = { hits = 3 } },
  { method = "GET", pattern = "/items", metrics = { mail = 1 } },
]
[providers.services.proxy]
hosts = ["*.api.test"]
[[providers.services.plans]]
id = "small"
limits = [{ metric = "closed", period = "eternity", max = 0 }]
[[providers.services.plans]]
id = "large"
[[providers.services.applications]]
id = "acme"
plan = "small"
app_keys = ["hmac:s:5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", { key = "old", until = 2020-01-01T00:00:00Z }, "clear"]
[[providers.services.applications]]
id = "open"
plan = "large"
[[providers.services.applications]]
id = "asleep"
plan = "large"
state = "suspended"
app_keys = ["k"]
[[providers.services]]
id = "tokens"
credentials = "client_id"
"#;

fn source(text: &str) -> Source {
    Source { file: "catalog.toml".into(), text: text.into(), ..Source::default() }
}

fn read(text: &str, wanted: &Wanted<'_>) -> Reading<Vec<Group>> {
    groups(&source(text), wanted, Timestamp::from_unix_s(1_800_000_000))
}

#[test]
fn rules_become_calls_and_applications_callers() {
    let read = read(CATALOG, &Wanted { needs_host: true, ..Wanted::default() }).unwrap();
    let told = |group: &Group| {
        let callers: Vec<String> =
            group.callers.iter().filter_map(|c| Some(c.application()?.to_string())).collect();
        let calls: Vec<String> = group
            .calls
            .iter()
            .map(|call| {
                let counted: Vec<String> = call.counted.iter().map(|(m, by)| format!("{m}+{by}")).collect();
                format!("{} {}", call.name, counted.join(" "))
            })
            .collect();
        format!("{} {}: {}", group.host.as_deref().unwrap(), callers.join(" "), calls.join(", "))
    };
    let told: Vec<String> = read.value.iter().map(told).collect();
    assert_eq!(
        told,
        [
            "load.api.test acme: small: POST /send hits+1 mail+10 send+1, \
             small: GET /items/id/x?kind=any hits+3 mail+1, small: GET /items mail+1",
            "load.api.test open: large: POST /send hits+1 mail+10 send+1, large: GET /closed closed+1, \
             large: GET /items/id/x?kind=any hits+3 mail+1, large: GET /items mail+1",
        ]
    );
    let warnings: Vec<String> = read.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["catalog.toml: service tokens is left out: it wants verified tokens, which no catalog holds"]
    );
    assert!(
        read.value[0].calls[0].usage.iter().all(|(metric, by)| metric.as_str() != "hits" && *by <= COUNT_MAX)
    );
}

#[track_caller]
fn refused(text: &str, wanted: &Wanted<'_>, expected: &[&str]) {
    let problems = read(text, wanted).map(|read| read.value).unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told, expected);
}

#[test]
fn hashes_cannot_be_sent() {
    let hashed = CATALOG.replace(", \"clear\"", "");
    let why = "catalog.toml:22:1: application acme has no key in the clear that is in force; hashes cannot be sent. \
               Leave it out with --application, or list its key in a mix file";
    refused(&hashed, &Wanted::default(), &[why]);
    let others = ["open".to_owned()];
    let read = read(&hashed, &Wanted { applications: &others, ..Wanted::default() }).unwrap();
    assert_eq!(read.value.len(), 1);
}

#[test]
fn what_is_wanted_must_be_there() {
    let (services, applications) = (["tokens".to_owned(), "b".to_owned()], ["c".to_owned()]);
    refused(
        CATALOG,
        &Wanted { services: &services, applications: &applications, needs_host: true },
        &[
            "--service: catalog.toml has no service b",
            "--application: catalog.toml has no application c",
            "catalog.toml: service tokens is left out: it wants verified tokens, which no catalog holds",
        ],
    );
    refused(
        &CATALOG.replace("hosts", "hots"),
        &Wanted::default(),
        &[
            "catalog.toml:15:21: providers.services.proxy.hosts is missing",
            "catalog.toml:16:1: there is no key hots in providers.services.proxy (did you mean \"hosts\"?)",
            "catalog.toml:26:1: warning: application \"open\" has no app_keys, so its id alone opens the door",
        ],
    );
}
