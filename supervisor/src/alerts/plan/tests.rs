//! Promises of the planner.

use holdfast_policies::time::{WallTime, millis};

use super::{
    super::{Delivery, tests::incident},
    *,
};

const START: Moment = Moment(1_000_000);

fn pagerduty(min_severity: Severity) -> Receiver {
    Receiver::Pagerduty { routing_key_file: "/k".into(), min_severity, url: "https://pd.example".into() }
}

fn alertmanager() -> Receiver {
    Receiver::Alertmanager { url: "http://am.example".into(), min_severity: Severity::Info }
}

fn state(receiver: Receiver, incidents: Vec<Incident>) -> AlertState {
    AlertState { cluster: "prod".into(), receivers: vec![receiver], incidents, active: true }
}

fn after(seconds: u64) -> Moment {
    START.plus(Duration::from_secs(seconds))
}

fn retry() -> Delivery {
    Delivery::Retry { after: None, detail: "500".into(), perhaps_taken: true }
}

/// Plans, expects one send, and books what came of it.
fn one(state: &AlertState, book: &mut Attempts, now: Moment, delivery: &Delivery) -> Due {
    let sends = plan(state, book, now).sends;
    assert_eq!(sends.len(), 1, "{sends:?}");
    book.started(&sends[0]);
    assert_eq!(plan(state, book, now).sends, [], "a second send of the same change while the first is under way");
    book.finished(&sends[0], delivery, now);
    sends[0].clone()
}

#[test]
fn failures_are_retried_after_one_second_doubling_to_a_minute() {
    let (state, mut book, mut now) = (state(pagerduty(Severity::Info), vec![incident(1)]), Attempts::default(), START);
    for expected in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
        one(&state, &mut book, now, &retry());
        let (until, why) = plan(&state, &book, now).next.unwrap();
        let wait = millis(until.since(now));
        assert!(why == Wake::Retry && (expected * 3 / 4..=expected).contains(&wait), "{wait} instead of {expected}");
        assert_eq!(plan(&state, &book, until.minus(Duration::from_millis(1))).sends, []);
        now = until;
    }
    let plan = plan(&state, &book, now);
    assert_eq!(plan.trouble[0].tries, 8);
    assert!(plan.tallies.contains(&(ReceiverKind::Pagerduty, Tally { pending: 1, rejected: 0 })));
}

#[test]
fn a_receiver_that_asks_for_patience_gets_it_within_limits() {
    let state = state(pagerduty(Severity::Info), vec![incident(1)]);
    for (asked, given) in [(30, 30), (100_000, 300)] {
        let mut book = Attempts::default();
        let after = Some(Duration::from_secs(asked));
        one(&state, &mut book, START, &Delivery::Retry { after, detail: "429".into(), perhaps_taken: false });
        assert_eq!(plan(&state, &book, START).next.unwrap().0, self::after(given));
    }
}

#[test]
fn what_was_refused_is_tried_with_the_next_change_and_every_five_minutes_until_somebody_has_put_it_right() {
    let (mut state, mut book) = (state(pagerduty(Severity::Info), vec![incident(1)]), Attempts::default());
    let refusal = || Delivery::Rejected { detail: "403".into() };
    for (tries, at) in [(1, 0), (2, 300), (3, 600)] {
        assert_eq!(one(&state, &mut book, after(at), &refusal()).seq, 1);
        let refused = plan(&state, &book, after(at + 299));
        assert_eq!((refused.sends.len(), refused.next), (0, Some((after(at + 300), Wake::Refused))));
        assert_eq!((refused.trouble[0].rejected, refused.trouble[0].tries), (true, tries));
        assert!(refused.tallies.contains(&(ReceiverKind::Pagerduty, Tally { pending: 0, rejected: 1 })));
    }
    let mended = &mut book.clone();
    one(&state, mended, after(900), &Delivery::Accepted);
    assert_eq!(plan(&state, mended, after(9_999)).sends, []);
    state.incidents[0].seq = 2;
    assert_eq!(one(&state, &mut book, after(601), &refusal()).seq, 2, "a change does not wait");
    assert_eq!(plan(&state, &book, after(900)).sends, []);
    assert_eq!(one(&state, &mut book, after(901), &Delivery::Accepted).seq, 2);
}

#[test]
fn an_end_is_told_only_to_whom_the_beginning_was_or_may_have_been_told() {
    let ended = Incident { resolved: Some(WallTime(9)), seq: 2, ..incident(1) };
    for receiver in [pagerduty(Severity::Info), alertmanager()] {
        let end = state(receiver.clone(), vec![ended.clone()]);
        assert_eq!(plan(&end, &Attempts::default(), START).sends, [], "nobody was told of the beginning");
        let begin = state(receiver.clone(), vec![incident(1)]);
        let not_taken = Delivery::Retry { after: None, detail: "refused".into(), perhaps_taken: false };
        for (came_of_it, told) in [(Delivery::Accepted, 1), (retry(), 1), (not_taken, 0)] {
            let mut book = Attempts::default();
            one(&begin, &mut book, START, &came_of_it);
            assert_eq!(plan(&end, &book, after(60)).sends.len(), told, "after {came_of_it:?}");
        }
        let mut committed = end;
        committed.incidents[0].delivered.insert(receiver.key(), 1);
        assert_eq!(plan(&committed, &Attempts::default(), START).sends.len(), 1, "another coordinator told it");
    }
}

/// The answer to its opening, or the confirmation, was lost with the coordinator that had told it.
#[test]
fn a_new_coordinator_ends_at_pagerduty_what_another_one_may_have_opened_there() {
    let ended = |id, severity, at| Incident { resolved: Some(WallTime(at)), seq: 2, severity, ..incident(id) };
    let now = WallTime(10_000_000);
    let incidents = vec![
        ended(1, Severity::Critical, now.0 - 1_000),
        ended(2, Severity::Critical, now.0 - 600_000),
        ended(3, Severity::Warning, now.0 - 1_000),
        incident(4),
    ];
    let told = |state: &AlertState, book: &Attempts| {
        plan(state, book, START).sends.iter().map(|due| due.incident).collect::<Vec<_>>()
    };
    let mut state = state(pagerduty(Severity::Critical), incidents);
    let mut book = Attempts::default();
    book.take_over(&state, now);
    assert_eq!(told(&state, &book), [1, 4], "neither what ended long ago nor what is too small");
    // It was to be told of first, and there was no room.
    state.incidents[3] = ended(4, Severity::Critical, now.0);
    // This one nobody but this coordinator can have told of.
    state.incidents.push(ended(5, Severity::Critical, now.0));
    book.take_over(&state, now);
    assert_eq!(told(&state, &book), [1, 4]);
    for due in plan(&state, &book, START).sends {
        book.started(&due);
        book.finished(&due, &Delivery::Accepted, START);
    }
    assert_eq!(told(&state, &book), Vec::<u64>::new(), "once");

    let webhook = Receiver::Webhook { url: "http://hook.example".into(), min_severity: Severity::Info };
    for other in [alertmanager(), webhook] {
        state.receivers = vec![other];
        assert_eq!(told(&state, &book), Vec::<u64>::new());
    }
}

#[test]
fn what_a_coordinator_has_inherited_ends_with_its_turn() {
    let ended = Incident { resolved: Some(WallTime(9)), seq: 2, ..incident(1) };
    let state = state(pagerduty(Severity::Info), vec![ended]);
    let idle = AlertState { active: false, ..state.clone() };
    let mut book = Attempts::default();
    book.take_over(&state, WallTime(10));
    assert_eq!(plan(&state, &book, START).sends.len(), 1);
    book.take_over(&idle, WallTime(11));
    book.take_over(&state, WallTime(3_600_000));
    assert_eq!(plan(&state, &book, START).sends, []);
}

#[test]
fn a_receiver_for_grave_things_hears_the_rest_of_what_it_was_told() {
    let mut state = state(pagerduty(Severity::Critical), vec![Incident { severity: Severity::Error, ..incident(1) }]);
    assert_eq!(plan(&state, &Attempts::default(), START).sends, []);
    state.incidents[0].severity = Severity::Critical;
    let mut book = Attempts::default();
    one(&state, &mut book, START, &Delivery::Accepted);
    state.incidents[0] = Incident { severity: Severity::Info, seq: 2, resolved: Some(WallTime(9)), ..incident(1) };
    assert_eq!(one(&state, &mut book, START, &Delivery::Accepted).seq, 2);
    assert_eq!(plan(&state, &book, after(9_999)).sends, []);
}

#[test]
fn alertmanager_hears_every_minute_that_an_incident_is_open_and_at_once_from_a_new_coordinator() {
    let mut state = state(alertmanager(), vec![incident(1)]);
    state.incidents[0].delivered.insert(state.receivers[0].key(), 1);
    let mut book = Attempts::default();
    assert!(one(&state, &mut book, START, &Delivery::Accepted).again);
    assert_eq!(plan(&state, &book, after(59)).next, Some((after(60), Wake::Resend)));
    one(&state, &mut book, after(60), &Delivery::Rejected { detail: "404".into() });
    one(&state, &mut book, after(120), &Delivery::Accepted);
    state.incidents[0] = Incident {
        resolved: Some(WallTime(9)),
        seq: 2,
        delivered: state.incidents[0].delivered.clone(),
        ..incident(1)
    };
    assert!(!one(&state, &mut book, after(121), &Delivery::Accepted).again);
    assert_eq!(plan(&state, &book, after(9_999)).sends, []);
}

#[test]
fn the_gravest_four_go_first_and_no_more_at_once() {
    let severities =
        [Severity::Info, Severity::Warning, Severity::Error, Severity::Critical, Severity::Warning, Severity::Critical];
    let incidents = (1..).zip(severities).map(|(id, severity)| Incident { severity, ..incident(id) }).collect();
    let (state, mut book) = (state(pagerduty(Severity::Info), incidents), Attempts::default());
    let sends = plan(&state, &book, START).sends;
    assert_eq!(sends.iter().map(|due| due.incident).collect::<Vec<_>>(), [4, 6, 3, 2]);
    sends.iter().for_each(|due| book.started(due));
    assert_eq!(plan(&state, &book, START).sends, []);
    book.finished(&sends[0], &Delivery::Accepted, START);
    assert_eq!(plan(&state, &book, START).sends.len(), 1);
    let idle = AlertState { active: false, ..state };
    assert_eq!(plan(&idle, &Attempts::default(), START).sends, [], "only the coordinator tells anybody anything");
}

#[test]
fn a_confirmation_is_offered_until_it_is_committed_and_the_alert_is_not_sent_again_meanwhile() {
    let (mut state, mut book) = (state(pagerduty(Severity::Info), vec![incident(1)]), Attempts::default());
    one(&state, &mut book, START, &Delivery::Accepted);
    let offered = plan(&state, &book, START).confirm;
    assert_eq!(offered, [Delivered { incident: 1, receiver: "pagerduty:/k".into(), seq: 1 }]);
    book.confirm_offered(&offered[0], START);
    let waiting = plan(&state, &book, after(1));
    assert_eq!((waiting.sends.len(), waiting.confirm.len(), waiting.next), (0, 0, Some((after(10), Wake::Confirm))));
    assert_eq!(plan(&state, &book, after(10)).confirm.len(), 1);
    state.incidents[0].delivered.insert("pagerduty:/k".into(), 1);
    assert_eq!(plan(&state, &book, after(10)).confirm, []);
    state.incidents[0].seq = 2;
    one(&state, &mut book, after(11), &Delivery::Accepted);
    assert_eq!(plan(&state, &book, after(11)).confirm[0].seq, 2, "a new change waited for an old confirmation");
    state.incidents.clear();
    book.retain(&state);
    assert!(book.book.is_empty(), "the book outgrew the state");
}
