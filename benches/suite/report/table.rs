//! The table, in Markdown, so that it can be pasted into a page as it stands.

use crate::figure::{Figure, thousands};

const HEAD: [&str; 7] = ["", "value", "per second", "beside", "ratio", "target", "reached"];

/// A group's figures under its title.
pub(super) fn table(title: &str, figures: &[Figure]) -> String {
    let rows: Vec<[String; 7]> = figures.iter().map(row).collect();
    let mut head = HEAD.map(str::to_owned);
    title.clone_into(&mut head[0]);
    let width = |column: usize| {
        let cells = [&head].into_iter().chain(&rows).map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text = line(&head, &widths);
    let rule: Vec<String> = widths.iter().enumerate().map(|(column, width)| rule(column, *width)).collect();
    text += &format!("|{}|\n", rule.join("|"));
    rows.iter().for_each(|row| text += &line(row, &widths));
    text
}

/// Text begins at the left, numbers end at the right.
fn is_text(column: usize) -> bool {
    matches!(column, 0 | 3 | 6)
}

fn rule(column: usize, width: usize) -> String {
    if is_text(column) { "-".repeat(width + 2) } else { format!("{}:", "-".repeat(width + 1)) }
}

fn line(row: &[String; 7], widths: &[usize; 7]) -> String {
    let cell = |column: usize| {
        let (text, width) = (&row[column], widths[column]);
        if is_text(column) { format!(" {text:<width$} ") } else { format!(" {text:>width$} ") }
    };
    let cells: Vec<String> = (0..row.len()).map(cell).collect();
    format!("|{}|\n", cells.join("|"))
}

fn row(figure: &Figure) -> [String; 7] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".into());
    let value = match (&figure.samples, figure.value()) {
        (Err(_), _) | (_, None) => "not measured".into(),
        (Ok(_), Some(value)) => format!("{} {}", number(value), figure.unit),
    };
    let peer = figure.peer.as_ref();
    let reached = figure.is_reached().map(|reached| if reached { "yes" } else { "no" }.to_owned());
    [
        figure.title.clone(),
        value,
        or_dash(figure.per_second.map(whole)),
        or_dash(peer.map(|peer| format!("{} ({})", peer.name, number(peer.value)))),
        or_dash(figure.ratio().map(|ratio| format!("{ratio:.2}"))),
        or_dash(figure.target.map(number)),
        or_dash(reached),
    ]
}

/// As many digits as a reader can use.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        0.0..100.0 => format!("{value:.2}"),
        100.0..1000.0 => format!("{value:.0}"),
        _ => whole(value),
    }
}

fn whole(value: f64) -> String {
    thousands(&format!("{value:.0}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [(1.234, "1.23"), (22.7, "22.70"), (123.4, "123"), (41_800.0, "41,800")] {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn rows_say_all_there_is() {
        let peer = Figure::new("peer", "The peer", "µs CPU", Ok(vec![2.0]));
        let good = Figure::new("good", "Good", "µs CPU", Ok(vec![3.0])).at_most(4.0).beside(&peer);
        let broken = Figure::new("broken", "Broken", "µs CPU", Err(anyhow::anyhow!("gone")));
        let text = table("Group", &[good, broken]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(
            lines[2],
            "| Good   |  3.00 µs CPU |          – | peer (2.00) |  1.50 |   4.00 | yes     |"
        );
        assert!(lines[3].starts_with("| Broken | not measured |"), "{text}");
    }
}
