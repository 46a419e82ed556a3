//! Many things in words: the first ones by name, and how many more there are.

use std::fmt::Display;

/// `db-1, web-2`; of more than `most` the first ones and how many more there are, as in `db-1, db-2 and 40 more`.
#[must_use]
pub fn some_of<T: Display>(all: impl IntoIterator<Item = T>, most: usize, between: &str) -> String {
    let mut all = all.into_iter();
    let first: Vec<String> = all.by_ref().take(most).map(|one| one.to_string()).collect();
    let named = first.join(between);
    match all.count() {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_the_first_ones_are_named_and_the_others_are_counted() {
        for (many, said) in [(0, ""), (1, "1"), (3, "1 or 2 or 3"), (4, "1 or 2 or 3 and 1 more")] {
            assert_eq!(some_of(1..=many, 3, " or "), said);
        }
    }
}
