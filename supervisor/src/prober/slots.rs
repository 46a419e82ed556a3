//! How many questions are asked at once, and of whom.

use std::{collections::BTreeMap, sync::Arc};

use holdfast_policies::{model::Probe, names::GuestName};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Questions asked at once. One that gets no answer holds its slot until its time-out, and a rack that has gone dark has
/// hundreds of them: the living ones must not queue behind those. Each costs a socket and some kilobytes; the supervisor may
/// have 65 536 descriptors (`holdfast.service`), and 1 024 where nobody has raised the kernel's default.
const AT_ONCE: usize = 512;

/// Questions about one guest at once: when all of its services are silent, they keep one another waiting and nobody else.
const AT_ONCE_PER_GUEST: usize = 8;

/// Plugins at once, among all of these: each is a process of this host, and takes its memory.
const PLUGINS_AT_ONCE: usize = 64;

/// Plugins about one guest that run at once, or have got as far as to wait for a slot of their guest: half of those, so that
/// the plugins of a silent guest take few of the others' places while they wait.
const PLUGINS_AT_ONCE_PER_GUEST: usize = 4;

/// Questions at once, among all of these, to services that left the one before unanswered. Some thousands of them would take every slot
/// again and again, and the living would be asked after half a minute; those answer in milliseconds, and the rest of the
/// slots is enough for tens of thousands of them in a second.
const SILENT_AT_ONCE: usize = 384;

/// Those of one guest among them: half of its own slots, so that a service of it that answers does not wait for those that do not.
const SILENT_AT_ONCE_PER_GUEST: usize = 4;

/// The slots of one host.
pub(super) struct Slots {
    all: Arc<Semaphore>,
    plugins: Arc<Semaphore>,
    silent: Arc<Semaphore>,
    guests: BTreeMap<GuestName, Own>,
}

/// The slots of one guest.
#[derive(Clone)]
struct Own {
    all: Arc<Semaphore>,
    plugins: Arc<Semaphore>,
    silent: Arc<Semaphore>,
}

impl Own {
    fn new() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        let (plugins, silent) = (places(PLUGINS_AT_ONCE_PER_GUEST), places(SILENT_AT_ONCE_PER_GUEST));
        Self { all: places(AT_ONCE_PER_GUEST), plugins, silent }
    }
}

impl Slots {
    pub(super) fn new() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        let (plugins, silent) = (places(PLUGINS_AT_ONCE), places(SILENT_AT_ONCE));
        Self { all: places(AT_ONCE), plugins, silent, guests: BTreeMap::new() }
    }

    /// The way to a slot for questions about one guest.
    pub(super) fn of(&mut self, guest: &GuestName) -> Queue {
        let own = self.guests.entry(guest.clone()).or_insert_with(Own::new).clone();
        let [all, plugins, silent] = [&self.all, &self.plugins, &self.silent].map(Arc::clone);
        Queue { own, plugins, silent, all }
    }

    /// Forgets guests that are asked nothing any more.
    pub(super) fn retain(&mut self, keep: impl Fn(&GuestName) -> bool) {
        self.guests.retain(|guest, _| keep(guest));
    }
}

/// Where the questions about one guest wait.
pub(super) struct Queue {
    own: Own,
    plugins: Arc<Semaphore>,
    silent: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// A question's turn, for as long as this lives.
pub(super) struct Turn<'a> {
    _plugin: Option<[SemaphorePermit<'a>; 2]>,
    _silent: Option<[SemaphorePermit<'a>; 2]>,
    _guest: SemaphorePermit<'a>,
    _slot: SemaphorePermit<'a>,
}

impl Queue {
    /// Waits for the turn of a question, which was `silent` when it was asked before; `None` never comes, as nobody closes the
    /// slots.
    pub(super) async fn turn(&self, probe: &Probe, silent: bool) -> Option<Turn<'_>> {
        // The narrowest comes first, so that nobody waits for it with a slot that others could use: a plugin that waits for
        // those of other guests keeps no other question about its own guest waiting, and no more does a silent service.
        let plugin = if matches!(probe, Probe::Plugin(_)) {
            Some([self.own.plugins.acquire().await.ok()?, self.plugins.acquire().await.ok()?])
        } else {
            None
        };
        let silent = if silent {
            Some([self.own.silent.acquire().await.ok()?, self.silent.acquire().await.ok()?])
        } else {
            None
        };
        let guest = self.own.all.acquire().await.ok()?;
        let slot = self.all.acquire().await.ok()?;
        Some(Turn { _plugin: plugin, _silent: silent, _guest: guest, _slot: slot })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use holdfast_policies::probe::{Grade, PluginProbe};
    use tokio::task::coop::unconstrained;

    use super::*;

    fn guest(name: &str) -> GuestName {
        GuestName::new(name).unwrap()
    }

    /// The turn, if it has come. Tokio's budget for what a task may do at once has no part in that.
    fn now<'a>(queue: &'a Queue, probe: &Probe) -> Option<Turn<'a>> {
        unconstrained(queue.turn(probe, false)).now_or_never().flatten()
    }

    fn plugin() -> Probe {
        Probe::Plugin(PluginProbe { run: vec!["/bin/true".to_owned()], warning: Grade::Slow })
    }

    #[tokio::test]
    async fn a_guest_whose_services_are_all_silent_keeps_no_other_guest_waiting() {
        let mut slots = Slots::new();
        let (dark, other) = (slots.of(&guest("dark")), slots.of(&guest("other")));
        let mut held = Vec::new();
        for _ in 0..AT_ONCE_PER_GUEST {
            held.push(dark.turn(&Probe::Ping {}, false).await.unwrap());
        }
        assert!(now(&slots.of(&guest("dark")), &Probe::Ping {}).is_none(), "its own questions wait");
        assert!(now(&other, &Probe::Ping {}).is_some());
        held.pop();
        assert!(now(&dark, &Probe::Ping {}).is_some());
    }

    #[tokio::test]
    async fn plugins_that_hang_leave_slots_to_other_questions() {
        let mut slots = Slots::new();
        let queues: Vec<Queue> = (0..=PLUGINS_AT_ONCE).map(|number| slots.of(&guest(&format!("g{number}")))).collect();
        let plugin = plugin();
        let (last, others) = queues.split_last().unwrap();
        let mut held = Vec::new();
        for queue in others {
            held.push(queue.turn(&plugin, false).await.unwrap());
        }
        assert!(now(last, &plugin).is_none());
        assert!(now(last, &Probe::Ping {}).is_some());
    }

    #[tokio::test]
    async fn plugins_that_wait_for_those_of_other_guests_keep_no_other_question_waiting() {
        let mut slots = Slots::new();
        let others: Vec<Queue> = (0..PLUGINS_AT_ONCE).map(|number| slots.of(&guest(&format!("g{number}")))).collect();
        let (plugin, mut held) = (plugin(), Vec::new());
        for queue in &others {
            held.push(queue.turn(&plugin, false).await.unwrap());
        }
        let web = slots.of(&guest("web"));
        let mut waiting: Vec<_> =
            (0..2 * AT_ONCE_PER_GUEST).map(|_| Box::pin(unconstrained(web.turn(&plugin, false)))).collect();
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        assert!(now(&web, &Probe::Ping {}).is_some());
    }

    #[tokio::test]
    async fn a_silent_guest_with_many_plugins_takes_few_places_of_the_others() {
        let mut slots = Slots::new();
        let (dark, other) = (slots.of(&guest("dark")), slots.of(&guest("other")));
        let plugin = plugin();
        let mut waiting: Vec<_> =
            (0..=PLUGINS_AT_ONCE).map(|_| Box::pin(unconstrained(dark.turn(&plugin, false)))).collect();
        let mut turns = Vec::new();
        for turn in &mut waiting {
            turns.extend(turn.now_or_never());
        }
        assert_eq!(turns.len(), PLUGINS_AT_ONCE_PER_GUEST);
        assert!(now(&other, &plugin).is_some());
    }

    #[tokio::test]
    async fn thousands_of_silent_services_leave_slots_to_those_that_answer() {
        let mut slots = Slots::new();
        let ping = Probe::Ping {};
        let dark: Vec<Queue> = (0..2 * AT_ONCE).map(|number| slots.of(&guest(&format!("g{number}")))).collect();
        let mut waiting: Vec<_> = dark.iter().map(|queue| Box::pin(unconstrained(queue.turn(&ping, true)))).collect();
        let mut turns = Vec::new();
        for turn in &mut waiting {
            turns.extend(turn.now_or_never().flatten());
        }
        assert_eq!(turns.len(), SILENT_AT_ONCE);
        assert!(now(&slots.of(&guest("living")), &Probe::Ping {}).is_some());
        let last = dark.last().unwrap();
        assert!(now(last, &Probe::Ping {}).is_some(), "another service of a guest with a silent one answers");
    }

    #[tokio::test]
    async fn the_silent_services_of_a_guest_leave_slots_to_those_of_it_that_answer() {
        let mut slots = Slots::new();
        let (mixed, ping) = (slots.of(&guest("mixed")), Probe::Ping {});
        let mut waiting: Vec<_> =
            (0..2 * AT_ONCE_PER_GUEST).map(|_| Box::pin(unconstrained(mixed.turn(&ping, true)))).collect();
        let mut turns = Vec::new();
        for turn in &mut waiting {
            turns.extend(turn.now_or_never().flatten());
        }
        assert_eq!(turns.len(), SILENT_AT_ONCE_PER_GUEST);
        assert!(now(&mixed, &Probe::Ping {}).is_some());
    }
}
