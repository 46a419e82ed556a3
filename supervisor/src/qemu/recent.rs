//! The last few things that QEMU has said of a guest unasked, for whoever wants to know what came before its end.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use holdfast_policies::{
    observe::clean,
    time::{Moment, Span},
};
use serde_json::Value;

/// Events kept of each guest: what leads to its end is a handful.
const KEPT_MAX: usize = 16;

/// The newest events of one guest; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Recent(Arc<Mutex<VecDeque<(Moment, String)>>>);

impl Recent {
    /// Notes an event. One that comes again and again takes one place.
    pub fn note(&self, at: Moment, event: &str, data: &Value) {
        let what = if data.is_null() { clean(event) } else { clean(&format!("{event} {data}")) };
        let mut events = self.events();
        if events.back().is_some_and(|(_, last)| *last == what) {
            events.pop_back();
        } else if events.len() >= KEPT_MAX {
            events.pop_front();
        }
        events.push_back((at, what));
    }

    /// The events, oldest first, each with how long before `now` it came.
    pub fn told(&self, now: Moment) -> Vec<String> {
        let events = self.events();
        events.iter().map(|(at, what)| format!("{} before: {what}", Span(now.since(*at)))).collect()
    }

    fn events(&self) -> MutexGuard<'_, VecDeque<(Moment, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_events_are_told_in_their_order_and_a_repeated_one_once() {
        let recent = Recent::default();
        recent.note(Moment(0), "POWERDOWN", &Value::Null);
        for at in 1..=20 {
            recent.note(Moment(at * 1_000), &format!("EVENT_{at}"), &Value::Null);
        }
        for at in [21, 22, 23] {
            recent.note(Moment(at * 1_000), "RESET", &json!({ "guest": true }));
        }
        let told = recent.told(Moment(24_000));
        assert_eq!(told.len(), KEPT_MAX);
        assert_eq!(told[0], "18s before: EVENT_6");
        assert_eq!(told[14..], ["4s before: EVENT_20", "1s before: RESET {\"guest\":true}"]);
    }
}
