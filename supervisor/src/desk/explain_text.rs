//! The explanation of a guest for people.

use std::fmt;

use holdfast_policies::{
    bound::{Bound, Stage},
    state::Wanted,
    time::Span,
};

use super::{
    explain::Explanation,
    story::{IncidentStory, StoryLine},
    words::{Table, at_most, stages, stretched},
};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.host.as_ref().map(|host| format!(" (host {host})")).unwrap_or_default();
        writeln!(f, "{} is {}{place}: {}", self.guest, self.state, self.doing)?;
        if let Some(waits) = &self.waits {
            writeln!(f, "  waits for {waits}")?;
        }
        match self.wanted {
            Wanted::Running => {}
            Wanted::Stopped | Wanted::Unmanaged => writeln!(f, "  operators want it {}", self.wanted.word())?,
        }
        if let Some(why) = &self.given_up {
            let guest = &self.guest;
            writeln!(f, "  given up: {why}; look after it, then run `holdfast guest cleanup {guest}`")?;
        }
        if let Some((to, by)) = &self.heading {
            let by = by.as_ref().map(|by| format!(", as {by} has asked")).unwrap_or_default();
            writeln!(f, "  on its way to {to}{by}")?;
        }
        if let (Some(host), Some(words)) = (&self.host, &self.last_words) {
            writeln!(f, "  last words of {host}: {words}")?;
        }
        for line in self.happened.iter().chain(&self.services) {
            writeln!(f, "  {line}")?;
        }
        if let Some(why) = &self.unasked {
            writeln!(f, "  nothing in it is asked, only its machine is looked after: {why}")?;
        }
        writeln!(f, "\nIf something fails, it is over within these times at most, and usually sooner:")?;
        let mut table = Table::new(&["FAILURE", "SEEN WITHIN", "BACK WITHIN", "DONE FIRST", "BECAUSE"]);
        for bound in &self.bound {
            let (seen, back) = (Span::ms(bound.detect_ms).to_string(), at_most(bound.within_ms));
            table.row(vec![bound.what(), seen, back, bound.act.clone(), bound.because.clone()]);
        }
        write!(f, "{table}")?;
        made_of(f, &self.bound)?;
        if self.incidents.is_empty() {
            writeln!(f, "\nNothing has happened to it that is still remembered.")?;
        }
        self.incidents.iter().try_for_each(|incident| write!(f, "\n{incident}"))
    }
}

/// What each time until the guest is back is made of, and what stretches it. What makes up the verdict's is in the table.
fn made_of(f: &mut fmt::Formatter<'_>, bounds: &[Bound]) -> fmt::Result {
    writeln!(f, "\nWhat these times are made of, and what stretches them:")?;
    for bound in bounds {
        let (what, seen, back) = (bound.what(), Span::ms(bound.detect_ms), at_most(bound.within_ms));
        match &bound.unbounded {
            None => writeln!(f, "  {what}: seen within {seen}, back within {back}")?,
            Some(why) => writeln!(f, "  {what}: seen within {seen}; nothing bounds when it is back: {why}")?,
        }
        for part in bound.parts.iter().filter(|part| part.stage != Stage::Detect) {
            writeln!(f, "    {}, {}: {}", part.stage.word(), at_most(part.within_ms), part.because)?;
        }
        for stretch in &bound.stretched_by {
            writeln!(f, "    {}", stretched(stretch))?;
        }
    }
    Ok(())
}

impl fmt::Display for IncidentStory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, until) = match &self.resolved_at {
            Some(resolved) => ("resolved", resolved.as_str()),
            None => ("OPEN", "the present"),
        };
        let severity = self.severity.word();
        writeln!(f, "Incident {} {} ({severity}, {word}): {}", self.id, self.key, self.summary)?;
        writeln!(f, "  from {} to {until}", self.opened_at)?;
        let taken = self.rung.as_ref().map(|rung| format!("rung: {rung}"));
        let proof = self.proof.as_ref().map(|proof| format!("proof: {proof}"));
        let stages =
            Some(stages(&self.stages)).filter(|stages| !stages.is_empty()).map(|stages| format!("stages: {stages}"));
        let human = self.human.as_ref().map(|human| format!("DO: {human}"));
        for line in [taken, proof, stages, human].into_iter().flatten() {
            writeln!(f, "  {line}")?;
        }
        self.story.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl fmt::Display for StoryLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, ms) = (if self.after_ms < 0 { '-' } else { '+' }, self.after_ms.unsigned_abs());
        let after = format!("{sign}{}.{:03} s", ms / 1_000, ms % 1_000);
        write!(f, "{} {after:>12}  {}", self.at, self.what)
    }
}
