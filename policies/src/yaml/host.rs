//! Reads the host file, and the identity file of an operator, which says some of the same.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use super::{
    fields::{Fields, Keys},
    text::quoted,
    value::Value,
};
use crate::{
    hostfile::{HostFile, IdentityFile, QemuHost, Timing, TlsFiles, WatchdogFile},
    names::HostName,
    time::Span,
};

const HOST: Keys = Keys {
    known: &[
        "host",
        "cluster",
        "state_dir",
        "run_dir",
        "listen",
        "api",
        "voters",
        "guests",
        "tls",
        "gossip_keys",
        "machine_id",
        "memory",
        "memory_mib",
        "qemu",
        "watchdog",
        "timing",
    ],
    later: &["libvirt"],
    renamed: &[],
};
const IDENTITY: Keys = Keys { known: &["tls", "voters"], later: &[], renamed: &[] };
const TLS: Keys = Keys { known: &["ca", "certificate", "key"], later: &[], renamed: &[] };
const QEMU: Keys =
    Keys { known: &["binary", "cgroup", "migrate_address", "log_dir", "sandbox"], later: &[], renamed: &[] };
const WATCHDOG: Keys = Keys { known: &["device", "timeout"], later: &[], renamed: &[] };
const TIMING: Keys = Keys {
    known: &["gossip_interval", "sync_every", "wonder_after", "suspect_after", "lease", "join_grace"],
    later: &[],
    renamed: &[],
};

/// Voters that a cluster can have: an even number would tolerate no more failures than the odd one below it.
const VOTERS: [usize; 4] = [1, 3, 5, 7];
/// Most memory for guests in MiB: 64 TiB.
const MEMORY_MIB_MAX: u64 = 64 * 1024 * 1024;
/// Shortest interval of gossip and sync: below it the supervisor itself becomes the load.
const INTERVAL_MIN: Span = Span::ms(20);

/// Reads the file's one document.
pub(super) fn read(root: &Value<'_>) -> Option<HostFile> {
    let fields = root.fields(&HOST)?;
    let host = fields.need("host", "host: hv-a", Value::named::<HostName>);
    let cluster = fields
        .need("cluster", "cluster: the id that `holdfast init` printed", |v| v.named::<HostName>().map(String::from));
    let state_dir = fields.or("state_dir", PathBuf::from("/var/lib/holdfast"), Value::path);
    let run_dir = fields.or("run_dir", PathBuf::from("/run/holdfast"), Value::path);
    let listen = fields.need("listen", "listen: 10.0.0.1:7400", socket);
    let api = fields.optional("api", socket);
    let voters = fields.need("voters", "voters: { hv-a: \"10.0.0.1:7400\" }", voters);
    let guests = fields.or("guests", true, Value::boolean);
    let tls = fields.need("tls", "tls: { ca: ca.pem, certificate: hv-a.pem, key: hv-a.key }", tls);
    let gossip_keys = fields.need("gossip_keys", "gossip_keys: [gossip.key]", gossip_keys);
    let machine_id = fields.optional("machine_id", |v| v.text().map(str::to_owned));
    let memory_mib = memory(&fields, root);
    let qemu = fields.or("qemu", QemuHost::default(), qemu);
    let watchdog = fields.optional("watchdog", watchdog);
    let timing = fields.or("timing", Timing::default(), timing);
    if let (Some(listen), Some(Some(api))) = (listen, api)
        && listen == api
    {
        root.findings.hint(
            fields.place("api"),
            "`api` is the same address as `listen`",
            "give the API a port of its own",
        );
    }
    if let (Some(host), Some(listen), Some(voters)) = (&host, listen, &voters) {
        reachable(host, listen, voters, &fields, root);
    }
    Some(HostFile {
        host: host?,
        cluster: cluster?,
        state_dir: state_dir?,
        run_dir: run_dir?,
        listen: listen?,
        api: api?,
        voters: voters?,
        guests: guests?,
        tls: tls?,
        gossip_keys: gossip_keys?,
        machine_id: machine_id?,
        memory_mib: memory_mib?,
        qemu: qemu?,
        watchdog: watchdog?,
        timing: timing?,
    })
}

/// Reads the one document of an identity file.
pub(super) fn identity(root: &Value<'_>) -> Option<IdentityFile> {
    let fields = root.fields(&IDENTITY)?;
    let tls = fields.need("tls", "tls: { ca: ca.pem, certificate: operator.pem, key: operator.key }", tls);
    let voters = fields.need("voters", "voters: { hv-a: \"10.0.0.1:7400\" }", voters);
    Some(IdentityFile { tls: tls?, voters: voters? })
}

fn socket(value: &Value<'_>) -> Option<SocketAddr> {
    let example = "write an IP address and a port: 10.0.0.1:7400, \"[fd00::1]:7400\"";
    let socket: SocketAddr = value.parsed("an address with a port", example)?;
    if socket.port() == 0 {
        return value.wrong(format!("{} has no port", quoted(value.name)), example);
    }
    Some(socket)
}

fn voters(value: &Value<'_>) -> Option<BTreeMap<HostName, SocketAddr>> {
    let entries = value.map()?;
    let mut addresses: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    let mut voters = Vec::new();
    for entry in &entries {
        let (name, socket) = (entry.key_name::<HostName>(), socket(entry));
        if let Some(socket) = socket {
            if socket.ip().is_unspecified() {
                entry.wrong::<()>(
                    format!("nobody can reach voter {} at {socket}", quoted(entry.name)),
                    "write the address at which the others reach it",
                );
            }
            if let Some(other) = addresses.insert(socket, entry.name) {
                entry.wrong::<()>(
                    format!("voters {} and {} have the same address", quoted(other), quoted(entry.name)),
                    "each voter has its own",
                );
            }
        }
        voters.push(name.zip(socket));
    }
    if !VOTERS.contains(&entries.len()) {
        value.findings.hint(
            value.at,
            format!("there are {} voters", entries.len()),
            "1, 3, 5 or 7: an even number tolerates no more failures than one less",
        );
    }
    voters.into_iter().collect()
}

/// Peers dial what `voters` says, so that is where this host must listen.
fn reachable(
    host: &HostName,
    listen: SocketAddr,
    voters: &BTreeMap<HostName, SocketAddr>,
    fields: &Fields<'_>,
    root: &Value<'_>,
) {
    let Some(dialled) = voters.get(host) else {
        // The others learn from itself where it is.
        if listen.ip().is_unspecified() {
            let what =
                format!("`voters` does not name {}, so others are told to reach it at {listen}", quoted(host.as_str()));
            root.findings.hint(fields.place("listen"), what, "write the address at which the others reach it");
        }
        return;
    };
    let heard = listen.port() == dialled.port() && (listen.ip().is_unspecified() || listen.ip() == dialled.ip());
    if !heard {
        let what =
            format!("this host listens on {listen}, but the voter {} is reached at {dialled}", quoted(host.as_str()));
        root.findings.hint(fields.place("listen"), what, "write the same address and port in both places");
    }
}

fn tls(value: &Value<'_>) -> Option<TlsFiles> {
    let fields = value.fields(&TLS)?;
    let ca = fields.need("ca", "ca: ca.pem", Value::path);
    let certificate = fields.need("certificate", "certificate: hv-a.pem", Value::path);
    let key = fields.need("key", "key: hv-a.key", Value::path);
    Some(TlsFiles { ca: ca?, certificate: certificate?, key: key? })
}

fn gossip_keys(value: &Value<'_>) -> Option<Vec<PathBuf>> {
    let items = value.list("write `[gossip.key]`")?;
    if !(1..=2).contains(&items.len()) {
        return value.wrong(
            format!("there are {} gossip keys", items.len()),
            "give one, or two while keys are changed: the newest first",
        );
    }
    let read: Vec<Option<PathBuf>> = items.iter().map(Value::path).collect();
    read.into_iter().collect()
}

#[expect(clippy::option_option, reason = "a mistake and an absent key are two different things")]
fn memory(fields: &Fields<'_>, root: &Value<'_>) -> Option<Option<u64>> {
    if fields.has("memory") && fields.has("memory_mib") {
        root.findings.hint(fields.place("memory_mib"), "both `memory` and `memory_mib` are given", "keep `memory`");
    }
    let number = fields.optional("memory_mib", |v| v.number(1..=MEMORY_MIB_MAX));
    let text = fields.optional("memory", |v| v.memory().map(u64::from));
    Some(text?.or(number?))
}

fn qemu(value: &Value<'_>) -> Option<QemuHost> {
    let fields = value.fields(&QEMU)?;
    let binary = fields.or("binary", QemuHost::default().binary, Value::path);
    let cgroup = fields.optional("cgroup", Value::absolute_path);
    let migrate_address = fields.optional("migrate_address", Value::address);
    let log_dir = fields.optional("log_dir", Value::path);
    let sandbox = fields.or("sandbox", QemuHost::default().sandbox, Value::boolean);
    let (binary, cgroup, migrate_address) = (binary?, cgroup?, migrate_address?);
    Some(QemuHost { binary, cgroup, migrate_address, log_dir: log_dir?, sandbox: sandbox? })
}

fn watchdog(value: &Value<'_>) -> Option<WatchdogFile> {
    let fields = value.fields(&WATCHDOG)?;
    let default = WatchdogFile::default();
    let device = fields.or("device", default.device, Value::absolute_path);
    let timeout = fields.or("timeout", default.timeout, watchdog_timeout);
    Some(WatchdogFile { device: device?, timeout: timeout? })
}

/// Drivers count whole seconds.
fn watchdog_timeout(value: &Value<'_>) -> Option<Span> {
    let timeout = value.span()?;
    let (least, most) = (WatchdogFile::TIMEOUT_MIN, WatchdogFile::TIMEOUT_MAX);
    if timeout.0.subsec_nanos() != 0 || !(least..=most).contains(&timeout) {
        return value.wrong(
            format!("a watchdog's time-out must be whole seconds from {least} to {most}, not {timeout}"),
            "the default is 10s; a shorter one mistakes a stalled machine for a dead one, and guests wait for a longer one",
        );
    }
    Some(timeout)
}

fn timing(value: &Value<'_>) -> Option<Timing> {
    let fields = value.fields(&TIMING)?;
    let default = Timing::default();
    let span = |key: &str, default: Span| fields.or(key, default, |v| v.span_from(INTERVAL_MIN));
    let gossip_interval = span("gossip_interval", default.gossip_interval);
    let steps = [
        ("sync_every", span("sync_every", default.sync_every)),
        ("wonder_after", span("wonder_after", default.wonder_after)),
        ("suspect_after", span("suspect_after", default.suspect_after)),
        ("lease", span("lease", default.lease)),
    ];
    let join_grace = span("join_grace", default.join_grace);
    for pair in steps.windows(2) {
        let [(shorter, Some(short)), (longer, Some(long))] = pair else { continue };
        if short >= long {
            let key = if fields.has(longer) { longer } else { shorter };
            value.findings.hint(
                fields.place(key),
                format!("{} ({short}) must be shorter than {} ({long})", quoted(shorter), quoted(longer)),
                "the order is `sync_every` < `wonder_after` < `suspect_after` < `lease`",
            );
        }
    }
    let [(_, sync_every), (_, wonder_after), (_, suspect_after), (_, lease)] = steps;
    Some(Timing {
        gossip_interval: gossip_interval?,
        sync_every: sync_every?,
        wonder_after: wonder_after?,
        suspect_after: suspect_after?,
        lease: lease?,
        join_grace: join_grace?,
    })
}
