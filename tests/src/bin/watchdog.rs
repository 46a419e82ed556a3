//! The hardware watchdog of a lab host, as a file: `watchdog FOLDER LOG COMMAND…` mounts FOLDER with the files `watchdog`,
//! which does what a Linux watchdog device does, and `power`, which whoever cuts the host's power writes to: without power
//! no watchdog counts. When it is not petted in time it runs COMMAND, as hardware resets a machine.
//!
//! LOG gets a line for everything that happens but pets, with milliseconds on the lab's clock.

use std::{
    ffi::OsStr,
    fs::File,
    io::Write as _,
    process::{Command, ExitCode, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use fuser::{
    FileAttr, FileType, Filesystem, MountOption, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen, ReplyWrite,
    Request, TimeOrNow, consts::FOPEN_DIRECT_IO,
};
use holdfast_tests::lab::clock::now_ms;
use nix::libc;

/// How often it looks whether its time has run out.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the kernel may remember what was said of a file; nothing here changes.
const MEMORY: Duration = Duration::from_secs(1);
/// The time-out until one is set, as many drivers have it.
const SECONDS: u32 = 60;

const FOLDER: u64 = 1;
const WATCHDOG: u64 = 2;
const POWER: u64 = 3;

/// What `WDIOC_GETSUPPORT` says it can: set its time-out, close only by magic, give notice before it fires, be kept alive.
const OPTIONS: u32 = 0x0080 | 0x0100 | 0x0200 | 0x8000;
const IDENTITY: &[u8] = b"lab watchdog";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("watchdog: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, log, command @ ..] = arguments.as_slice() else { bail!("usage: watchdog FOLDER LOG COMMAND…") };
    let log = File::options().create(true).append(true).open(log).with_context(|| format!("cannot open {log}"))?;
    let timer = Timer { seconds: SECONDS, notice: 0, noticed: false, fires: None, open: false, magic: false, log };
    let device = Device(Arc::new(Mutex::new(timer)));
    let (watched, command) = (Device(Arc::clone(&device.0)), command.to_vec());
    thread::spawn(move || watched.run_out(&command));
    let options = [MountOption::FSName("lab-watchdog".to_owned()), MountOption::RW, MountOption::DefaultPermissions];
    fuser::mount2(device, folder, &options).with_context(|| format!("cannot mount {folder}"))
}

struct Timer {
    seconds: u32,
    /// How many seconds before it fires it gives notice; 0: it gives none.
    notice: u32,
    /// It has, since it was petted last.
    noticed: bool,
    /// None: it does not count.
    fires: Option<Instant>,
    open: bool,
    /// The last thing written was the letter that allows closing.
    magic: bool,
    log: File,
}

impl Timer {
    fn pet(&mut self) {
        self.noticed = false;
        self.fires = Some(Instant::now() + Duration::from_secs(self.seconds.into()));
    }

    /// What a kernel would log a moment before the end.
    fn give_notice(&mut self) {
        let early = Duration::from_secs(self.notice.into());
        let is_due = self.fires.is_some_and(|fires| Instant::now() + early >= fires);
        if is_due && self.notice > 0 && !self.noticed {
            self.noticed = true;
            self.note("notice");
        }
    }

    fn note(&mut self, what: &str) {
        // A full disk must not keep it from firing.
        let _ = writeln!(self.log, "{:.3} {what}", now_ms());
    }
}

struct Device(Arc<Mutex<Timer>>);

impl Device {
    fn timer(&self) -> MutexGuard<'_, Timer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run_out(&self, command: &[String]) {
        loop {
            thread::sleep(LOOK_EVERY);
            let mut timer = self.timer();
            timer.give_notice();
            if timer.fires.is_none_or(|fires| Instant::now() < fires) {
                continue;
            }
            timer.fires = None;
            timer.note("fired");
            drop(timer);
            if let Some((program, arguments)) = command.split_first() {
                let run = Command::new(program).args(arguments).stdin(Stdio::null()).status();
                self.timer().note(&format!("reset: {run:?}"));
            }
        }
    }
}

fn attributes(inode: u64) -> FileAttr {
    let epoch = SystemTime::UNIX_EPOCH;
    let (kind, perm) = if inode == FOLDER { (FileType::Directory, 0o700) } else { (FileType::RegularFile, 0o600) };
    FileAttr {
        ino: inode,
        size: 0,
        blocks: 0,
        atime: epoch,
        mtime: epoch,
        ctime: epoch,
        crtime: epoch,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 512,
        flags: 0,
    }
}

impl Filesystem for Device {
    fn lookup(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEntry) {
        match (parent, name.to_str()) {
            (FOLDER, Some("watchdog")) => reply.entry(&MEMORY, &attributes(WATCHDOG), 0),
            (FOLDER, Some("power")) => reply.entry(&MEMORY, &attributes(POWER), 0),
            _ => reply.error(libc::ENOENT),
        }
    }

    fn getattr(&mut self, _: &Request<'_>, inode: u64, _: Option<u64>, reply: ReplyAttr) {
        reply.attr(&MEMORY, &attributes(inode));
    }

    /// A shell that writes to `power` truncates it first.
    fn setattr(
        &mut self,
        _: &Request<'_>,
        inode: u64,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<u64>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<u32>,
        reply: ReplyAttr,
    ) {
        reply.attr(&MEMORY, &attributes(inode));
    }

    fn open(&mut self, _: &Request<'_>, inode: u64, _: i32, reply: ReplyOpen) {
        let mut timer = self.timer();
        if inode == WATCHDOG {
            if timer.open {
                return reply.error(libc::EBUSY);
            }
            (timer.open, timer.magic) = (true, false);
            timer.pet();
            timer.note("opened");
        }
        reply.opened(inode, FOPEN_DIRECT_IO);
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        inode: u64,
        _: u64,
        _: i64,
        data: &[u8],
        _: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyWrite,
    ) {
        let mut timer = self.timer();
        if inode == WATCHDOG {
            timer.magic = data.contains(&b'V');
            timer.pet();
        } else {
            timer.fires = None;
            timer.note("power is off");
        }
        reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
    }

    /// The last descriptor is closed.
    fn release(&mut self, _: &Request<'_>, inode: u64, _: u64, _: i32, _: Option<u64>, _: bool, reply: ReplyEmpty) {
        let mut timer = self.timer();
        if inode == WATCHDOG {
            timer.open = false;
            if timer.magic {
                timer.fires = None;
                timer.note("disarmed");
            } else {
                timer.note("closed armed");
            }
        }
        reply.ok();
    }

    fn ioctl(
        &mut self,
        _: &Request<'_>,
        inode: u64,
        _: u64,
        _: u32,
        command: u32,
        input: &[u8],
        room: u32,
        reply: ReplyIoctl,
    ) {
        let mut timer = self.timer();
        if inode != WATCHDOG {
            return reply.error(libc::ENOTTY);
        }
        // The letter W and a number.
        let answer = match command & 0xffff {
            0x5700 => support(),
            0x5705 => {
                timer.pet();
                number(0)
            }
            0x5706 => {
                let Some(seconds) = input.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)) else {
                    return reply.error(libc::EINVAL);
                };
                timer.seconds = seconds;
                // As Linux does.
                if timer.notice >= seconds {
                    timer.notice = 0;
                }
                timer.pet();
                timer.note(&format!("set to {seconds} s"));
                number(seconds)
            }
            0x5707 => number(timer.seconds),
            0x5708 => {
                let notice = input.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
                let Some(notice) = notice.filter(|notice| *notice < timer.seconds) else {
                    return reply.error(libc::EINVAL);
                };
                timer.notice = notice;
                number(notice)
            }
            0x5709 => number(timer.notice),
            _ => return reply.error(libc::ENOTTY),
        };
        let length = answer.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        reply.ioctl(0, answer.get(..length).unwrap_or_default());
    }
}

fn number(number: u32) -> Vec<u8> {
    number.to_ne_bytes().to_vec()
}

/// `struct watchdog_info`: options, firmware version, name.
fn support() -> Vec<u8> {
    let mut answer = [number(OPTIONS), number(1), IDENTITY.to_vec()].concat();
    answer.resize(40, 0);
    answer
}
