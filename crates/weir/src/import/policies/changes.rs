//! `headers` and `url_rewriting`: what becomes of requests, and of answers' headers.

use serde_json::Value as Json;
use weir_core::policy::form::Value;
use weir_core::policy::template::Template;

use super::expression::{expression, replacement, sees_encoded};
use super::{Reading, Table, one, plain, table, text, texts};

/// Most rewrites of paths, and changes of the query, in one policy.
const REWRITES_MAX: usize = 32;
/// Most changes of headers each way in one policy.
const HEADERS_MAX: usize = 64;

/// Which list a change stands in, and how.
#[derive(Clone, Copy)]
struct List {
    /// In 3scale's configuration.
    field: &'static str,
    /// What names the header or the argument there.
    name: &'static str,
    policy: &'static str,
    key: &'static str,
    /// What a condition calls them; `None`: conditions do not see them.
    seen_as: Option<&'static str>,
    max: usize,
}

const REQUEST: List = List {
    field: "request",
    name: "header",
    policy: "headers",
    key: "request",
    seen_as: Some("headers"),
    max: HEADERS_MAX,
};
const RESPONSE: List = List { field: "response", key: "response", seen_as: None, ..REQUEST };
const QUERY: List = List {
    field: "query_args_commands",
    name: "arg",
    policy: "url_rewriting",
    key: "query",
    seen_as: Some("query"),
    max: REWRITES_MAX,
};

/// Changes that are for the same calls, one behind the other.
type Groups = Vec<(Table, Vec<Value>)>;

impl Reading<'_> {
    pub(super) fn headers(&mut self) {
        let mut groups = self.changes(REQUEST);
        let answers = self.changes(RESPONSE).pop().map(|(_, changes)| changes).unwrap_or_default();
        self.rest(&["request", "response"]);
        // Changes of answers are for all calls, so they go along with those of requests that are, too.
        if !answers.is_empty() && !groups.iter().any(|(when, _)| when.is_empty()) {
            groups.push((Table::new(), vec![]));
        }
        let at = groups.iter().position(|(when, _)| when.is_empty());
        for (place, (when, changes)) in groups.into_iter().enumerate() {
            let mut settings = conditional(when);
            insert(&mut settings, "request", changes);
            if Some(place) == at {
                insert(&mut settings, "response", answers.clone());
            }
            self.write("headers", settings);
        }
    }

    pub(super) fn url_rewriting(&mut self) {
        let mut rewrites = Vec::new();
        for (at, command) in self.list("commands").iter().enumerate() {
            let field = format!("commands[{at}]");
            match self.rewrite(&field, command) {
                Ok(_) if rewrites.len() == REWRITES_MAX => self.left_out(&field, &surplus(REWRITES_MAX)),
                Ok(rewrite) => {
                    rewrites.push(Value::Table(rewrite));
                    self.mapped(&field, "url_rewriting.path");
                }
                Err(why) => self.left_out(&field, &why),
            }
        }
        let groups = self.changes(QUERY);
        self.rest(&["commands", "query_args_commands"]);
        let mut path = Table::new();
        insert(&mut path, "path", rewrites);
        for (when, changes) in groups {
            // The path comes first, for all calls.
            if !when.is_empty() && !path.is_empty() {
                self.write("url_rewriting", std::mem::take(&mut path));
            }
            let mut settings = std::mem::take(&mut path);
            settings.extend(conditional(when));
            insert(&mut settings, "query", changes);
            self.write("url_rewriting", settings);
        }
        if !path.is_empty() {
            self.write("url_rewriting", path);
        }
    }

    fn rewrite(&mut self, field: &str, command: &Json) -> Result<Table, String> {
        let given = |name: &str| command.get(name).and_then(Json::as_str);
        let all = match given("op") {
            Some("sub") => false,
            Some("gsub") => true,
            other => return Err(format!("its op {:?} is neither sub nor gsub", other.unwrap_or_default())),
        };
        let regex = given("regex").ok_or("it has no regex")?;
        let pattern = expression(regex, given("options").unwrap_or_default())?;
        let written = given("replace").unwrap_or_default();
        let replacement = replacement(written)?;
        let mut rewrite = table([("pattern", text(pattern)), ("replacement", text(replacement.as_str()))]);
        if all {
            rewrite.insert("all".to_owned(), Value::Flag(true));
        }
        if command.get("break").and_then(Json::as_bool) == Some(true) {
            rewrite.insert("last".to_owned(), Value::Flag(true));
        }
        let methods = methods(command)?;
        if !methods.is_empty() {
            rewrite.insert("methods".to_owned(), texts(methods));
        }
        self.judge("url_rewriting", &table([("path", one(rewrite.clone()))]))?;
        if sees_encoded(regex) || replacement.contains('%') {
            self.changed(
                field,
                "look at it: it sees and writes paths as clients encode them, with %20 for a blank",
            );
        }
        if self.written.of.has_backends && !self.is_front {
            self.changed(field, "of a call to a backend it sees what is behind the mount");
        }
        Ok(rewrite)
    }

    fn changes(&mut self, list: List) -> Groups {
        let mut groups: Groups = Vec::new();
        let mut count = 0;
        for (at, command) in self.list(list.field).iter().enumerate() {
            let field = format!("{}[{at}]", list.field);
            match self.change(&field, command, list) {
                Ok(_) if count == list.max => self.left_out(&field, &surplus(list.max)),
                Ok((when, change)) => {
                    count += 1;
                    self.mapped(&field, &format!("{}.{}", list.policy, list.key));
                    match groups.last_mut().filter(|(known, _)| *known == when) {
                        Some((_, changes)) => changes.push(Value::Table(change)),
                        None => groups.push((when, vec![Value::Table(change)])),
                    }
                }
                Err(why) => self.left_out(&field, &why),
            }
        }
        groups
    }

    /// A change, and the calls that it is for.
    fn change(&mut self, field: &str, command: &Json, list: List) -> Result<(Table, Table), String> {
        let name = command.get(list.name).and_then(Json::as_str).unwrap_or_default();
        let op = command.get("op").and_then(Json::as_str).unwrap_or_default();
        let change = match op {
            "set" => "set",
            "push" | "add" => "add",
            "delete" => "remove",
            _ => return Err(format!("its op {op:?} is none of add, set, push and delete")),
        };
        let mut entry = table([("change", text(change)), ("name", text(name))]);
        if change != "remove" {
            entry.insert("value".to_owned(), text(value(command)?));
        }
        let methods = methods(command)?;
        let mut when = Table::new();
        if !methods.is_empty() {
            when.insert("methods".to_owned(), texts(methods));
        }
        // `add` is for what is there already.
        if let Some(seen_as) = list.seen_as.filter(|_| op == "add") {
            when.insert(seen_as.to_owned(), one(table([("name", text(name))])));
        }
        let mut settings = conditional(when.clone());
        settings.insert(list.key.to_owned(), one(entry.clone()));
        self.judge(list.policy, &settings)?;
        if op == "add" && list.seen_as.is_none() {
            self.changed(field, "is added where the answer has none, too");
        }
        Ok((when, entry))
    }
}

/// A plain value as a template of ours. What is wrong with one is told without it: it may be a secret.
fn value(command: &Json) -> Result<String, String> {
    let value = plain(command, "value")?.unwrap_or_default().replace('{', "{{").replace('}', "}}");
    match value.parse::<Template>() {
        Ok(_) => Ok(value),
        Err(error) => Err(format!("its value {error}")),
    }
}

/// The methods that a command is for; none: all.
fn methods(command: &Json) -> Result<Vec<&str>, String> {
    let given = command.get("methods").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    let methods: Option<Vec<&str>> = given.iter().map(Json::as_str).collect();
    let methods = methods.ok_or("one of its methods is no text")?;
    Ok(if methods.contains(&"ANY") { vec![] } else { methods })
}

fn conditional(when: Table) -> Table {
    if when.is_empty() { Table::new() } else { table([("when", Value::Table(when))]) }
}

fn insert(settings: &mut Table, key: &str, entries: Vec<Value>) {
    if !entries.is_empty() {
        settings.insert(key.to_owned(), Value::List(entries));
    }
}

fn surplus(max: usize) -> String {
    format!("a policy has {max} of them at most")
}
