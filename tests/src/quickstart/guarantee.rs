//! The guarantee beside a measured outage, in words for people who see both for the first time.
//!
//! A bound is many times what is measured, because it is the sum of what every step may take at most. Read alone it looks like
//! an expectation, so it says that it is none, and which steps make it so long.

use holdfast_policies::bound::{Bound, Part, Stage};

use super::show::seconds;

/// How long the failure may last at most, and mostly for what; or that nothing bounds it, and why.
pub(super) fn guaranteed(bound: &Bound) -> String {
    let Some(within_ms) = bound.within_ms else {
        let why = bound.unbounded.as_deref().unwrap_or("nobody says why");
        return format!("at these settings no longest time is guaranteed: {why}");
    };
    let parts: Vec<String> = most_of(&bound.parts, within_ms).into_iter().map(words).collect();
    format!(
        "at these settings it is guaranteed to last no longer than {}, if every step takes all the time that it has; that is \
         mostly {}",
        shown(within_ms),
        parts.join(" and ")
    )
}

/// The longest parts, as many as make up more than half.
fn most_of(parts: &[Part], within_ms: u64) -> Vec<(Stage, u64)> {
    let mut longest: Vec<(Stage, u64)> =
        parts.iter().filter_map(|part| Some((part.stage, part.within_ms.filter(|ms| *ms > 0)?))).collect();
    longest.sort_by_key(|(_, ms)| std::cmp::Reverse(*ms));
    let mut sum = 0;
    let mut most = Vec::new();
    for part in longest {
        if sum > within_ms / 2 {
            break;
        }
        sum += part.1;
        most.push(part);
    }
    most
}

fn words((stage, ms): (Stage, u64)) -> String {
    let what = match stage {
        Stage::Detect => "to notice it",
        Stage::Ladder => "for its ladder, should nothing but the last rung help",
        Stage::Prove => "to prove that its host is off",
        Stage::Queue => "for other guests that may start first",
        Stage::Start => "to start it elsewhere",
        Stage::Answer => "for its services to come up",
    };
    format!("{} {what}", shown(ms))
}

fn shown(ms: u64) -> String {
    seconds(ms as f64)
}

#[cfg(test)]
mod tests {
    use holdfast_policies::bound::Failure;

    use super::*;

    fn bound(parts: &[(Stage, u64)]) -> Bound {
        let part = |(stage, ms): &(Stage, u64)| Part { stage: *stage, within_ms: Some(*ms), because: String::new() };
        Bound {
            failure: Failure::HostDied,
            service: None,
            detect_ms: 750,
            act: "failover".to_owned(),
            because: String::new(),
            parts: parts.iter().map(part).collect(),
            within_ms: Some(parts.iter().map(|(_, ms)| ms).sum()),
            unbounded: None,
            rungs: Vec::new(),
            stretched_by: Vec::new(),
        }
    }

    #[test]
    fn a_guarantee_says_that_it_is_the_longest_time_and_what_it_is_mostly_made_of() {
        let died = [(Stage::Detect, 750), (Stage::Prove, 20_500), (Stage::Start, 31_000), (Stage::Answer, 6_000)];
        let expected = "at these settings it is guaranteed to last no longer than 58.25 s, if every step takes all the time \
                        that it has; that is mostly 31.00 s to start it elsewhere";
        assert_eq!(guaranteed(&bound(&died)), expected);
        let even = [(Stage::Detect, 1_000), (Stage::Prove, 20_000), (Stage::Start, 19_000), (Stage::Queue, 0)];
        assert!(guaranteed(&bound(&even)).ends_with(
            "no longer than 40.00 s, if every step takes all the time that it has; that is mostly 20.00 s to prove that its \
             host is off and 19.00 s to start it elsewhere"
        ));
    }

    #[test]
    fn where_nothing_is_guaranteed_the_reason_is_told() {
        let unbounded = Some("a person makes sure that h1 is off".to_owned());
        let bound = Bound { within_ms: None, unbounded, ..bound(&[(Stage::Detect, 1_700)]) };
        let expected = "at these settings no longest time is guaranteed: a person makes sure that h1 is off";
        assert_eq!(guaranteed(&bound), expected);
    }
}
