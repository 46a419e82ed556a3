//! The command line's promises, from arguments to exit code.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use holdfast_policies::{
    agent::Disk,
    names::HostName,
    operators::OperatorCertificate,
    plan::{Lose, Question},
    state::{ClusterState, Wanted},
    sync::Authority,
    time::Span,
    yaml::INPUT_BYTES_MAX,
};
use serde_json::{Value, json};

use super::{
    super::{
        api::{SOCKET_NAME, serve_local},
        bootstrap::Papers,
        consensus::{Anew, Place},
        datagram::Keyring,
        desk::{
            Answer, Denied, Desk, Request,
            tests::{guest, host, shown},
        },
        pki,
        recover::survey,
        revocations::Kept,
        rpc::{Channel, Handler, Limits, Server},
    },
    *,
};

const ENTRY: Entry = Entry { run: |_| Ok(()), guard: |_, _| anyhow::bail!("no guard today") };

/// What one call came to.
struct Called {
    code: u8,
    out: String,
    err: String,
}

impl Called {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

fn holdfast(arguments: &[&str]) -> Called {
    let arguments: Vec<OsString> = ["holdfast"].iter().chain(arguments).map(OsString::from).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(ENTRY, &arguments, &mut out, &mut err);
    Called { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Four hosts, of which the third is a witness.
fn init(out: &Path) -> Called {
    let hosts = ["false=10.0.0.1", "hv-b=10.0.0.2", "hv-c=10.0.0.3", "hv-d=fd00::4"];
    let mut arguments = vec!["init", "--out", out.to_str().unwrap(), "--witness", "hv-c", "--json"];
    arguments.extend(hosts.iter().flat_map(|host| ["--host", host]));
    holdfast(&arguments)
}

#[test]
fn init_makes_host_files_that_load_and_keys_that_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("etc");
    let called = init(&out);
    assert_eq!((called.code, called.err.as_str()), (0, ""));
    assert_eq!(called.json()["voters"], json!(["false", "hv-b", "hv-c"]));
    assert_eq!(names(&out), ["authority", "false", "hv-b", "hv-c", "hv-d"].map(str::to_owned).into());
    assert_eq!(mode(&out.join("authority/ca.key")), 0o600);
    for (position, name) in ["false", "hv-b", "hv-c", "hv-d"].into_iter().enumerate() {
        let own = out.join(name);
        let loaded = load_host_file(&own.join("holdfast.yaml")).unwrap();
        assert_eq!((loaded.host.as_str(), loaded.guests), (name, name != "hv-c"));
        assert_eq!((loaded.state_dir, loaded.run_dir), ("/var/lib/holdfast".into(), "/run/holdfast".into()));
        assert_eq!(loaded.voters.len(), 3);
        assert_eq!(
            (&loaded.tls.key, &loaded.gossip_keys),
            (&own.join(format!("{name}.key")), &vec![own.join("gossip.key")])
        );
        assert_eq!(loaded.qemu.binary, PathBuf::from("qemu-system-x86_64"));
        assert_eq!((mode(&loaded.tls.key), mode(&own.join("gossip.key")), mode(&own)), (0o600, 0o600, 0o700));
        Keyring::load(&loaded.gossip_keys).unwrap();
        assert_eq!(fs::read(own.join("gossip.key")).unwrap(), fs::read(out.join("hv-d/gossip.key")).unwrap());
        let files =
            pki::TlsFiles { authority: loaded.tls.ca, certificate: loaded.tls.certificate, key: loaded.tls.key };
        assert_eq!(pki::own_host(&files).unwrap().host.as_str(), name);
        pki::client_config(&files).unwrap();
        pki::server_config(&files).unwrap();
        let ticket =
            fs::read_to_string(own.join("bootstrap")).ok().map(|text| serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!(ticket, (name != "hv-d").then(|| json!({ "node_id": position + 1 })));
    }
    let last = load_host_file(&out.join("hv-d/holdfast.yaml")).unwrap();
    assert_eq!(
        (last.listen, last.api),
        ("[fd00::4]:7400".parse().unwrap(), "[fd00::4]:7480".parse::<SocketAddr>().ok())
    );
}

#[test]
fn init_says_that_one_voter_among_several_hosts_stops_all_decisions_when_it_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let made = |name: &str, hosts: &[&str]| {
        let out = folder.path().join(name);
        let hosts = hosts.iter().flat_map(|host| ["--host", host]);
        let arguments: Vec<&str> = ["init", "--out", out.to_str().unwrap()].into_iter().chain(hosts).collect();
        holdfast(&arguments).out
    };
    let two = made("two", &["hv-a=10.0.0.1", "hv-b=10.0.0.2"]);
    assert!(two.contains("\nNote: with 1, the loss of one voter stops") && two.contains("--witness NAME"), "{two}");
    assert!(!made("one", &["hv-a=10.0.0.1"]).contains("Note"), "there is nothing to move to");
    assert!(!made("three", &["hv-a=10.0.0.1", "hv-b=10.0.0.2", "hv-c=10.0.0.3"]).contains("Note"));
}

/// The host file of `hv-b`, whose folders are beside those that `init` makes.
fn survivor(out: &Path) -> (PathBuf, HostFile) {
    assert_eq!(init(out).code, 0);
    let config = out.join("hv-b/holdfast.yaml");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("/var/lib/holdfast", "../../state").replace("/run/holdfast", "../../run");
    fs::write(&config, text).unwrap();
    let file = load_host_file(&config).unwrap();
    (config, file)
}

/// A store of its own, which ends at entry 40.
fn store_of(file: &HostFile, node_id: u64) -> Anew {
    let place = Place { host: host("hv-b"), address: file.voters[&host("hv-b")] };
    let state = serde_json::to_vec(&ClusterState { applied: 40, ..ClusterState::born() }).unwrap();
    Anew { cluster: file.cluster.clone(), node_id, place, term: 3, index: 40, state }
}

/// Its store, of node 2, which ends at entry 40.
fn put_store(file: &HostFile) {
    store_of(file, 2).write(&file.state_dir.join("raft")).unwrap();
    fs::write(file.state_dir.join("node.json"), r#"{"node_id":2}"#).unwrap();
}

#[test]
fn a_cluster_is_recovered_only_with_the_exact_words_and_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let (config, file) = survivor(&folder.path().join("etc"));
    let recover = |more: &[&str]| holdfast(&[&["recover", "--config", config.to_str().unwrap()][..], more].concat());
    let none = recover(&[]);
    assert!(none.code == 1 && none.err.contains("there is no raft store"), "{}", none.err);
    fs::create_dir_all(file.state_dir.join("raft.old")).unwrap();
    let aside = recover(&[]);
    assert!(aside.code == 1 && aside.err.contains("One that was taken out of use is in"), "{}", aside.err);

    put_store(&file);
    // It was told that after the newest entry of its store.
    let kept = r#"{"index":41,"revoked":{"hv-c":{"since":41,"by":"ann","why":"stolen","boots":[]}}}"#;
    fs::write(Kept::path(&file.state_dir), kept).unwrap();
    let words = "what was decided elsewhere is lost for good";
    let shown = recover(&[]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert!(shown.out.contains(&format!("--i-understand \"{words}\"")), "{}", shown.out);
    assert!(shown.out.contains("hv-c, by ann, after the newest entry: it stays so"), "{}", shown.out);
    let operator = ["--operator", "ann"];
    for missing in [&["--force"][..], &["--force", "--i-understand", words], &["--force", "--operator", "ann"]] {
        let refused = recover(missing);
        assert!(refused.code == 1 && refused.err.contains("nothing was changed"), "{missing:?}: {}", refused.err);
    }
    let wrong = recover(&[&["--force", "--i-understand", "yes"][..], &operator].concat());
    assert!(wrong.code == 1 && wrong.err.contains("nothing was changed"), "{}", wrong.err);
    assert!(!file.state_dir.join("raft.generation-1").exists());

    // As a crash leaves it that came before the stores changed places.
    fs::write(file.state_dir.join("node.json"), r#"{"node_id":1000000000}"#).unwrap();
    fs::create_dir_all(file.state_dir.join("raft.recovered")).unwrap();
    fs::write(file.state_dir.join("raft.recovered/raft.redb"), "half").unwrap();
    let before = survey(&file).unwrap();
    let did = recover(&[&["--json", "--force", "--i-understand", words][..], &operator].concat());
    assert_eq!(did.code, 0, "{}", did.err);
    let node_id = did.json()["node_id"].as_u64().unwrap();
    assert_eq!(node_id, 1_000_000_000);
    assert!(file.state_dir.join("raft.generation-1/raft.redb").exists(), "the old store is kept");
    let late = before.carry_out(&file, "ann").unwrap_err().to_string();
    assert!(late.contains("has changed since it was looked at"), "{late}");
    let survey = survey(&file).unwrap();
    assert_eq!((survey.remains.node_id, survey.remains.index), (node_id, node_id));
    assert_eq!(Some(u64::from(survey.state.generation)), did.json()["generation"].as_u64());
    assert!(survey.state.suspended.is_some() && survey.state.generation > 1);
    assert!(survey.state.revoked.contains_key(&host("hv-c")) && survey.revoked_since.is_empty());
    assert_eq!(Papers::of(&file).raft_id(), Some(node_id));
}

#[test]
fn what_is_left_of_a_recovery_that_went_less_far_is_not_put_in_anybodys_place_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let (config, file) = survivor(&folder.path().join("etc"));
    let recover = |more: &[&str]| holdfast(&[&["recover", "--config", config.to_str().unwrap()][..], more].concat());
    let [store, made, kept] = ["raft", "raft.recovered", "raft.generation-1"].map(|name| file.state_dir.join(name));
    fs::create_dir_all(kept).unwrap();
    put_store(&file);
    let words = "what was decided elsewhere is lost for good";
    let refused = recover(&["--force", "--operator", "ann", "--i-understand", words]);
    assert!(refused.code == 1 && refused.err.contains("is there already"), "{}", refused.err);
    assert!(store.exists() && !made.exists(), "what was made for nothing is not left to be taken later");

    // As a crash leaves it that came before the host had its next id. Then somebody has moved the store away.
    store_of(&file, 1_000_000_000).write(&made).unwrap();
    fs::rename(&store, file.state_dir.join("raft.mine")).unwrap();
    let without_a_word = recover(&["--force"]);
    assert!(
        without_a_word.code == 1 && without_a_word.err.contains("there is no raft store"),
        "{}",
        without_a_word.err
    );
    assert!(!store.exists() && made.exists());

    // As one leaves it that came right before the last step.
    fs::write(file.state_dir.join("node.json"), r#"{"node_id":1000000000}"#).unwrap();
    let warned = recover(&[]);
    assert!(warned.code == 1 && warned.err.contains("asks nobody") && made.exists(), "{}", warned.err);
    assert!(warned.err.contains("`holdfast voter add hv-b` there"), "{}", warned.err);
    let last_step = recover(&["--force"]);
    assert_eq!(last_step.code, 0, "{}", last_step.err);
    assert!(store.join("raft.redb").exists() && !made.exists());
}

#[test]
fn a_store_that_is_older_than_a_lost_generation_begins_one_after_all_that_agents_have_seen_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (_, file) = survivor(&folder.path().join("etc"));
    fs::create_dir_all(&file.state_dir).unwrap();
    put_store(&file);
    let first = survey(&file).unwrap().carry_out(&file, "ann").unwrap();
    assert_eq!(first.node_id, 1_000_000_000);
    // Its store is lost, and the one before is the best that is left anywhere.
    fs::remove_dir_all(file.state_dir.join("raft")).unwrap();
    fs::rename(first.kept, file.state_dir.join("raft")).unwrap();
    let authority = Authority { generation: first.generation, term: 4, index: first.node_id + 7 };
    let memory = Disk { cluster: file.cluster.clone(), authority, ..Disk::default() };
    fs::write(file.state_dir.join("agent.json"), serde_json::to_vec(&memory).unwrap()).unwrap();
    let again = survey(&file).unwrap().carry_out(&file, "ann").unwrap();
    assert!(again.generation > first.generation);
    assert_eq!(again.node_id, 2_000_000_000, "no id is given twice");
}

#[test]
fn init_overwrites_nothing_and_refuses_clusters_that_cannot_vote() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("etc");
    assert_eq!(init(&out).code, 0);
    let key = fs::read(out.join("authority/ca.key")).unwrap();
    let again = init(&out);
    assert_eq!(again.code, 1);
    assert!(again.json()["error"].as_str().unwrap().contains("keys are never overwritten"));
    assert_eq!(fs::read(out.join("authority/ca.key")).unwrap(), key);
    let other = folder.path().join("other");
    for (wrong, says) in [
        (vec!["--host", "a=10.0.0.1", "--host", "a=10.0.0.2"], "same name"),
        (vec!["--host", "a=10.0.0.1", "--host", "b=10.0.0.2", "--voters", "a,b"], "there are 2 voters"),
        (vec!["--host", "a=10.0.0.1", "--voters", "x"], "not among the hosts"),
        (vec!["--host", "a=10.0.0.1", "--host", "b=10.0.0.2", "--witness", "b"], "has no vote"),
        (vec!["--host", "../a=10.0.0.1"], "is not 1 to 63 letters"),
        (vec!["--host", "a=ten"], "is not an IP address"),
        (vec!["--host", "authority=10.0.0.1"], "no host can be called authority"),
        (vec!["--host", "a=10.0.0.1", "--api-port", "7400"], "both 7400"),
    ] {
        let called = holdfast(&[&["init", "--out", other.to_str().unwrap()], wrong.as_slice()].concat());
        assert!(called.code == 2 && called.err.contains(says), "{wrong:?}: {} {}", called.code, called.err);
    }
    assert!(!other.exists());
}

#[test]
fn check_shows_every_mistake_with_its_place_and_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies");
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join("a.yaml"), "policies:\n  web:\n    matches: {}\n").unwrap();
    fs::write(policies.join("b.yaml"), "gusts: {}\n").unwrap();
    fs::write(policies.join("notes.txt"), "{{{").unwrap();
    let host_file = folder.path().join("host.yaml");
    fs::write(&host_file, "host: hv-a\nvoters: 3\n").unwrap();
    let (policies, host_file) = (policies.to_str().unwrap(), host_file.to_str().unwrap());
    let called = holdfast(&["check", policies, host_file]);
    assert_eq!((called.code, called.out.as_str()), (2, ""));
    for place in ["policies/a.yaml:3:5: ", "policies/b.yaml:1:1: ", "host.yaml:2:9: "] {
        assert!(called.err.contains(place), "{place} is not in {}", called.err);
    }
    let called = holdfast(&["--json", "check", policies]);
    assert_eq!(called.code, 2);
    assert!(called.json()["findings"].as_array().unwrap().len() >= 2 && called.json()["error"].is_string());
    fs::write(Path::new(policies).join("a.yaml"), "guests: {}\n").unwrap();
    fs::remove_file(Path::new(policies).join("b.yaml")).unwrap();
    let called = holdfast(&["check", policies]);
    assert!(called.code == 0 && called.out.starts_with("no mistakes in "), "{}", called.out);
    fs::write(Path::new(policies).join("a.yaml"), "# nothing yet\n").unwrap();
    let called = holdfast(&["check", policies]);
    assert!(called.code == 0 && called.out.starts_with("? nothing is declared in "), "{}", called.out);
    assert_eq!(holdfast(&["check", "/does/not/exist"]).code, 1);
}

#[test]
fn check_looks_at_what_a_host_file_names_and_at_what_policies_meet() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("etc");
    assert_eq!(init(&out).code, 0);
    let file = out.join("hv-b/holdfast.yaml");
    let check = |path: &Path| holdfast(&["check", path.to_str().unwrap()]);
    assert_eq!(check(&file).out, format!("no mistakes in {}\n", file.display()));
    fs::set_permissions(out.join("hv-b/hv-b.key"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::copy(out.join("hv-d/hv-d.pem"), out.join("hv-b/hv-b.pem")).unwrap();
    fs::remove_file(out.join("hv-b/gossip.key")).unwrap();
    let called = check(&file);
    assert_eq!((called.code, called.out.lines().count()), (0, 4), "{}", called.out);
    for why in ["the certificate is hv-d's", "hv-b.key has mode 0644", "gossip.key"] {
        assert!(called.out.contains(why), "{why} is not in {}", called.out);
    }
    let policies = folder.path().join("web.yaml");
    let text = "guests:\n  web-1: { labels: { app: wbe }, qemu: { memory: 1GiB, kernel: /k } }\n\
                policies:\n  web: { match: { app: web }, ladder: [page] }\n";
    fs::write(&policies, text).unwrap();
    let called = check(&policies);
    assert!(called.out.starts_with("? policy web matches no guest: none is labelled app=web\n? "), "{}", called.out);
    let json = holdfast(&["check", "--json", policies.to_str().unwrap()]).json();
    assert_eq!((json["notes"].as_array().unwrap().len(), &json["findings"]), (2, &json!([])));
}

#[test]
fn check_has_nothing_to_say_against_a_folder_for_logs() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("etc");
    assert_eq!(init(&out).code, 0);
    let file = out.join("hv-b/holdfast.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}qemu: {{ log_dir: /var/log/holdfast }}\n")).unwrap();
    let called = holdfast(&["check", file.to_str().unwrap()]);
    assert!(called.code == 0 && !called.out.contains("log_dir"), "{}", called.out);
    assert!(called.out.contains("no mistakes in "), "{}", called.out);
}

#[test]
fn check_tells_of_a_wait_that_cuts_recoveries_short_by_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yaml");
    let text = "policies:\n  web:\n    match: { app: web }\n    services:\n      \
                worker: { probe: { exec: { run: [x] } }, every: 30s }\n    ladder:\n      \
                - restart_service: { run: [x], wait: 20s }\n      - page\n";
    fs::write(&file, text).unwrap();
    let called = holdfast(&["check", file.to_str().unwrap()]);
    let place = format!("? {}:7:44: `restart_service` waits 20s ", file.display());
    assert!(called.code == 0 && called.out.starts_with(&place), "{}", called.out);
    assert!(called.out.contains("set `wait` to at least 61s\n"), "{}", called.out);
}

#[test]
fn a_host_that_comes_later_gets_a_host_file_with_what_is_the_same_on_all_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let etc = folder.path().join("etc");
    assert_eq!(init(&etc).code, 0);
    let like = etc.join("hv-b/holdfast.yaml");
    let text = fs::read_to_string(&like).unwrap().replace("[gossip.key]", "[gossip.key, old.key]");
    fs::write(&like, format!("{text}timing: {{ lease: 6s }}\nmemory: 8GiB\n")).unwrap();
    fs::write(etc.join("hv-b/old.key"), "ab".repeat(32)).unwrap();
    fs::set_permissions(etc.join("hv-b/old.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let known = load_host_file(&like).unwrap();
    let (authority, out) = (etc.join("authority"), folder.path().join("hv-e"));
    let make = |out: &Path, more: &[&str]| {
        let (ca, out) = (authority.to_str().unwrap(), out.to_str().unwrap());
        let order = ["host", "certificate", "hv-e", "--ca", ca, "--out", out];
        holdfast(&[&order[..], more].concat())
    };
    let both = ["--like", like.to_str().unwrap(), "--address", "10.0.0.9"];
    for one in [&both[..2], &both[2..]] {
        assert_eq!(make(&out, one).code, 2, "{one:?} alone");
    }
    let made = make(&out, &both);
    assert_eq!((made.code, made.err.as_str()), (0, ""));
    let file = out.join("holdfast.yaml");
    let new = load_host_file(&file).unwrap();
    assert_eq!((new.host, new.listen), (host("hv-e"), "10.0.0.9:7400".parse().unwrap()));
    assert_eq!((new.cluster, new.voters, new.timing), (known.cluster, known.voters, known.timing));
    assert_eq!(new.memory_mib, None, "that is particular to hv-b");
    assert_eq!(Keyring::load(&new.gossip_keys).unwrap().ids(), Keyring::load(&known.gossip_keys).unwrap().ids());
    assert_eq!(holdfast(&["check", file.to_str().unwrap()]).out, format!("no mistakes in {}\n", file.display()));
    assert!(!out.join("bootstrap").exists(), "it does not take part in the birth");
}

#[test]
fn files_that_were_cut_to_nothing_take_no_guest_out_of_care() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(init(&folder.path().join("etc")).code, 0);
    let config = host_file_with_run_dir(folder.path());
    let path = folder.path().join("web.yaml");
    for (text, code) in [("", 1), ("---\n# all of it\n\n", 1), ("guests: {}\n", 3)] {
        fs::write(&path, text).unwrap();
        let called = holdfast(&["--config", &config, "apply", path.to_str().unwrap()]);
        assert_eq!(called.code, code, "{text:?}: {}", called.err);
        assert_eq!(called.err.contains("nothing is declared in"), code == 1, "{}", called.err);
    }
}

#[test]
fn check_takes_every_example_for_what_it_is() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for path in ["policies", "kits", "quickstart/policies", "host.yaml"] {
        let called = holdfast(&["check", examples.join(path).to_str().unwrap()]);
        assert_eq!((called.code, called.err.as_str()), (0, ""), "{path}");
        // What that names lies on its host.
        let doubts: Vec<&str> = called.out.lines().filter(|line| line.starts_with('?')).collect();
        assert!(doubts.is_empty() || path == "host.yaml", "{path}: {doubts:?}");
    }
}

#[test]
fn a_file_that_would_not_be_read_and_one_that_is_no_text_are_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("a.yaml"), "guests: {}\n").unwrap();
    fs::write(path("b.yml"), "guests: {}\n").unwrap();
    let called = holdfast(&["check", folder.path().to_str().unwrap()]);
    assert!(called.code == 1 && called.err.contains("/b.yml would not be read"), "{}", called.err);
    assert_eq!(holdfast(&["check", &path("b.yml")]).code, 0, "it is named, so it is meant");
    fs::write(path("c.yaml"), b"guests: {}\n# caf\xe9\n").unwrap();
    let called = holdfast(&["check", &path("c.yaml")]);
    assert!(called.code == 1 && called.err.contains("from line 2, column 6 on; save it as UTF-8"), "{}", called.err);
    // 0xC3 0xA4 is one character; the limit falls between its bytes.
    let large = format!("##{}", "\u{e4}".repeat(INPUT_BYTES_MAX / 2 + 1));
    fs::write(path("d.yaml"), large).unwrap();
    let called = holdfast(&["check", &path("d.yaml")]);
    assert!(called.code == 2 && called.err.contains("larger than"), "{}", called.err);
}

#[test]
fn policies_in_a_folder_in_a_folder_are_not_left_out_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let [top, inner] = ["", "guests"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    fs::create_dir_all(folder.path().join("notes")).unwrap();
    fs::write(folder.path().join("notes/why.txt"), "none").unwrap();
    fs::write(folder.path().join("a.yaml"), "cluster: { tolerate: 0 }\n").unwrap();
    assert_eq!(holdfast(&["check", &top]).code, 0);
    fs::create_dir(&inner).unwrap();
    fs::write(folder.path().join("guests/b.yaml"), "guests: {}\n").unwrap();
    let called = holdfast(&["check", &top]);
    assert!(called.code == 1 && called.err.contains("/guests would not be read"), "{}", called.err);
    assert_eq!(holdfast(&["check", &top, &inner]).code, 0, "it is named as well");
    fs::create_dir_all(folder.path().join("notes/teams/shop")).unwrap();
    fs::write(folder.path().join("notes/teams/shop/c.yaml"), "guests: {}\n").unwrap();
    let called = holdfast(&["check", &top, &inner]);
    assert!(called.code == 1 && called.err.contains("/notes/teams/shop would not be read"), "{}", called.err);
}

#[test]
fn exit_codes_tell_usage_failure_and_absence_apart() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(init(&folder.path().join("etc")).code, 0);
    let config = host_file_with_run_dir(folder.path());
    let help = holdfast(&["--help"]);
    assert!(help.code == 0 && help.out.contains("Exit codes:"), "{}", help.out);
    let codes = help.out.lines().skip_while(|line| *line != "Exit codes:");
    assert!(codes.clone().count() > 5 && codes.clone().all(|line| line.chars().count() < 80), "{}", help.out);
    assert_eq!(holdfast(&["explode"]).code, 2);
    let nameless = holdfast(&["--json", "host", "confirm-off", "hv-b"]);
    assert_eq!(nameless.code, 2);
    assert!(nameless.json()["error"].is_string());
    assert_eq!(holdfast(&["host", "confirm-off", "hv-b", "--operator", " "]).code, 2);
    let absent = holdfast(&["--config", &config, "status", "--json"]);
    assert_eq!(absent.code, 3);
    assert!(absent.json()["error"].as_str().unwrap().contains("does it run?"));
    assert_eq!(holdfast(&["--config", "/does/not/exist", "status"]).code, 1);
    assert_eq!(holdfast(&["--config", &config, "run"]).code, 0);
    let guard = holdfast(&["--config", &config, "guard"]);
    assert_eq!((guard.code, guard.err.as_str()), (1, "error: no guard today\n"));
}

fn host_file_with_run_dir(folder: &Path) -> String {
    let path = folder.join("etc/hv-b/holdfast.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("run_dir: /run/holdfast", "run_dir: run")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Remembers what it is asked.
#[derive(Default)]
struct Fake(Mutex<Vec<Request>>);

#[async_trait]
impl Desk for Fake {
    async fn ask(&self, request: Request) -> Result<Answer, Denied> {
        self.0.lock().unwrap().push(request.clone());
        match request {
            Request::Status => Ok(Answer::Status(shown())),
            Request::Apply { dry_run, .. } => {
                Ok(Answer::Applied { version: 4, changes: vec!["+ guests.web-1".into()], dry_run })
            }
            Request::Explain { guest } => Err(Denied::Unknown(format!("there is no guest {guest}"))),
            Request::Drain { .. } => Err(Denied::NoLeader("no quorum".into())),
            Request::Resume { .. } => Ok(Answer::Ignored { why: "it is active".into() }),
            _ => Ok(Answer::Accepted { what: "ordered".into() }),
        }
    }
    fn metrics(&self) -> String {
        String::new()
    }
    fn alive(&self) -> Result<(), String> {
        Ok(())
    }
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn every_command_reaches_the_desk_and_its_answer_the_operator() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(init(&folder.path().join("etc")).code, 0);
    let config = host_file_with_run_dir(folder.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (socket, fake) = (folder.path().join("etc/hv-b/run").join(SOCKET_NAME), Arc::new(Fake::default()));
    let _serving = runtime.block_on(serve_local(&socket, Arc::clone(&fake) as Arc<dyn Desk>)).unwrap();
    let call = |arguments: &[&str]| holdfast(&[&["--config", &config], arguments].concat());

    assert_eq!(call(&["status", "--json"]).json(), serde_json::to_value(shown()).unwrap());
    assert!(call(&["status"]).out.starts_with("WRONG\n"));
    let policies = folder.path().join("policies");
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join("web.yaml"), "guests: {}\n").unwrap();
    let policies = policies.to_str().unwrap();
    let applied = call(&["apply", policies, "--operator", "ann"]);
    assert_eq!(applied.out, "+ guests.web-1\npolicies version 4 is in force\n");
    let dry = call(&["apply", policies, "--dry-run", "--operator", "ann", "--json"]);
    assert_eq!(dry.json(), json!({ "version": 4, "changes": ["+ guests.web-1"], "dry_run": true }));
    let migrate = call(&["guest", "migrate", "web-1", "--to", "h2", "--operator", "ann"]);
    assert_eq!((migrate.code, migrate.out.as_str()), (0, "ordered\n"));
    assert_eq!(call(&["host", "drain", "h1", "--operator", "ann"]).code, 3);
    assert_eq!(call(&["host", "resume", "h1", "--operator", "ann"]).out, "nothing to do: it is active\n");
    assert_eq!(call(&["host", "confirm-off", "h1", "--operator", "ann"]).code, 0);
    let plain = [
        ["guest", "stop", "web-1"],
        ["guest", "start", "web-1"],
        ["guest", "unmanage", "web-1"],
        ["guest", "manage", "web-1"],
        ["host", "maintenance", "h1"],
        ["host", "leaving", "h1"],
        ["guest", "cleanup", "web-1"],
        ["host", "lift-quarantine", "h1"],
        ["host", "trust-device", "h1"],
        ["fence", "allow", "h1"],
    ];
    for command in plain {
        assert_eq!(call(&[&command[..], &["--operator", "ann"]].concat()).code, 0, "{command:?}");
    }
    assert_eq!(call(&["host", "leaving", "h1", "--reboot", "--operator", "ann"]).code, 0);
    assert_eq!(call(&["suspend", "--operator", "ann"]).code, 0);
    assert_eq!(call(&["resume", "--operator", "ann"]).code, 0);
    assert_eq!(call(&["release-storm-hold", "--operator", "ann"]).code, 0);
    assert_eq!(call(&["guest", "migrate", "web-1", "--cold", "--operator", "ann"]).code, 0);
    let machine = ["host", "lift-quarantine", "h1", "--machine", "m2", "--operator", "ann"];
    assert_eq!(call(&machine).code, 0);
    assert_eq!(call(&["host", "lift-quarantine", "h1"]).code, 2, "such a word has a name");
    let revoke = ["host", "revoke", "h1", "--why", "stolen"];
    assert_eq!(call(&revoke).code, 2, "such a word has a name");
    assert_eq!(call(&["host", "revoke", "h1", "--operator", "ann"]).code, 2, "and a reason");
    assert_eq!(call(&[&revoke[..], &["--operator", "ann"]].concat()).code, 0);
    for (serial, code) in [("00:5F", 0), ("none", 2)] {
        assert_eq!(call(&["host", "readmit", "h1", "--serial", serial, "--operator", "ann"]).code, code, "{serial}");
    }
    assert_eq!(call(&["simulate", "--lose", "h1", "--boot", "20s"]).out, "ordered\n");
    let unknown = call(&["explain", "web-9", "--json"]);
    assert_eq!((unknown.code, unknown.json()), (1, json!({ "error": "there is no guest web-9" })));
    fs::write(Path::new(policies).join("web.yaml"), "gusts: {}\n").unwrap();
    assert_eq!(call(&["apply", policies]).code, 2);

    let by = || "ann".to_owned();
    let apply = |dry_run| {
        let sources = [("web.yaml".to_owned(), "guests: {}\n".to_owned())].into();
        Request::Apply { sources, by: by(), dry_run }
    };
    let want = |wanted| Request::Want { guest: guest("web-1"), wanted, by: by() };
    let expected = [
        Request::Status,
        Request::Status,
        apply(false),
        apply(true),
        Request::Migrate { guest: guest("web-1"), to: Some(host("h2")), cold: false, by: by() },
        Request::Drain { host: host("h1"), by: by() },
        Request::Resume { host: host("h1"), by: by() },
        Request::ConfirmOff { host: host("h1"), person: by() },
        want(Wanted::Stopped),
        want(Wanted::Running),
        want(Wanted::Unmanaged),
        want(Wanted::Running),
        Request::Maintain { host: host("h1"), by: by() },
        Request::Leave { host: host("h1"), reboot: false, by: by() },
        Request::LookedAfter { guest: guest("web-1"), by: by() },
        Request::LiftQuarantine { host: host("h1"), machine: None, by: by() },
        Request::TrustDevice { host: host("h1"), by: by() },
        Request::AllowFence { host: host("h1"), by: by() },
        Request::Leave { host: host("h1"), reboot: true, by: by() },
        Request::Suspend { suspended: true, by: by() },
        Request::Suspend { suspended: false, by: by() },
        Request::ReleaseStormHold { by: by() },
        Request::Migrate { guest: guest("web-1"), to: None, cold: true, by: by() },
        Request::LiftQuarantine { host: host("h1"), machine: Some("m2".to_owned()), by: by() },
        Request::Revoke { host: host("h1"), why: "stolen".to_owned(), by: by() },
        Request::Readmit { host: host("h1"), serial: "5f".parse().unwrap(), by: by() },
        Request::Simulate(Question {
            lose: Lose::These { hosts: [host("h1")].into(), domains: BTreeSet::new() },
            boot: Span::secs(20),
        }),
        Request::Explain { guest: guest("web-9") },
    ];
    assert_eq!(*fake.0.lock().unwrap(), expected);
}

#[async_trait]
impl Handler for Fake {
    async fn handle(&self, peer: HostName, _channel: Channel, _body: Vec<u8>) -> Result<Vec<u8>, String> {
        Err(format!("{peer} is no operator"))
    }

    async fn handle_operator(&self, operator: OperatorCertificate, body: Vec<u8>) -> Result<Vec<u8>, String> {
        assert_eq!(operator.name.as_str(), "ann");
        let request: Request = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        serde_json::to_vec(&self.ask(request).await).map_err(|error| error.to_string())
    }
}

/// Makes the operator ann in a folder of that name.
fn add_ann(folder: &Path) -> Called {
    let at = |path: &str| folder.join(path).to_str().unwrap().to_owned();
    let (config, authority, out) = (at("etc/hv-b/holdfast.yaml"), at("etc/authority"), at("ann"));
    holdfast(&["--config", &config, "operator", "add", "ann", "--ca", &authority, "--out", &out, "--json"])
}

#[test]
fn an_operator_gets_a_folder_of_their_own_whose_key_is_private_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(init(&folder.path().join("etc")).code, 0);
    let made = add_ann(folder.path());
    assert_eq!((made.code, made.err.as_str()), (0, ""));
    let json = made.json();
    assert_eq!((json["operator"].as_str(), json["days"].as_u64()), (Some("ann"), Some(365)));
    let own = folder.path().join("ann");
    assert_eq!(names(&own), ["ca.pem", "identity.yaml", "operator.key", "operator.pem"].map(str::to_owned).into());
    assert_eq!((mode(&own), mode(&own.join("operator.key"))), (0o700, 0o600));
    let read = identity::load(&own.join("identity.yaml")).unwrap();
    assert_eq!((read.voters.len(), &read.tls.key), (3, &own.join("operator.key")));
    let tls = pki::TlsFiles { authority: read.tls.ca, certificate: read.tls.certificate, key: read.tls.key };
    assert_eq!(pki::own_operator(&tls).unwrap().serial.to_string(), json["serial"].as_str().unwrap());
    let key = fs::read(own.join("operator.key")).unwrap();
    let again = add_ann(folder.path());
    assert!(again.code == 1 && again.out.contains("keys are never overwritten"), "{}", again.out);
    assert_eq!(fs::read(own.join("operator.key")).unwrap(), key);
    for wrong in [&["ann through hv-a"][..], &["bob", "--days", "0"], &["bob", "--days", "4000"]] {
        let called = holdfast(&[&["operator", "add", "--ca", "/does/not/exist"], wrong].concat());
        assert_eq!(called.code, 2, "{wrong:?}: {}", called.err);
    }
}

#[test]
fn a_host_gets_another_certificate_whose_key_is_private_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(init(&folder.path().join("etc")).code, 0);
    let at = |path: &str| folder.path().join(path).to_str().unwrap().to_owned();
    let (authority, out) = (at("etc/authority"), at("new"));
    let make = || holdfast(&["host", "certificate", "hv-b", "--ca", &authority, "--out", &out, "--json"]);
    let made = make();
    assert_eq!((made.code, made.err.as_str()), (0, ""));
    let own = folder.path().join("new");
    assert_eq!(names(&own), ["ca.pem", "hv-b.key", "hv-b.pem"].map(str::to_owned).into());
    assert_eq!((mode(&own), mode(&own.join("hv-b.key"))), (0o700, 0o600));
    let of = |own: &Path| {
        let at = |name: &str| own.join(name);
        let files = pki::TlsFiles { authority: at("ca.pem"), certificate: at("hv-b.pem"), key: at("hv-b.key") };
        pki::server_config(&files).unwrap();
        pki::own_host(&files).unwrap()
    };
    let (old, new) = (of(&folder.path().join("etc/hv-b")), of(&own));
    assert_eq!((new.host.as_str(), made.json()["serial"].as_str().unwrap()), ("hv-b", &*new.serial.to_string()));
    assert_ne!(old.serial, new.serial);
    let again = make();
    assert!(again.code == 1 && again.out.contains("keys are never overwritten"), "{}", again.out);
}

#[test]
fn with_an_identity_a_command_is_the_operators_and_needs_no_host_file() {
    let folder = tempfile::tempdir().unwrap();
    let etc = folder.path().join("etc");
    assert_eq!((init(&etc).code, add_ann(folder.path()).code), (0, 0));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let loaded = load_host_file(&etc.join("hv-b/holdfast.yaml")).unwrap();
    let tls = pki::TlsFiles { authority: loaded.tls.ca, certificate: loaded.tls.certificate, key: loaded.tls.key };
    let (tls, fake) = (pki::server_config(&tls).unwrap(), Arc::new(Fake::default()));
    let (listen, handler) = ("127.0.0.1:0".parse().unwrap(), Arc::clone(&fake) as Arc<dyn Handler>);
    let server = runtime.block_on(Server::serve(listen, tls, handler, Limits::default())).unwrap();
    let identity = folder.path().join("ann/identity.yaml");
    let text = fs::read_to_string(&identity).unwrap();
    let (files, _) = text.split_once("voters:").unwrap();
    fs::write(&identity, format!("{files}voters: {{ hv-b: \"{}\" }}\n", server.address())).unwrap();
    let identity = identity.to_str().unwrap();
    let call =
        |arguments: &[&str]| holdfast(&[&["--config", "/does/not/exist", "--identity", identity], arguments].concat());

    assert!(call(&["status"]).out.starts_with("WRONG\n"));
    let stopped = call(&["guest", "stop", "web-1"]);
    assert_eq!((stopped.code, stopped.out.as_str()), (0, "ordered\n"), "{}", stopped.err);
    assert_eq!(call(&["host", "confirm-off", "h1", "--operator", "ann"]).code, 0);
    assert_eq!(call(&["host", "drain", "h1"]).code, 3);
    let other = call(&["host", "confirm-off", "h1", "--operator", "bob"]);
    assert!(other.code == 1 && other.err.contains("is that of ann, and not of bob"), "{}", other.err);
    let by = || "ann".to_owned();
    let expected = [
        Request::Status,
        Request::Want { guest: guest("web-1"), wanted: Wanted::Stopped, by: by() },
        Request::ConfirmOff { host: host("h1"), person: by() },
        Request::Drain { host: host("h1"), by: by() },
    ];
    let asked: Vec<Request> = fake.0.lock().unwrap().clone();
    let asked: Vec<Request> = asked.into_iter().filter(|asked| *asked != Request::Journal { last: 0 }).collect();
    assert_eq!(asked, expected);

    drop(server);
    let gone = call(&["status", "--json"]);
    assert!(gone.code == 3 && gone.json()["error"].is_string(), "{}", gone.out);
    let absent = holdfast(&["--identity", "/does/not/exist", "status"]);
    assert!(absent.code == 1 && absent.err.contains("cannot read /does/not/exist"), "{}", absent.err);
}

#[test]
fn a_simulated_loss_that_only_a_person_can_prove_has_no_bound_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policies.yaml");
    fs::write(
        &path,
        "guests:\n  web-1:\n    qemu:\n      memory: 1GiB\n      disks:\n        - { path: /srv/web-1.raw }\n",
    )
    .unwrap();
    let path = path.to_str().unwrap();
    let called = holdfast(&["simulate", path, "--host", "hv-a=8GiB,4", "--host", "hv-b=8GiB,4", "--lose", "hv-a"]);
    assert_eq!(called.code, 1, "{}", called.err);
    let why = "no bound (host died): a person makes sure that hv-a is off, and runs `holdfast host confirm-off hv-a \
               --operator YOUR-NAME`\n";
    assert!(called.out.contains("when a person has confirmed") && called.out.contains(why), "{}", called.out);
}

#[test]
fn a_power_device_that_nobody_vouches_for_in_files_is_said_to_tell_by_itself_in_a_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policies.yaml");
    let device = "ipmi: { address: bmc-a, user: ha, password_file: /etc/bmc }";
    let guest = "guests: { web-1: { qemu: { memory: 1GiB, disks: [{ path: /srv/web-1.raw }] } } }";
    fs::write(&path, format!("{guest}\nfencing: {{ hv-a: [{{ {device} }}] }}\n")).unwrap();
    let path = path.to_str().unwrap();
    let called = holdfast(&["simulate", path, "--host", "hv-a=8GiB,4", "--host", "hv-b=8GiB,4", "--lose", "hv-a"]);
    assert_eq!(called.code, 1, "{}", called.err);
    let note = "note     nobody vouches in these files that the power devices of hv-a are its own";
    assert!(called.out.contains(note), "{}", called.out);
}

/// Two hosts of 8 GiB, two guests: `web-1` is placed on hv-a (of equals by name), `web-2` on hv-b (more is free there).
fn simulated(folder: &Path, second_mib: u32, more: &[&str]) -> Called {
    let guest = |name: &str, mib: u32| {
        format!("  {name}:\n    qemu:\n      memory: {mib}MiB\n      disks:\n        - {{ path: /srv/{name}.raw }}\n")
    };
    let device = |host: &str| {
        format!(
            "  {host}:\n    - ipmi: {{ address: bmc-{host}, user: ha, password_file: /etc/bmc, timeout: 8s, \
             wiring_verified_by: ann }}\n"
        )
    };
    let text = format!(
        "guests:\n{}{}fencing:\n{}{}",
        guest("web-1", 2_048),
        guest("web-2", second_mib),
        device("hv-a"),
        device("hv-b")
    );
    let path = folder.join("policies.yaml");
    fs::write(&path, text).unwrap();
    let hosts = ["simulate", path.to_str().unwrap(), "--host", "hv-a=8GiB,4", "--host", "hv-b=8GiB,4"];
    holdfast(&[&hosts[..], more].concat())
}

#[test]
fn a_simulated_loss_says_what_comes_back_when_and_ends_with_0_only_if_all_do() {
    let folder = tempfile::tempdir().unwrap();
    let called = simulated(folder.path(), 2_048, &["--lose", "hv-a", "--boot", "30s"]);
    assert_eq!((called.code, called.err.as_str()), (0, ""), "{}", called.out);
    assert!(called.out.starts_with("SURVIVES"), "{}", called.out);
    // Asked after 750 ms; or switched off after 1.5 s of silence, within 8 s. Then 30 s of boot.
    assert!(called.out.contains("hv-a: proven off after 750ms to 9500ms"), "{}", called.out);
    assert!(called.out.contains("web-1: hv-a -> hv-b, answers after 30750ms to 39500ms"), "{}", called.out);
    let json = simulated(folder.path(), 2_048, &["--lose", "hv-a", "--json"]).json();
    assert_eq!((&json["survives"], &json["starts"][0]["soonest_ms"]), (&json!(true), &json!(10_750)), "{json}");
    assert_eq!(json["stays"], 1);
    // 1.7 s until the voters agree; 8 s, a turn of 1 s and two commits; 30 s and a turn. Nothing of it is asked.
    let bound = "at most 43s (host frozen or cut off): detect 1700ms + prove 10s + start 31s\n";
    assert!(called.out.contains(bound) && called.out.contains("stretched by "), "{}", called.out);
    let bound = &json["starts"][0]["bound"];
    assert_eq!((&bound["within_ms"], &bound["unbounded"]), (&json!(42_700), &json!(null)), "{json}");
    assert_eq!((&bound["parts"][1]["stage"], &bound["parts"][1]["within_ms"]), (&json!("prove"), &json!(10_000)));

    let both = ["--host", "hv-c=8GiB,4", "--lose", "hv-a", "--lose", "hv-b"];
    let storm = simulated(folder.path(), 2_048, &both);
    assert_eq!(storm.code, 1, "two of three hosts at once: {}", storm.out);
    assert!(storm.out.starts_with("NOT BY ITSELF"), "{}", storm.out);
    let held = "answers after 10750ms if its host's power device says off by itself, else when a person has decided";
    assert!(storm.out.contains(held) && storm.out.contains("fencing is held"), "{}", storm.out);

    let full = simulated(folder.path(), 7_000, &["--any", "1"]);
    assert_eq!(full.code, 1, "7000 and 2048 MiB are more than 8192 MiB: {}", full.out);
    assert!(full.out.starts_with("DOES NOT SURVIVE") && full.out.contains("nowhere  web-"), "{}", full.out);

    let says = |more: &[&str], code: u8, text: &str| {
        let called = simulated(folder.path(), 2_048, more);
        assert!(called.code == code && called.err.contains(text), "{more:?}: {} {}", called.code, called.err);
    };
    says(&[], 2, "say what is lost");
    says(&["--lose", "hv-a", "--any", "1"], 2, "either --any or");
    says(&["--lose", "hv-a", "--by-domain"], 2, "--by-domain belongs to --any");
    says(&["--lose", "hv-z"], 1, "there is no host hv-z");
    says(&["--lose-domain", "rack=r1"], 1, "no host has the label rack=r1");
    says(&["--lose", "hv-a", "--host", "hv-b=8GiB"], 2, "given twice");
    says(&["--lose", "hv-a", "--host", "hv-c=8"], 2, "such as hv-a=64GiB,16");
}
