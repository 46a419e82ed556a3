//! Reads `ladder:`: what to do, from the smallest kill to the largest.

use super::{
    fields::{Fields, Keys},
    text::quoted,
    value::Value,
};
use crate::{
    model::{Rung, Severity},
    time::Span,
};

/// What `restart_service` has; the other rungs that are tried have the same, but for `run`.
pub(super) const RESTART_SERVICE: Keys = Keys { known: &["run", "tries", "wait"], later: &[], renamed: &[] };
const TRIED: Keys =
    Keys { known: &["tries", "wait"], later: &[], renamed: &[("run", "only `restart_service` runs a command")] };
const PAGE: Keys = Keys { known: &["severity"], later: &[], renamed: &[] };

const RUNGS: &[&str] = &["restart_service", "reboot_guest", "reset_guest", "failover", "migrate", "page"];
/// What can be done for a guest that its storage has stopped: nothing that would have to run in it.
const STORAGE_RUNGS: &[&str] = &["resume_guest", "reset_guest", "failover", "page"];
/// Most rungs: each kind a few times.
const RUNGS_MAX: usize = 16;
/// Most tries on one rung.
const TRIES_MAX: u32 = 100;
/// Shortest wait for recovery after a try: nothing restarts faster.
const WAIT_MIN: Span = Span::ms(100);

/// Reads `ladder` and checks the order of its rungs.
pub(super) fn read(value: &Value<'_>) -> Option<Vec<Rung>> {
    rungs_of(value, RUNGS)
}

/// Reads `on_storage_error`.
pub(super) fn on_storage_error(value: &Value<'_>) -> Option<Vec<Rung>> {
    rungs_of(value, STORAGE_RUNGS)
}

fn rungs_of(value: &Value<'_>, known: &[&'static str]) -> Option<Vec<Rung>> {
    let items = value.list("write `- reset_guest: { tries: 1 }` and so on below it")?;
    if items.is_empty() {
        return value
            .wrong("the ladder has no rung: nothing would be done", "add at least `- page: { severity: critical }`");
    }
    if items.len() > RUNGS_MAX {
        return value.wrong(format!("the ladder has more than {RUNGS_MAX} rungs"), "use `tries` to repeat a rung");
    }
    let mut highest: Option<(u8, &str)> = None;
    let mut rungs = Vec::new();
    for item in &items {
        let Some(chosen) = item.variant("rung", known, &[]) else {
            rungs.push(None);
            continue;
        };
        match highest {
            Some((rank, before)) if kill(chosen.name) < rank => value.findings.hint(
                chosen.at,
                format!(
                    "{} comes after {}: a ladder goes from the smallest kill to the largest",
                    quoted(chosen.name),
                    quoted(before)
                ),
                "the order is `restart_service`, `reboot_guest`, `reset_guest`, `failover` or `migrate`, `page`",
            ),
            _ => highest = Some((kill(chosen.name), chosen.name)),
        }
        rungs.push(rung(&chosen));
    }
    rungs.into_iter().collect()
}

/// How much a rung takes down (S8).
fn kill(name: &str) -> u8 {
    match name {
        "restart_service" | "resume_guest" => 0,
        "reboot_guest" => 1,
        "reset_guest" => 2,
        "failover" | "migrate" => 3,
        _ => 4,
    }
}

fn rung(chosen: &Value<'_>) -> Option<Rung> {
    match chosen.name {
        "restart_service" => {
            let fields = chosen.fields(&RESTART_SERVICE)?;
            let run = fields.need("run", "run: [\"systemctl\", \"restart\", \"nginx\"]", Value::command);
            let (tries, wait) = tried(&fields, 10);
            Some(Rung::RestartService { run: run?, tries: tries?, wait: wait? })
        }
        "reboot_guest" => {
            let (tries, wait) = tried(&chosen.fields(&TRIED)?, 60);
            Some(Rung::RebootGuest { tries: tries?, wait: wait? })
        }
        "resume_guest" => {
            let (tries, wait) = tried(&chosen.fields(&TRIED)?, 10);
            Some(Rung::ResumeGuest { tries: tries?, wait: wait? })
        }
        "reset_guest" => {
            let (tries, wait) = tried(&chosen.fields(&TRIED)?, 60);
            Some(Rung::ResetGuest { tries: tries?, wait: wait? })
        }
        "failover" => {
            let (tries, wait) = tried(&chosen.fields(&TRIED)?, 90);
            Some(Rung::Failover { tries: tries?, wait: wait? })
        }
        "migrate" => {
            let (tries, wait) = tried(&chosen.fields(&TRIED)?, 60);
            Some(Rung::Migrate { tries: tries?, wait: wait? })
        }
        _ => {
            let severity = chosen.fields(&PAGE)?.or("severity", Severity::Critical, severity)?;
            Some(Rung::Page { severity })
        }
    }
}

fn tried(fields: &Fields<'_>, default_wait_secs: u64) -> (Option<u32>, Option<Span>) {
    let tries = fields.or("tries", 1, |v| v.number(1..=TRIES_MAX));
    let wait = fields.or("wait", Span::secs(default_wait_secs), |v| v.span_from(WAIT_MIN));
    (tries, wait)
}

/// A severity, here and in alerts.
pub(super) fn severity(value: &Value<'_>) -> Option<Severity> {
    value.one_of(&Severity::ALL.map(|severity| (severity.word(), severity)))
}
