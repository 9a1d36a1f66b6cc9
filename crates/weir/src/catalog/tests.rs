//! What the catalog parser takes and how it says what it does not take.

use std::path::{Path, PathBuf};

use weir_core::mapping_rule::MappingRules;
use weir_core::{Catalog, Environment, KeyHasher, Secret};

use super::*;
use crate::problem::Checked;

fn source(text: &str) -> Source {
    Source { file: "catalog.toml".into(), text: text.into(), ..Source::default() }
}

fn hashing() -> KeyHashing {
    KeyHashing::under(KeyHasher::new(("demo", &Secret::new("server")), &[]))
}

/// All problems or warnings of a text.
fn problems(text: &str) -> Vec<String> {
    let problems = match parse(&source(text), &hashing()) {
        Ok(checked) => checked.warnings,
        Err(problems) => problems,
    };
    problems.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(problems(text), expected);
}

#[track_caller]
fn load(text: &str) -> Catalog {
    let Checked { value, warnings } = parse(&source(text), &hashing()).unwrap();
    assert_eq!(warnings, []);
    value.catalog
}

/// A service whose inside begins in line 5.
fn service(inside: &str) -> String {
    format!("revision = 1\nproviders = [{{ name = \"P\", services = [{{ id = \"api\",\n{inside}\n}}]}}]\n")
}

#[track_caller]
fn check_service(inside: &str, expected: &[&str]) {
    check(&service(inside), expected);
}

#[test]
fn the_smallest_catalog() {
    let catalog = load(&service(""));
    assert_eq!(catalog.revision, 1);
    let service = &catalog.services[0];
    assert_eq!(
        (service.name.as_str(), service.provider.name.as_str(), service.is_default),
        ("api", "P", true)
    );
}

#[test]
fn what_is_missing_is_named_where_it_belongs() {
    check("", &["catalog.toml:1:1: revision is missing", "catalog.toml:1:1: providers is missing"]);
    check(
        "revision = 0\n[[providers]]\n[[providers.services]]\n",
        &[
            "catalog.toml:1:12: revision is not a whole number from 1 to 9223372036854775807",
            "catalog.toml:2:1: providers.name is missing",
            "catalog.toml:3:1: providers.services.id is missing",
        ],
    );
    check_service(
        "metrics = [{}], mapping_rules = [{}], plans = [{ id = 'p', limits = [{}] }],\napplications = [{}]",
        &[
            "catalog.toml:3:12: providers.services.metrics.name is missing",
            "catalog.toml:3:34: providers.services.mapping_rules.method is missing",
            "catalog.toml:3:34: providers.services.mapping_rules.pattern is missing",
            "catalog.toml:3:34: providers.services.mapping_rules.metrics is missing",
            "catalog.toml:3:70: providers.services.plans.limits.metric is missing",
            "catalog.toml:3:70: providers.services.plans.limits.period is missing",
            "catalog.toml:3:70: providers.services.plans.limits.max is missing",
            "catalog.toml:4:17: providers.services.applications.id is missing",
            "catalog.toml:4:17: providers.services.applications.plan is missing",
        ],
    );
}

#[test]
fn backends_are_read_with_their_metrics() {
    let backend = "{ id = 'b', mount = '/b', api_backend = 'http://b', staging_api_backend = 'http://s',\n\
                   metrics = [{ name = 'm' }], mapping_rules = [{ method = 'GET', pattern = '/', metrics = { m = 1 } }] }";
    let catalog = load(&service(&format!("backends = [{backend}], proxy = {{ hosts = 'h' }}")));
    let service = &catalog.services[0];
    assert!(service.metrics.find("m").is_some());
    let at = |environment| service.proxy(environment).backends[0].api_backend.clone();
    assert_eq!(at(Environment::Production), "http://b");
    assert_eq!(at(Environment::Staging), "http://s");
    assert_eq!(service.proxy(Environment::Staging).hosts, ["h"]);
    check_service(
        "backends = [{ id = 'a', mount = '/a/', api_backend = 'a' }, { id = 'a', metrics = [{}] }, 1]",
        &[
            "catalog.toml:3:33: mount \"/a/\" ends with a slash: a mount covers what is below it anyway",
            "catalog.toml:3:54: api_backend does not begin with http:// or https://",
            "catalog.toml:3:61: providers.services.backends.mount is missing",
            "catalog.toml:3:61: providers.services.backends.api_backend is missing",
            "catalog.toml:3:68: backend \"a\" is defined twice, first in line 3",
            "catalog.toml:3:84: providers.services.backends.metrics.name is missing",
            "catalog.toml:3:91: backends must be a list of tables, not a whole number",
        ],
    );
}

#[test]
fn broken_toml_is_one_problem_and_quotes_nothing() {
    let found = problems("revision = 1\nuser_key = \"hunter2\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("catalog.toml:2:"), "{found:?}");
    assert!(!found[0].contains("hunter2"), "{found:?}");
}

#[test]
fn unknown_keys_and_wrong_kinds() {
    check(
        "revision = 1\nprovider = 1\n[[providers]]\nname = 5\nservices = \"x\"\n",
        &[
            "catalog.toml:2:1: there is no key provider (did you mean \"providers\"?)",
            "catalog.toml:4:8: name must be text, not a whole number",
            "catalog.toml:5:1: services must be a list, not text",
        ],
    );
    check_service(
        "stat = 1, state = 'off', credentials = 'oauth', referrer_filters_required = 1, proxy = 1",
        &[
            "catalog.toml:3:1: there is no key stat in providers.services (did you mean \"state\"?)",
            "catalog.toml:3:19: state \"off\" is none of active, suspended",
            "catalog.toml:3:40: credentials \"oauth\" is none of user_key, app_id_and_key, client_id",
            "catalog.toml:3:77: referrer_filters_required must be true or false, not a whole number",
            "catalog.toml:3:80: proxy must be a table, not a whole number",
        ],
    );
}

#[test]
fn names_are_given_once() {
    check(
        "revision = 1\n[[providers]]\nname = 'P'\nservices = [\n{ id = 'a' },\n{ id = 'a' },\n{ id = 'b/c' }]\n\
         [[providers]]\nname = 'P'\nservices = [{ id = 'a' }]\n",
        &[
            "catalog.toml:6:8: service \"a\" is defined twice, first in line 5",
            "catalog.toml:7:8: id \"b/c\" has the character '/', which is not allowed here",
            "catalog.toml:9:8: provider \"P\" is defined twice, first in line 3",
            "catalog.toml:10:20: service \"a\" is defined twice, first in line 5",
        ],
    );
    check_service(
        "credentials = 'client_id', metrics = [{ name = 'hits' }, { name = 'hits' }],\n\
         plans = [{ id = 'p' }, { id = 'p' }],\n\
         applications = [{ id = 'a', plan = 'p' }, { id = 'a', plan = 'p' }]",
        &[
            "catalog.toml:3:67: metric \"hits\" is defined twice, first in line 3",
            "catalog.toml:4:31: plan \"p\" is defined twice, first in line 4",
            "catalog.toml:5:50: application \"a\" is defined twice, first in line 5",
        ],
    );
}

#[test]
fn every_broken_metric_is_found_and_stays_known() {
    check_service(
        "metrics = [\n{ name = 'hits' },\n{ name = 'a', parent = 'hitz' },\n{ name = 'b', parent = 'c' },\n\
         { name = 'c', parent = 'b' },\n{ name = 'd d' }],\n\
         mapping_rules = [{ method = 'GET', pattern = '/', metrics = { a = 1, b = 1, c = 1 } }]",
        &[
            "catalog.toml:5:24: metric a has the parent hitz, which is not a metric of this service \
             (did you mean \"hits\"?)",
            "catalog.toml:6:24: metric b is its own ancestor",
            "catalog.toml:8:10: name \"d d\" has the character ' ', which is not allowed here",
        ],
    );
}

const METRICS: &str =
    "metrics = [{ name = 'hits' }, { name = 'send', parent = 'hits' }, { name = 'mail' }],\n";

#[test]
fn rules_are_checked_in_every_part() {
    let rules = "mapping_rules = [\n\
        { method = 'GTE', pattern = 'v3', metrics = { hitz = 1 } },\n\
        { method = ['GET', 'GET', 'ANY'], pattern = '/a{b', metrics = {}, last = 1 },\n\
        { method = [], pattern = '/', metrics = { hits = 0, send = -1, mail = 'x' }, position = -1 },\n]";
    check_service(
        &format!("{METRICS}{rules}"),
        &[
            "catalog.toml:5:12: method \"GTE\" is not a method: use ANY, GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS",
            "catalog.toml:5:29: pattern \"v3\" does not start with /",
            "catalog.toml:5:47: metric \"hitz\" is not defined in service api (did you mean \"hits\"?)",
            "catalog.toml:6:1: metrics names no metric: the rule would count nothing",
            "catalog.toml:6:20: method \"GET\" is listed twice",
            "catalog.toml:6:27: method \"ANY\" stands alone: it covers the others",
            "catalog.toml:6:45: pattern \"/a{b\" has a brace without its partner",
            "catalog.toml:6:74: last must be true or false, not a whole number",
            "catalog.toml:7:1: method names no method: the rule would match nothing",
            "catalog.toml:7:43: metric \"hits\" must be raised by at least 1 and at most 9007199254740991",
            "catalog.toml:7:53: metric \"send\" must be raised by at least 1 and at most 9007199254740991",
            "catalog.toml:7:71: mail must be a whole number",
            "catalog.toml:7:89: position is not a whole number from 0 to 4294967295",
        ],
    );
}

/// One rule of the file with two methods and two metrics is four of core's; `last` must not cut its own short.
#[test]
fn a_rule_for_several_metrics_counts_them_all_and_then_ends() {
    let rules = "mapping_rules = [\n\
        { method = ['GET', 'POST'], pattern = '/v3/send$', metrics = { send = 1, mail = 10 }, last = true },\n\
        { method = 'ANY', pattern = '/v3', metrics = { hits = 1 } },\n\
        { method = 'GET', pattern = '/v3', metrics = { mail = 5 }, position = 0 },\n]";
    let catalog = load(&service(&format!("{METRICS}{rules}")));
    let rules = MappingRules::new(catalog.services[0].production.mapping_rules.clone());
    let count = |method: &str, path: &str| -> Vec<String> {
        let matched = rules.matches(method, path.as_bytes(), &|_| None);
        matched
            .rules
            .iter()
            .map(|at| &rules.rules()[*at as usize])
            .map(|r| format!("{} {}", r.metric, r.delta))
            .collect()
    };
    assert_eq!(count("GET", "/v3/send"), ["mail 5", "send 1", "mail 10"]);
    assert_eq!(count("POST", "/v3/send"), ["send 1", "mail 10"]);
    assert_eq!(count("PUT", "/v3/send"), ["hits 1"]);
    assert_eq!(count("GET", "/v3/sends"), ["mail 5", "hits 1"]);
}

#[test]
fn limits_are_checked_in_every_part() {
    let plans = "plans = [{ id = 'p', limits = [\n\
        { metric = 'hits', period = 'minute', max = 0 },\n\
        { metric = 'hits', period = 'minute', max = 5 },\n\
        { metric = 'mial', period = 'fortnight', max = -1 },\n]}]";
    check_service(
        &format!("{METRICS}{plans}"),
        &[
            "catalog.toml:6:1: metric \"hits\" is limited per minute twice",
            "catalog.toml:7:12: metric \"mial\" is not defined in service api",
            "catalog.toml:7:29: period \"fortnight\" is not a period: use minute, hour, day, week, month, year or eternity",
            "catalog.toml:7:48: max is not a whole number from 0 to 9007199254740991",
        ],
    );
}

#[test]
fn proxies_are_checked_in_every_part() {
    check_service(
        "credentials = 'app_id_and_key', proxy = {\nhosts = ['api.example.org:80', '', '*.ok.org', 'a b'],\n\
         api_backend = 'ftp://x', credentials_location = 'body', credential_names = { app_id = 'a b', user_key = '' },\n\
         secret_token = \"a\\nb\", secret_token_header = 'x y', host_rewrite = 'http://x', request_body_bytes_max = -1,\n\
         timeouts = { connect_ms = 0 },\nerrors = { auth_missing = { status = 199, content_type = 'x' }, no_match = 1 } }",
        &[
            "catalog.toml:4:10: host \"api.example.org:80\" is not a host name such as api.example.org or *.example.org",
            "catalog.toml:4:32: host \"\" is not a host name such as api.example.org or *.example.org",
            "catalog.toml:4:48: host \"a b\" is not a host name such as api.example.org or *.example.org",
            "catalog.toml:5:15: api_backend does not begin with http:// or https://",
            "catalog.toml:5:49: credentials_location \"body\" is none of query, headers, authorization",
            "catalog.toml:5:87: app_id \"a b\" is not a name of letters, digits, _ and -",
            "catalog.toml:5:105: user_key \"\" is not a name of letters, digits, _ and -",
            "catalog.toml:6:16: secret_token has a character that no header can carry",
            "catalog.toml:6:46: secret_token_header \"x y\" is not a header name",
            "catalog.toml:6:68: host_rewrite \"http://x\" is not a host, or a host and port",
            "catalog.toml:6:105: request_body_bytes_max is not a whole number from 0 to 9223372036854775807",
            "catalog.toml:7:27: connect_ms is not a whole number from 1 to 4294967295",
            "catalog.toml:8:38: status is not a whole number from 200 to 599",
            "catalog.toml:8:58: content_type \"x\" is not a media type such as text/plain",
            "catalog.toml:8:65: no_match must be a table, not a whole number",
        ],
    );
    check_service("proxy = {}", &["catalog.toml:3:1: providers.services.proxy.hosts is missing"]);
}

#[test]
fn backends_are_plain_urls() {
    let check = |url: &str, problem: &str| {
        let found = problems(&service(&format!("proxy = {{ hosts = 'h', api_backend = '{url}' }}")));
        let expected = if problem.is_empty() {
            vec![]
        } else {
            vec![format!("catalog.toml:3:38: api_backend {problem}")]
        };
        assert_eq!(found, expected, "{url}");
    };
    check("http://127.0.0.1:8110", "");
    check("https://[::1]:1/base/path", "");
    check("/path", "does not begin with http:// or https://");
    check("http://user:hunter2@host", "holds a user name: the gateway would not send it");
    check("http://host/?a=b", "");
    check("http://host/#a", "has a fragment, which is never sent");
}

#[test]
fn a_shared_host_is_a_warning() {
    let text = "revision = 1\n[[providers]]\nname = 'P'\n\
        [[providers.services]]\nid = 'a'\nproxy = { hosts = ['h.org'] }\nstaging = { hosts = ['h.org'] }\n\
        [[providers.services]]\nid = 'b'\nproxy = { hosts = ['H.org'] }\n";
    check(
        text,
        &[
            "catalog.toml:10:20: warning: host \"h.org\" is claimed in line 6 already: only gateways with routing by \
           path can share it",
        ],
    );
    assert!(parse(&source(text), &hashing()).is_ok());
}

#[test]
fn staging_has_rules_of_its_own_or_the_services() {
    let staging = |inside: &str| {
        let text = format!(
            "{METRICS}mapping_rules = [{{ method = 'GET', pattern = '/', metrics = {{ hits = 1 }} }}],\nstaging = {{ hosts = 's', {inside} }}"
        );
        load(&service(&text)).services.remove(0)
    };
    let same = staging("");
    assert_eq!(same.proxy(Environment::Staging).hosts, ["s"]);
    assert_eq!(same.proxy(Environment::Staging).mapping_rules, same.production.mapping_rules);
    let own = staging("mapping_rules = [{ method = 'ANY', pattern = '/', metrics = { mail = 2 } }]");
    assert_eq!(own.proxy(Environment::Staging).mapping_rules[0].delta, 2);
    assert_eq!(own.production.mapping_rules[0].delta, 1);
}

#[test]
fn keys_are_checked_and_never_quoted() {
    let hash = KeyHasher::new(("demo", &Secret::new("server")), &[]).hash(&Secret::new("k3"));
    check_service(
        &format!(
            "credentials = 'app_id_and_key', plans = [{{ id = 'p' }}], applications = [\n\
             {{ id = 'a', plan = 'q', state = 'of', app_keys = ['', 'k 1', 'hmac:zz', 'hmac:other:{zeros}'] }},\n\
             {{ id = 'b', plan = 'p', app_keys = ['k3', '{hash}', {{ key = 'k4', until = 2026-01-01 }}, {{}}] }},\n\
             {{ id = 'c', plan = 'p', app_keys = ['1', '2', '3', '4', '5', '6'] }},\n\
             {{ id = 'd', plan = 'p' }}]",
            zeros = "0".repeat(64)
        ),
        &[
            "catalog.toml:4:20: plan \"q\" is not defined in service api (did you mean \"p\"?)",
            "catalog.toml:4:33: state \"of\" is none of active, pending, suspended",
            "catalog.toml:4:51: app_keys: the key is empty",
            "catalog.toml:4:55: app_keys: the key has a blank or control character",
            "catalog.toml:4:62: app_keys: the key is not a key hash: hmac:<secret id>:<64 hex digits>",
            "catalog.toml:4:73: app_keys: the key is a hash under the secret \"other\", which is not known here",
            "catalog.toml:5:43: app_keys holds this key twice",
            "catalog.toml:5:143: until is not a date and time such as 2026-12-31T23:59:59Z",
            "catalog.toml:5:157: providers.services.applications.app_keys.key is missing",
            "catalog.toml:6:62: app_keys holds more than 5 keys",
            "catalog.toml:7:1: warning: application \"d\" has no app_keys, so its id alone opens the door",
        ],
    );
}

#[test]
fn a_user_key_belongs_to_one_application() {
    check_service(
        "plans = [{ id = 'p' }], applications = [\n{ id = 'a', plan = 'p', user_key = 'same' },\n\
         { id = 'b', plan = 'p', user_key = 'same' },\n{ id = 'c', plan = 'p' }]",
        &[
            "catalog.toml:5:36: user_key is another application's too, in line 4",
            "catalog.toml:6:1: warning: application \"c\" has no user_key, so no call can name it",
        ],
    );
}

#[test]
fn keys_in_the_clear_become_hashes() {
    let text = "credentials = 'app_id_and_key', plans = [{ id = 'p' }], applications = [{ id = 'a', plan = 'p', \
        app_keys = ['open-sesame', { key = 'old', until = 1970-01-01T01:00:00+00:30 }] }]";
    let catalog = load(&service(text));
    let keys = &catalog.applications[0].app_keys;
    let hasher = KeyHasher::new(("demo", &Secret::new("server")), &[]);
    assert!(hasher.matches(&Secret::new("open-sesame"), &keys[0].hash));
    assert_eq!((keys[0].until, keys[1].until.unwrap().unix_s()), (None, 1800));
    let shown = format!("{catalog:?}");
    assert!(!shown.contains("sesame") && !shown.contains("old"), "{shown}");
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_example_loads() {
    let source = Source::load(&repository().join("deploy/example/catalog.toml")).unwrap();
    let Checked { value, warnings } = parse(&source, &hashing()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(value.to_string(), "1 service, 5 plans, 12 mapping rules, 4 applications");
    let shown = format!("{:?}", value.catalog);
    for secret in ["demo-key", "demo-secret-token"] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}

/// The documentation's complete example is complete, and its tables list just the keys that are read.
#[test]
fn the_documentation_lists_every_key() {
    let page = std::fs::read_to_string(repository().join("docs/catalog.md")).unwrap();
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let hashing = hashing();
    let source = source(example);
    let (reading, keys) = report::read_with_keys(&source, |section| Some(read(section, &hashing)));
    assert_eq!(reading.unwrap().warnings, []);
    // The page says that staging has the same keys.
    let keys: Vec<String> =
        keys.into_iter().filter(|key| !key.starts_with("providers.services.staging.")).collect();
    assert_eq!(crate::documented::keys(&page), keys);
}

#[test]
fn keys_of_the_field_are_kept_as_hashes() {
    let text = service("service_tokens = ['tok-1', 'tok-2'], alert_bins = [80, 100]");
    let catalog = load(&text.replace("name = \"P\",", "name = \"P\", provider_keys = [\"pk\"],"));
    let hasher = KeyHasher::new(("demo", &Secret::new("server")), &[]);
    let service = &catalog.services[0];
    assert!(hasher.matches(&Secret::new("pk"), &service.provider.keys[0]));
    assert!(hasher.matches(&Secret::new("tok-2"), &service.tokens[1]));
    assert_eq!(service.alert_bins.percents().collect::<Vec<_>>(), [80, 100]);
    assert!(!format!("{catalog:?}").contains("tok-2"));
}

#[test]
fn keys_of_the_field_belong_to_one() {
    check_service(
        "service_tokens = ['a b', 't', 't', '']",
        &[
            "catalog.toml:3:19: service_tokens has a blank or control character",
            "catalog.toml:3:31: service_tokens: the same is given in line 3",
            "catalog.toml:3:36: service_tokens is empty",
        ],
    );
    check_service(
        "alert_bins = [50, 55, 'x']",
        &[
            "catalog.toml:3:19: alert_bins holds a step that is none of 50, 80, 90, 100, 120, 150, 200, 300",
            "catalog.toml:3:23: alert_bins must be a list of whole numbers, not text",
        ],
    );
    check_service(
        "plans = [{ id = 'p' }], applications = [{ id = 'a', plan = 'p', user_key = 'k', redirect_url = '' }]",
        &["catalog.toml:3:96: redirect_url has not 1 to 2048 bytes"],
    );
}

/// Policies of a proxy, one in each line from line 4.
#[track_caller]
fn check_policies(policies: &[&str], expected: &[&str]) {
    let text = format!("proxy = {{ hosts = 'h', policies = [\n{} ] }}", policies.join(",\n"));
    check_service(&text, expected);
}

#[test]
fn policies_are_checked_where_they_stand() {
    check_policies(
        &[
            "{ policy = 'corz' }",
            "{ origins = '*' }",
            "{ policy = 'cors', origins = ['https://a.test', 'b.test'], max_age_s = 86_401, credentials = 1 }",
            "{ policy = 'ip_check', denny = '10.0.0.0/8' }",
            "{ policy = 'edge_limits', limits = [{ per = 'adress', requests = 1 }] }",
            "{ policy = 'maintenance', when = { path = '/' } }",
            "'cors'",
        ],
        &[
            "catalog.toml:4:12: there is no policy \"corz\" (did you mean \"cors\"?)",
            "catalog.toml:5:1: policy is missing: the name of one",
            "catalog.toml:6:49: origins: \"b.test\" is not an origin such as https://app.example.org, \
             https://*.example.org or *",
            "catalog.toml:6:72: max_age_s is not a whole number from 0 to 86400",
            "catalog.toml:6:94: credentials must be true or false, not a whole number",
            "catalog.toml:7:1: allow and deny are both missing: it would let everybody pass",
            "catalog.toml:7:24: there is no key denny (did you mean \"deny\"?)",
            "catalog.toml:8:45: per \"adress\" is none of address, application, client, header, service \
             (did you mean \"address\"?)",
            "catalog.toml:9:34: is empty: name methods, paths, headers, query or claims",
            "catalog.toml:9:36: there is no key path (did you mean \"paths\"?)",
            "catalog.toml:10:1: policies must be a list of tables",
        ],
    );
    check_policies(
        &["{ policy = 'retry', budget_percent = 0.5 }", "{ policy = 'lua', since = 2030-01-01 }"],
        &["catalog.toml:4:38: policies have no numbers with a fraction"],
    );
}

#[test]
fn policies_have_an_order() {
    check_policies(
        &[
            "{ policy = 'headers', request = [{ name = 'A', value = 'b' }] }",
            "{ policy = 'authorise' }",
            "{ policy = 'cors', origins = '*' }",
            "{ policy = 'authorise' }",
        ],
        &[
            "catalog.toml:4:1: headers stands in front of authorise, where nobody knows yet who calls: move it behind",
            "catalog.toml:6:1: cors stands behind authorise, where it comes too late: move it in front",
            "catalog.toml:7:1: authorise stands here a second time: take it out",
        ],
    );
}

#[test]
fn expressions_of_policies_are_bounded() {
    check_policies(
        &[
            "{ policy = 'url_rewriting', path = [{ pattern = '(?=a)b', replacement = '' }] }",
            "{ policy = 'url_rewriting', path = [{ pattern = '((a{100}){100}){100}', replacement = '' }] }",
            "{ policy = 'maintenance', when = { headers = [{ name = 'A', matches = '(' }] } }",
        ],
        &[
            "catalog.toml:4:49: pattern \"(?=a)b\" uses look-around or a back-reference, which could run away: \
             write it without",
            "catalog.toml:5:49: pattern \"((a{100}){100}){100}\" takes more than 256 KiB compiled: make its \
             repetitions smaller, or use * or + for them",
            "catalog.toml:6:71: matches \"(\" is not a regular expression: unclosed group",
        ],
    );
}

#[test]
fn policies_are_checked_against_their_service() {
    let headers = "{ policy = 'headers', request = [{ name = 'A', value = '{query.user_key}' }] }";
    let claims = "{ policy = 'claim_check', checks = [{ claims = [{ name = 'role' }] }] }";
    let anonymous = "{ policy = 'anonymous', application = 'visitor' }";
    check_service(
        &format!(
            "plans = [{{ id = 'p' }}], applications = [{{ id = 'visitors', plan = 'p', user_key = 'k' }}],\n\
             proxy = {{ hosts = 'h', policies = [\n{headers},\n{claims},\n{anonymous} ] }}"
        ),
        &[
            "catalog.toml:5:1: names \"user_key\", which carries credentials or the secret token: policies leave \
             those alone (strip_credentials takes them out, anonymous does without)",
            "catalog.toml:6:1: asks for the claim \"role\": only calls of services with credentials = \"client_id\" \
             have a token",
            "catalog.toml:7:39: application visitor is not one of service api (did you mean \"visitors\"?)",
        ],
    );
}

/// In whichever way a list is written, and of staging as of production.
#[test]
fn lists_of_policies_may_be_written_as_tables() {
    let text = "revision = 1\n[[providers]]\nname = 'P'\n[[providers.services]]\nid = 'a'\n\
        [providers.services.staging]\nhosts = 's'\n\
        [[providers.services.staging.policies]]\npolicy = 'corz'\n\
        [[providers.services.staging.policies]]\npolicy = 'cors'\n\
        [[providers.services.staging.policies]]\npolicy = 'routing'\n\
        [[providers.services.staging.policies.routes]]\nwhen = { paths = '/' }\napi_backend = 'mail'\n";
    check(
        text,
        &[
            "catalog.toml:9:10: there is no policy \"corz\" (did you mean \"cors\"?)",
            "catalog.toml:10:1: origins is missing",
            "catalog.toml:16:15: api_backend \"mail\" does not begin with http:// or https://",
        ],
    );
}

#[test]
fn staging_has_policies_of_its_own() {
    let policies = |named: &str| format!("policies = [{{ policy = 'anonymous', application = '{named}' }}]");
    let text = format!(
        "plans = [{{ id = 'p' }}], applications = [{{ id = 'a', plan = 'p', user_key = 'k' }}],\n\
         proxy = {{ hosts = 'h', {} }},\nstaging = {{ hosts = 's' }}",
        policies("a")
    );
    let service = load(&service(&text)).services.remove(0);
    let steps = |environment| service.proxy(environment).policies.steps().len();
    assert_eq!((steps(Environment::Production), steps(Environment::Staging)), (1, 0));
}
