//! What mix files say, and how their mistakes are told.

use weir_load::CallKind;

use super::*;
use crate::problem::Checked;

fn source(text: &str) -> Source {
    Source { file: "mix.toml".into(), text: text.into(), ..Source::default() }
}

/// All problems of a file, a line each from its line and column on.
#[track_caller]
fn check(text: &str, expected: &str) {
    let problems = parse(&source(text)).unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let expected: Vec<String> = expected.lines().map(|line| format!("mix.toml:{line}")).collect();
    assert_eq!(told, expected);
}

fn read_good(text: &str) -> MixFile {
    let Checked { value, warnings } = parse(&source(text)).unwrap();
    assert_eq!(warnings, []);
    value
}

#[test]
fn a_short_mix_has_defaults() {
    let mix = read_good("[[services]]\nrequests = [{ path = \"/a\" }, { path = \"/b\", body = \"x\" }]\n");
    assert_eq!((mix.targets.len(), mix.stages.len(), mix.groups.len()), (0, 0, 1));
    let group = &mix.groups[0];
    assert_eq!((group.weight, &group.host, group.callers.len()), (1, &None, 0));
    let names: Vec<&str> = group.calls.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(names, ["GET /a", "POST /b"]);
}

#[test]
fn stages_are_rates_and_ramps() {
    let mix = read_good(
        "services = [{ requests = [{ path = \"/\" }] }]\n\
         [[stages]]\nrate = 10\nfor = \"1s\"\nwarm_up = true\n\
         [[stages]]\nrate = 0\nto = 500\nfor = \"2m\"\n",
    );
    let stages: Vec<_> =
        mix.stages.iter().map(|s| (s.from, s.to, s.length.as_secs(), s.is_warm_up)).collect();
    assert_eq!(stages, [(10, 10, 1, true), (0, 500, 120, false)]);
}

#[test]
fn grpc_requests_are_posts_of_their_message() {
    let mix = read_good("services = [{ requests = [{ grpc = \"a.B/C\" }] }]\n");
    let call = &mix.groups[0].calls[0];
    assert_eq!((call.name.as_str(), call.path.as_str()), ("/a.B/C", "/a.B/C"));
    assert!(matches!(&call.kind, CallKind::Grpc(message) if message.as_ref() == [0; 5]));
}

#[test]
fn everything_wrong_is_told_at_once_with_its_place() {
    check(
        r#"
[[stages]]
rate = 0
for = "soon"
[[services]]
id = "a b"
host = "u@h"
credentials_location = "qery"
applications = [{ id = "x", user_key = "k", app_key = "l" }, { user_key = "k" }]
[[services.requests]]
path = "a"
[[services.requests]]
path = "/{1...9}"
weight = 0
headers = { host = "x", "a b" = "x", c = 1 }
usage = { "m m" = 1, m = -1 }
expect = ["2xx", "ok"]
[[services.requests]]
grpc = "method"
path = "/"
pth = "/"
"#,
        "3:8: rate is not a whole number from 1 to 1000000\n\
         4:7: for \"soon\" is not a length of time such as 30s, 500ms, 250us, 2m or 1h, up to a day\n\
         6:6: id \"a b\" has the character ' ', which is not allowed here\n\
         7:8: host \"u@h\" is not a host such as api.example.org\n\
         8:24: credentials_location \"qery\" is none of query, headers, authorization (did you mean \"query\"?)\n\
         9:55: user_key and app_key are both given: leave one out\n\
         9:62: services.applications.id is missing\n\
         11:8: path \"a\" does not begin with /\n\
         13:8: path \"/{1...9}\" has {1...9}, which is neither a range such as {1..1000} nor a list such as {red|green}\n\
         14:10: weight is not a whole number from 1 to 1000000\n\
         15:20: header \"host\" is written by the client itself (host is a key of the service)\n\
         15:33: header \"a b\" is not a name that headers have\n\
         15:42: c must be text, not a whole number\n\
         16:11: metric \"m m\" has the character ' ', which is not allowed here\n\
         16:22: metric \"m\" must be raised by 0 to 9007199254740991\n\
         17:18: expect: \"ok\" is neither a status such as 429 nor a class such as 2xx\n\
         18:1: path does not go with grpc\n\
         19:8: grpc \"method\" is not a method such as package.Service/Method\n\
         21:1: there is no key pth in services.requests (did you mean \"path\"?)",
    );
}

#[test]
fn keys_are_never_told() {
    check(
        "[[services]]\ncredentials_location = \"headers\"\nkeys = [\"hunter\\n2\"]\nrequests = [{ path = \"/\" }]\n",
        "3:9: the key has a character that no header can carry",
    );
}

#[test]
fn nothing_to_call_is_no_mix() {
    check("targets = [\"http://127.0.0.1:1\"]\n", "1:1: services is missing");
    check("services = []\n", "1:1: services is empty: there is nothing to call");
    check("[[services]]\nid = \"a\"\n", "1:1: services.requests is missing");
}

#[test]
fn keys_of_files_are_callers() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("keys.txt"), "# test keys\none\n\n two \n").unwrap();
    std::fs::write(folder.path().join("body.json"), "{\"n\": {1..9}}").unwrap();
    let text = "[[services]]\nkeys = [\"zero\"]\nkeys_file = \"keys.txt\"\n\
                requests = [{ path = \"/\", body_file = \"body.json\" }]\n";
    let mut source = source(text);
    source.folder = folder.path().to_owned();
    let Checked { value, .. } = parse(&source).unwrap();
    assert_eq!(value.groups[0].callers.len(), 3);
    source.text = text.replace("keys.txt", "nowhere");
    let problems = parse(&source).unwrap_err();
    assert!(problems[0].to_string().starts_with("mix.toml:3:13: keys_file "), "{}", problems[0]);
}

#[test]
fn the_page_lists_all_keys() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/load-testing.md");
    let page = std::fs::read_to_string(page).unwrap();
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let (reading, keys) = report::read_with_keys(&source(example), |section| Some(read(section)));
    assert_eq!(reading.unwrap().warnings, []);
    assert_eq!(crate::documented::keys(&page), keys.into_iter().collect::<Vec<_>>());
}
