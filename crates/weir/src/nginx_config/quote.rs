//! Text in nginx's configuration language.
//!
//! A quoted word knows four escapes and ends at a quote. What it cannot escape is `$`: nearly every directive would take
//! what follows for a variable. `geo` does not, so texts become the values of `geo` variables, in pieces, since no word
//! may be longer than nginx's buffer of 4 KiB.

/// Longest piece, with its escapes.
const PIECE_BYTES_MAX: usize = 2_000;

/// One word, in quotes. Variables in it are still variables, where a directive takes any.
pub(super) fn word(text: &str) -> String {
    let escaped: String = text.chars().map(escape).collect();
    format!("\"{escaped}\"")
}

fn escape(character: char) -> String {
    match character {
        '"' => "\\\"".into(),
        '\\' => "\\\\".into(),
        '\n' => "\\n".into(),
        '\r' => "\\r".into(),
        '\t' => "\\t".into(),
        _ => character.into(),
    }
}

/// Directives for a text, and the variables that are it: `("geo $name_0 { … }", "$name_0$name_1")`.
pub(super) fn text(name: &str, text: &str) -> (String, String) {
    let (mut directives, mut variables) = (String::new(), String::new());
    for (number, piece) in pieces(text).iter().enumerate() {
        directives += &format!("    geo $weir_{name}_{number} {{ default {}; }}\n", word(piece));
        variables += &format!("${{weir_{name}_{number}}}");
    }
    (directives, variables)
}

/// At least one, so that an empty text is a variable, too: `return 404 ""` would bring nginx's own page.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut length = 0;
    for character in text.chars() {
        let bytes = escape(character).len();
        if length + bytes > PIECE_BYTES_MAX {
            pieces.push(String::new());
            length = 0;
        }
        length += bytes;
        pieces.last_mut().expect("there is one from the start").push(character);
    }
    pieces
}

/// The spellings of a header's name with each hyphen or underscore written either way, but for those that are the
/// name itself: `X_a` for `X-a`.
pub(super) fn other_spellings(name: &str) -> Vec<String> {
    let mut spellings = vec![String::new()];
    for character in name.chars() {
        let ways: &[char] = if matches!(character, '-' | '_') { &['-', '_'] } else { &[character] };
        spellings =
            spellings.iter().flat_map(|begun| ways.iter().map(move |way| format!("{begun}{way}"))).collect();
    }
    spellings.retain(|spelling| !spelling.eq_ignore_ascii_case(name));
    spellings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_where_they_should() {
        assert_eq!(word("a \"b\" \\ c\n$d {e};#"), r#""a \"b\" \\ c\n$d {e};#""#);
    }

    #[test]
    fn texts_are_pieces_that_nginx_can_read() {
        assert_eq!(text("a", ""), ("    geo $weir_a_0 { default \"\"; }\n".into(), "${weir_a_0}".into()));
        let long = "\"é".repeat(1_000);
        let (directives, variables) = text("a", &long);
        assert_eq!(variables, "${weir_a_0}${weir_a_1}");
        assert!(directives.lines().all(|line| line.len() < 2_100));
        assert_eq!(pieces(&long).concat(), long);
    }

    #[test]
    fn names_have_other_spellings() {
        assert_eq!(other_spellings("X-a-b"), ["X-a_b", "X_a-b", "X_a_b"]);
        assert!(other_spellings("plain").is_empty());
    }
}
