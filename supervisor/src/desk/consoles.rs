//! Answers for whoever asks without a password: what guests wrote on their consoles may be secret.

use holdfast_policies::journal::LAST_SEEN;

use super::Answer;

/// What stands there instead.
const HIDDEN: &str = "; what was last seen of it is told by `holdfast explain` on a host";

impl Answer {
    /// The same without what guests wrote.
    #[must_use]
    pub fn without_consoles(mut self) -> Self {
        match &mut self {
            Self::Journal(lines) => lines.iter_mut().for_each(|line| hide(&mut line.what)),
            Self::Explanation(explanation) => {
                let lines = explanation.incidents.iter_mut().flat_map(|incident| &mut incident.story);
                lines.for_each(|line| hide(&mut line.what));
            }
            Self::Status(_)
            | Self::Simulated(_)
            | Self::Policies { .. }
            | Self::Voters(_)
            | Self::Applied { .. }
            | Self::FenceTested { .. }
            | Self::Accepted { .. }
            | Self::Ignored { .. } => {}
        }
        self
    }
}

fn hide(what: &mut String) {
    if let Some(at) = what.find(LAST_SEEN) {
        what.truncate(at);
        what.push_str(HIDDEN);
    }
}
