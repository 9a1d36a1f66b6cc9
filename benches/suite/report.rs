//! What a run leaves: a table on standard output, `results.json`, and pictures.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use crate::cases::Group;
use crate::figure::Figure;

mod bars;
mod curves;
mod picture;
mod table;

/// All figures of a run.
pub(crate) struct Report {
    /// The command that made them.
    pub(crate) command: String,
    /// What they were measured on.
    pub(crate) machine: Value,
    /// In the order of the table.
    pub(crate) groups: Vec<(Group, Vec<Figure>)>,
}

impl Report {
    /// The table.
    pub(crate) fn table(&self) -> String {
        let tables = self.groups.iter().map(|(group, figures)| table::table(group.title(), figures));
        tables.collect::<Vec<_>>().join("\n")
    }

    /// Writes everything else into a folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let figures: Vec<Value> =
            self.groups.iter().flat_map(|(_, figures)| figures).map(Figure::json).collect();
        let results = json!({ "command": self.command, "machine": self.machine, "figures": figures });
        let mut files = vec![("results.json", format!("{results:#}\n"))];
        for (group, figures) in &self.groups {
            let picture = match group {
                Group::Gateway => Some(("gateway.svg", bars::gateway(figures))),
                Group::Listener => Some(("listener.svg", bars::listener(figures))),
                _ => None,
            };
            files.extend(picture);
        }
        let all: Vec<&Figure> = self.groups.iter().flat_map(|(_, figures)| figures).collect();
        files.extend(curves::growth(&all).map(|picture| ("growth.svg", picture)));
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Figures that could not be measured, with the reason.
    pub(crate) fn failures(&self) -> Vec<(&str, &str)> {
        let figures = self.groups.iter().flat_map(|(_, figures)| figures);
        figures
            .filter_map(|figure| Some((figure.name.as_str(), figure.samples.as_ref().err()?.as_str())))
            .collect()
    }
}
