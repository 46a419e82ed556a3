//! What policies change of the machines of guests that run: it waits for their next start, which may come with a failure and by night.

use crate::{
    model::{GuestDeclaration, Policies},
    names::GuestName,
    unmet::names,
};

impl Policies {
    /// What somebody who declares these policies in place of `before` should know of guests that `run`, a line each.
    #[must_use]
    pub fn to_be_started_anew(&self, before: &Self, runs: impl Fn(&GuestName) -> bool) -> Vec<String> {
        let changed = |is_meant: fn(&GuestDeclaration, &GuestDeclaration) -> bool| {
            let both = self.guests.iter().filter_map(|(name, guest)| Some((name, before.guests.get(name)?, guest)));
            let meant = both.filter(|(name, old, new)| is_meant(old, new) && runs(name));
            names(&meant.map(|(name, ..)| name).collect::<Vec<_>>())
        };
        let disks = changed(has_other_disks).map(|guests| {
            format!(
                "? other disks are declared for these guests than before: their next start takes the new ones, also after a \
                 failure, and until then they do not move live: {guests}"
            )
        });
        let machine = changed(|old, new| old.qemu != new.qemu && !has_other_disks(old, new)).map(|guests| {
            format!(
                "? what is changed of the machine of these guests counts from their next start, and until then live moves of them may be \
                 refused; to start one anew: `holdfast guest migrate GUEST --cold`, or stop and start it: {guests}"
            )
        });
        disks.into_iter().chain(machine).collect()
    }
}

fn has_other_disks(old: &GuestDeclaration, new: &GuestDeclaration) -> bool {
    old.qemu.disks != new.qemu.disks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Source, parse};

    fn declared(guests: &str) -> Policies {
        parse(&[Source { name: "a.yaml", text: &format!("guests:\n{guests}") }]).unwrap()
    }

    const BEFORE: &str = "
  db-1: { qemu: { memory: 1GiB, disks: [{ path: /srv/db-1.raw }] } }
  shop-1: { priority: 100, qemu: { memory: 1GiB, disks: [{ path: /srv/shop-1.raw }] } }
  web-1: { qemu: { memory: 1GiB, disks: [{ path: /srv/web-1.raw }] } }
";
    const AFTER: &str = "
  db-1: { qemu: { memory: 1GiB, disks: [{ path: /mnt/db-1.raw }] } }
  shop-1: { priority: 200, qemu: { memory: 1GiB, disks: [{ path: /srv/shop-1.raw }] } }
  web-1: { qemu: { memory: 2GiB, disks: [{ path: /srv/web-1.raw }] } }
  web-2: { qemu: { memory: 2GiB, disks: [{ path: /srv/web-2.raw }] } }
";

    #[test]
    fn what_waits_for_a_start_is_told_of_guests_that_run() {
        let lines = declared(AFTER).to_be_started_anew(&declared(BEFORE), |_| true);
        let [disks, machine] = &lines[..] else { panic!("{lines:?}") };
        assert!(disks.starts_with("? other disks") && disks.ends_with("they do not move live: db-1"), "{disks}");
        assert!(machine.starts_with("? what is changed") && machine.ends_with("stop and start it: web-1"), "{machine}");
    }

    #[test]
    fn nothing_is_told_of_guests_that_do_not_run_nor_of_what_counts_at_once() {
        let nothing = Vec::<String>::new();
        assert_eq!(declared(AFTER).to_be_started_anew(&declared(BEFORE), |name| name.as_str() == "shop-1"), nothing);
        assert_eq!(declared(BEFORE).to_be_started_anew(&declared(BEFORE), |_| true), nothing);
    }
}
