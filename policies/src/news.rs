//! What has changed of the view since a host got its own. With thousands of guests the whole view is megabytes, for every host and
//! whenever one guest has moved; what has changed is a line.
//!
//! ```text
//!  state --look--> Ledger, of the coordinator's Teller: what is where, and since which index
//!                    |
//!                    | news(the view that the host has)
//!                    v
//!  view --onto--> view, at the host
//! ```
//! A coordinator knows of no changes before it began to look. To whoever has an older view it tells everything, as the first time.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    model::Policies,
    names::{Epoch, GuestName, HostName},
    reply::{homes, is_news, places},
    revocation::Revocation,
    state::ClusterState,
    sync::{SyncRequest, View},
};

/// Guests and hosts that are remembered for being there no more. Beyond that what was before is forgotten.
const GONE_MAX: usize = 1_024;

/// Which view it is. The default is that of whoever has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ViewMark {
    /// The cluster generation: indexes of one say nothing of another (R25).
    pub generation: u32,
    /// The index that it was made from.
    pub index: u64,
    /// The version of the policies in it.
    pub policies: u64,
}

impl ViewMark {
    /// Of the view that this state makes.
    #[must_use]
    pub fn of(state: &ClusterState) -> Self {
        Self { generation: state.generation, index: state.view_changed, policies: state.policy_version }
    }

    /// Whether the same is declared in both.
    #[must_use]
    pub fn declares_as(self, other: Self) -> bool {
        (self.generation, self.policies) == (other.generation, other.policies)
    }
}

/// What has changed of the view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Which view it is with them.
    pub to: ViewMark,
    /// What they are added to: a view of this index or a later one. `None`: they are all that there is.
    pub after: Option<u64>,
    /// What is declared, as JSON, which may be packed; `None`: the same as in the view that the host has.
    pub declared: Option<String>,
    /// Where guests run; `None`: nowhere any more.
    pub homes: BTreeMap<GuestName, Option<(HostName, Epoch)>>,
    /// Where supervisors listen; `None`: the host is known no more.
    pub hosts: BTreeMap<HostName, Option<SocketAddr>>,
    /// All hosts whose certificates count no more; `None`: the same as before.
    pub revoked: Option<BTreeMap<HostName, Revocation>>,
}

impl News {
    /// The view with them; `None` where they are none to this view, or do not say what is declared and it does not know.
    #[must_use]
    pub fn onto(self, view: &View, declared: Option<Arc<Policies>>) -> Option<View> {
        let mark = view.mark.unwrap_or_default();
        let policies = match declared {
            Some(declared) => declared,
            None if mark.declares_as(self.to) => Arc::clone(&view.policies),
            None => return None,
        };
        let fits = |after: u64| mark.generation == self.to.generation && (after..=self.to.index).contains(&mark.index);
        let (mut homes, mut hosts) = match self.after {
            Some(after) if fits(after) => (view.homes.clone(), view.hosts.clone()),
            Some(_) => return None,
            None => (BTreeMap::new(), BTreeMap::new()),
        };
        put(&mut homes, self.homes);
        put(&mut hosts, self.hosts);
        let revoked = self.revoked.unwrap_or_else(|| view.revoked.clone());
        Some(View { index: self.to.index, mark: Some(self.to), policies, homes, hosts, revoked })
    }
}

fn put<K: Ord, V>(into: &mut BTreeMap<K, V>, news: BTreeMap<K, Option<V>>) {
    for (key, is) in news {
        match is {
            Some(is) => into.insert(key, is),
            None => into.remove(&key),
        };
    }
}

/// What is in the view, and since when, as far as its owner has looked.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// The newest view that it has seen.
    to: ViewMark,
    /// It knows every change after this index.
    since: u64,
    homes: Book<GuestName, (HostName, Epoch)>,
    hosts: Book<HostName, SocketAddr>,
    revoked: BTreeMap<HostName, Revocation>,
    revoked_at: u64,
}

impl Ledger {
    /// One that has seen nothing but this state.
    #[must_use]
    pub fn begun(state: &ClusterState) -> Self {
        let to = ViewMark::of(state);
        let (mut of_homes, mut of_hosts) = (Book(BTreeMap::new()), Book(BTreeMap::new()));
        of_homes.note(homes(state), to.index);
        of_hosts.note(places(state), to.index);
        let revoked = state.revoked.clone();
        Self { to, since: to.index, homes: of_homes, hosts: of_hosts, revoked, revoked_at: to.index }
    }

    /// Takes in what has changed. It may have changed at any index since the last look, so that it counts as new to whoever has a
    /// view from between.
    pub fn look(&mut self, state: &ClusterState) {
        let to = ViewMark::of(state);
        if to == self.to {
            return;
        }
        if to.generation != self.to.generation || to.index <= self.to.index {
            *self = Self::begun(state);
            return;
        }
        self.homes.note(homes(state), to.index);
        self.hosts.note(places(state), to.index);
        if self.revoked != state.revoked {
            self.revoked.clone_from(&state.revoked);
            self.revoked_at = to.index;
        }
        self.to = to;
        if self.homes.gone() + self.hosts.gone() > GONE_MAX {
            self.homes.forget_gone();
            self.hosts.forget_gone();
            self.since = to.index;
        }
    }

    /// What is new to whoever has the view `known`. What is declared is not in them: whoever has it written down adds it, where
    /// the two do not declare the same.
    #[must_use]
    pub fn news(&self, known: ViewMark) -> News {
        let fits = known.generation == self.to.generation && (self.since..=self.to.index).contains(&known.index);
        let after = fits.then_some(known.index);
        let is_new = |at: u64| after.is_none_or(|after| at > after);
        News {
            to: self.to,
            after,
            declared: None,
            homes: self.homes.after(after),
            hosts: self.hosts.after(after),
            revoked: is_new(self.revoked_at).then(|| self.revoked.clone()),
        }
    }
}

/// What a coordinator tells of the view, for as long as its supervisor runs. Every simulation tells by this one.
#[derive(Debug, Clone, Default)]
pub struct Teller {
    /// What it knows of changes, and the term in which it does: another leader may have told others what it has not seen.
    ledger: Option<(u64, Ledger)>,
}

impl Teller {
    /// Which view whoever asks has, if it is to be told what has changed since; `None` if it knows all, or wants the view whole.
    #[must_use]
    pub fn is_behind(state: &ClusterState, request: &SyncRequest) -> Option<ViewMark> {
        // One whose guard has yet to be told of its view says that it knows less than it has.
        request.has_view.filter(|known| is_news(state, request) && *known != ViewMark::of(state))
    }

    /// What is new to whoever asks, in a reply of this term; `None` as in [`Self::is_behind`]. What is declared is not in them,
    /// see [`Ledger::news`].
    pub fn news(&mut self, state: &ClusterState, request: &SyncRequest, term: u64) -> Option<News> {
        let known = Self::is_behind(state, request)?;
        let mut ledger = match self.ledger.take() {
            Some((of, ledger)) if of == term => ledger,
            Some(_) | None => Ledger::begun(state),
        };
        ledger.look(state);
        let news = ledger.news(known);
        self.ledger = Some((term, ledger));
        Some(news)
    }
}

/// Values by key, and since when each is what it is; `None` once it is there no more.
#[derive(Debug, Clone)]
struct Book<K, V>(BTreeMap<K, Noted<V>>);

#[derive(Debug, Clone)]
struct Noted<V> {
    at: u64,
    is: Option<V>,
}

impl<K: Ord + Clone, V: PartialEq + Clone> Book<K, V> {
    fn note(&mut self, all: BTreeMap<K, V>, at: u64) {
        for (key, noted) in &mut self.0 {
            if noted.is.is_some() && !all.contains_key(key) {
                *noted = Noted { at, is: None };
            }
        }
        for (key, is) in all {
            match self.0.get_mut(&key) {
                Some(noted) if noted.is.as_ref() == Some(&is) => {}
                Some(noted) => *noted = Noted { at, is: Some(is) },
                None => {
                    self.0.insert(key, Noted { at, is: Some(is) });
                }
            }
        }
    }

    /// What has changed after an index; without one all that is there.
    fn after(&self, after: Option<u64>) -> BTreeMap<K, Option<V>> {
        let is_new = |noted: &Noted<V>| match after {
            Some(after) => noted.at > after,
            None => noted.is.is_some(),
        };
        let new = self.0.iter().filter(|(_, noted)| is_new(noted));
        new.map(|(key, noted)| (key.clone(), noted.is.clone())).collect()
    }

    fn gone(&self) -> usize {
        self.0.values().filter(|noted| noted.is.is_none()).count()
    }

    fn forget_gone(&mut self) {
        self.0.retain(|_, noted| noted.is.is_some());
    }
}

#[cfg(test)]
mod tests;
