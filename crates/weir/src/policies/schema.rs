//! JSON Schema of policies: of one, and of a whole list.
//!
//! It says what core's questions say: names, kinds and bounds. What only code can judge, such as a regular expression
//! or the order of a list, is left to `weir check`.

use serde_json::{Map, Value, json};
use weir_core::policy::{AUTHORISE, KINDS, Kind, STEPS_MAX, form};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A policy's settings.
pub(super) fn of(kind: &Kind) -> Value {
    let mut schema = element(kind);
    schema.insert("$schema".to_owned(), json!(DIALECT));
    Value::Object(schema)
}

/// What `policies` of a proxy may hold.
pub(super) fn of_list() -> Value {
    let authorise = json!({
        "title": AUTHORISE,
        "description": "Where the gateway finds out who calls, and whether they may. Not written, it stands behind the policies that have to be in front of it.",
        "type": "object",
        "properties": { "policy": { "const": AUTHORISE, "description": "The name of the step." } },
        "required": ["policy"],
        "additionalProperties": false,
    });
    let mut elements: Vec<Value> = KINDS.iter().map(|kind| Value::Object(element(kind))).collect();
    elements.push(authorise);
    json!({
        "$schema": DIALECT,
        "title": "policies",
        "description": "What a provider adds to how gateways serve an API, in order.",
        "type": "array",
        "maxItems": STEPS_MAX,
        "items": { "oneOf": elements },
    })
}

/// A schema as it is printed.
pub(super) fn text(schema: &Value) -> String {
    format!("{schema:#}\n")
}

fn element(kind: &Kind) -> Map<String, Value> {
    let mut schema = match json(kind.shape().schema()) {
        Value::Object(schema) => schema,
        _ => Map::new(),
    };
    if let Some(name) = schema.get_mut("properties").and_then(|properties| properties.get_mut("policy")) {
        *name = json!({ "const": kind.name, "description": "The name of the policy." });
    }
    schema.insert("title".to_owned(), json!(kind.name));
    schema.insert("description".to_owned(), json!(kind.meaning));
    schema
}

fn json(value: form::Value) -> Value {
    match value {
        form::Value::Flag(flag) => Value::Bool(flag),
        form::Value::Whole(whole) => Value::from(whole),
        form::Value::Text(text) => Value::String(text),
        form::Value::List(items) => items.into_iter().map(json).collect(),
        form::Value::Table(table) => table.into_iter().map(|(name, inner)| (name, json(inner))).collect(),
    }
}
