//! The rules about how parts fit together: crates, lints, and pages that repeat what code says.

use crate::rules::Faults;
use crate::source::Source;

/// Which crates of ours a crate may use. A new arrow is a design change: ARCHITECTURE.md says it in the same commit.
const ARROWS: [(&str, &[&str]); 10] = [
    ("core", &[]),
    ("journal", &[]),
    ("proto", &["weir-core"]),
    ("store", &["weir-core"]),
    ("listener", &["weir-core", "weir-proto", "weir-store"]),
    ("gateway", &["weir-core", "weir-proto", "weir-journal"]),
    ("load", &["weir-core", "weir-proto"]),
    ("control", &["weir-core", "weir-proto"]),
    ("portal", &["weir-core", "weir-control"]),
    (
        "weir",
        &[
            "weir-core",
            "weir-proto",
            "weir-store",
            "weir-listener",
            "weir-gateway",
            "weir-load",
            "weir-control",
            "weir-portal",
        ],
    ),
];

/// What the compiler has to keep out of core.
const CORE_BANS: [&str; 6] = [
    "std::time::SystemTime::now",
    "std::time::Instant::now",
    "std::env::var",
    "std::fs::read",
    "std::fs::write",
    "std::net::TcpStream::connect",
];

/// The manifest of a crate uses only what the crate may use. Development dependencies are free.
pub(crate) fn arrows(manifest: &Source) -> Faults {
    let name = manifest.path.split('/').nth(1).unwrap_or_default();
    let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
        return vec![(1, format!("{name} has no place in the table of allowed arrows"))];
    };
    let mut faults = Vec::new();
    let mut counts = false;
    for (n, line) in manifest.lines() {
        let line = line.split('#').next().unwrap_or_default();
        if line.starts_with('[') {
            counts = line.contains("dependencies") && !line.contains("dev-dependencies");
        }
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '-' && c != '_');
        let ours = words.filter(|word| *word == "weir" || word.starts_with("weir-"));
        for other in ours.filter(|word| counts && !allowed.contains(word)) {
            faults.push((n, format!("{name} may not use {other}")));
        }
    }
    faults
}

/// The manifest takes the workspace's lints.
pub(crate) fn lints(manifest: &Source) -> Faults {
    let takes = manifest.text.contains("[lints]\nworkspace = true");
    if takes { vec![] } else { vec![(1, "does not take the workspace's lints".into())] }
}

/// core's clippy.toml keeps its bans.
pub(crate) fn bans(clippy: &Source) -> Faults {
    let missing = CORE_BANS.iter().filter(|ban| !clippy.text.contains(&format!("path = \"{ban}\"")));
    missing.map(|ban| (1, format!("does not ban {ban}"))).collect()
}

/// A role in the README's table of ports, the file that has its defaults, and how they stand there.
type Port = (&'static str, &'static str, &'static [&'static str]);

const PORTS: [Port; 5] = [
    ("gateway, production", "crates/weir/src/config/gateway.rs", &["Production => (PORT, TELEMETRY)"]),
    ("gateway, staging", "crates/weir/src/config/gateway.rs", &["Staging => (PORT, TELEMETRY)"]),
    (
        "listener, gRPC",
        "crates/weir/src/config/listener.rs",
        &["\"grpc_address\", PORT)", "\"telemetry_address\", TELEMETRY)"],
    ),
    ("listener, HTTP", "crates/weir/src/config/listener.rs", &["\"http_address\", PORT)"]),
    ("sample API of the demo", "crates/weir/src/demo/setup.rs", &["upstream: PORT + by"]),
];

/// The README's table of ports says what the code does.
pub(crate) fn ports(readme: &Source, sources: &[Source]) -> Faults {
    let mut faults = Vec::new();
    for (role, path, forms) in PORTS {
        let Some((n, row)) = readme.lines().find(|(_, line)| line.starts_with(&format!("| {role} |"))) else {
            faults.push((1, format!("has no row for the ports of {role}")));
            continue;
        };
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let cell = |at: usize| cells.get(at).copied().unwrap_or_default();
        let code = sources.iter().find(|source| source.path == path).map_or("", |source| &source.text);
        for form in forms {
            let wanted = form.replace("PORT", cell(2)).replace("TELEMETRY", cell(3));
            if !code.contains(&wanted) {
                faults.push((n, format!("{path} does not say {wanted:?}")));
            }
        }
    }
    faults
}

/// The page of metrics has every metric of the code, and no other.
pub(crate) fn metrics(page: &Source, sources: &[Source]) -> Faults {
    let code = sources.iter().filter(|source| source.is_rust() && source.path.starts_with("crates/"));
    let used: Vec<&str> = code.flat_map(|source| metric_names(&source.text)).collect();
    let listed: Vec<(usize, &str)> = page
        .lines()
        .filter_map(|(n, line)| Some((n, line.strip_prefix("| `weir_")?.split('`').next()?)))
        .collect();
    let unlisted = used.iter().filter(|name| !listed.iter().any(|(_, other)| other == *name));
    let unused = listed.iter().filter(|(_, name)| !used.contains(name));
    unlisted
        .map(|name| (1, format!("does not list weir_{name}")))
        .chain(unused.map(|(n, name)| (*n, format!("lists weir_{name}, which no code has"))))
        .collect()
}

/// Dashboards and alert rules name metrics that the code has, and each alert has its heading in docs/alerts.md.
pub(crate) fn observed(page: &Source, sources: &[Source]) -> Faults {
    let code = sources.iter().filter(|source| source.is_rust() && source.path.starts_with("crates/"));
    let used: Vec<&str> = code.flat_map(|source| metric_names(&source.text)).collect();
    let runbook = sources.iter().find(|source| source.path == "docs/alerts.md");
    let mut faults = Vec::new();
    for (n, line) in page.lines() {
        let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
        for rest in line.split("weir_").skip(1) {
            let name = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            if !used.contains(&name) && !base.is_some_and(|base| used.contains(&base)) {
                faults.push((n, format!("names weir_{name}, which no code has")));
            }
        }
        if let Some(alert) = line.trim_start().strip_prefix("- alert: ")
            && !runbook.is_some_and(|page| page.text.contains(&format!("\n## {alert}\n")))
        {
            faults.push((n, format!("{alert} has no heading in docs/alerts.md")));
        }
    }
    faults
}

fn metric_names(text: &str) -> impl Iterator<Item = &str> {
    ["counter!(\"weir_", "gauge!(\"weir_", "histogram!(\"weir_"]
        .into_iter()
        .flat_map(|form| text.split(form).skip(1))
        .filter_map(|rest| rest.split('"').next())
}
