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

use tokio::task::spawn_blocking;

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
pub async fn survey(node: &Node, keeper: &Keeper, policies: Policies) -> Result<(), String> {
    let (hosts, current) = node.read(|state| (hosts_up(state), state.policies.clone()));
    // Where thousands of guests may run on as many hosts takes a while to find out.
    let images =
        spawn_blocking(move || images(&hosts, &current, &policies)).await.map_err(|error| error.to_string())?;
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

/// Hosts that guests can be started on, and that can be asked.
fn hosts_up(state: &ClusterState) -> Vec<HostName> {
    let up = |host: &holdfast_policies::state::Host| host.facts.guests && host.life == Life::Up && !host.is_contested();
    state.hosts.iter().filter(|(_, host)| up(host)).map(|(name, _)| name.clone()).collect()
}

/// What is to be tried: at most [`IMAGES_MAX`] images, since those of a whole cluster declared at once share few storages.
fn images(hosts: &[HostName], current: &Policies, policies: &Policies) -> Images {
    let places = |policies: &Policies, guest: &GuestName| -> BTreeSet<HostName> {
        hosts.iter().filter(|host| host_rule_broken(policies, guest, host).is_none()).cloned().collect()
    };
    let same_rules = current.rules == policies.rules && current.hosts == policies.hosts;
    let mut images = Images::new();
    for (guest, declared) in &policies.guests {
        if images.len() >= IMAGES_MAX {
            break;
        }
        let before = current.guests.get(guest).filter(|before| before.qemu.disks == declared.qemu.disks);
        if same_rules && before.is_some_and(|before| before.labels == declared.labels) {
            continue;
        }
        let may = places(policies, guest);
        let same = before.is_some() && places(current, guest).is_superset(&may);
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

    /// Guests with a disk each, and what else is declared.
    fn declared(guests: &[&str], more: &str) -> Policies {
        let guest = |name: &&str| {
            format!(
                "  {name}: {{ labels: {{ app: {name} }}, qemu: {{ memory: 1GiB, disks: [{{ path: /srv/{name}.raw }}] }} }}\n"
            )
        };
        let guests: String = guests.iter().map(guest).collect();
        crate::desk::parse(&[("all.yaml".to_owned(), format!("guests:\n{guests}{more}"))].into()).unwrap()
    }

    #[test]
    fn images_are_tried_of_guests_that_are_new_or_may_run_elsewhere_than_before() {
        let hosts = ["hv-a", "hv-b", "hv-c"].map(|name| HostName::new(name).unwrap());
        let tried = |current: &Policies, policies: &Policies| -> Vec<String> {
            images(&hosts, current, policies).keys().map(|image| image.display().to_string()).collect()
        };
        let (none, two) = (Policies::default(), declared(&["db", "web"], ""));
        assert_eq!(tried(&none, &two), ["/srv/db.raw", "/srv/web.raw"]);
        assert!(tried(&two, &two).is_empty());
        assert_eq!(tried(&two, &declared(&["db", "mail", "web"], "")), ["/srv/mail.raw"]);
        let kept = declared(&["db", "web"], "rules:\n  home: { hosts: { guests: [db], on: { hv-a: never } } }\n");
        assert!(tried(&two, &kept).is_empty(), "it may run on fewer hosts");
        assert_eq!(tried(&kept, &two), ["/srv/db.raw"], "it may run on more");
        let many: Vec<String> = (0..2 * IMAGES_MAX).map(|row| format!("guest-{row}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(tried(&none, &declared(&many, "")).len(), IMAGES_MAX);
    }
}
