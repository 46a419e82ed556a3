//! Patterns in policies: regular expressions that take linear time and bounded memory, whatever they are and meet.

use regex::bytes::{Regex, RegexBuilder};

/// Most memory of one pattern, in bytes; `a{1000}{1000}` would take gigabytes.
const PATTERN_BYTES_MAX: usize = 256 * 1024;
/// Most memory for its automaton while it searches, in bytes; beyond it a search becomes slower, not wrong.
const AUTOMATON_BYTES_MAX: usize = 256 * 1024;

/// Builds a pattern.
///
/// # Errors
/// What is wrong with it, on one line.
pub fn build(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).dfa_size_limit(AUTOMATON_BYTES_MAX).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => format!("it needs more than {PATTERN_BYTES_MAX} bytes of memory"),
        error => {
            let text = error.to_string();
            let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_would_need_much_memory_is_refused() {
        assert!(build("a{1000}{1000}").unwrap_err().contains("memory"));
        assert_eq!(build("a(b").unwrap_err(), "unclosed group");
        assert!(build(r"^220[ -]").unwrap().is_match(b"220 mail.example ESMTP"));
    }
}
