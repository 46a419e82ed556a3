//! What is seen without Holdfast: who has written which disk (the lab's watcher), and what each guest has written on its own: a line
//! for every boot, whose numbers never go back while its disk is one disk.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{ground::Ground, story::Story};
use crate::lab::guest::PORT;

/// Keeps what guests have said, and finds what cannot be.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// The boot that each guest was in when it was last asked: its number and its id.
    boots: BTreeMap<String, (u64, String)>,
    told: usize,
    /// Boots since the beginning, of all guests.
    pub(super) reboots: u64,
    /// What cannot be of one disk that one guest writes.
    pub(super) disk_faults: Vec<String>,
}

impl Witness {
    /// Asks every guest who it is, and looks whether any disk was written twice. For a time at which all answer.
    pub(super) fn ask(&mut self, ground: &Ground, story: &Story) {
        for guest in &ground.guests {
            match boot_of(ground, &guest.address) {
                Ok(boot) => self.note(&guest.name, boot, story),
                Err(error) => story.tell(&format!("  {} does not say who it is: {error:#}", guest.name)),
            }
        }
        self.tell_double_runs(ground, story);
    }

    /// Tells of two that have written one disk, each once.
    pub(super) fn tell_double_runs(&mut self, ground: &Ground, story: &Story) {
        let all = ground.lab.double_runs();
        for run in all.iter().skip(self.told) {
            story.tell(&format!("DOUBLE RUN: {run:?}"));
        }
        self.told = all.len();
    }

    /// Looks at the disks themselves. No host may be on.
    pub(super) fn look_at_disks(&mut self, ground: &Ground, story: &Story) {
        for guest in &ground.guests {
            let found = match ground.lab.boot_record(&guest.name) {
                Ok(lines) => {
                    let told = self.boots.get(&guest.name).map_or(0, |(number, _)| *number);
                    what_is_wrong_with(&lines, told)
                }
                Err(error) => Some(format!("cannot be read: {error:#}")),
            };
            if let Some(wrong) = found {
                self.found(&guest.name, &wrong, story);
            }
        }
    }

    fn note(&mut self, guest: &str, boot: (u64, String), story: &Story) {
        let Some(before) = self.boots.insert(guest.to_owned(), boot.clone()) else { return };
        if let Some(wrong) = what_is_wrong_between(&before, &boot) {
            self.found(guest, &wrong, story);
        } else if boot.0 > before.0 {
            self.reboots += boot.0 - before.0;
            story.tell(&format!("  {guest} was in boot {} and is in boot {}", before.0, boot.0));
        }
    }

    fn found(&mut self, guest: &str, wrong: &str, story: &Story) {
        story.tell(&format!("THE DISK OF {guest}: {wrong}"));
        self.disk_faults.push(format!("{guest}: {wrong}"));
    }
}

fn boot_of(ground: &Ground, address: &str) -> Result<(u64, String)> {
    let text = ground.lab.client_get(&format!("{address}:{PORT}"), "/cgi-bin/who")?;
    let who: Value = serde_json::from_str(&text).with_context(|| format!("it said {text}"))?;
    let id = who.get("boot_id").and_then(Value::as_str).context("no boot id")?.to_owned();
    Ok((who.get("boots").and_then(Value::as_u64).context("no count of boots")?, id))
}

/// Every boot adds one line and syncs it before it answers anybody.
fn what_is_wrong_between(before: &(u64, String), after: &(u64, String)) -> Option<String> {
    if after.0 < before.0 {
        return Some(format!("it has {} boots, and had {}", after.0, before.0));
    }
    let (same_number, same_id) = (after.0 == before.0, after.1 == before.1);
    (same_number != same_id).then(|| format!("boot {} was {}, and boot {} is {}", before.0, before.1, after.0, after.1))
}

/// `boot NUMBER BOOT_ID UNIX_SECONDS`, one after the other, and as many at least as the guest has `told` of.
fn what_is_wrong_with(lines: &[String], told: u64) -> Option<String> {
    if (lines.len() as u64) < told {
        return Some(format!("it has {} boots, and told of {told}", lines.len()));
    }
    let mut ids = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let words: Vec<&str> = line.split(' ').collect();
        let ["boot", number, id, _] = words.as_slice() else { return Some(format!("line {}: {line:?}", index + 1)) };
        if number.parse() != Ok(index + 1) {
            return Some(format!("line {} is of boot {number}", index + 1));
        }
        if ids.contains(id) {
            return Some(format!("boot {id} is there twice"));
        }
        ids.push(*id);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boots_go_on_by_one_line_each_and_no_boot_comes_twice() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(what_is_wrong_with(&lines("boot 1 a 10\nboot 2 b 20"), 2), None);
        assert!(what_is_wrong_with(&lines("boot 1 a 10"), 2).is_some());
        for wrong in ["boot 1 a 10\nboot 1 b 20", "boot 1 a 10\nboot 2 a 20", "boot 1 a 10\nbo"] {
            assert!(what_is_wrong_with(&lines(wrong), 1).is_some(), "{wrong}");
        }
    }

    #[test]
    fn a_count_that_goes_back_and_a_second_boot_of_one_number_are_no_one_guest() {
        let boot = |number: u64, id: &str| (number, id.to_owned());
        assert_eq!(what_is_wrong_between(&boot(2, "a"), &boot(2, "a")), None);
        assert_eq!(what_is_wrong_between(&boot(2, "a"), &boot(4, "c")), None);
        for after in [boot(1, "a"), boot(2, "b"), boot(3, "a")] {
            assert!(what_is_wrong_between(&boot(2, "a"), &after).is_some(), "{after:?}");
        }
    }
}
