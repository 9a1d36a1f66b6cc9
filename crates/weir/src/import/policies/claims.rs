//! `jwt_claim_check`: what tokens must say.
//!
//! A check that is left out lets calls pass that it refused, so its line says so, and of a check with several tests that
//! must all hold those that can be written stay.

use serde_json::Value as Json;
use weir_core::policy::form::Value;

use super::expression::expression;
use super::{OPENS, Reading, Table, is_nothing, one, plain, table, text, texts};

/// Most checks of one policy.
const CHECKS_MAX: usize = 64;

impl Reading<'_> {
    pub(super) fn jwt_claim_check(&mut self) {
        let mut checks = Vec::new();
        for (at, rule) in self.list("rules").iter().enumerate() {
            let field = format!("rules[{at}]");
            match self.check(&field, rule) {
                Ok(Some(_)) if checks.len() == CHECKS_MAX => {
                    self.left_out(&field, &format!("a policy has {CHECKS_MAX} of them at most; {OPENS}"));
                }
                Ok(Some(check)) => {
                    checks.push(Value::Table(check));
                    self.mapped(&field, "claim_check.checks");
                }
                Ok(None) => {}
                Err(why) => self.left_out(&field, &format!("{why}; {OPENS}")),
            }
        }
        if self.text("error_message").is_some() {
            self.changed(
                "error_message",
                "the answer is the service's for wrong credentials, errors.auth_failed",
            );
        }
        self.rest(&["rules", "error_message"]);
        if !checks.is_empty() {
            self.write("claim_check", table([("checks", Value::List(checks))]));
        }
    }

    /// A check; `None`: nothing of it can be written, or it asks for nothing, which has been said.
    fn check(&mut self, field: &str, rule: &Json) -> Result<Option<Table>, String> {
        let when = when(rule)?;
        let operations = rule.get("operations").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        if operations.is_empty() {
            self.changed(field, "asks for nothing, so there is nothing to check");
            return Ok(None);
        }
        let is_any = operations.len() > 1 && rule.get("combine_op").and_then(Json::as_str) == Some("or");
        let claims = if is_any { vec![any_of(operations)?] } else { self.claims(field, &when, operations) };
        if claims.is_empty() {
            return Ok(None);
        }
        let check = check_of(&when, claims);
        self.judge("claim_check", &table([("checks", one(check.clone()))]))?;
        Ok(Some(check))
    }

    /// The tests that can be written, of those that must all hold.
    fn claims(&mut self, field: &str, when: &Table, operations: &[Json]) -> Vec<Value> {
        let mut claims = Vec::new();
        for (at, operation) in operations.iter().enumerate() {
            let judged = test(operation).and_then(|test| {
                let check = check_of(when, vec![Value::Table(test.clone())]);
                self.judge("claim_check", &table([("checks", one(check))])).map(|()| test)
            });
            match judged {
                Ok(test) => claims.push(Value::Table(test)),
                Err(why) => self.left_out(&format!("{field}.operations[{at}]"), &format!("{why}; {OPENS}")),
            }
        }
        claims
    }
}

fn check_of(when: &Table, claims: Vec<Value>) -> Table {
    let mut check = table([("claims", Value::List(claims))]);
    if !when.is_empty() {
        check.insert("when".to_owned(), Value::Table(when.clone()));
    }
    check
}

/// The calls that a rule is for.
fn when(rule: &Json) -> Result<Table, String> {
    let mut when = Table::new();
    let resource = plain(rule, "resource")?.unwrap_or_else(|| "/".to_owned());
    // 3scale's gateway looks at the path alone.
    let path = resource.split('?').next().unwrap_or_default();
    if path != "/" {
        when.insert("paths".to_owned(), text(path));
    }
    let methods = rule.get("methods").filter(|methods| !is_nothing(methods)).and_then(Json::as_array);
    if let Some(methods) = methods {
        let methods: Option<Vec<&str>> = methods.iter().map(Json::as_str).collect();
        let methods = methods.ok_or("one of its methods is no text")?;
        if !methods.contains(&"ANY") {
            when.insert("methods".to_owned(), texts(methods));
        }
    }
    Ok(when)
}

/// One test of a claim.
fn test(operation: &Json) -> Result<Table, String> {
    let claim = claim(operation)?;
    let value = plain(operation, "value")?.unwrap_or_default();
    let op = operation.get("op").and_then(Json::as_str).unwrap_or_default();
    let mut test = table([("name", text(claim))]);
    match op {
        "==" => test.insert("values".to_owned(), text(value)),
        "!=" => {
            test.insert("not".to_owned(), Value::Flag(true));
            test.insert("values".to_owned(), text(value))
        }
        "matches" => test.insert("matches".to_owned(), text(expression(&value, "")?)),
        _ => return Err(format!("its op {op:?} is none of ==, != and matches")),
    };
    Ok(test)
}

/// The one test that several are together of which one is enough: the same claim, with one of some values.
fn any_of(operations: &[Json]) -> Result<Value, String> {
    let mut claims = Vec::new();
    let mut values = Vec::new();
    for operation in operations {
        if operation.get("op").and_then(Json::as_str) != Some("==") {
            return Err("one of several tests is enough for it, and not all are == of one claim".to_owned());
        }
        claims.push(claim(operation)?);
        values.push(plain(operation, "value")?.unwrap_or_default());
    }
    claims.dedup();
    match claims.as_slice() {
        [claim] => {
            let values = texts(values.iter().map(String::as_str));
            Ok(Value::Table(table([("name", text(*claim)), ("values", values)])))
        }
        _ => Err("one of several tests is enough for it, and they are of several claims".to_owned()),
    }
}

/// The name of a claim: `a.b` is `b` within `a` at both.
fn claim(operation: &Json) -> Result<&str, String> {
    let claim = operation.get("jwt_claim").and_then(Json::as_str).unwrap_or_default();
    let is_liquid = operation.get("jwt_claim_type").and_then(Json::as_str) == Some("liquid");
    let is_name =
        !claim.is_empty() && claim.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    match is_name && !is_liquid {
        true => Ok(claim),
        false => Err(format!("{claim:?} is not the name of a claim alone")),
    }
}
