//! What is printed of policies, and `docs/policies.md` held against what core reads.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::columns::WIDTH;
use super::*;
use crate::catalog::{self, KeyHashing};
use crate::report::Source;

/// What rewrites the tables of keys in the page.
const WRITE_DOCS: &str = "WEIR_WRITE_DOCS";
/// The first line of an example that is of another file than the catalog.
const OF_GATEWAY: &str = "# gateway.toml\n";

#[test]
fn every_policy_has_a_schema() {
    for kind in &KINDS {
        let schema: Value = serde_json::from_str(&schema::text(&schema::of(kind))).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{}", kind.name);
        assert_eq!((&schema["title"], &schema["description"]), (&kind.name.into(), &kind.meaning.into()));
        check_policy(&schema, kind.name);
        assert!(schema["properties"].as_object().unwrap().len() > 1, "{}", kind.name);
    }
}

#[track_caller]
fn check_policy(schema: &Value, name: &str) {
    assert_eq!(
        (&schema["type"], &schema["additionalProperties"]),
        (&"object".into(), &false.into()),
        "{name}"
    );
    assert_eq!(schema["properties"]["policy"]["const"], name);
    assert!(schema["required"].as_array().unwrap().contains(&"policy".into()), "{name}");
    for (key, property) in schema["properties"].as_object().unwrap() {
        assert!(property["description"].is_string(), "{name}: {key}");
        let says_kind = ["type", "anyOf", "const"].iter().any(|word| !property[word].is_null());
        assert!(says_kind, "{name}: {key}");
    }
}

#[test]
fn a_list_has_a_schema_of_every_policy_and_authorise() {
    let schema: Value = serde_json::from_str(&schema::text(&schema::of_list())).unwrap();
    assert_eq!((&schema["type"], &schema["maxItems"]), (&"array".into(), &64.into()));
    let elements = schema["items"]["oneOf"].as_array().unwrap();
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).chain([AUTHORISE]).collect();
    assert_eq!(elements.len(), names.len());
    elements.iter().zip(names).for_each(|(element, name)| check_policy(element, name));
}

#[test]
fn what_is_printed_fits_a_terminal_and_names_all() {
    let pages = KINDS.iter().map(page).chain([list()]);
    for text in pages {
        let wide = text.lines().find(|line| line.chars().count() > WIDTH);
        assert_eq!(wide, None, "{text}");
    }
    for kind in &KINDS {
        assert!(list().lines().any(|line| line.split(' ').next() == Some(kind.name)), "{}", kind.name);
        let page = page(kind);
        for key in keys_of(&kind.shape()) {
            assert!(
                page.lines().any(|line| line.split(' ').next() == Some(&key.name)),
                "{}: {page}",
                key.name
            );
        }
    }
}

#[test]
fn unknown_policies_are_refused() {
    let told = |name: &str| find(name).unwrap_err().to_string();
    assert_eq!(told("corz"), "NAME: there is no policy \"corz\" (did you mean \"cors\"?)");
    assert_eq!(told("lua"), "NAME: there is no policy \"lua\"");
    assert!(told(AUTHORISE).starts_with("NAME: authorise is no policy"));
    let arguments = Arguments { name: Some("corz".to_owned()), json: true };
    assert!(matches!(run(&arguments), Err(Failure::BadInput(problems)) if problems.len() == 1));
}

fn page_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policies.md")
}

fn documentation() -> String {
    std::fs::read_to_string(page_file()).unwrap()
}

/// The table of keys that stands in the page behind `<!-- keys of … -->`.
fn table_of(subject: &str) -> String {
    match subject {
        "every policy" => {
            let mut keys = keys_of(&KINDS[0].shape());
            keys.retain(|key| EVERYWHERE.contains(&key.name.as_str()));
            markdown_table(&keys)
        }
        "a condition" => markdown_table(&keys_of_conditions()),
        name => {
            markdown(Kind::find(name).unwrap_or_else(|| panic!("keys of {name}: there is no such policy")))
        }
    }
}

/// The page with the tables of keys that belong there.
fn with_tables(page: &str) -> String {
    let mut text = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        text.push_str(line);
        text.push('\n');
        let subject = line.strip_prefix("<!-- keys of ").and_then(|rest| rest.strip_suffix(" -->"));
        if let Some(subject) = subject {
            assert!(lines.any(|line| line == "<!-- end -->"), "keys of {subject}: no <!-- end -->");
            text.push_str(&table_of(subject));
            text.push_str("<!-- end -->\n");
        }
    }
    text
}

#[test]
fn the_page_has_every_key() {
    let page = documentation();
    let expected = with_tables(&page);
    if std::env::var(WRITE_DOCS).is_ok_and(|value| value == "1") {
        std::fs::write(page_file(), expected).unwrap();
        return;
    }
    for (line, (found, expected)) in page.lines().zip(expected.lines()).enumerate() {
        let line = line + 1;
        assert_eq!(
            found, expected,
            "docs/policies.md:{line}: run {WRITE_DOCS}=1 cargo test -p weir policies"
        );
    }
    assert_eq!(page, expected, "run {WRITE_DOCS}=1 cargo test -p weir policies");
}

/// The part of the page under a heading.
fn section<'a>(page: &'a str, heading: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("\n## {heading}\n"))?;
    Some(rest.split("\n## ").next().unwrap_or(rest))
}

fn examples(text: &str) -> impl Iterator<Item = &str> {
    text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or(rest))
}

#[test]
fn the_page_has_a_section_for_every_policy() {
    let page = documentation();
    for kind in &KINDS {
        let name = kind.name;
        let text =
            section(&page, &format!("`{name}`")).unwrap_or_else(|| panic!("there is no section {name}"));
        let uses = format!("policy = \"{name}\"");
        assert!(examples(text).any(|example| example.contains(&uses)), "{name} has no example");
        assert!(text.contains(&format!("<!-- keys of {name} -->")), "{name} has no table of keys");
        let row = format!("\n| [`{name}`](#{name}) | {} | ", stands(kind));
        assert!(page.contains(&row), "there is no row {row}");
        let everywhere = section(&page, "Keys of every policy").unwrap();
        assert_eq!(everywhere.contains(&format!("`{name}`")), !kind.has_conditions, "{name}: conditions");
    }
    for subject in ["every policy", "a condition"] {
        assert!(
            page.contains(&format!("<!-- keys of {subject} -->")),
            "there is no table of keys of {subject}"
        );
    }
}

/// A catalog to which an example can be added as it stands in the page.
fn catalog_with(example: &str) -> String {
    let asks_for_token = example.contains("claim");
    let (credentials, keys, oidc) = match asks_for_token {
        true => {
            ("client_id", "", "oidc = { issuer = \"https://id.postbote.example\", audiences = \"mail_api\" }")
        }
        false => ("app_id_and_key", "app_keys = [\"k\"],", ""),
    };
    format!(
        "revision = 1\n[[providers]]\nname = \"Postbote\"\n[[providers.services]]\nid = \"mail_api\"\n\
         credentials = \"{credentials}\"\nmetrics = [{{ name = \"hits\" }}]\n\
         mapping_rules = [{{ method = \"ANY\", pattern = \"/\", metrics = {{ hits = 1 }} }}]\n\
         plans = [{{ id = \"trial\" }}]\napplications = [{{ id = \"visitors\", {keys} plan = \"trial\" }}]\n\
         [providers.services.proxy]\nhosts = [\"api.postbote.example\"]\n\
         api_backend = \"http://mail.internal.example\"\n\
         credential_names = {{ app_id = \"api_user\", app_key = \"api_key\" }}\n{oidc}\n{example}"
    )
}

#[test]
fn examples_of_the_page_can_be_used() {
    let page = documentation();
    let mut used: Vec<&str> = Vec::new();
    for example in examples(&page) {
        if example.starts_with(OF_GATEWAY) {
            toml::de::DeTable::parse(example).unwrap();
            continue;
        }
        let source = Source { file: "example".into(), text: catalog_with(example), ..Source::default() };
        let read = catalog::parse(&source, &KeyHashing::for_check());
        let checked = read.unwrap_or_else(|problems| panic!("{}\n{problems:#?}", source.text));
        assert_eq!(checked.warnings, [], "{}", source.text);
        let service = &checked.value.catalog.services[0];
        let proxies = [Some(&service.production), service.staging.as_ref()];
        used.extend(proxies.iter().flatten().flat_map(|proxy| proxy.policies.steps()).map(|step| step.name));
    }
    for kind in &KINDS {
        assert!(used.contains(&kind.name), "no example of {} was read", kind.name);
    }
}
