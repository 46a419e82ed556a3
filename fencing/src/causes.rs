//! Errors in one line, and which of them pass by themselves.

use std::{error::Error, io};

use nix::errno::Errno;

use crate::device::Answer;

/// What the kernel says when this host has no room for a process or a descriptor, when a program is just being replaced, or when a file
/// system does not answer.
const PASSING: [Errno; 10] = [
    Errno::EAGAIN,
    Errno::EINTR,
    Errno::EIO,
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::ENOBUFS,
    Errno::ENOMEM,
    Errno::ESTALE,
    Errno::ETIMEDOUT,
    Errno::ETXTBSY,
];

/// An error with its causes, outermost first.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// What an error comes down to: its last cause alone, where those before it say only who passed it on.
pub(crate) fn innermost(error: &dyn Error) -> String {
    let mut deepest = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}

/// The answer where this host could not even ask. What passes by itself is no refusal: a device that is thought to refuse is left
/// alone for a while, and nothing is wrong with this one.
pub(crate) fn not_asked<T>(error: &(dyn Error + 'static)) -> Answer<T> {
    let said = with_causes(error);
    if passes(error) { Answer::unknown(said) } else { Answer::refused(said) }
}

/// Whether an error, or one that has caused it, is of this host and of the moment.
pub(crate) fn passes(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let number = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if number.is_some_and(|number| PASSING.contains(&Errno::from_raw(number))) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read it")]
    struct Outer(#[source] io::Error);

    #[test]
    fn what_passes_by_itself_is_no_refusal_however_deep_it_is() {
        for (errno, refused) in [
            (Errno::EMFILE, false),
            (Errno::EAGAIN, false),
            (Errno::ESTALE, false),
            (Errno::ENOENT, true),
            (Errno::EACCES, true),
        ] {
            let answer: Answer<()> = not_asked(&Outer(errno.into()));
            assert_eq!(matches!(answer, Answer::Refused { .. }), refused, "{errno}: {answer:?}");
        }
        assert!(!passes(&io::Error::other("not a plain file")));
    }
}
