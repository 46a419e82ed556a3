//! A guest's definition as QEMU's command line. Pure: what depends on the host is handed in.

use holdfast_policies::{
    model::{Disk, DiskFormat, DisplayModel, KernelBoot, Nic, QemuDefinition, Vsock, VsockCarrier, WatchdogModel},
    names::GuestName,
};
use holdfast_probes::guest_agent::protocol::PORT_NAME;
use serde_json::json;

use super::{How, accel::Accelerator, record::Files, sandbox::CONFINED};

/// Name of the agent's character device, by which the monitor tells whether an agent listens.
pub const AGENT_CHARDEV: &str = "agent";

/// Name of the agent's port, which QEMU's events carry.
pub const AGENT_PORT: &str = "agent-port";

/// The character device behind the port of Holdfast's own agent.
pub const OWN_CHARDEV: &str = "holdfast";

/// That port's device.
pub const OWN_PORT: &str = "holdfast-port";

/// Translated code that software emulation keeps, in MiB. QEMU's default is a quarter of the memory; this much costs
/// no measurable boot time, and hosts without KVM are small.
const TCG_CACHE_MIB: u32 = 32;

/// Everything that the command line depends on.
pub struct Machine<'a> {
    /// Whose machine.
    pub guest: &'a GuestName,
    /// What its operator wants.
    pub definition: &'a QemuDefinition,
    /// How it begins.
    pub how: How,
    /// What runs its instructions.
    pub accelerator: Accelerator,
    /// Its sockets and logs.
    pub files: &'a Files,
    /// Its tap devices, one for each network card.
    pub taps: &'a [String],
    /// For each disk, whether its file can be opened past the host's page cache.
    pub direct: &'a [bool],
    /// Whether QEMU confines itself.
    pub sandboxed: bool,
}

impl Machine<'_> {
    /// The arguments, without the program.
    pub fn argv(&self) -> Vec<String> {
        let mut line = Line(Vec::new());
        self.board(&mut line);
        self.channels(&mut line);
        if let Some(boot) = &self.definition.kernel {
            kernel(&mut line, boot);
        }
        for (index, disk) in self.definition.disks.iter().enumerate() {
            self.disk(&mut line, index, disk);
        }
        for (index, (nic, tap)) in self.definition.nics.iter().zip(self.taps).enumerate() {
            network(&mut line, index, nic, tap);
        }
        let own_port = self.definition.holdfast_agent && self.definition.vsock.is_none();
        if self.definition.agent || own_port {
            line.add("-device", "virtio-serial-pci,id=serial-bus");
        }
        if self.definition.agent {
            self.agent(&mut line);
        }
        if own_port {
            self.own_agent(&mut line);
        }
        if let Some(vsock) = &self.definition.vsock {
            vsock_device(&mut line, &vsock.carrier);
        }
        self.health(&mut line);
        self.display(&mut line);
        if self.how == How::Incoming {
            // Paused until ordered to run (R22), and listening only once the capabilities are set.
            line.add("-incoming", "defer");
            line.flag("-S");
        }
        line.0
    }

    fn board(&self, line: &mut Line) {
        let definition = self.definition;
        line.add("-name", format!("guest={}", self.guest));
        self.machine(line);
        match self.accelerator {
            Accelerator::Kvm => line.add("-accel", "kvm"),
            Accelerator::Tcg => line.add("-accel", format!("tcg,tb-size={TCG_CACHE_MIB}")),
        }
        // Its commas separate flags, and are no part of a name.
        line.add("-cpu", definition.processor());
        line.add("-m", format!("{}M", definition.memory_mib));
        line.add("-smp", definition.cpus.to_string());
        for flag in ["-nodefaults", "-no-user-config"] {
            line.flag(flag);
        }
        if self.sandboxed {
            line.add("-sandbox", CONFINED);
        }
        line.add("-display", "none");
        line.add("-msg", "timestamp=on");
        line.add("-pidfile", self.files.pid().display().to_string());
    }

    /// A program that carries the guest's vsock reads and writes its memory, which for that must be shared.
    fn machine(&self, line: &mut Line) {
        let machine = escape(&self.definition.machine);
        match self.definition.vsock {
            Some(Vsock { carrier: VsockCarrier::Program { .. }, .. }) => {
                let size = self.definition.memory_mib;
                line.add("-object", format!("memory-backend-memfd,id=memory,size={size}M,share=on"));
                line.add("-machine", format!("{machine},memory-backend=memory"));
            }
            Some(Vsock { carrier: VsockCarrier::Kernel { .. }, .. }) | None => line.add("-machine", machine),
        }
    }

    fn channels(&self, line: &mut Line) {
        for socket in [self.files.qmp(), self.files.human()] {
            line.add("-qmp", format!("unix:{},server=on,wait=off", path(&socket)));
        }
        // Appending is what makes it safe to cut the file while QEMU has it open.
        line.add("-chardev", format!("file,id=console,path={},append=on", path(&self.files.console())));
        line.add("-serial", "chardev:console");
    }

    /// Image locking is on, so that not even a mistake of ours runs one image twice on a host (R28). The page cache is
    /// bypassed where the file system can do that: a guest that moves must not find stale pages on its new host.
    /// Storage errors stop the guest instead of reaching it, so that it survives them.
    fn disk(&self, line: &mut Line, index: usize, disk: &Disk) {
        let direct = self.direct.get(index).copied().unwrap_or(false);
        let cache = json!({ "direct": direct, "no-flush": false });
        let file = json!({
            "driver": "file", "node-name": format!("file{index}"), "filename": disk.path,
            "locking": "on", "aio": "threads", "cache": cache,
        });
        let driver = match disk.format {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
        };
        let format = json!({
            "driver": driver, "node-name": format!("disk{index}"), "file": format!("file{index}"), "cache": cache,
        });
        line.add("-blockdev", file.to_string());
        line.add("-blockdev", format.to_string());
        let device =
            format!("virtio-blk-pci,id=vd{index},drive=disk{index},werror=stop,rerror=stop,bootindex={}", index + 1);
        line.add("-device", device);
    }

    fn agent(&self, line: &mut Line) {
        let socket = path(&self.files.qga());
        line.add("-chardev", format!("socket,id={AGENT_CHARDEV},path={socket},server=on,wait=off"));
        let port = format!("virtserialport,id={AGENT_PORT},chardev={AGENT_CHARDEV},name=org.qemu.guest_agent.0");
        line.add("-device", port);
    }

    fn own_agent(&self, line: &mut Line) {
        let socket = path(&self.files.own());
        line.add("-chardev", format!("socket,id={OWN_CHARDEV},path={socket},server=on,wait=off"));
        line.add("-device", format!("virtserialport,id={OWN_PORT},chardev={OWN_CHARDEV},name={PORT_NAME}"));
    }

    /// A panicked guest is paused, so that it is seen as panicked and its memory can still be dumped. A guest that does
    /// not feed its watchdog is reset by QEMU itself: the smallest cure, which needs neither us nor a quorum.
    fn health(&self, line: &mut Line) {
        let board = self.definition.machine.as_str();
        if board.starts_with("q35") || board.starts_with("pc") {
            line.add("-device", "pvpanic");
        }
        match self.definition.watchdog {
            Some(WatchdogModel::I6300esb) => line.add("-device", "i6300esb,id=watchdog"),
            None => {}
        }
        line.add("-action", "panic=pause,watchdog=reset");
    }

    /// The last of the devices, so that those before it have the same addresses on their bus with it and without. It is a
    /// device alone: `-display none` stands, and nothing listens for somebody who would look.
    fn display(&self, line: &mut Line) {
        match self.definition.display {
            Some(DisplayModel::Vga) => line.add("-device", "VGA,id=display"),
            None => {}
        }
    }
}

fn kernel(line: &mut Line, boot: &KernelBoot) {
    line.add("-kernel", boot.kernel.display().to_string());
    if let Some(initrd) = &boot.initrd {
        // Several initial RAM disks are separated by commas.
        line.add("-initrd", path(initrd));
    }
    line.add("-append", boot.append.as_str());
}

fn vsock_device(line: &mut Line, carrier: &VsockCarrier) {
    match carrier {
        VsockCarrier::Kernel { cid } => line.add("-device", format!("vhost-vsock-pci,id=vsock,guest-cid={cid}")),
        VsockCarrier::Program { device, .. } => {
            line.add("-chardev", format!("socket,id=vsock-program,path={}", path(device)));
            line.add("-device", "vhost-user-vsock-pci,id=vsock,chardev=vsock-program");
        }
    }
}

fn network(line: &mut Line, index: usize, nic: &Nic, tap: &str) {
    line.add("-netdev", format!("tap,id=net{index},ifname={tap},script=no,downscript=no"));
    line.add("-device", format!("virtio-net-pci,id=nic{index},netdev=net{index},mac={},romfile=", escape(&nic.mac)));
}

struct Line(Vec<String>);

impl Line {
    fn add(&mut self, option: &str, value: impl Into<String>) {
        self.0.extend([option.to_owned(), value.into()]);
    }

    fn flag(&mut self, option: &str) {
        self.0.push(option.to_owned());
    }
}

/// QEMU separates options by commas; a comma that belongs to a value is doubled.
fn escape(text: &str) -> String {
    text.replace(',', ",,")
}

fn path(path: &std::path::Path) -> String {
    escape(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use holdfast_policies::model::Accel;

    use super::*;

    fn definition() -> QemuDefinition {
        QemuDefinition {
            memory_mib: 128,
            cpus: 2,
            cpu: None,
            kernel: None,
            disks: vec![Disk { path: "/srv/a,b.raw".into(), format: DiskFormat::Raw }],
            nics: vec![Nic { bridge: "br0".into(), mac: "52:54:00:77:00:64".into() }],
            agent: true,
            holdfast_agent: true,
            vsock: None,
            watchdog: Some(WatchdogModel::I6300esb),
            display: Some(DisplayModel::Vga),
            accel: Accel::Auto,
            machine: "q35".into(),
        }
    }

    fn argv(definition: &QemuDefinition, how: How, accelerator: Accelerator, direct: bool) -> Vec<String> {
        let guest = GuestName::new("web-1").unwrap();
        let files = Files::new(Path::new("/run/holdfast"), &guest);
        let taps = ["hf0n0".to_owned()];
        let (files, taps, direct, sandboxed) = (&files, &taps, &[direct], true);
        Machine { guest: &guest, definition, how, accelerator, files, taps, direct, sandboxed }.argv()
    }

    fn has(argv: &[String], option: &str, value: &str) -> bool {
        argv.windows(2).any(|pair| pair[0] == option && pair[1].contains(value))
    }

    #[test]
    fn every_part_of_a_definition_reaches_the_command_line() {
        let argv = argv(&definition(), How::Run, Accelerator::Tcg, true);
        for (option, value) in [
            ("-name", "guest=web-1"),
            ("-machine", "q35"),
            ("-accel", "tcg,tb-size=32"),
            ("-cpu", "max"),
            ("-m", "128M"),
            ("-smp", "2"),
            ("-pidfile", "/run/holdfast/guests/web-1/pid"),
            ("-qmp", "unix:/run/holdfast/guests/web-1/qmp.sock,server=on,wait=off"),
            ("-blockdev", "\"filename\":\"/srv/a,b.raw\""),
            ("-blockdev", "\"locking\":\"on\""),
            ("-blockdev", "\"direct\":true"),
            ("-device", "drive=disk0,werror=stop,rerror=stop,bootindex=1"),
            ("-netdev", "ifname=hf0n0,script=no,downscript=no"),
            ("-device", "mac=52:54:00:77:00:64,romfile="),
            ("-device", "name=org.qemu.guest_agent.0"),
            ("-chardev", "id=holdfast,path=/run/holdfast/guests/web-1/own.sock,server=on,wait=off"),
            ("-device", "chardev=holdfast,name=holdfast.0"),
            ("-device", "pvpanic"),
            ("-device", "i6300esb"),
            ("-action", "panic=pause,watchdog=reset"),
            ("-device", "VGA,id=display"),
            ("-display", "none"),
            ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        ] {
            assert!(has(&argv, option, value), "{option} {value}: {argv:?}");
        }
        assert!(!argv.contains(&"-S".to_owned()) && !argv.contains(&"-kernel".to_owned()));
    }

    #[test]
    fn a_qemu_that_cannot_confine_itself_is_not_told_to() {
        let (guest, bare) = (GuestName::new("web-1").unwrap(), QemuDefinition::bare(16));
        let files = &Files::new(Path::new("/run/holdfast"), &guest);
        let (how, accelerator, sandboxed) = (How::Run, Accelerator::Tcg, false);
        let machine =
            Machine { guest: &guest, definition: &bare, how, accelerator, files, taps: &[], direct: &[], sandboxed };
        assert!(!machine.argv().contains(&"-sandbox".to_owned()));
    }

    #[test]
    fn both_ends_of_a_migration_have_the_processor_that_is_named_with_its_flags() {
        let cpu = "Skylake-Server,-avx512f,enforce";
        let named = QemuDefinition { cpu: Some(cpu.to_owned()), ..definition() };
        for how in [How::Run, How::Incoming] {
            let argv = argv(&named, how, Accelerator::Kvm, false);
            let given: Vec<&str> =
                argv.windows(2).filter(|pair| pair[0] == "-cpu").map(|pair| pair[1].as_str()).collect();
            assert_eq!(given, [cpu], "{argv:?}");
        }
    }

    #[test]
    fn a_guest_with_vsock_has_that_device_in_place_of_the_agents_port() {
        let mut with = definition();
        with.agent = false;
        with.vsock = Some(Vsock { carrier: VsockCarrier::Kernel { cid: 100 }, port: 7413 });
        let kernel = argv(&with, How::Run, Accelerator::Tcg, false);
        assert!(has(&kernel, "-device", "vhost-vsock-pci,id=vsock,guest-cid=100") && has(&kernel, "-machine", "q35"));
        let line = kernel.join(" ");
        assert!(
            !line.contains("virtio-serial") && !line.contains("virtserialport") && !line.contains("memfd"),
            "{line}"
        );
        let (device, socket) = ("/run/vsock/a,b".into(), "/run/vsock/c".into());
        with.vsock = Some(Vsock { carrier: VsockCarrier::Program { device, socket }, port: 7413 });
        let program = argv(&with, How::Run, Accelerator::Tcg, false);
        for (option, value) in [
            ("-object", "memory-backend-memfd,id=memory,size=128M,share=on"),
            ("-machine", "q35,memory-backend=memory"),
            ("-chardev", "socket,id=vsock-program,path=/run/vsock/a,,b"),
            ("-device", "vhost-user-vsock-pci,id=vsock,chardev=vsock-program"),
        ] {
            assert!(has(&program, option, value), "{option} {value}: {program:?}");
        }
        assert!(!program.join(" ").contains("/run/vsock/c"), "that socket is Holdfast's own");
    }

    #[test]
    fn an_incoming_guest_never_runs_by_itself() {
        let argv = argv(&definition(), How::Incoming, Accelerator::Kvm, false);
        assert!(has(&argv, "-incoming", "defer") && argv.contains(&"-S".to_owned()));
        assert!(has(&argv, "-device", "VGA"), "both ends of a migration have the same devices");
        assert!(has(&argv, "-accel", "kvm") && has(&argv, "-blockdev", "\"direct\":false"));
    }

    #[test]
    fn what_a_definition_lacks_is_not_on_the_command_line() {
        let mut bare = definition();
        (bare.disks, bare.nics, bare.agent, bare.watchdog) = (vec![], vec![], false, None);
        (bare.holdfast_agent, bare.display) = (false, None);
        let boot = KernelBoot { kernel: "/boot/k".into(), initrd: Some("/boot/i,1".into()), append: "a=b,c".into() };
        bare.kernel = Some(boot);
        let argv = argv(&bare, How::Run, Accelerator::Tcg, false);
        assert!(has(&argv, "-initrd", "/boot/i,,1") && has(&argv, "-append", "a=b,c"));
        let line = argv.join(" ");
        for absent in ["virtio-blk", "virtio-net", "virtserialport", "i6300esb", "VGA", "-netdev"] {
            assert!(!line.contains(absent), "{absent}: {line}");
        }
    }
}
