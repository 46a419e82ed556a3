//! `holdfast run`: starts every part of a supervisor in order, and keeps them running.

mod oneself;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use holdfast_policies::{
    agent::Agent,
    hostfile::HostFile,
    names::Incarnation,
    revocation::HostCertificate,
    state::HostFacts,
    sync::View,
    time::{Moment, WallTime},
};
use holdfast_probes::Clients;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{self, disk},
    alerts::{self, Deliverer},
    api, clock,
    consensus::{Consensus, Machine},
    coordinator::{Coordinator, Counter, Input},
    datagram::{Counters, Datagrams, Ears, Identity, Keyring, Role, start_stamp},
    desk::Desk,
    duties::Duties,
    facts,
    gossip::{Gossip, GossipConfig},
    guard::{self, GuardClient},
    handler::Front,
    health::Health,
    metrics::Metrics,
    node::{Lease, Node, Released, Told, Withdrawn},
    pki,
    prober::{self, Sights},
    qemu::{Driver, DriverConfig, cgroup2_mount},
    replica::Replica,
    revocations::{Kept, Revocations},
    rpc, runtime, vote,
};

/// Confirmed alerts that may wait to be committed; what does not fit is confirmed again later.
const CONFIRMATIONS: usize = 64;

/// How long the guard is waited for at start; it is a unit of its own and may come a moment later.
const GUARD_PATIENCE: Duration = Duration::from_secs(30);

/// How often it is asked for meanwhile: nothing else is done, and guests may wait for what comes after.
const GUARD_ASKED_EVERY: Duration = Duration::from_millis(50);

/// How long after the coordinator's end it is asked whether consensus has stopped, which ends it too.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// How long consensus may take to stop at the end. A disk that hangs holds it up for ever, and the lease runs out meanwhile; what it
/// has promised is on that disk already.
const CONSENSUS_PATIENCE: Duration = Duration::from_secs(1);

/// Runs a supervisor until it is told to stop. Guests are not touched by that (S5).
///
/// # Errors
/// Why it cannot start, or why it had to stop.
pub fn run(file: HostFile) -> anyhow::Result<()> {
    runtime::to_its_end(supervise(file))?
}

async fn supervise(file: HostFile) -> anyhow::Result<()> {
    let started = clock::moment();
    for folder in [&file.state_dir, &file.run_dir] {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let incarnation = guard::incarnation(&file.run_dir).context("reading the incarnation")?;
    let machine_id = facts::machine_id(&file)?;
    let tls = tls_files(&file);
    let certificate_ends = own_certificate(&file, &tls)?;
    let replica = Replica::born();
    let (views, view) = watch::channel(Arc::new(View::default()));
    let list = Kept::path(&file.state_dir);
    let revocations = Revocations::new(Arc::clone(&replica), view.clone(), Kept::load(&list)?);
    let duties = Duties::default();
    duties.begin("the list of revoked hosts", revocations.clone().keep(list));
    let client = client(&tls, revocations.clone())?;
    let metrics = Arc::new(Metrics::new()?);
    metrics.set_certificate_ends(certificate_ends);

    let guard = GuardClient::new(&file.run_dir);
    let lease_at_start = wait_for_guard(&guard, &incarnation).await?;

    let memory = file.state_dir.join("agent.json");
    let remembered = disk::load(&memory, &file.cluster)?;
    let begun = vote::begin(&file, Arc::clone(&replica) as Arc<RwLock<dyn Machine>>, client.clone()).await?;
    let consensus = begun.consensus;

    let (stamp, datagrams) = listen(&file, &incarnation, revocations.ears()).await?;
    let gossip = Gossip::start(gossip_config(&file, stamp), datagrams.sender.clone(), datagrams.gossip).await?;

    let (driver, events) = open_driver(&file).await?;
    let lease = Lease::none(file.timing.lease.0);
    if let Some(deadline) = lease_at_start {
        lease.extend(deadline);
    }
    let host_facts = facts::gather(&file, incarnation.clone(), machine_id.clone());
    publish_facts(&gossip, &file, &host_facts).await;
    let node = Arc::new(Node {
        incarnation: incarnation.clone(),
        machine_id,
        started,
        certificate_ends,
        replica,
        consensus: consensus.clone(),
        raft_id: begun.raft_id,
        told: Told::default(),
        rpc: client,
        sender: datagrams.sender.clone(),
        heard: datagrams.heard.clone(),
        gossip,
        guard,
        driver,
        metrics: Arc::clone(&metrics),
        view,
        sync_now: Arc::new(Notify::new()),
        health: Health::default(),
        lease,
        released: Released::knowing(remembered.authority.generation),
        withdrawn: Withdrawn::default(),
        refusals: holdfast_fencing::Refusals::default(),
        kept: holdfast_fencing::Kept::default(),
        revocations,
        duties,
        file,
    });

    let stop = CancellationToken::new();
    let coordinator = consensus.map(|consensus| start_coordinator(&node, consensus, &stop)).transpose()?;
    let counter = Arc::new(Counter::new(Arc::clone(&node), coordinator.clone()));
    let front = Front { node: Arc::clone(&node), coordinator: coordinator.clone(), counter: Arc::clone(&counter) };
    let server =
        rpc::Server::serve(node.file.listen, pki::server_config(&tls)?, Arc::new(front), rpc::Limits::default())
            .await
            .with_context(|| format!("listening on {}", node.file.listen))?;
    let people = serve_people(&node, Arc::clone(&counter)).await?;

    let sights = Sights::begun(clock::moment());
    begin_duties(&node, &sights, datagrams.counters, server.counters())?;
    let agent = Agent::new(incarnation, node.file.timing, remembered, lease_at_start);
    let agent = tokio::spawn(agent::run(agent::Parts {
        node: Arc::clone(&node),
        coordinator: coordinator.clone(),
        agent,
        disk: memory,
        facts: host_facts,
        events,
        nudges: datagrams.nudges,
        sights,
        views,
    }));
    tracing::info!(host = %node.host(), incarnation = %node.incarnation, "supervisor up");
    let vote = tokio::spawn(vote::look_after(Arc::clone(&node), counter, coordinator.clone(), begun.lost));
    let ended = wait_for_the_end(&node, agent, coordinator.as_ref(), vote).await;
    stop.cancel();
    drop((people, server, datagrams.running, datagrams.beacons));
    ended
}

fn tls_files(file: &HostFile) -> pki::TlsFiles {
    pki::TlsFiles {
        authority: file.tls.ca.clone(),
        certificate: file.tls.certificate.clone(),
        key: file.tls.key.clone(),
    }
}

/// How other hosts are asked: only those whose certificates count.
fn client(tls: &pki::TlsFiles, revocations: Revocations) -> anyhow::Result<rpc::Client> {
    let admit =
        move |certificate: &HostCertificate| revocations.admit(certificate).map_err(|revoked| revoked.to_string());
    Ok(rpc::Client::choosy(pki::client_config(tls)?, admit))
}

/// When this host's certificate ends, once it is seen that it is this host's. One that has ended does not keep the supervisor from
/// starting: guests run, and the lease of this host is its own matter.
fn own_certificate(file: &HostFile, tls: &pki::TlsFiles) -> anyhow::Result<WallTime> {
    let owner = pki::own_host(tls).context("reading the certificate")?.host;
    ensure!(owner == file.host, "the certificate is {owner}'s, but the host file says {}", file.host);
    let ends = pki::own_validity(tls).context("reading the certificate")?.ends;
    if ends <= clock::wall() {
        tracing::error!(
            ended = %ends.date(),
            "this host's certificate has ended, and no other supervisor takes it; make another with `holdfast host certificate`"
        );
    }
    Ok(ends)
}

/// The guard makes the lease survive this process; without it nothing may be started.
async fn wait_for_guard(guard: &GuardClient, incarnation: &Incarnation) -> anyhow::Result<Option<Moment>> {
    let began = tokio::time::Instant::now();
    let mut told = false;
    loop {
        match guard.query().await {
            Ok(status) if status.incarnation == *incarnation => return Ok(status.deadline),
            Ok(status) => bail!("the guard is of boot {}, this supervisor of boot {incarnation}", status.incarnation),
            Err(error) if began.elapsed() > GUARD_PATIENCE => {
                return Err(error).context("the guard does not answer; start `holdfast guard` first");
            }
            Err(error) if !std::mem::replace(&mut told, true) => tracing::info!(%error, "waiting for the guard"),
            Err(_) => {}
        }
        tokio::time::sleep(GUARD_ASKED_EVERY).await;
    }
}

/// Opens the socket for datagrams. Returns also the stamp of this start: what is sent under it is newer than all of an earlier one.
async fn listen(file: &HostFile, incarnation: &Incarnation, ears: Ears) -> anyhow::Result<(u64, Datagrams)> {
    let keyring = Arc::new(Keyring::load(&file.gossip_keys).context("reading the gossip keys")?);
    let stamp = start_stamp(&file.state_dir, Role::Supervisor, clock::wall().0)
        .with_context(|| format!("writing the start stamp in {}", file.state_dir.display()))?;
    let identity =
        Identity { host: file.host.clone(), role: Role::Supervisor, incarnation: incarnation.clone(), started: stamp };
    let datagrams = Datagrams::bind(file.listen, keyring, identity, ears)
        .await
        .with_context(|| format!("listening on {}", file.listen))?;
    Ok((stamp, datagrams))
}

fn gossip_config(file: &HostFile, stamp: u64) -> GossipConfig {
    GossipConfig {
        host: file.host.clone(),
        cluster: file.cluster.clone(),
        generation: stamp,
        advertise: file.reached_at(),
        seeds: file.voters.values().copied().filter(|address| *address != file.listen).collect(),
        interval: file.timing.gossip_interval.0,
    }
}

async fn open_driver(
    file: &HostFile,
) -> anyhow::Result<(Option<Driver>, Option<mpsc::Receiver<crate::qemu::GuestEvent>>)> {
    if !file.guests {
        return Ok((None, None));
    }
    let cgroup: PathBuf = match &file.qemu.cgroup {
        Some(cgroup) => cgroup.clone(),
        None => cgroup2_mount().context("no cgroup v2 is mounted; guests need one each")?.join("holdfast"),
    };
    let config = DriverConfig {
        binary: file.qemu.binary.clone(),
        cgroup,
        run_dir: file.run_dir.clone(),
        migrate_address: file.qemu.migrate_address.unwrap_or_else(|| file.reached_at().ip()),
        forensics: file.state_dir.join("forensics"),
        log_dir: file.qemu.log_dir.clone(),
        sandbox: file.qemu.sandbox,
    };
    let (driver, events) = Driver::open(config).await?;
    Ok((Some(driver), Some(events)))
}

async fn publish_facts(gossip: &Gossip, file: &HostFile, facts: &HostFacts) {
    let api = file.api.map(|api| api.to_string()).unwrap_or_default();
    for (key, value) in [
        ("incarnation", facts.incarnation.to_string()),
        ("memory_mib", facts.memory_mib.to_string()),
        ("cores", facts.cores.to_string()),
        ("api", api),
    ] {
        if !value.is_empty()
            && let Err(error) = gossip.set(key, &value).await
        {
            tracing::warn!(%error, "a host fact was not published");
        }
    }
}

fn start_coordinator(node: &Arc<Node>, consensus: Consensus, stop: &CancellationToken) -> anyhow::Result<Coordinator> {
    let (alert_sender, alert_states) = watch::channel(Arc::default());
    let (trouble_sender, troubles) = watch::channel(Vec::new());
    let (confirmed, mut confirmations) = mpsc::channel(CONFIRMATIONS);
    let coordinator = Coordinator::start(Arc::clone(node), consensus, alert_sender, troubles);
    let teller = alerts::run(
        alert_states,
        confirmed,
        trouble_sender,
        Arc::clone(&node.metrics),
        Arc::new(clock::now),
        Deliverer::new()?,
        stop.clone(),
    );
    node.duties.begin("telling people", teller);
    let told = coordinator.clone();
    tokio::spawn(async move {
        while let Some(delivered) = confirmations.recv().await {
            told.tell(Input::Delivered(delivered)).await;
        }
    });
    Ok(coordinator)
}

/// Has done beside the agent and the coordinator what goes on for as long as the supervisor runs.
fn begin_duties(
    node: &Arc<Node>,
    sights: &Sights,
    datagrams: Arc<Counters>,
    calls: Arc<rpc::Counters>,
) -> anyhow::Result<()> {
    let duties = &node.duties;
    duties.begin("asking services", prober::run(Arc::clone(node), sights.clone(), Arc::new(Clients::new()?)));
    // Without it a supervisor that was late takes what it has not heard for the silence of others.
    duties.begin_vital("watching itself", oneself::watch(Arc::clone(node)));
    duties.begin("its figures", facts::export(Arc::clone(node), datagrams, calls));
    Ok(())
}

/// Serves the local socket and, if the host file says so, the read-only API, until what is returned is dropped.
async fn serve_people(node: &Arc<Node>, counter: Arc<Counter>) -> anyhow::Result<Vec<api::Serving>> {
    let desk: Arc<dyn Desk> = counter;
    let mut serving = vec![api::serve_local(&socket_path(&node.file.run_dir), Arc::clone(&desk)).await?];
    if let Some(address) = node.file.api {
        serving.push(api::serve_public(address, desk).await?);
    }
    Ok(serving)
}

/// Where operators' commands reach the supervisor of this host.
#[must_use]
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("holdfast.sock")
}

async fn wait_for_the_end(
    node: &Arc<Node>,
    agent: tokio::task::JoinHandle<()>,
    coordinator: Option<&Coordinator>,
    vote: tokio::task::JoinHandle<String>,
) -> anyhow::Result<()> {
    let coordinator_ended = async {
        let (Some(coordinator), Some(consensus)) = (coordinator, &node.consensus) else {
            return std::future::pending().await;
        };
        coordinator.ended().await;
        // When consensus has stopped it may end: this supervisor goes on without a vote.
        if tokio::time::timeout(STOP_PATIENCE, consensus.stopped()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        joined = agent => Err(anyhow::anyhow!("the agent's task has ended: {joined:?}")),
        why = vote => Err(anyhow::anyhow!("{}", why.unwrap_or_else(|error| format!("nobody looks after the vote: {error}")))),
        () = coordinator_ended => Err(anyhow::anyhow!("the coordinator's task has ended")),
        () = node.gossip.stopped() => Err(anyhow::anyhow!("gossip has stopped")),
        what = node.duties.failed() => Err(anyhow::anyhow!("a part of the supervisor has failed: {what}")),
    };
    if let Some(consensus) = &node.consensus
        && tokio::time::timeout(CONSENSUS_PATIENCE, consensus.shutdown()).await.is_err()
    {
        tracing::warn!("consensus does not stop; it is left as after a crash");
    }
    tracing::info!("supervisor down; guests run on");
    ended
}
