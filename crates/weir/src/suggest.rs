//! "Did you mean …?": the known name nearest to one that is not known.
//!
//! Called where a message names something unknown. A far-fetched guess misleads more than none, so only a
//! name within a third of the letters is offered.

/// ` (did you mean "hits"?)`, or nothing when no known name is near.
pub(crate) fn did_you_mean<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let furthest = (unknown.chars().count() / 3).max(1);
    let nearest = known
        .into_iter()
        .map(|name| (edits(unknown, name), name))
        .filter(|(edits, _)| *edits <= furthest)
        .min_by_key(|(edits, _)| *edits);
    nearest.map_or_else(String::new, |(_, name)| format!(" (did you mean \"{name}\"?)"))
}

/// How many letters must be added, dropped or replaced to get from one text to the other (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (place, wanted) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *wanted);
            diagonal = row[place + 1];
            row[place + 1] = replaced.min(diagonal + 1).min(row[place] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(unknown: &str, expected: &str) {
        assert_eq!(did_you_mean(unknown, ["hits", "mail", "mail_send"]), expected);
    }

    #[test]
    fn only_near_names_are_offered() {
        check("hitz", " (did you mean \"hits\"?)");
        check("mailsend", " (did you mean \"mail_send\"?)");
        check("mial", "");
        check("stats", "");
        check("", "");
    }

    #[test]
    fn distance_counts_single_letters() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("abc", "abc"), 0);
    }
}
