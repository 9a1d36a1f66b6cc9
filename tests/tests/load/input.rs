//! What bad input gets: exit code 2, all that is wrong, and nothing sent.

use crate::world::Desk;

const MIX: &str = "[[services]]\nrequests = [{ path = \"/\" }]\n";

/// Refused with these lines, each of which begins so; nothing is printed as a result.
#[track_caller]
fn refused(desk: &Desk, arguments: &[&str], expected: &[&str]) {
    let run = desk.load(arguments).ended(2);
    assert_eq!((run.out.as_str(), &run.json), ("", &serde_json::Value::Null));
    let lines: Vec<&str> = run.err.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{}", run.err);
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\ninstead of\n{expected}");
    }
}

/// Goal: load goes nowhere but to loopback without its owner's word. 192.0.2.1 belongs to nobody (RFC 5737), and is
/// refused before anything would be sent.
#[test]
fn other_hosts_need_their_owners_word() {
    let desk = Desk::new();
    let mix = desk.put("mix.toml", MIX);
    let foreign = "192.0.2.1 is not this machine's loopback";
    refused(
        &desk,
        &["http://192.0.2.1:8080?user_key=hunter2", "--mix", &mix, "--rate", "1"],
        &[&format!(
            "http://192.0.2.1:8080: {foreign}: load can take a host down, and may only be sent to your own; if this one \
         is, say so with --i-own-this-host"
        )],
    );
    refused(
        &desk,
        &["grpc://192.0.2.1:8090", "--mix", &mix, "--rate", "1"],
        &[&format!("grpc://192.0.2.1:8090: {foreign}")],
    );
    let check =
        ["http://127.0.0.1:1", "--mix", &mix, "--rate", "1", "--check-usage", "http://192.0.2.1:8090"];
    refused(
        &desk,
        &check,
        &[
            &format!("http://192.0.2.1:8090: {foreign}"),
            "--check-usage: the mix cannot be compared with counters: it does not name the service of all requests",
        ],
    );
}

#[test]
fn mistakes_of_a_mix_are_told_with_line_and_column() {
    let desk = Desk::new();
    let mix =
        desk.put("mix.toml", "[[services]]\nhst = \"a\"\nrequests = [{ path = \"/{9..1}\", weight = 0 }]\n");
    refused(
        &desk,
        &["http://127.0.0.1:1", "--mix", &mix],
        &[
            &format!("{mix}:2:1: there is no key hst in services (did you mean \"host\"?)"),
            &format!("{mix}:3:22: path \"/{{9..1}}\" has the range {{9..1}}, which ends before it begins"),
            &format!("{mix}:3:42: weight is not a whole number from 1 to 1000000"),
        ],
    );
    let mix = desk.put("mix.toml", "[[services]\n");
    refused(&desk, &["http://127.0.0.1:1", "--mix", &mix], &[&format!("{mix}:1:12: is not TOML: ")]);
}

#[test]
fn what_is_missing_is_told() {
    let desk = Desk::new();
    let mix = desk.put("mix.toml", MIX);
    refused(&desk, &["--mix", &mix], &["URL: is missing", "--rate: is missing"]);
    refused(
        &desk,
        &["http://127.0.0.1:1/path?user_key=hunter2", "--mix", &mix, "--rate", "1"],
        &["127.0.0.1:1: a target has no path"],
    );
    let hashed = format!(
        "revision = 1\n[[providers]]\nname = \"P\"\n[[providers.services]]\nid = \"api\"\nmetrics = [{{ name = \"hits\" }}]\n\
         mapping_rules = [{{ method = \"GET\", pattern = \"/\", metrics = {{ hits = 1 }} }}]\n\
         proxy = {{ hosts = [\"a.test\"] }}\nplans = [{{ id = \"p\" }}]\n\
         applications = [{{ id = \"app\", plan = \"p\", user_key = \"hmac:s:{}\" }}]\n",
        "0".repeat(64)
    );
    let catalog = desk.put("catalog.toml", &hashed);
    refused(
        &desk,
        &["http://127.0.0.1:1", "--from-catalog", &catalog, "--rate", "1"],
        &[&format!(
            "{catalog}:10:17: application app has no key in the clear that is in force; hashes cannot be sent"
        )],
    );
}

/// Goal: nobody is asked by 3scale's API without what opens it, and no secret is told. Method: a mix without a token, a
/// catalog with hashes alone, a key that is none, targets and protocols that do not go with it.
#[test]
fn what_opens_the_api_is_asked_for() {
    let desk = Desk::new();
    let (target, api) = ("http://127.0.0.1:1", ["--api", "3scale", "--rate", "1"]);
    let run = |more: &[&str], expected: &[&str]| refused(&desk, &[&api[..], more].concat(), expected);
    let bare = desk.put("bare.toml", &MIX.replace("requests", "id = \"api\"\nrequests"));
    let why = "--api: nothing opens service api: give --provider-key-file, a service_token in the mix, or a catalog";
    run(&[target, "--mix", &bare], &[why]);
    let hashed = format!(
        "revision = 1\n[[providers]]\nname = \"P\"\nprovider_keys = [\"hmac:s:{0}\"]\n[[providers.services]]\nid = \"api\"\n\
         service_tokens = [\"hmac:s:{1}\"]\nmetrics = [{{ name = \"hits\" }}]\n\
         mapping_rules = [{{ method = \"GET\", pattern = \"/\", metrics = {{ hits = 1 }} }}]\nplans = [{{ id = \"p\" }}]\n\
         applications = [{{ id = \"app\", plan = \"p\", user_key = \"key\" }}]\n",
        "0".repeat(64),
        "1".repeat(64)
    );
    let catalog = desk.put("catalog.toml", &hashed);
    run(&[target, "--from-catalog", &catalog], &[why]);
    let key = desk.put("key.txt", "hunter2 hunter2");
    let not_a_key = "--provider-key-file: holds no token of visible ASCII";
    run(&[target, "--mix", &bare, "--provider-key-file", &key], &[not_a_key]);
    let key = desk.put("key.txt", "hunter2");
    let mix = desk.put("mix.toml", MIX);
    run(&[target, "--mix", &mix, "--provider-key-file", &key], &["URL: a listener must be told the service"]);
    run(
        &["grpc://127.0.0.1:1", "--mix", &bare, "--provider-key-file", &key],
        &["--api: 3scale's API is on a listener's HTTP port: give http:// or https:// targets"],
    );
    let usage: Vec<String> = (0..5_000).map(|n| format!("metric{n} = 1")).collect();
    let long = format!("id = \"api\"\nrequests = [{{ path = \"/\", usage = {{ {} }} }}]\n", usage.join(", "));
    let long = desk.put("long.toml", &format!("[[services]]\n{long}"));
    run(
        &[target, "--mix", &long, "--provider-key-file", &key],
        &["--api: a call's usage and credentials do not fit into a URL"],
    );
}

/// Goal: a target that nobody serves is no result. Method: a port that was free a moment ago.
#[test]
fn nobody_there_is_a_failure() {
    let desk = Desk::new();
    let target = format!("http://127.0.0.1:{}", weir_tests::wait::free_port());
    let run = desk.load(&[&target, "--rate", "1"]).ended(1);
    assert!(run.err.starts_with("weir: cannot connect to 127.0.0.1:"), "{}", run.err);
}
