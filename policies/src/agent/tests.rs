//! The agent by table: one situation, one promise each.

use super::*;
use crate::{
    fixture::{boot, declaration, done, failed, host, name},
    model::QemuDefinition,
    news::ViewMark,
    order::StopHow,
    time::Span,
};

fn epoch(index: u64) -> Epoch {
    Epoch { generation: 1, index }
}

fn known() -> Disk {
    Disk { floors_known: true, ..Disk::default() }
}

fn agent(disk: Disk) -> Agent {
    Agent::new(boot("a.1"), Timing::default(), disk, None)
}

fn definition() -> QemuDefinition {
    declaration(&[name("web")], &[]).guests[&name("web")].qemu.clone()
}

fn order(id: u64, kind: OrderKind) -> Order {
    Order { id: OrderId(id), host: host("a"), incarnation: boot("a.1"), issued: 1, deadline: Span::secs(30), kind }
}

fn start(id: u64, index: u64) -> Order {
    order(id, OrderKind::Start { guest: name("web"), epoch: epoch(index), definition: definition() })
}

fn release(id: u64, index: u64) -> Order {
    order(id, OrderKind::Release { guest: name("web"), epoch: epoch(index), how: StopHow::PullPlug })
}

fn reply(orders: Vec<Order>) -> SyncReply {
    SyncReply {
        nonce: 7,
        authority: Authority { generation: 1, term: 1, index: 10 },
        lease_ms: Some(4_000),
        why_no_lease: None,
        orders,
        go_aheads: BTreeMap::new(),
        superseded: Vec::new(),
        floors: None,
        view: None,
        sights_known: None,
        news: None,
        in_doubt: BTreeSet::new(),
    }
}

fn take(agent: &mut Agent, reply: SyncReply) -> Vec<Action> {
    agent.on_reply(reply, 7, Moment(1_000), Moment(1_050)).unwrap()
}

fn carried(actions: &[Action]) -> Vec<OrderId> {
    let carried = actions.iter().filter_map(|action| match action {
        Action::Carry(order) => Some(order.id),
        _ => None,
    });
    carried.collect()
}

fn results(agent: &Agent) -> Vec<(u64, bool)> {
    let results = agent.results(Moment(1_100), |_| None);
    results.iter().map(|result| (result.order.0, matches!(result.outcome, OrderOutcome::Done { .. }))).collect()
}

#[test]
fn a_start_is_written_down_before_it_is_carried_out() {
    let mut agent = agent(known());
    let actions = take(&mut agent, reply(vec![start(1, 5)]));
    let written = actions.iter().rposition(
        |action| matches!(action, Action::Persist(disk) if disk.highest.get(&name("web")) == Some(&epoch(5))),
    );
    let begun = actions.iter().position(|action| matches!(action, Action::Carry(_)));
    assert!(written.unwrap() < begun.unwrap(), "{actions:?}");
}

#[test]
fn an_agent_refuses_an_epoch_below_its_floor() {
    let mut agent = agent(Disk { floors: [(name("web"), epoch(5))].into(), ..known() });
    let resume = order(2, OrderKind::Resume { guest: name("web"), epoch: epoch(4) });
    assert!(carried(&take(&mut agent, reply(vec![start(1, 5), resume]))).is_empty());
    assert_eq!(results(&agent), [(1, false), (2, false)]);
    assert_eq!(carried(&take(&mut agent, reply(vec![start(3, 6)]))), [OrderId(3)]);
}

#[test]
fn an_agent_refuses_an_epoch_older_than_one_that_it_has_begun() {
    let mut agent = agent(Disk { highest: [(name("web"), epoch(5))].into(), ..known() });
    let resume = order(2, OrderKind::Resume { guest: name("web"), epoch: epoch(4) });
    take(&mut agent, reply(vec![start(1, 4), resume]));
    assert_eq!(results(&agent), [(1, false), (2, false)]);
}

#[test]
fn a_release_raises_the_floor_before_it_is_carried_out_and_needs_no_lease() {
    let mut agent = agent(known());
    let actions = take(&mut agent, SyncReply { lease_ms: None, ..reply(vec![release(1, 5)]) });
    assert!(
        matches!(&actions[..], [.., Action::Persist(disk), Action::Carry(_)] if disk.floors[&name("web")] == epoch(5))
    );
    assert!(agent.disk().check_epoch(&name("web"), epoch(5)).is_err());
    assert!(agent.disk().check_epoch(&name("web"), epoch(6)).is_ok());
}

#[test]
fn what_was_found_running_may_be_let_run_again_until_it_is_given_up_and_is_started_under_no_assignment() {
    let none = Epoch::default();
    let resume = |id| order(id, OrderKind::Resume { guest: name("web"), epoch: none });
    let starts = order(1, OrderKind::Start { guest: name("web"), epoch: none, definition: definition() });
    let released = order(2, OrderKind::Release { guest: name("web"), epoch: none, how: StopHow::PullPlug });
    let mut adopted = agent(known());
    assert_eq!(carried(&take(&mut adopted, reply(vec![starts.clone(), resume(3)]))), [OrderId(3)]);
    assert!(!adopted.disk().is_overtaken(&resume(3).kind) && adopted.disk().is_overtaken(&starts.kind));
    assert_eq!(carried(&take(&mut adopted, reply(vec![released, resume(4)]))), [OrderId(2)], "R9: it was given up");
    let mut replaced = agent(known());
    let actions = take(&mut replaced, SyncReply { superseded: vec![(name("web"), none)], ..reply(vec![resume(5)]) });
    assert!(carried(&actions).is_empty(), "R10: it was replaced elsewhere");
    let written = actions
        .iter()
        .any(|action| matches!(action, Action::Persist(disk) if disk.floors.get(&name("web")) == Some(&none)));
    assert!(written, "and the next process knows that: {actions:?}");
    let mut newer = agent(Disk { highest: [(name("web"), epoch(5))].into(), ..known() });
    assert!(carried(&take(&mut newer, reply(vec![resume(6)]))).is_empty(), "R7: a newer one was begun here");
}

#[test]
fn nothing_is_started_without_a_valid_lease() {
    let mut agent = agent(known());
    assert!(carried(&take(&mut agent, SyncReply { lease_ms: None, ..reply(vec![start(1, 5)]) })).is_empty());
    assert!(results(&agent).is_empty(), "it stays listed and is considered again");
    assert_eq!(carried(&take(&mut agent, reply(vec![start(1, 5)]))), [OrderId(1)]);
}

#[test]
fn a_lease_counts_from_when_the_request_was_sent_and_ends_with_margin() {
    let mut agent = agent(known());
    let actions = take(&mut agent, reply(Vec::new()));
    assert!(actions.contains(&Action::Grant(Moment(5_000))), "{actions:?}");
    assert!(agent.may_act(Moment(4_600)));
    assert!(!agent.may_act(Moment(4_700)), "5 % of the lease and 100 ms");
}

#[test]
fn a_lease_is_never_shortened_by_a_reply_that_was_under_way_for_longer() {
    let mut agent = agent(known());
    take(&mut agent, reply(Vec::new()));
    let late = agent.on_reply(reply(Vec::new()), 7, Moment(500), Moment(1_100)).unwrap();
    assert!(late.is_empty(), "{late:?}");
    assert_eq!(agent.lease(), Some(Moment(5_000)));
}

#[test]
fn a_reply_of_an_older_authority_changes_nothing() {
    let newest = Authority { generation: 1, term: 3, index: 50 };
    for (generation, term, index) in [(0, 9, 99), (1, 2, 60), (1, 3, 49)] {
        let mut agent = agent(Disk { authority: newest, ..known() });
        let before = agent.disk().clone();
        let older = SyncReply { authority: Authority { generation, term, index }, ..reply(vec![start(1, 5)]) };
        assert!(matches!(agent.on_reply(older, 7, Moment(1), Moment(2)), Err(Stale::Authority { .. })));
        assert_eq!((agent.disk(), agent.lease()), (&before, None));
    }
}

#[test]
fn a_reply_to_another_request_changes_nothing() {
    let mut agent = agent(known());
    assert!(matches!(agent.on_reply(reply(vec![start(1, 5)]), 8, Moment(1), Moment(2)), Err(Stale::Nonce { .. })));
    assert_eq!((agent.disk(), agent.lease()), (&known(), None));
}

#[test]
fn a_new_term_is_written_down() {
    let mut agent = agent(Disk { authority: Authority { generation: 1, term: 1, index: 9 }, ..known() });
    let newer = Authority { generation: 1, term: 2, index: 10 };
    let actions = take(&mut agent, SyncReply { authority: newer, ..reply(Vec::new()) });
    assert!(matches!(&actions[0], Action::Persist(disk) if disk.authority == newer));
}

#[test]
fn an_agent_without_floors_gets_them_first() {
    let mut agent = agent(Disk::default());
    let floors = Some([(name("web"), epoch(5))].into());
    let actions = take(&mut agent, SyncReply { floors, ..reply(vec![start(1, 9)]) });
    assert!(carried(&actions).is_empty(), "R12: no lease in the reply that brings the floors");
    assert_eq!(agent.lease(), None);
    assert!(matches!(&actions[..], [Action::Persist(disk), Action::SyncNow] if disk.floors_known));
    assert_eq!(carried(&take(&mut agent, reply(vec![start(1, 9)]))), [OrderId(1)]);
}

#[test]
fn floors_that_are_fetched_do_not_lower_one_that_a_release_has_set() {
    let mut agent = agent(Disk::default());
    take(&mut agent, reply(vec![release(1, 8)]));
    take(&mut agent, SyncReply { floors: Some([(name("web"), epoch(5))].into()), ..reply(Vec::new()) });
    assert_eq!(agent.disk().floors[&name("web")], epoch(8));
}

#[test]
fn an_order_that_is_delivered_twice_is_carried_out_once() {
    let mut agent = agent(known());
    assert_eq!(carried(&take(&mut agent, reply(vec![start(1, 5)]))), [OrderId(1)]);
    assert!(carried(&take(&mut agent, reply(vec![start(1, 5)]))).is_empty(), "under way");
    agent.on_done(OrderId(1), done(), None);
    assert!(carried(&take(&mut agent, reply(vec![start(1, 5)]))).is_empty(), "done, and not committed yet");
    assert_eq!(results(&agent), [(1, true)]);
    take(&mut agent, reply(Vec::new()));
    assert!(results(&agent).is_empty(), "committed");
}

#[test]
fn an_order_for_another_boot_is_not_carried_out() {
    let mut agent = agent(known());
    let other = Order { incarnation: boot("a.2"), ..start(1, 5) };
    assert!(carried(&take(&mut agent, reply(vec![other]))).is_empty());
    assert!(results(&agent).is_empty());
}

#[test]
fn an_interrupted_service_restart_is_not_done_twice() {
    let restart = || {
        let run = vec!["restart".to_owned()];
        order(1, OrderKind::RestartService { guest: name("web"), epoch: epoch(5), run })
    };
    let mut first = agent(known());
    let actions = take(&mut first, reply(vec![restart()]));
    let Some(Action::Persist(disk)) = actions.iter().rev().find(|action| matches!(action, Action::Persist(_))) else {
        panic!("{actions:?}")
    };
    let mut second = agent(disk.clone());
    assert!(carried(&take(&mut second, reply(vec![restart()]))).is_empty());
    assert_eq!(results(&second), [(1, false)]);
}

#[test]
fn an_interrupted_start_and_an_interrupted_release_are_done_again() {
    for order in [start(1, 5), release(1, 5)] {
        let mut first = agent(known());
        take(&mut first, reply(vec![order.clone()]));
        let mut second = agent(first.disk().clone());
        assert_eq!(carried(&take(&mut second, reply(vec![order]))), [OrderId(1)]);
    }
}

#[test]
fn a_restarted_agent_keeps_the_lease_that_the_guard_holds() {
    let agent = Agent::new(boot("a.1"), Timing::default(), known(), Some(Moment(5_000)));
    assert!(agent.may_act(Moment(1_000)));
}

#[test]
fn a_failed_result_is_sent_until_it_is_committed() {
    let mut agent = agent(known());
    take(&mut agent, reply(vec![start(1, 5)]));
    assert_eq!(agent.on_done(OrderId(1), failed(), None), [Action::SyncNow]);
    take(&mut agent, reply(vec![start(1, 5)]));
    assert_eq!(results(&agent), [(1, false)]);
}

fn fence(id: u64) -> Order {
    let device = crate::fixture::declaration(&[], &[host("d")]).fencing[&host("d")][0].clone();
    order(
        id,
        OrderKind::Fence {
            target: host("d"),
            target_incarnation: boot("d.1"),
            level: 0,
            device,
            switch: crate::order::Switch::Off,
        },
    )
}

fn told(agent: &mut Agent, said: GoAhead, at: u64) -> Vec<Action> {
    let reply = SyncReply { go_aheads: BTreeMap::from([(OrderId(1), said)]), ..reply(vec![fence(1)]) };
    agent.on_reply(reply, 7, Moment(at), Moment(at + 50)).unwrap()
}

#[test]
fn a_fence_is_begun_only_while_it_is_wanted() {
    let mut agent = agent(known());
    assert!(carried(&told(&mut agent, GoAhead::Waits, 1_000)).is_empty(), "R20: the target may be well");
    assert!(agent.results(Moment(2_000), |_| None).is_empty(), "and it stays open");
    assert_eq!(carried(&told(&mut agent, GoAhead::Given, 2_000)), [OrderId(1)]);
    assert!(agent.withdrawn().is_empty());
    told(&mut agent, GoAhead::Withdrawn, 3_000);
    assert_eq!(agent.withdrawn(), &BTreeSet::from([OrderId(1)]), "what has begun sends no further off");
    assert!(agent.results(Moment(90_000), |_| None).is_empty(), "and ends by its own report");
    told(&mut agent, GoAhead::Given, 4_000);
    assert!(agent.withdrawn().is_empty(), "the target is silent again");
}

#[test]
fn a_withdrawn_fence_ends_when_nothing_of_it_can_have_begun() {
    let mut agent = agent(known());
    told(&mut agent, GoAhead::Withdrawn, 1_000);
    assert!(agent.results(Moment(2_000), |_| None).is_empty(), "R20: an earlier process may have begun it");
    // The deadline of 30 s, and 15 s for the device to settle.
    told(&mut agent, GoAhead::Withdrawn, 45_900);
    assert!(agent.results(Moment(2_000), |_| None).is_empty());
    assert!(carried(&told(&mut agent, GoAhead::Withdrawn, 46_000)).is_empty());
    let results = agent.results(Moment(46_000), |_| None);
    let ended = results.iter().map(|result| (result.order, result.reading.is_none())).collect::<Vec<_>>();
    assert_eq!(ended, [(OrderId(1), true)], "ended, and no proof of anything");
}

#[test]
fn a_fence_that_an_earlier_process_began_does_not_fail_before_what_that_sent_must_have_arrived() {
    let mut before = agent(known());
    take(&mut before, reply(vec![fence(1)]));
    let mut agent = agent(before.disk().clone());
    assert_eq!(carried(&take(&mut agent, reply(vec![fence(1)]))), [OrderId(1)], "it is tried again");
    agent.on_done(OrderId(1), failed(), None);
    // The deadline of 30 s, and 15 s for the device to settle.
    for (at, told) in [(1_100, 0), (45_999, 0), (46_000, 1)] {
        assert_eq!(agent.results(Moment(at), |_| None).len(), told, "R20: at {at} ms");
    }
    agent.on_done(OrderId(1), done(), None);
    assert_eq!(agent.results(Moment(1_100), |_| None).len(), 1, "off is off");
}

#[test]
fn a_fence_that_this_process_began_fails_at_once() {
    let mut agent = agent(known());
    take(&mut agent, reply(vec![fence(1)]));
    agent.on_done(OrderId(1), failed(), None);
    assert_eq!(agent.results(Moment(1_100), |_| None).len(), 1);
}

#[test]
fn a_guest_whose_move_was_given_up_while_it_is_sent_is_not_handed_over() {
    let mut agent = agent(known());
    let (uri, within) = ("tcp:192.0.2.1:4000".to_owned(), Span::secs(7_200));
    let send = order(3, OrderKind::Send { guest: name("db"), epoch: epoch(4), uri, within, cpu: None, machine: None });
    assert_eq!(carried(&take(&mut agent, reply(vec![send.clone()]))), [OrderId(3)]);
    take(&mut agent, reply(vec![send, start(4, 5)]));
    assert!(agent.withdrawn().is_empty(), "it is wanted");
    let resume = order(5, OrderKind::Resume { guest: name("db"), epoch: epoch(4) });
    assert_eq!(carried(&take(&mut agent, reply(vec![resume]))), [OrderId(5)]);
    assert_eq!(agent.withdrawn(), &BTreeSet::from([OrderId(3)]), "nobody would let it run on the other side");
    agent.on_done(OrderId(3), failed(), None);
    take(&mut agent, reply(Vec::new()));
    assert!(agent.withdrawn().is_empty() && results(&agent).is_empty(), "it has ended");
}

/// A reply of a generation that was forced after the majority of the voters was lost.
fn recovered(orders: Vec<Order>) -> SyncReply {
    SyncReply { authority: Authority { generation: 2, term: 1, index: 1_000_000_000 }, ..reply(orders) }
}

#[test]
fn a_new_generation_outranks_and_no_older_one_leads_back() {
    let mut agent = agent(known());
    take(&mut agent, reply(Vec::new()));
    let actions = take(&mut agent, recovered(Vec::new()));
    assert!(matches!(&actions[0], Action::Persist(disk) if disk.authority.generation == 2), "{actions:?}");
    let older = SyncReply { authority: Authority { generation: 1, term: 99, index: u64::MAX }, ..reply(Vec::new()) };
    assert!(matches!(agent.on_reply(older, 7, Moment(1_000), Moment(1_050)), Err(Stale::Authority { .. })));
}

#[test]
fn nothing_that_an_older_generation_has_ordered_begins_once_a_newer_one_is_known() {
    let mut agent = agent(known());
    let (starts, fences) = (start(1, 5), fence(2));
    let (uri, within) = ("tcp:192.0.2.1:4000".to_owned(), Span::secs(300));
    let sends = order(3, OrderKind::Send { guest: name("db"), epoch: epoch(4), uri, within, cpu: None, machine: None });
    let ordered = vec![starts.clone(), fences, sends];
    assert_eq!(carried(&take(&mut agent, reply(ordered))), [OrderId(1), OrderId(2), OrderId(3)]);
    agent.on_done(OrderId(1), done(), None);
    take(&mut agent, recovered(Vec::new()));
    assert!(agent.disk().is_overtaken(&starts.kind), "its last look finds it");
    assert!(agent.withdrawn().contains(&OrderId(2)), "no further off is sent");
    assert!(agent.withdrawn().contains(&OrderId(3)), "nothing is handed over that nobody would let run");
    assert!(results(&agent).is_empty(), "nobody waits for what the old generation has ordered");
    agent.on_done(OrderId(2), failed(), None);
    assert!(results(&agent).is_empty());
    assert!(agent.disk().check_start(&name("web"), Epoch { generation: 1, index: u64::MAX }).is_err());
    assert!(agent.disk().check_start(&name("web"), Epoch { generation: 2, index: 1 }).is_ok());
    // What runs here under an old number is adopted under it, and can be resumed.
    let resume = order(1_000_000_001, OrderKind::Resume { guest: name("web"), epoch: epoch(5) });
    assert_eq!(carried(&take(&mut agent, recovered(vec![resume]))), [OrderId(1_000_000_001)]);
}

#[test]
fn an_order_that_was_never_written_down_does_not_hide_what_comes_of_a_later_one_with_its_number() {
    let mut agent = agent(known());
    take(&mut agent, reply(vec![fence(2)]));
    take(&mut agent, recovered(Vec::new()));
    agent.unwritten(&[OrderId(2)]);
    assert_eq!(carried(&take(&mut agent, recovered(vec![fence(2)]))), [OrderId(2)]);
    agent.on_done(OrderId(2), done(), None);
    assert!(!results(&agent).is_empty());
}

#[test]
fn a_view_that_was_overtaken_by_a_newer_one_or_is_of_an_ended_generation_is_not_looked_at() {
    let view = |generation: u32, index: u64| {
        let mark = Some(ViewMark { generation, index, policies: 1 });
        View { index, mark, ..View::default() }
    };
    let mut agent = agent(known());
    take(&mut agent, reply(Vec::new()));
    assert!(matches!(agent.on_view(view(1, 9)), Some(Action::Look(_))));
    let overtaken = SyncReply { view: Some(view(1, 8)), ..reply(Vec::new()) };
    assert!(!take(&mut agent, overtaken).iter().any(|action| matches!(action, Action::Look(_))));
    assert_eq!(agent.view(), 9);
    let authority = Authority { generation: 2, term: 1, index: 10 };
    take(&mut agent, SyncReply { authority, ..reply(Vec::new()) });
    assert_eq!(agent.view(), 0, "what it knew says nothing of the new one");
    assert_eq!(agent.on_view(view(1, 11)), None);
    assert!(matches!(agent.on_view(view(2, 3)), Some(Action::Look(_))));
    assert_eq!(agent.view(), 3);
}

/// A view of the first generation in which nothing but the guest `web` is declared.
fn view(index: u64) -> View {
    let mark = Some(ViewMark { generation: 1, index, policies: 1 });
    View { index, mark, policies: declaration(&[name("web")], &[]).into(), ..View::default() }
}

/// An agent that has released these guests up to epoch 5, and begun others, or the same, under epochs of these indexes.
fn with_epochs(guests: &[&str], begun: &[(&str, u64)]) -> Agent {
    let floors = guests.iter().map(|guest| (name(guest), epoch(5))).collect();
    let highest = begun.iter().map(|(guest, index)| (name(guest), epoch(*index))).collect();
    let authority = Authority { generation: 1, term: 1, index: 10 };
    agent(Disk { floors, highest, authority, ..known() })
}

#[test]
fn the_epochs_of_guests_are_forgotten_that_are_declared_no_more_and_of_which_nothing_is_here() {
    let mut agent =
        with_epochs(&["gone", "later", "ordered", "runs", "web"], &[("begun", 4), ("gone", 5), ("later", 9)]);
    assert!(agent.may_forget(4) && !agent.may_forget(5));
    agent.forget_undeclared(&view(8), &[name("ordered"), name("runs")].into());
    let left: Vec<&str> = agent.disk().floors.keys().map(GuestName::as_str).collect();
    assert_eq!(left, ["later", "ordered", "runs", "web"]);
    assert_eq!(agent.disk().highest, [(name("later"), epoch(9))].into());
}

#[test]
fn no_older_start_of_a_guest_is_taken_whose_epochs_are_forgotten() {
    let mut agent = with_epochs(&["web"], &[("web", 5)]);
    agent.forget_undeclared(&View { policies: std::sync::Arc::default(), ..view(10) }, &BTreeSet::new());
    assert!(agent.disk().floors.is_empty() && agent.disk().highest.is_empty());
    let before = Authority { generation: 1, term: 1, index: 9 };
    let late = SyncReply { authority: before, ..reply(vec![start(1, 5)]) };
    assert!(agent.on_reply(late.clone(), 7, Moment(1_000), Moment(1_050)).is_err());
    let mut after_a_restart = self::agent(agent.disk().clone());
    assert!(after_a_restart.on_reply(late, 7, Moment(1_000), Moment(1_050)).is_err());
    let after = Authority { index: 12, ..before };
    let declared_again = SyncReply { authority: after, ..reply(vec![start(2, 12)]) };
    assert_eq!(carried(&take(&mut agent, declared_again)), [OrderId(2)]);
}

#[test]
fn no_epoch_is_forgotten_by_a_view_that_proves_nothing_or_while_an_order_is_carried_out() {
    let forgets = |view: &View, mut agent: Agent| {
        agent.forget_undeclared(view, &BTreeSet::new());
        !agent.disk().floors.contains_key(&name("gone"))
    };
    let fresh = || with_epochs(&["gone"], &[]);
    assert!(forgets(&view(8), fresh()));
    assert!(!forgets(&view(11), fresh()), "a reply that is older than it would be taken");
    assert!(!forgets(&View { mark: None, ..view(8) }, fresh()));
    let of_another = ViewMark { generation: 2, index: 8, policies: 1 };
    assert!(!forgets(&View { mark: Some(of_another), ..view(8) }, fresh()));
    let lost = Disk { floors_known: false, ..fresh().disk().clone() };
    assert!(!forgets(&view(8), agent(lost)), "R12");
    let mut busy = fresh();
    assert_eq!(carried(&take(&mut busy, reply(vec![release(1, 6)]))), [OrderId(1)]);
    assert!(!busy.may_forget(0) && !forgets(&view(8), busy));
}
