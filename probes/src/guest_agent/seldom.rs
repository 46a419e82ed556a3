//! Keeps what happens again and again from filling a log.

use std::time::Duration;

use tokio::time::Instant;

/// How often the same is told at most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What was told last, and when.
#[derive(Debug, Default)]
pub struct Seldom {
    told: Option<(String, Instant)>,
}

impl Seldom {
    /// Whether this is to be told: it is something else than what was told last, or that is a minute ago.
    pub fn is_news(&mut self, what: &str, now: Instant) -> bool {
        let known = |(told, at): &(String, Instant)| told == what && now.duration_since(*at) < TELL_EVERY;
        let is_news = !self.told.as_ref().is_some_and(known);
        if is_news {
            self.told = Some((what.to_owned(), now));
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_every_second_is_told_once_a_minute_and_what_is_new_at_once() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let told: Vec<u64> = (0..150).filter(|second| seldom.is_news("no vsock", at(*second))).collect();
        assert_eq!(told, [0, 60, 120]);
        assert!(seldom.is_news("port taken", at(150)) && !seldom.is_news("port taken", at(151)));
        assert!(seldom.is_news("no vsock", at(152)));
    }
}
