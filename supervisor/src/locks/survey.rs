//! The coordinator's side: who holds, who looks, and what that says.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use futures_util::future::join_all;
use holdfast_policies::{
    fit::host_rule_broken,
    model::Policies,
    names::{GuestName, HostName},
    state::{ClusterState, Life},
};

use super::{Answers, Found, IMAGES_MAX, Keeper, Question};
use crate::{node::Node, rpc::Channel};

/// How long one host may take; more than [`super::serve`] gives the storage.
const ASK_DEADLINE: Duration = Duration::from_millis(900);

/// Hosts that are asked in turn to hold what those before them lack. An image that three of them lack is on a host of its
/// own, where locks between hosts mean nothing.
const HOLDERS_MAX: usize = 3;

/// An image, whose it is, and the hosts that its guest may run on.
type Images = BTreeMap<PathBuf, (GuestName, BTreeSet<HostName>)>;

/// Tries the locks of every image of a guest that is new, or whose disks or places have changed, between all hosts that may
/// run it.
///
/// # Errors
/// What is wrong with which image, and what would be right.
pub async fn survey(node: &Node, keeper: &Keeper, policies: &Policies) -> Result<(), String> {
    let images = node.read(|state| images(state, policies));
    let hosts: BTreeSet<HostName> = images.values().flat_map(|(_, hosts)| hosts.iter().cloned()).collect();
    let mut holders: BTreeMap<PathBuf, HostName> = BTreeMap::new();
    for holder in hosts.iter().take(HOLDERS_MAX) {
        let wanted =
            |image: &PathBuf, hosts: &BTreeSet<HostName>| !holders.contains_key(image) && hosts.contains(holder);
        let of_holder = choose(&images, wanted);
        for (image, found) in ask(node, keeper, holder, of_holder, |images| Question::Hold { images }).await {
            if let Some(said) = judge(&images, &image, holder, &found, None) {
                return Err(said);
            }
            if found == Found::Locked {
                holders.insert(image, holder.clone());
            }
        }
    }
    let asking = hosts.iter().map(|host| {
        let held_elsewhere = |image: &PathBuf, hosts: &BTreeSet<HostName>| {
            hosts.contains(host) && holders.get(image).is_some_and(|holder| holder != host)
        };
        let chosen = choose(&images, held_elsewhere);
        async move { (host, ask(node, keeper, host, chosen, |images| Question::Look { images }).await) }
    });
    for (host, answers) in join_all(asking).await {
        for (image, found) in answers {
            if let Some(said) = judge(&images, &image, host, &found, holders.get(&image)) {
                return Err(said);
            }
        }
    }
    Ok(())
}

fn choose(images: &Images, wanted: impl Fn(&PathBuf, &BTreeSet<HostName>) -> bool) -> Vec<PathBuf> {
    images.iter().filter(|(image, (_, hosts))| wanted(image, hosts)).map(|(image, _)| image.clone()).collect()
}

/// What is to be tried: at most [`IMAGES_MAX`] images, since those of a whole cluster declared at once share few storages.
fn images(state: &ClusterState, policies: &Policies) -> Images {
    let up = |host: &holdfast_policies::state::Host| host.facts.guests && host.life == Life::Up && !host.is_contested();
    let hosts: Vec<&HostName> = state.hosts.iter().filter(|(_, host)| up(host)).map(|(name, _)| name).collect();
    let places = |policies: &Policies, guest: &GuestName| -> BTreeSet<HostName> {
        hosts
            .iter()
            .filter(|host| host_rule_broken(policies, guest, host).is_none())
            .map(|host| (*host).clone())
            .collect()
    };
    let mut images = Images::new();
    for (guest, declared) in &policies.guests {
        let may = places(policies, guest);
        let before = state.policies.guests.get(guest);
        let same = before.is_some_and(|before| before.qemu.disks == declared.qemu.disks)
            && places(&state.policies, guest).is_superset(&may);
        for disk in declared.qemu.disks.iter().filter(|_| !same && may.len() > 1) {
            if images.len() < IMAGES_MAX {
                images.insert(disk.path.clone(), (guest.clone(), may.clone()));
            }
        }
    }
    images
}

/// One host's answers. One that cannot be asked says nothing.
async fn ask(
    node: &Node,
    keeper: &Keeper,
    host: &HostName,
    images: Vec<PathBuf>,
    question: impl Fn(Vec<PathBuf>) -> Question,
) -> Vec<(PathBuf, Found)> {
    if images.is_empty() {
        return Vec::new();
    }
    let question = question(images.clone());
    let answers = if host == node.host() { keeper.answer(question).await } else { call(node, host, &question).await };
    match answers {
        Ok(answers) => images.into_iter().zip(answers).collect(),
        Err(why) => {
            tracing::warn!(%host, why, "locks of disk images could not be tried there");
            Vec::new()
        }
    }
}

async fn call(node: &Node, host: &HostName, question: &Question) -> Result<Answers, String> {
    let address = node.address(host).ok_or("its address is not known")?;
    let body = serde_json::to_vec(question).map_err(|error| error.to_string())?;
    let called = node.rpc.call(host, address, Channel::Locks, body, ASK_DEADLINE).await;
    let answer = called.map_err(|error| error.to_string())?;
    serde_json::from_slice(&answer).map_err(|error| error.to_string())
}

/// What speaks against an image, if anything.
fn judge(
    images: &Images,
    image: &PathBuf,
    host: &HostName,
    found: &Found,
    holder: Option<&HostName>,
) -> Option<String> {
    let (guest, _) = images.get(image)?;
    let path = image.display();
    match (found, holder) {
        (Found::Locked | Found::Silent, _) | (Found::NotLocked, None) => None,
        (Found::Refused { detail }, _) => Some(format!(
            "{path} of {guest} cannot be locked on {host}: {detail}; mount the storage so that locks work (NFS: without nolock \
             and local_lock)"
        )),
        (Found::NotLocked, Some(holder)) => Some(format!(
            "{path} of {guest} is locked by {holder}, and {host} does not see that: it is another file there, or its locks end \
             at each host; mount the same storage on both so that locks work (NFS: without nolock and local_lock), or let a \
             rule keep {guest} off {host}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_not_seen_and_a_storage_that_refuses_speak_against_an_image_and_silence_does_not() {
        let (one, two) = (HostName::new("hv-a").unwrap(), HostName::new("hv-b").unwrap());
        let (image, guest) = (PathBuf::from("/srv/db.raw"), GuestName::new("db").unwrap());
        let images = Images::from([(image.clone(), (guest, [one.clone(), two.clone()].into()))]);
        let said = |found: &Found, holder| judge(&images, &image, &two, found, holder);
        for found in [Found::Locked, Found::Silent] {
            assert_eq!(said(&found, Some(&one)), None);
        }
        let unseen = said(&Found::NotLocked, Some(&one)).unwrap();
        for part in ["/srv/db.raw of db", "hv-a", "hv-b does not see", "nolock"] {
            assert!(unseen.contains(part), "{unseen}");
        }
        let refused = said(&Found::Refused { detail: "no locks available".to_owned() }, None).unwrap();
        assert!(refused.contains("no locks available") && refused.contains("hv-b"), "{refused}");
    }
}
