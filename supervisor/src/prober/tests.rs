//! What is told of what is seen: no more than has changed, and nothing is lost on the way.

use std::sync::LazyLock;

use holdfast_policies::{
    time::Span,
    tuning::Slow,
    yaml::{self, Source},
};

use super::*;
use crate::health::{Complaint, Health};

/// Services of a host in the measurement, and how often agents sync while each is asked once (`every: 2s`, `sync_every: 250ms`).
const SERVICES: u64 = 1_000;
const SYNCS_FOR_EACH_ANSWER: u64 = 8;

/// One guest with one service.
pub(super) const WEB: &str = "
guests: { web-1: { labels: { app: web }, address: 10.0.0.5, qemu: { memory: 1GiB, disks: [{ path: /d.img }] } } }
policies:
  web:
    match: { app: web }
    services: { http: { probe: { tcp: { port: 80 } }, from: { hosts: 1 } } }
    ladder: [page]
";

/// How every service here is asked.
static QUESTION: LazyLock<Question> = LazyLock::new(|| {
    let policies = yaml::parse(&[Source { name: "web.yaml", text: WEB }]).unwrap();
    let service = policies.policies.values().next().unwrap().services.values().next().unwrap().clone();
    Question { epoch: Epoch { generation: 1, index: 7 }, service, address: None }
});

fn subject(number: u64) -> Subject {
    let guest = GuestName::new(format!("guest-{number:04}")).unwrap();
    (guest, ServiceName::new("http").unwrap(), Vantage::Host(HostName::new("hv-a").unwrap()))
}

fn answers(sights: &Sights, number: u64, outcome: Outcome, at: u64) {
    let detail = "status 200, 1.3 ms";
    let answer = Observation::new(outcome, Duration::from_millis(1), detail);
    sights.fold(&subject(number), &QUESTION, &answer, false, Moment(at));
}

/// A coordinator, as far as it takes in what is told.
#[derive(Default)]
struct Coordinator {
    known: Option<SightsMark>,
    sights: BTreeMap<Subject, (SightState, u64)>,
}

impl Coordinator {
    fn take(&mut self, (sights, told): &(Vec<SightReport>, SightsTold), now: u64) {
        for sight in sights {
            let subject = (sight.guest.clone(), sight.service.clone(), sight.vantage.clone());
            self.sights.insert(subject, (sight.state, now - sight.age_ms));
        }
        self.known = told.taken_by(self.known);
    }

    fn is_right(&self, sights: &Sights, now: u64) -> bool {
        let mut fresh = Self::default();
        fresh.take(&sights.report(Moment(now), None), now);
        fresh.sights == self.sights
    }
}

#[test]
fn of_a_thousand_services_an_idle_sync_tells_a_tenth_or_less() {
    let sights = Sights::begun(Moment(1));
    for number in 0..SERVICES {
        answers(&sights, number, Outcome::Pass, 1_000);
    }
    let bytes = |now: u64, known: Option<SightsMark>| {
        let (sights, told) = sights.report(Moment(now), known);
        serde_json::to_vec(&sights).unwrap().len() + serde_json::to_vec(&told).unwrap().len()
    };
    let (_, told) = sights.report(Moment(1_100), None);
    let known = told.taken_by(None);
    let (whole, idle) = (bytes(1_250, None), bytes(1_250, known));
    for number in 0..SERVICES / SYNCS_FOR_EACH_ANSWER {
        answers(&sights, number, Outcome::Pass, 1_300);
    }
    let busy = bytes(1_500, known);
    println!("{SERVICES} services: {whole} bytes in whole, {idle} idle, {busy} when each is asked every eighth sync");
    assert!(idle * 10 < whole && idle < 100, "{idle} of {whole} bytes");
    assert!(busy * 7 < whole, "{busy} of {whole} bytes");
}

#[test]
fn a_lost_reply_loses_no_sight_and_a_new_coordinator_is_told_everything() {
    let sights = Sights::begun(Moment(1));
    let mut coordinator = Coordinator::default();
    answers(&sights, 1, Outcome::Pass, 1_000);
    answers(&sights, 2, Outcome::Pass, 1_000);
    coordinator.take(&sights.report(Moment(1_010), None), 1_010);
    let heard = coordinator.known;
    // This one arrives, and its reply does not.
    answers(&sights, 1, Outcome::Fail, 2_000);
    coordinator.take(&sights.report(Moment(2_010), heard), 2_010);
    // This one does not arrive.
    answers(&sights, 2, Outcome::Fail, 3_000);
    let _lost = sights.report(Moment(3_010), heard);
    let (again, told) = sights.report(Moment(3_260), heard);
    assert_eq!(again.len(), 2, "all since the last reply");
    coordinator.take(&(again, told), 3_260);
    assert!(coordinator.is_right(&sights, 3_260));
    let heard = coordinator.known;
    assert!(sights.report(Moment(3_500), heard).0.is_empty());

    let mut next = Coordinator::default();
    answers(&sights, 1, Outcome::Pass, 4_000);
    next.take(&sights.report(Moment(4_010), heard), 4_010);
    assert_eq!((next.known, next.sights.len()), (None, 1), "it takes what it gets, and says that it lacks the rest");
    next.take(&sights.report(Moment(4_020), next.known), 4_020);
    assert!(next.is_right(&sights, 4_020));
}

#[test]
fn what_an_earlier_start_has_told_is_told_again_by_the_next() {
    let (before, after) = (Sights::begun(Moment(1)), Sights::begun(Moment(900)));
    answers(&before, 1, Outcome::Pass, 1_000);
    let known = before.report(Moment(1_010), None).1.taken_by(None);
    answers(&after, 1, Outcome::Pass, 1_500);
    let (told, marks) = after.report(Moment(1_510), known);
    assert_eq!((told.len(), marks.after), (1, 0));
}

/// Syncs and replies are lost, and coordinators follow one another; when that is over, the newest one knows everything.
#[test]
fn whatever_is_lost_between_many_coordinators_the_last_one_comes_to_know_everything() {
    for seed in 0..200_u64 {
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut roll = |sides: u64| {
            // Knuth's MMIX generator; its high bits are the good ones.
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let sights = Sights::begun(Moment(1));
        let (mut coordinator, mut heard, mut now) = (Coordinator::default(), None, 1_000);
        for _ in 0..100 {
            now += 250;
            for _ in 0..roll(4) {
                let outcome = if roll(2) == 0 { Outcome::Pass } else { Outcome::Fail };
                answers(&sights, roll(6), outcome, now - 1);
            }
            if roll(15) == 0 {
                coordinator = Coordinator::default();
            }
            let request = sights.report(Moment(now), heard);
            let reply = if roll(3) == 0 { None } else { Some(coordinator.known) };
            if roll(3) > 0 {
                coordinator.take(&request, now);
            }
            // A reply may be from before the request was taken in, and from before the coordinator was replaced.
            heard = reply.unwrap_or(heard);
        }
        for _ in 0..3 {
            now += 250;
            coordinator.take(&sights.report(Moment(now), heard), now);
            heard = coordinator.known;
        }
        assert!(coordinator.is_right(&sights, now), "seed {seed}");
        assert!(sights.report(Moment(now), heard).0.is_empty(), "seed {seed}");
    }
}

/// What many answers that are all alike come to, and how long ago the newest passed; `None` where they do not count.
fn seen_by(health: &Health, outcome: Outcome, took_ms: u64) -> Option<(SightState, Option<u64>)> {
    let mut question = QUESTION.clone();
    question.service.tuning.slow = Some(Slow { above: Span::ms(300), share: 50, over: Span::secs(30) });
    let (sights, now) = (Sights::begun(Moment(1)), Moment(10_000));
    let answer = Observation::new(outcome, Duration::from_millis(took_ms), "");
    for _ in 0..20 {
        sights.fold(&subject(1), &question, &answer, health.doubts(now), now);
    }
    let (report, _) = sights.report(now, None);
    report.first().map(|seen| (seen.state, seen.passed_ago_ms))
}

#[test]
fn a_supervisor_that_doubts_itself_accuses_nobody_and_one_whose_disk_is_full_still_trusts_its_ears() {
    use SightState::{Failing, Passing, Slow as SlowSight, Unknown};
    let all = |health: &Health| {
        let all = [(Outcome::Pass, 1), (Outcome::Pass, 301), (Outcome::Fail, 1), (Outcome::Unknown, 400)];
        all.map(|(outcome, took)| seen_by(health, outcome, took))
    };
    let trusting = [Some((Passing, Some(0))), Some((SlowSight, Some(0))), Some((Failing, None)), Some((Unknown, None))];
    assert_eq!(all(&Health::default()), trusting);
    let (full, late, lossy) = (Health::default(), Health::default(), Health::default());
    full.complain(Complaint::Vote, "its store cannot be written".to_owned());
    full.complain(Complaint::Memory, "it carries no orders out".to_owned());
    assert_eq!(all(&full), trusting, "what it hears is as true as ever");
    late.doubt(Moment(10_000));
    lossy.note_losing(Some(40));
    for doubting in [late, lossy] {
        // What took long may have taken so long only because of this host, and has passed all the same (R16).
        let doubted = [Some((Passing, Some(0))), Some((Passing, Some(0))), None, Some((Unknown, None))];
        assert_eq!(all(&doubting), doubted);
    }
}

async fn stumbles() {
    panic!("a service has said what this program was not ready for");
}

#[tokio::test]
async fn asking_that_has_ended_by_a_panic_is_begun_anew_and_nothing_else_is() {
    let asks = |task| (QUESTION.clone(), AbortOnDropHandle::new(task));
    let (well, ended, unwanted) = (subject(1), subject(2), subject(3));
    let mut tasks = Tasks::from([
        (well.clone(), asks(tokio::spawn(std::future::pending::<()>()))),
        (ended.clone(), asks(tokio::spawn(stumbles()))),
        (unwanted, asks(tokio::spawn(std::future::pending::<()>()))),
    ]);
    let has_ended = async {
        while !tasks.get(&ended).unwrap().1.is_finished() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), has_ended).await.unwrap();
    let wanted = BTreeMap::from([(well.clone(), QUESTION.clone()), (ended, QUESTION.clone())]);
    retain(&mut tasks, &wanted);
    assert!(tasks.keys().eq([&well]), "{:?}", tasks.keys());
}
