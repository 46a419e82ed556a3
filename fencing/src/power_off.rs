//! Switch a host off and wait until every device of the level says that it is off.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use holdfast_policies::observe::clean;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    device::{Answer, Power, PowerDevice},
    refusals::REFUSALS_MAX,
    report::{Asked, Attempt, History, Outcome, PowerOffReport, Reading, in_words},
    together::{Running, all},
};

/// Pauses between readings: short at first, because most controllers act within a second.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Longest pause between readings.
const PAUSE_LAST: Duration = Duration::from_millis(500);
/// How often an accepted off may be sent: some controllers accept one and do nothing.
const ACCEPTED_MAX: u32 = 3;
/// How often an off may be sent at all, answered or not.
const SENT_MAX: u32 = 10;
/// Pause before an off that was refused is sent again.
const AFTER_REFUSAL: Duration = Duration::from_secs(1);
/// Longest time for the last look, after a device may have gone on without anybody waiting for it.
pub(crate) const LAST_LOOK: Duration = Duration::from_secs(2);

/// Switches a host off through all devices of one level, and reports only what they confirmed.
///
/// A device that says off already gets no off. `go_ahead` is asked before every off and must say whether the coordinator's
/// go-ahead is younger than one lease (R20). Ends as soon as all devices say off; else by `level_timeout`, or when no
/// device may still carry out an off that it was sent ([`PowerDevice::goes_on_for`]), with one more look; may be dropped at any
/// point.
pub async fn power_off_and_confirm(
    devices: &[Arc<dyn PowerDevice>],
    level_timeout: Duration,
    go_ahead: impl Fn() -> bool + Send + Sync,
) -> PowerOffReport {
    let level = Level::new(level_timeout, &go_ahead);
    let mut ends =
        all(devices.iter().map(|device| Box::pin(level.switch_off(device.as_ref())) as Running<'_, End>).collect())
            .await;
    // A first device may have come back while the last was still going off.
    if ends.len() > 1 && ends.iter().all(|end| matches!(end, End::Off(_))) {
        ends =
            all(devices.iter().map(|device| Box::pin(level.read_again(device.as_ref())) as Running<'_, End>).collect())
                .await;
    }
    let outcome = level.judge(ends);
    let history = std::mem::take(&mut *level.history.lock().unwrap_or_else(PoisonError::into_inner));
    history.into_report(outcome)
}

/// How one device ended.
enum End {
    Off(Reading),
    StillOn(String),
    Unknown(String),
    NoGoAhead,
}

/// The work on one level.
struct Level<'a> {
    began: Instant,
    limit: Duration,
    go_ahead: &'a (dyn Fn() -> bool + Send + Sync),
    history: Mutex<History>,
}

impl<'a> Level<'a> {
    fn new(limit: Duration, go_ahead: &'a (dyn Fn() -> bool + Send + Sync)) -> Self {
        Self { began: Instant::now(), limit, go_ahead, history: Mutex::default() }
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.began.elapsed())
    }

    async fn switch_off(&self, device: &dyn PowerDevice) -> End {
        let mut sent = Sent::default();
        let mut pause = PAUSE_FIRST;
        let mut before = Answer::unknown("not asked yet");
        loop {
            let (reading, answer) = self.status(device).await;
            if answer == Answer::Confirmed(Power::Off) {
                return End::Off(reading);
            }
            sent.note_refusal(&answer);
            if self.left().is_zero() && before == Answer::Confirmed(Power::On) {
                // The end of the level cut this reading short; the one before it says more.
                return self.give_up(device, sent, before).await;
            }
            if self.left() < PAUSE_FIRST || sent.refusals >= REFUSALS_MAX {
                return self.give_up(device, sent, answer).await;
            }
            before = answer;
            // One more that cannot end within the level would only make it unclear for longer what comes of it.
            let ends_in_time = sent.count == 0 || self.left() >= self.limit / 8;
            if ends_in_time && sent.is_due(self.limit / 4) {
                if (self.go_ahead)() {
                    sent.note(self.off(device).await);
                    pause = PAUSE_FIRST;
                } else if sent.count == 0 {
                    return End::NoGoAhead;
                }
            }
            sleep(pause.min(self.left())).await;
            pause = (pause * 2).min(PAUSE_LAST);
        }
    }

    /// R20: the attempt lasts for as long as an off may still be carried out. What comes of that counts.
    async fn give_up(&self, device: &dyn PowerDevice, mut sent: Sent, before: Answer<Power>) -> End {
        let mut said = before;
        let mut goes_on = device.goes_on_for();
        while !goes_on.is_zero() {
            // One that refuses again and again is looked at once more: that may lock its user out.
            let pause = if sent.refusals >= REFUSALS_MAX { goes_on } else { goes_on.min(PAUSE_LAST) };
            sleep(pause).await;
            // The look that begins after nothing can be left is the last one.
            goes_on = device.goes_on_for();
            let within = if goes_on.is_zero() { LAST_LOOK } else { goes_on };
            let (reading, answer) = self.status_within(device, within.min(device.patience())).await;
            sent.note_refusal(&answer);
            match answer {
                Answer::Confirmed(Power::Off) => return End::Off(reading),
                Answer::Confirmed(Power::On) => said = Answer::Confirmed(Power::On),
                Answer::Refused { .. } | Answer::Unknown { .. } => {}
            }
        }
        sent.end(device, &said)
    }

    async fn read_again(&self, device: &dyn PowerDevice) -> End {
        // The last of them may have gone off only when the level was over.
        let within = self.left().max(LAST_LOOK).min(device.patience());
        match self.status_within(device, within).await {
            (reading, Answer::Confirmed(Power::Off)) => End::Off(reading),
            (_, answer) => Sent::default().end(device, &answer),
        }
    }

    async fn status(&self, device: &dyn PowerDevice) -> (Reading, Answer<Power>) {
        self.status_within(device, self.left().min(device.patience())).await
    }

    async fn status_within(&self, device: &dyn PowerDevice, deadline: Duration) -> (Reading, Answer<Power>) {
        let asked_after = self.began.elapsed();
        let answer = timeout(deadline, device.status(deadline)).await.unwrap_or_else(|_| late(deadline));
        self.remember(device, Asked::Status, asked_after, in_words(&answer, power_word));
        let answered_after = self.began.elapsed();
        (Reading { device: device.describe(), asked_after, answered_after }, answer)
    }

    async fn off(&self, device: &dyn PowerDevice) -> Answer<()> {
        let asked_after = self.began.elapsed();
        let deadline = self.left().min(device.patience());
        let answer = timeout(deadline, device.off(deadline)).await.unwrap_or_else(|_| late(deadline));
        self.remember(device, Asked::Off, asked_after, in_words(&answer, |()| "accepted"));
        answer
    }

    fn remember(&self, device: &dyn PowerDevice, asked: Asked, began_after: Duration, answer: String) {
        let took = self.began.elapsed().saturating_sub(began_after);
        let (device, answer) = (device.describe(), clean(&answer));
        tracing::debug!(%device, ?asked, ?took, %answer, "power device asked");
        let attempt = Attempt { device, asked, began_after, took, answer };
        self.history.lock().unwrap_or_else(PoisonError::into_inner).add(attempt);
    }

    fn judge(&self, ends: Vec<End>) -> Outcome {
        let (mut readings, mut details, mut still_on, mut unknown, mut held) =
            (vec![], vec![], false, ends.is_empty(), false);
        for end in ends {
            match end {
                End::Off(reading) => readings.push(reading),
                End::StillOn(detail) => (still_on, details) = (true, with(details, detail)),
                End::Unknown(detail) => (unknown, details) = (true, with(details, detail)),
                End::NoGoAhead => held = true,
            }
        }
        let detail = if details.is_empty() { "the level has no device".to_owned() } else { details.join("; ") };
        match (held, still_on, unknown) {
            (true, ..) => Outcome::NoGoAhead,
            (_, true, _) => Outcome::StillOn { detail },
            (_, _, true) => Outcome::Unknown { detail },
            _ => Outcome::Off { took: self.began.elapsed(), readings },
        }
    }
}

fn with(mut details: Vec<String>, detail: String) -> Vec<String> {
    details.push(detail);
    details
}

fn late<T>(deadline: Duration) -> Answer<T> {
    Answer::unknown(format!("the device overran its deadline of {deadline:.1?}"))
}

fn power_word(power: &Power) -> &'static str {
    match power {
        Power::On => "on",
        Power::Off => "off",
    }
}

/// The offs that one device was sent.
#[derive(Default)]
struct Sent {
    count: u32,
    accepted: u32,
    refusals: u32,
    last: Option<(Instant, Answer<()>)>,
}

impl Sent {
    fn is_due(&self, repeat_after: Duration) -> bool {
        let rest = match &self.last {
            None => return true,
            Some((_, Answer::Refused { .. })) => AFTER_REFUSAL,
            Some(_) => repeat_after,
        };
        let rested = self.last.as_ref().is_some_and(|(when, _)| when.elapsed() >= rest);
        rested && self.accepted < ACCEPTED_MAX && self.count < SENT_MAX
    }

    fn note(&mut self, answer: Answer<()>) {
        self.count += 1;
        self.accepted += u32::from(matches!(answer, Answer::Confirmed(())));
        self.note_refusal(&answer);
        self.last = Some((Instant::now(), answer));
    }

    fn note_refusal<T>(&mut self, answer: &Answer<T>) {
        self.refusals += u32::from(matches!(answer, Answer::Refused { .. }));
    }

    fn end(&self, device: &dyn PowerDevice, status: &Answer<Power>) -> End {
        let off = match &self.last {
            None => "no off was sent".to_owned(),
            Some((_, answer)) => {
                format!("off was sent {} times, last {}", self.count, in_words(answer, |()| "accepted"))
            }
        };
        let detail = format!("{}: {off}; status {}", device.describe(), in_words(status, power_word));
        match status {
            Answer::Confirmed(Power::On) => End::StillOn(detail),
            _ => End::Unknown(detail),
        }
    }
}
