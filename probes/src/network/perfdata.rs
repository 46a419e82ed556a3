//! The figures behind the bar in what a plugin says: `'label'=value[unit];warn;crit;min;max`, parted by blanks
//! (monitoring-plugins development guidelines, 2.6).

use holdfast_policies::observe::clean_to;

use crate::memory::Figure;

/// Most figures that are kept of one answer; a plugin that has more measures something else than one service.
const FIGURES_MAX: usize = 16;

/// Longest label that is kept, in bytes; longer ones are cut.
const LABEL_BYTES_MAX: usize = 64;

/// Longest number that is read, in bytes.
const NUMBER_BYTES_MAX: usize = 32;

/// Longest unit that is kept, in bytes: the convention's own have two.
const UNIT_BYTES_MAX: usize = 8;

/// The figures of an output: those of its first line, and, after a second bar, those of all lines that follow.
pub(crate) fn read(output: &[u8]) -> Vec<Figure> {
    let text = String::from_utf8_lossy(output);
    let Some((_, rest)) = text.trim_start().split_once('|') else { return Vec::new() };
    let (first, more) = rest.split_once('\n').unwrap_or((rest, ""));
    let more = more.split_once('|').map_or("", |(_, figures)| figures);
    let mut figures: Vec<Figure> = Vec::new();
    for figure in all(first).chain(all(more)).take(FIGURES_MAX) {
        if figures.iter().all(|known| known.label != figure.label) {
            figures.push(figure);
        }
    }
    figures
}

/// What is not a figure is passed over, with the text up to the next blank.
fn all(text: &str) -> impl Iterator<Item = Figure> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start();
            if rest.is_empty() {
                return None;
            }
            let Some((label, after)) = label(rest) else {
                rest = rest.split_once(char::is_whitespace).map_or("", |(_, after)| after);
                continue;
            };
            let (value, after) = after.split_once(char::is_whitespace).unwrap_or((after, ""));
            rest = after;
            if let Some(figure) = figure(&label, value) {
                return Some(figure);
            }
        }
    })
}

/// A label, in quotes if it holds blanks, up to its `=`, and what comes after that. Two quotes stand for one.
fn label(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('\'') else {
        let (label, after) = text.split_once('=')?;
        return (!label.contains(char::is_whitespace)).then(|| (label.to_owned(), after));
    };
    let (mut label, mut rest) = (String::new(), quoted);
    loop {
        let (part, after) = rest.split_once('\'')?;
        label.push_str(part);
        match (after.strip_prefix('='), after.strip_prefix('\'')) {
            (Some(value), _) => return Some((label, value)),
            (None, Some(after)) => {
                label.push('\'');
                rest = after;
            }
            (None, None) => return None,
        }
    }
}

/// `U` says that the plugin could not tell the value; that is no figure.
fn figure(label: &str, text: &str) -> Option<Figure> {
    let text = text.split(';').next()?;
    let in_number = |c: char| c.is_ascii_digit() || c == '.';
    let value_of = |end: usize| text.get(..end).filter(|number| number.ends_with(in_number))?.parse::<f64>().ok();
    // As long as it can be, so that an exponent is not taken for a unit.
    let longest = text.len().min(NUMBER_BYTES_MAX);
    let (end, value) = (1..=longest).rev().find_map(|end| Some((end, value_of(end)?)))?;
    let (unit, label) = (text.get(end..)?, clean_to(label, LABEL_BYTES_MAX));
    let is_figure = value.is_finite() && !unit.contains(in_number) && !label.is_empty();
    is_figure.then(|| Figure { label, value, unit: clean_to(unit, UNIT_BYTES_MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Vec<(String, String)> {
        let shown = |figure: Figure| (figure.label, format!("{}{}", figure.value, figure.unit));
        read(text.as_bytes()).into_iter().map(shown).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn figures_are_read_as_the_convention_writes_them() {
        assert_eq!(read_text("TCP OK - 0.01 s|time=0.012s;1;2;0;10"), pairs(&[("time", "0.012s")]));
        let text = "DISK OK | /=2643MB;5948;5958;0;5968 'swap used'=-3%\nmore text\nand | /boot=68MB\n'it''s'=7c\n";
        assert_eq!(read_text("OK|a=1e-3s b=2E c=.5"), pairs(&[("a", "0.001s"), ("b", "2E"), ("c", "0.5")]));
        let wanted = [("/", "2643MB"), ("swap used", "-3%"), ("/boot", "68MB"), ("it's", "7c")];
        assert_eq!(read_text(text), pairs(&wanted));
    }

    #[test]
    fn what_is_no_figure_is_passed_over() {
        assert_eq!(read_text("OK - all is well"), []);
        assert_eq!(read_text("OK | a=U;;;; b= c=x d 'e e=1 f=2 a=3"), pairs(&[("e", "1"), ("f", "2"), ("a", "3")]));
        assert_eq!(read_text("OK | a=1 a=2"), pairs(&[("a", "1")]), "one label, one figure");
        assert_eq!(read_text("OK | n=nan i=inf l=1.2.3 =4"), []);
    }

    #[test]
    fn their_number_and_their_labels_are_bounded() {
        let many: String = (0..1_000).map(|number| format!("l{number}={number} ")).collect();
        assert_eq!(read_text(&format!("OK|{many}")).len(), FIGURES_MAX);
        let long = read_text(&format!("OK|'{}\u{7}'=1", "x".repeat(1_000)));
        let label = "x".repeat(LABEL_BYTES_MAX);
        assert_eq!(long, pairs(&[(label.as_str(), "1")]));
    }
}
