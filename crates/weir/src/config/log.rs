//! `[log]`: how a role logs.

use tracing_subscriber::EnvFilter;

use crate::section::Section;

/// What log lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// How a role logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogConfig {
    /// What lines look like.
    pub(crate) format: LogFormat,
    /// A level, or directives such as `info,weir_gateway=debug`.
    pub(crate) level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: "info".into() }
    }
}

/// Reads the table.
pub(super) fn read(section: &Section<'_>) -> LogConfig {
    section.inside("log", |section| {
        let formats = [("human", LogFormat::Human), ("json", LogFormat::Json)];
        let format = section.choice("format", &formats).unwrap_or_default();
        let Some(level) = section.text("level") else {
            return LogConfig { format, ..LogConfig::default() };
        };
        if EnvFilter::try_new(level.value).is_err() {
            let message =
                format!("level {:?} is neither a level nor directives such as info,weir=debug", level.value);
            section.report().error(level.place, message);
        }
        LogConfig { format, level: level.value.to_owned() }
    })
}
