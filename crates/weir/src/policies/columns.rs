//! Tables of text for a terminal: columns side by side, long cells over several lines.
//!
//! Widths count characters, and words are never broken: one that is wider than its column stands out.

/// How wide a terminal may be taken to be.
pub(super) const WIDTH: usize = 100;
const GAP: usize = 2;

/// Rows with their cells below each other. Columns are as wide as their widest cell or the `most` given; the column
/// `yields` gives way where all together are too wide.
pub(super) fn columns<const N: usize>(rows: &[[String; N]], most: [usize; N], yields: usize) -> String {
    let mut widths = most;
    for (at, width) in widths.iter_mut().enumerate() {
        let lines = rows.iter().flat_map(|row| lines(&row[at], *width));
        *width = lines.map(|line| line.chars().count()).max().unwrap_or_default();
    }
    let others: usize = (0..N).filter(|at| *at != yields).map(|at| widths[at] + GAP).sum();
    widths[yields] = widths[yields].min(WIDTH.saturating_sub(others));
    let mut text = String::new();
    for row in rows {
        let cells: Vec<Vec<String>> =
            row.iter().zip(widths).map(|(cell, width)| lines(cell, width)).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or_default();
        for line in 0..height {
            let mut told = String::new();
            for (cell, width) in cells.iter().zip(widths) {
                let part = cell.get(line).map_or("", String::as_str);
                told.push_str(&format!("{part:<width$}{:GAP$}", ""));
            }
            text.push_str(told.trim_end());
            text.push('\n');
        }
    }
    text
}

/// A paragraph.
pub(super) fn wrapped(text: &str) -> String {
    lines(text, WIDTH).join("\n") + "\n"
}

fn lines(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_below_each_other() {
        let rows = [["a", "one two three", "x"], ["bcd", "", "y z"]].map(|row| row.map(str::to_owned));
        assert_eq!(
            columns(&rows, [9, 8, 1], 1),
            "a    one two  x\n     three\nbcd           y\n              z\n"
        );
    }

    #[test]
    fn one_column_gives_way() {
        let long = "word ".repeat(40);
        let rows = [["a".to_owned(), long.clone()], ["b".repeat(50), long]];
        let text = columns(&rows, [usize::MAX; 2], 1);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }
}
