//! An operator among supervisors that only say who coordinates, over real TLS on loopback.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use holdfast_policies::hostfile;

use super::*;
use crate::{
    pki::fixture::written,
    rpc::{Handler, Limits, Server},
};

const LIMIT: Duration = Duration::from_secs(20);

fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

/// A supervisor that remembers what operators ask of it, and knows where the coordinator is, itself perhaps.
struct Voter {
    name: &'static str,
    coordinator: Arc<Mutex<Option<(HostName, SocketAddr)>>>,
    asked: Arc<Mutex<Vec<(String, Request)>>>,
}

#[async_trait]
impl Handler for Voter {
    async fn handle(&self, peer: HostName, _channel: Channel, _body: Vec<u8>) -> Result<Vec<u8>, String> {
        Err(format!("{peer} is no operator"))
    }

    async fn handle_operator(&self, operator: OperatorCertificate, body: Vec<u8>) -> Result<Vec<u8>, String> {
        let request: Request = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let coordinator = self.coordinator.lock().unwrap().clone();
        let answered: Result<Answer, Denied> = match coordinator {
            None => Err(Denied::NoLeader("an election".to_owned())),
            Some((host, _)) if host.as_str() == self.name => {
                self.asked.lock().unwrap().push((format!("{} at {host}", operator.name), request));
                Ok(Answer::Accepted { what: "done".to_owned() })
            }
            Some((host, address)) => Err(Denied::Elsewhere { host, address }),
        };
        serde_json::to_vec(&answered).map_err(|error| error.to_string())
    }
}

/// Three voters and an operator, ann.
struct Scene {
    _directory: tempfile::TempDir,
    voters: Vec<(HostName, Server)>,
    coordinator: Arc<Mutex<Option<(HostName, SocketAddr)>>>,
    asked: Arc<Mutex<Vec<(String, Request)>>>,
    ann: Identity,
}

async fn scene() -> Scene {
    let (authority, directory) = (pki::make_authority().unwrap(), tempfile::tempdir().unwrap());
    let (coordinator, asked) = (Arc::default(), Arc::default());
    let mut voters = Vec::new();
    for name in ["hv-a", "hv-b", "hv-c"] {
        let issued = pki::issue(&authority, &host(name)).unwrap();
        let tls = pki::server_config(&written(directory.path(), name, &authority, &issued)).unwrap();
        let voter = Voter { name, coordinator: Arc::clone(&coordinator), asked: Arc::clone(&asked) };
        let listen = "127.0.0.1:0".parse().unwrap();
        let server = Server::serve(listen, tls, Arc::new(voter), Limits::default()).await.unwrap();
        voters.push((host(name), server));
    }
    let issued = pki::issue_operator(&authority, &OperatorName::new("ann").unwrap(), 1).unwrap();
    let addresses = voters.iter().map(|(name, server)| (name.clone(), server.address())).collect();
    let ann = Identity::open(file(written(directory.path(), "ann", &authority, &issued), addresses)).unwrap();
    Scene { _directory: directory, voters, coordinator, asked, ann }
}

fn file(files: TlsFiles, voters: BTreeMap<HostName, SocketAddr>) -> IdentityFile {
    let tls = hostfile::TlsFiles { ca: files.authority, certificate: files.certificate, key: files.key };
    IdentityFile { tls, voters }
}

impl Scene {
    /// From here on this one coordinates.
    fn elect(&self, index: usize) {
        let (name, server) = &self.voters[index];
        *self.coordinator.lock().unwrap() = Some((name.clone(), server.address()));
    }

    /// What operators asked of coordinators, without the question who that is.
    fn asked(&self) -> Vec<(String, Request)> {
        self.asked.lock().unwrap().iter().filter(|(_, request)| *request != WHO).cloned().collect()
    }
}

fn drain(by: &str) -> Request {
    Request::Drain { host: host("hv-b"), by: by.to_owned() }
}

#[tokio::test]
async fn an_order_reaches_the_coordinator_from_the_operators_own_hand_and_once() {
    let scene = scene().await;
    for (index, at) in ["ann at hv-a", "ann at hv-b", "ann at hv-c"].into_iter().enumerate() {
        scene.elect(index);
        scene.asked.lock().unwrap().clear();
        assert_eq!(scene.ann.ask(drain("ann"), LIMIT).await, Ok(Answer::Accepted { what: "done".to_owned() }));
        assert_eq!(scene.asked(), [(at.to_owned(), drain("ann"))]);
    }
}

#[test]
fn whoever_uses_a_certificate_that_ends_soon_or_has_ended_is_told_so() {
    const DAY: u64 = 24 * 3_600_000;
    let (authority, directory) = (pki::make_authority().unwrap(), tempfile::tempdir().unwrap());
    let of = |name: &str, days: u16| {
        let issued = pki::issue_operator(&authority, &OperatorName::new(name).unwrap(), days).unwrap();
        Identity::open(file(written(directory.path(), name, &authority, &issued), BTreeMap::new())).unwrap()
    };
    let now = crate::clock::wall();
    let later = |days: u64| WallTime(now.0 + days * DAY);
    let ann = of("ann", 365);
    assert_eq!((ann.warning(now), ann.warning(later(340))), (None, None));
    let soon = ann.warning(later(360)).unwrap();
    assert!(
        soon.starts_with("the certificate of ann ends on 2") && soon.contains("holdfast operator add ann"),
        "{soon}"
    );
    let ended = ann.warning(later(368)).unwrap();
    assert!(ended.contains("ended on 2") && ended.contains("no voter takes it"), "{ended}");
    assert_eq!(of("bob", 8).warning(now), None, "one that was made for a week is not warned of from its first day");
}

#[tokio::test]
async fn voters_that_are_down_are_passed_over() {
    let mut scene = scene().await;
    scene.elect(2);
    drop(scene.voters.remove(0));
    assert!(scene.ann.ask(drain("ann"), LIMIT).await.is_ok());
}

#[tokio::test]
async fn an_election_is_waited_for_and_its_end_not_for_ever() {
    let scene = scene().await;
    let late = async {
        tokio::time::sleep(PAUSE).await;
        scene.elect(1);
    };
    let (answer, ()) = tokio::join!(scene.ann.ask(drain("ann"), LIMIT), late);
    assert!(answer.is_ok(), "{answer:?}");
    *scene.coordinator.lock().unwrap() = None;
    assert!(matches!(scene.ann.ask(drain("ann"), LIMIT).await, Err(Denied::NoLeader(_))));
}

#[tokio::test]
async fn voters_that_send_an_operator_in_a_circle_are_an_election() {
    let scene = scene().await;
    // Nobody is called so: whoever is asked sends on to where nobody coordinates.
    let address = scene.voters[0].1.address();
    *scene.coordinator.lock().unwrap() = Some((host("hv-z"), address));
    let denied = scene.ann.ask(drain("ann"), LIMIT).await;
    assert!(matches!(denied, Err(Denied::NoLeader(_))), "{denied:?}");
    assert_eq!(scene.asked(), []);
}

#[tokio::test]
async fn another_name_than_the_certificates_is_refused_before_anything_is_sent() {
    let scene = scene().await;
    scene.elect(0);
    let denied = scene.ann.ask(drain("bob"), LIMIT).await.unwrap_err();
    assert!(matches!(&denied, Denied::Refused(why) if why.contains("ann") && why.contains("bob")), "{denied:?}");
    assert_eq!(*scene.asked.lock().unwrap(), []);
}

#[test]
fn a_hosts_certificate_and_a_key_that_others_can_read_are_no_identity() {
    let (authority, directory) = (pki::make_authority().unwrap(), tempfile::tempdir().unwrap());
    let issued = pki::issue(&authority, &host("hv-a")).unwrap();
    let of_host = written(directory.path(), "hv-a", &authority, &issued);
    assert!(matches!(Identity::open(file(of_host, BTreeMap::new())), Err(PkiError::NotOperator { .. })));
    let issued = pki::issue_operator(&authority, &OperatorName::new("ann").unwrap(), 1).unwrap();
    let exposed = written(directory.path(), "ann", &authority, &issued);
    fs::set_permissions(&exposed.key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Identity::open(file(exposed, BTreeMap::new())), Err(PkiError::KeyExposed { .. })));
}
