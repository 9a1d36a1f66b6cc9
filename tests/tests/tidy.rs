//! The repository itself under test: the house rules that a machine can check, each failure with file and line.
//!
//! It reads every text file below the workspace's folder, tracked or not, except what is built. Each rule is a
//! function from text to faults; the tests below show each of them bad input, so that none can fall asleep.
//!
//! What needs judgement is in CONTRIBUTING.md.

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/source.rs"]
mod source;

use std::path::Path;

use rules::Faults;
use source::{Source, code_only};

/// Without these, rules about them would find nothing.
const PAGES: [&str; 5] =
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/operating.md", "crates/core/clippy.toml"];

#[test]
fn the_repository_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = Source::all(&root);
    let mut found = Vec::new();
    for source in &sources {
        let faults = faults_of(source, &sources);
        found.extend(faults.into_iter().map(|(line, why)| format!("{}:{line}: {why}", source.path)));
    }
    let missing = PAGES.iter().filter(|page| !sources.iter().any(|source| source.path == **page));
    found.extend(missing.map(|page| format!("{page}:1: is not there")));
    assert!(sources.iter().filter(|source| source.is_rust()).count() > 50, "the repository was not read");
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Everything that is wrong with a file.
fn faults_of(source: &Source, all: &[Source]) -> Faults {
    let path = source.path.as_str();
    let is_source =
        source.is_rust() && ["crates/", "tests/", "fuzz/"].iter().any(|top| path.starts_with(top));
    let is_tests = path.ends_with("/tests.rs") || path.contains("/tests/");
    let is_crate = path.starts_with("crates/") && path.ends_with("/Cargo.toml");
    let exists = |name: &str| all.iter().any(|s| s.path == name || s.path.starts_with(&format!("{name}/")));
    let mut faults = rules::machine(source);
    let mut when = |applies: bool, rule: &dyn Fn(&Source) -> Faults| {
        if applies {
            faults.extend(rule(source));
        }
    };
    when(source.is_rust(), &rules::header);
    when(source.is_rust(), &rules::name);
    when(source.is_rust(), &rules::functions);
    when(source.is_rust(), &rules::left_overs);
    when(source.is_rust(), &rules::safety);
    when(is_source && !is_tests, &rules::length);
    when(path.ends_with(".md"), &|page| rules::links(page, &exists));
    when(is_crate, &shape::arrows);
    when(is_crate || matches!(path, "tests/Cargo.toml" | "benches/Cargo.toml"), &shape::lints);
    when(path == "crates/core/clippy.toml", &shape::bans);
    when(path == "README.md", &|page| shape::ports(page, all));
    when(path == "docs/operating.md", &|page| shape::metrics(page, all));
    when(path.starts_with("deploy/prometheus/") || path.starts_with("deploy/grafana/"), &|page| {
        shape::observed(page, all)
    });
    faults
}

/// A rule finds faults in just these lines.
#[track_caller]
fn check(rule: impl Fn(&Source) -> Faults, path: &str, text: &str, expected: &[usize]) {
    let lines: Vec<usize> = rule(&Source::new(path, text)).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, expected, "{path}: {text}");
}

#[test]
fn comments_and_literals_are_no_code() {
    for (text, expected) in [
        ("a // {\nb", "a     \nb"),
        ("a /* { /* } */\n */ b", "a             \n    b"),
        (r#"f("\"{", '{', '\'', b'}')"#, "f(~~~~~, ~~~, ~~~~, b~~~)"),
        ("r#\"{\"\n\"#; r#type", "~~~~~\n~~; r#type"),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("'é' \"é{\"", "~~~~ ~~~~~"),
    ] {
        assert_eq!(code_only(text), expected, "{text}");
    }
}

#[test]
fn modules_need_a_header() {
    check(rules::header, "a.rs", "//! What it is.\n", &[]);
    check(rules::header, "a.rs", "#![allow(x)]\n//! What it is.\n", &[]);
    check(rules::header, "a.rs", "use std::fmt;\n//! Too late.\n", &[1]);
    check(rules::header, "a.rs", "", &[1]);
}

#[test]
fn names_say_something() {
    check(rules::name, "crates/store/src/key.rs", "", &[]);
    check(rules::name, "crates/store/src/helpers.rs", "", &[1]);
    check(rules::name, "crates/store/src/util/key.rs", "", &[1]);
}

#[test]
fn files_are_short() {
    let code = |lines| "x();\n// why\n\n".repeat(lines);
    check(rules::length, "a.rs", &code(600), &[]);
    check(rules::length, "a.rs", &code(601), &[1803]);
    check(rules::length, "a.rs", &format!("{}#[cfg(test)]\nmod tests {{\n{}}}", code(600), code(9)), &[]);
    check(rules::length, "a.rs", &format!("#[cfg(test)]\nmod documented;\n{}", code(600)), &[1802]);
}

#[test]
fn functions_are_short() {
    let body = |lines| format!("    pub async fn f(\n{}\n}}\nfn g();\n", "{}\n".repeat(lines));
    let function = |lines: usize| body(lines - 3).replace("(\n", "(x: [u8; 3]) {\n");
    check(rules::functions, "a.rs", &function(70), &[]);
    check(rules::functions, "a.rs", &format!("\n{}", function(71)), &[2]);
}

#[test]
fn nothing_is_left_over() {
    check(rules::left_overs, "a.rs", "// todo!\nlet a = \"dbg!\";", &[]);
    check(rules::left_overs, "a.rs", "todo!()\ndbg!(x)\nunimplemented!()\n#[ignore = \"x\"]", &[1, 2, 3, 4]);
}

#[test]
fn unsafe_has_one_place() {
    check(rules::safety, "crates/store/src/a.rs", "#![forbid(unsafe_code)] // unsafe", &[]);
    check(rules::safety, "crates/store/src/a.rs", "\nunsafe { x() }", &[2]);
    check(
        rules::safety,
        "crates/store/src/a.rs",
        "#![allow(unsafe_code)]\n#[expect(unsafe_code, reason = \"x\")]",
        &[1, 2],
    );
    check(rules::safety, "crates/journal/src/a.rs", "unsafe { x() }", &[]);
}

#[test]
fn machines_are_not_named() {
    let path = concat!("/ho", "me/ada/weir");
    let host = concat!("https://index.crates", ".io/");
    check(rules::machine, "a.md", &format!("\ncd {path}\n{host}"), &[2, 3]);
    check(rules::machine, "a.md", concat!("GET /v3/ho", "me/x and .", "/wo", "rk/x"), &[]);
    check(rules::machine, "Cargo.lock", host, &[]);
}

#[test]
fn links_lead_somewhere() {
    let rule = |page: &Source| rules::links(page, &|name| name == "docs/a.md" || name == "README.md");
    check(rule, "docs/b.md", "[a](a.md#x) [r](../README.md) [w](https://x.test) [h](#here)", &[]);
    check(rule, "docs/b.md", "\n[a](README.md)", &[2]);
}

#[test]
fn arrows_point_one_way() {
    let manifest = |section: &str, line: &str| format!("[package]\nname = \"weir-x\"\n[{section}]\n{line}\n");
    let store = manifest("dependencies", "weir-store.workspace = true");
    check(shape::arrows, "crates/listener/Cargo.toml", &store, &[]);
    check(shape::arrows, "crates/gateway/Cargo.toml", &store, &[4]);
    let renamed = manifest("dependencies", "s = { package = \"weir-store\" }");
    check(shape::arrows, "crates/gateway/Cargo.toml", &renamed, &[4]);
    check(shape::arrows, "crates/core/Cargo.toml", &manifest("dependencies.weir-proto", ""), &[3]);
    check(shape::arrows, "crates/core/Cargo.toml", &manifest("build-dependencies", "weir-proto = 1"), &[4]);
    check(shape::arrows, "crates/core/Cargo.toml", &manifest("dev-dependencies", "weir-proto = 1"), &[]);
    check(shape::arrows, "crates/stranger/Cargo.toml", "", &[1]);
}

#[test]
fn crates_take_the_lints() {
    check(shape::lints, "crates/core/Cargo.toml", "[lints]\nworkspace = true\n", &[]);
    check(shape::lints, "crates/core/Cargo.toml", "[package]\n", &[1]);
    check(shape::bans, "crates/core/clippy.toml", "disallowed-methods = []", &[1; 6]);
}

#[test]
fn pages_say_what_code_says() {
    let gateway = "Production => (8080, 9080), Staging => (8081, 9081)";
    let code = [
        Source::new("crates/weir/src/config/gateway.rs", gateway),
        Source::new("crates/gateway/src/meters.rs", "counter!(\"weir_a_total\").increment(1)"),
    ];
    let ports = |page: &Source| shape::ports(page, &code);
    let rows = "| gateway, production | 8080 | 9080 |\n| gateway, staging | 8081 | 9999 |";
    check(ports, "README.md", rows, &[2, 1, 1, 1]);
    let observed = |page: &Source| shape::observed(page, &code);
    check(observed, "a.yaml", "expr: rate(weir_a_total[1m])", &[]);
    check(observed, "a.yaml", "\nexpr: weir_b > weir_a_total_bucket", &[2]);
    check(observed, "a.yaml", "- alert: WeirNoRunbook", &[1]);
    let metrics = |page: &Source| shape::metrics(page, &code);
    check(metrics, "docs/operating.md", "| `weir_a_total` | calls |", &[]);
    check(metrics, "docs/operating.md", "\n| `weir_b` | ? |", &[1, 2]);
}
