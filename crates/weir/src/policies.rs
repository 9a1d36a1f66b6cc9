//! `weir policies`: what policies there are, and what may be set in each.
//!
//! All of it comes out of core's own questions (`weir_core::policy::form`): the table for people, JSON Schema for
//! editors and programs, and the tables of keys in `docs/policies.md`, which a test holds against them.
//!
//! Reads no file. Whether a list can be used is said by `weir check`.

mod columns;
mod keys;
mod schema;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Context;
use clap::Args;
use weir_core::policy::{AUTHORISE, KINDS, Kind, Place, Repeats};

use self::columns::{columns, wrapped};
use self::keys::{Key, keys_of, keys_of_conditions};
use crate::failure::Failure;
use crate::problem::Problem;
use crate::suggest::did_you_mean;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weir policies\n  \
    weir policies cors\n  \
    weir policies cors --json\n  \
    weir policies --json > policies.schema.json\n\n\
    docs/policies.md has an example of each.")]
pub(crate) struct Arguments {
    /// The policy whose keys are wanted; without, all policies are listed.
    name: Option<String>,
    /// Print JSON Schema (draft 2020-12): of the policy, or of a whole list of policies.
    #[arg(long)]
    json: bool,
}

/// Prints what is asked for.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let kind = arguments.name.as_deref().map(find).transpose().map_err(|p| Failure::BadInput(vec![p]))?;
    let text = match (kind, arguments.json) {
        (None, false) => list(),
        (None, true) => schema::text(&schema::of_list()),
        (Some(kind), false) => page(kind),
        (Some(kind), true) => schema::text(&schema::of(kind)),
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the policies")?;
    Ok(())
}

fn find(name: &str) -> Result<&'static Kind, Problem> {
    Kind::find(name).ok_or_else(|| {
        let message = match name {
            AUTHORISE => {
                format!("{AUTHORISE} is no policy, but the step that the others stand around: it has no keys")
            }
            _ => format!(
                "there is no policy {name:?}{}",
                did_you_mean(name, KINDS.iter().map(|kind| kind.name))
            ),
        };
        Problem::of_argument("NAME", message)
    })
}

fn list() -> String {
    let mut rows = vec![["policy", "stands", "meaning"].map(str::to_owned)];
    rows.extend(KINDS.iter().map(|kind| [kind.name, stands(kind), kind.meaning].map(str::to_owned)));
    let table = columns(&rows, [usize::MAX; 3], 2);
    let note = wrapped(
        "They stand in `policies` of [providers.services.proxy] and [providers.services.staging], in front of the step \
         authorise, in which the gateway finds out who calls and whether they may, or behind it. The keys of one: \
         weir policies NAME.",
    );
    format!("{table}\n{note}")
}

fn stands(kind: &Kind) -> &'static str {
    match kind.place {
        Place::Front => "in front",
        Place::Behind => "behind",
        Place::Either => "either",
    }
}

fn page(kind: &Kind) -> String {
    let place = match kind.place {
        Place::Front => "It stands in front of authorise.",
        Place::Behind => "It stands behind authorise.",
        Place::Either => {
            "It may stand in front of authorise or behind; behind, unless the list says where authorise is."
        }
    };
    let repeats = match kind.repeats {
        Repeats::Freely => "A list may have several.",
        Repeats::Never => "A list may have one.",
    };
    let mut text = wrapped(&format!("{}: {}", kind.name, kind.meaning));
    let _ = write!(text, "\n{}\n", wrapped(&format!("{place} {repeats}")));
    let keys = keys_of(&kind.shape());
    text.push_str(&table(&keys));
    if keys.iter().any(Key::is_condition) {
        let _ = write!(
            text,
            "\nA condition is a table. All that it asks for must hold:\n\n{}",
            table(&keys_of_conditions())
        );
    }
    text
}

fn table(keys: &[Key]) -> String {
    let mut rows = vec![["key", "meaning", "form", "default"].map(str::to_owned)];
    rows.extend(
        keys.iter()
            .map(|key| [key.name.clone(), key.meaning.to_owned(), key.form.clone(), key.default.clone()]),
    );
    columns(&rows, [usize::MAX, usize::MAX, 24, 16], 1)
}

/// The keys of a policy as a table of `docs/policies.md`; those that every policy has are described there once.
#[cfg(test)]
fn markdown(kind: &Kind) -> String {
    let mut keys = keys_of(&kind.shape());
    keys.retain(|key| !EVERYWHERE.contains(&key.name.as_str()));
    markdown_table(&keys)
}

/// The keys that every policy has; nearly every one the conditions.
#[cfg(test)]
const EVERYWHERE: [&str; 3] = ["policy", "when", "unless"];

#[cfg(test)]
fn markdown_table(keys: &[Key]) -> String {
    let mut text = "| key | meaning | form | default |\n|---|---|---|---|\n".to_owned();
    for Key { name, meaning, form, default } in keys {
        let row = format!("| `{name}` | {meaning} | {form} | {default} |");
        text.push_str(&row.replace("|  |", "| |"));
        text.push('\n');
    }
    text
}
