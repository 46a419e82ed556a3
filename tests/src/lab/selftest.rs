//! The lab tested without Holdfast: if these promises fail, no other lab test means anything.

use std::time::Duration;

use super::{
    Client, Fault, HostSpec, Lab, LabOptions, alone, bmc::Bmc, client::ASK_EVERY, clock::now_ms, left_out,
    scene::LIMIT, wait,
};

fn bare(names: &[&str]) -> Lab {
    Lab::new(LabOptions { hosts: names.iter().map(|name| HostSpec::voter(name)).collect(), binary: None }).unwrap()
}

#[test]
fn the_power_button_of_a_bmc_cuts_the_whole_host_and_brings_it_back() {
    if left_out("the_power_button_of_a_bmc_cuts_the_whole_host_and_brings_it_back") {
        return;
    }
    let _alone = alone().unwrap();
    let lab = bare(&["h1", "h2"]);
    let bmc = lab.bmc("h1");
    assert!(press(&bmc, "status").contains("is off"));
    press(&bmc, "on");
    wait::until("h1 on", LIMIT, || {
        lab.exec("h1", &["test", "-e", "/run/lab/booted"], LIMIT)
            .map_err(|e| e.to_string())?
            .ok()
            .then_some(())
            .ok_or("no".into())
    })
    .unwrap();
    lab.power_on("h2").unwrap();
    let ping = |to: &str| lab.exec("h2", &["busybox", "ping", "-c1", "-W1", to], LIMIT).unwrap().ok();
    // One lost answer says nothing; that nobody answers must hold at once.
    let reaches = |to: &str| {
        wait::until(&format!("{to} reached"), LIMIT, || if ping(to) { Ok(()) } else { Err("no answer".into()) })
            .unwrap();
    };
    reaches("10.77.0.1");
    reaches("10.78.0.101");

    // From a host, as Holdfast asks; and the identity that it compares.
    let argv: Vec<&str> =
        "env IPMI_PASSWORD=correct-horse ipmitool -I lanplus -C 3 -E -U holdfast -H 10.78.0.101 mc guid"
            .split_ascii_whitespace()
            .collect();
    let guid = wait::until("the word of the BMC", LIMIT, || {
        let asked = lab.exec("h2", &argv, LIMIT).map_err(|error| format!("{error:#}"))?;
        if asked.ok() { Ok(asked.out) } else { Err(asked.err) }
    })
    .unwrap();
    assert!(guid.to_lowercase().contains(&bmc.system_uuid().unwrap()), "{guid}");
    println!("{guid}");

    lab.freeze("h1").unwrap();
    reaches("10.77.0.1");
    assert!(press(&bmc, "status").contains("is on"));
    bmc.fault(Fault::Stuck).unwrap();
    press(&bmc, "off");
    assert!(lab.is_on("h1"), "a stuck BMC did something");
    bmc.fault(Fault::WrongPassword).unwrap();
    assert!(bmc.ipmitool(&["power", "off"]).is_err() && lab.is_on("h1"));
    bmc.fault(Fault::Unreachable).unwrap();
    assert!(bmc.ipmitool(&["power", "off"]).is_err() && lab.is_on("h1"));
    bmc.fault(Fault::None).unwrap();
    let begin = now_ms();
    press(&bmc, "off");
    wait::until("h1 off", LIMIT, || if lab.is_on("h1") { Err("it is on".into()) } else { Ok(()) }).unwrap();
    println!("frozen host off after {:.0} ms, ipmitool included", now_ms() - begin);
    assert!(!ping("10.77.0.1"));
    lab.power_on("h1").unwrap();
    assert!(!lab.is_frozen("h1"));
    reaches("10.77.0.1");
    lab.cut_link("h1").unwrap();
    assert!(!ping("10.77.0.1"));
    reaches("10.78.0.1");
    lab.restore_link("h1").unwrap();
    reaches("10.77.0.1");
    lab.block("h2", "h1").unwrap();
    assert!(!ping("10.77.0.1"));
    lab.unblock("h2", "h1").unwrap();
    reaches("10.77.0.1");
}

/// Presses the power button, or asks for its state, until that is answered: pressed twice it does the same, and a busy machine
/// does not always answer within the second that `ipmitool` gives it.
fn press(bmc: &Bmc<'_>, what: &str) -> String {
    wait::until(&format!("ipmitool power {what}"), LIMIT, || {
        bmc.ipmitool(&["power", what]).map_err(|error| format!("{error:#}"))
    })
    .unwrap()
}

#[test]
fn the_client_measures_outages_and_the_watcher_sees_who_writes_the_disk() {
    if left_out("the_client_measures_outages_and_the_watcher_sees_who_writes_the_disk") {
        return;
    }
    let _alone = alone().unwrap();
    let lab = bare(&["h1", "h2"]);
    let (guest, address) = ("web-1", "10.77.0.100");
    lab.make_guest(guest, address).unwrap();
    lab.power_on_all().unwrap();
    let client = Client::start(&lab, "10.77.0.100:8080", ASK_EVERY).unwrap();
    println!("boot floor {:.0} ms", lab.boot_floor_ms("h1", guest, address, &client, 1).unwrap());

    client.forget();
    let first = lab.start_by_hand("h1", guest, address, &[]).unwrap();
    client.wait_up(LIMIT).unwrap();
    wait::pause(Duration::from_secs(3)).unwrap();
    println!("outages while it runs: {:?}", client.outages());
    assert_eq!(lab.guest_qemu_pids(guest).iter().map(|(host, _)| host.as_str()).collect::<Vec<_>>(), ["h1"]);
    // A second one is refused by QEMU's lock, and is no double run.
    let refused = lab.start_by_hand("h2", guest, address, &[]).unwrap();
    wait::until(
        "a refused start",
        LIMIT,
        || if refused.said().contains("lock") { Ok(()) } else { Err(refused.said()) },
    )
    .unwrap();
    assert_eq!(lab.double_runs(), []);

    let cut = now_ms();
    lab.power_cut("h1").unwrap();
    let off = now_ms();
    println!("power cut took {:.0} ms", off - cut);
    drop(first);
    let second = lab.start_by_hand("h2", guest, address, &[]).unwrap();
    client.wait_down(LIMIT).unwrap();
    client.wait_up(LIMIT).unwrap();
    let outage = client.longest_since(cut).unwrap();
    println!("outage {:.0} ms: {outage:?}", outage.length_ms());
    // An answer that came just before is noted when the client gets a processor.
    assert!(outage.from_ms <= off + 3_000.0 && outage.length_ms() > 1000.0, "{outage:?}, off at {off}");
    // It answers the client, and may still be late with this.
    let who = wait::until("the guest's word", LIMIT, || {
        lab.client_get("10.77.0.100:8080", "/cgi-bin/who").map_err(|error| format!("{error:#}"))
    })
    .unwrap();
    assert!(who.contains("\"boots\":3"), "{who}");
    assert_eq!(lab.double_runs(), []);
    // One that ignores locks is caught.
    let rogue = [
        "-blockdev",
        "driver=raw,node-name=rogue,file.driver=file,file.locking=off,file.filename=/srv/holdfast/web-1.raw",
        "-device",
        "virtio-blk-pci,drive=rogue,share-rw=on",
    ];
    lab.power_on("h1").unwrap();
    lab.make_guest("web-2", "10.77.0.101").unwrap();
    let _rogue = lab.start_by_hand("h1", "web-2", "10.77.0.101", &rogue).unwrap();
    wait::until("a double run seen", LIMIT, || {
        if lab.double_runs().is_empty() { Err(format!("{:?}", lab.tenures())) } else { Ok(()) }
    })
    .unwrap();
    client.wait_up(LIMIT).unwrap();
    wait::pause(Duration::from_secs(1)).unwrap();
    second.stop().unwrap();
    let record = lab.boot_record(guest).unwrap();
    assert_eq!(record.len(), 3, "{record:?}");
    println!("{} looks, {:?}", lab.looks(), lab.tenures());
}
