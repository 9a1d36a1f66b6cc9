//! What the modules share: a folder for a run's files, and what the run came to.

use std::path::Path;

use serde_json::Value;
use weir_tests::process::weir;
use weir_tests::stack::TOKEN;

/// A folder with a token file, where runs put their files.
pub(crate) struct Desk(tempfile::TempDir);

/// A run that has ended.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    /// The table.
    pub(crate) out: String,
    pub(crate) err: String,
    /// Null where nothing was written.
    pub(crate) json: Value,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        desk.put("token.txt", TOKEN);
        desk
    }

    /// Writes a file; its path.
    pub(crate) fn put(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.path().join(name), text).unwrap();
        self.path(name)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// `weir load` with these arguments, a token and a file for JSON.
    pub(crate) fn load(&self, arguments: &[&str]) -> Run {
        let (token, json) = (self.path("token.txt"), self.path("run.json"));
        let _ = std::fs::remove_file(&json);
        let done = weir(&[&["load", "--token-file", &token, "--json", &json], arguments].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Run {
            code: done.status.code(),
            out: text(&done.stdout),
            err: text(&done.stderr),
            json: read_json(Path::new(&json)),
        }
    }
}

fn read_json(path: &Path) -> Value {
    std::fs::read_to_string(path).map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
}

impl Run {
    /// Checks the exit code, with all that was said where it is another.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self
    }

    /// A value of the JSON.
    pub(crate) fn value(&self, pointer: &str) -> &Value {
        self.json.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {:#}", self.json))
    }

    /// A number of the JSON.
    pub(crate) fn number(&self, pointer: &str) -> f64 {
        self.value(pointer).as_f64().unwrap_or_else(|| panic!("no number at {pointer} in {:#}", self.json))
    }
}
