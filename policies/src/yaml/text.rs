//! Words for findings: quoting what was written, and guessing what was meant.

/// Longest text repeated in a finding, in characters.
const QUOTED_MAX: usize = 60;
/// Longest word that is compared with others.
const GUESSED_MAX: usize = 40;

/// A text as findings show it: on one line, cut when long.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTED_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTED_MAX).is_some() {
        shown.push('…');
    }
    format!("`{}`", shown.replace("\\\"", "\"").replace("\\'", "'"))
}

/// Words in a row: `a`, `b`, `c`.
pub(super) fn listed<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    words.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// The word that was probably meant.
#[must_use]
pub fn nearest<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let length = word.chars().count();
    if length > GUESSED_MAX {
        return None;
    }
    // A third of the letters may be wrong: more is another word. `retries` is near `tries`, `foo` is near nothing.
    let near = |distance: &usize| *distance <= (length / 3).max(1);
    let measured = words.into_iter().map(|candidate| (distance(word, candidate), candidate));
    measured.filter(|(distance, _)| near(distance)).min().map(|(_, candidate)| candidate)
}

/// Number of letters to insert, remove or replace to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, above) in b.chars().zip(row.windows(2)) {
            let [diagonal, above] = above else { break };
            left = (above + 1).min(left + 1).min(diagonal + usize::from(x != y));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_guessed_and_another_word_is_not() {
        assert_eq!(nearest("servces", ["services", "ladder"]), Some("services"));
        assert_eq!(nearest("routing_key", ["url", "routing_key_file"]), None);
        assert_eq!(nearest("retries", ["tries", "wait"]), Some("tries"));
        assert_eq!(nearest("foo", ["url", "status"]), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
