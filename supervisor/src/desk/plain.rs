//! What people say in a request: who they are, and why. It is committed, kept in the journal and shown on terminals of others.

/// Longest name of a person, in characters: names are kept in the journal.
pub const PERSON_CHARACTERS_MAX: usize = 100;

/// Longest reason that a person gives, in characters: it is kept for as long as what it is about.
pub const REASON_CHARACTERS_MAX: usize = 200;

/// Longest id of a machine, in characters: systemd's have 32.
pub const MACHINE_CHARACTERS_MAX: usize = 100;

/// Whether this may be kept and shown as it is.
///
/// # Errors
/// What is wrong with it.
pub fn plain(text: &str, what: &str, most: usize) -> Result<(), String> {
    // Not counted to its end: it may be megabytes long.
    let fits = !text.is_empty() && text.chars().nth(most).is_none();
    if fits && !text.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(format!("a {what} has 1 to {most} characters, none of them a control character"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_and_what_is_long_is_refused() {
        for fine in ["ann", "Änne Müller", "x", &"ü".repeat(100)] {
            assert_eq!(plain(fine, "name", 100), Ok(()), "{fine}");
        }
        for bad in ["", "\u{1b}[2Jann", "ann\nfence of hv-a: off", "\u{9b}1m", &"ü".repeat(101)] {
            assert!(plain(bad, "name", 100).is_err(), "{bad:?}");
        }
    }
}
