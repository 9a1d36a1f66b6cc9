//! Small files that options name: tokens, certificates.

use std::path::Path;

use weir_core::Secret;

use crate::problem::Problem;

/// Longest file that is read.
const BYTES_MAX: u64 = 1 << 20;

/// Reads the file that an option names.
///
/// # Errors
/// It cannot be read, or is too long.
pub(crate) fn read(path: &Path, option: &str) -> Result<Vec<u8>, Problem> {
    let read = std::fs::metadata(path).and_then(|metadata| {
        if metadata.len() > BYTES_MAX {
            return Err(std::io::Error::other(format!("longer than {BYTES_MAX} bytes")));
        }
        std::fs::read(path)
    });
    read.map_err(|error| Problem::of_argument(option, format!("{} cannot be read: {error}", path.display())))
}

/// A token as it stands in a file or a variable; `name` says in which.
///
/// # Errors
/// It has other characters than visible ASCII, or none.
pub(crate) fn token(name: &str, text: &str) -> Result<Secret, Problem> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Problem::of_argument(name, "holds no token of visible ASCII"));
    }
    Ok(Secret::new(text))
}
