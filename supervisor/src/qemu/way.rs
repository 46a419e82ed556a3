//! The ways to the port at which Holdfast's own agent listens in a guest. Whichever it is, what comes of it is a stream.
//!
//! ```text
//!   Port     own.sock ─────────────── QEMU ─ virtio-serial ── /dev/virtio-ports/holdfast.0
//!   Kernel   AF_VSOCK cid:port ────── vhost_vsock ─────────── AF_VSOCK port
//!   Program  socket, CONNECT port ─── vhost-device-vsock ──── AF_VSOCK port
//! ```
//! QEMU holds the first itself, so what is wrong with it is the agent's doing. The others have parts of the host in them, a
//! module or a program, and what is wrong with those must not be blamed on the guest: [`Way::blames_agent`].

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use holdfast_policies::{
    model::{QemuDefinition, Vsock, VsockCarrier},
    observe::clean,
};
use nix::{
    errno::Errno,
    libc::VMADDR_CID_ANY,
    sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, bind, connect, socket},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use super::record::Files;

/// By which QEMU gives the kernel's vsock to a guest.
pub const VHOST_VSOCK: &str = "/dev/vhost-vsock";

/// How long a connection over vsock may take to come about. The kernel itself gives up after two seconds.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Longest answer to `CONNECT`, in bytes: "OK" and a port of ten digits are 13.
const ANSWER_BYTES_MAX: usize = 32;

/// Ports of this host that only root can have: the upper half of those that the kernel reserves.
const RESERVED_FIRST: u32 = 512;
const RESERVED_COUNT: u32 = 512;

/// One way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// A virtio-serial port: the socket of its character device.
    Port(PathBuf),
    /// vsock by the kernel.
    Kernel {
        /// The guest.
        cid: u32,
        /// The agent.
        port: u32,
    },
    /// vsock by a program beside QEMU.
    Program {
        /// The socket at which it takes connections to the guest.
        socket: PathBuf,
        /// The agent.
        port: u32,
    },
}

impl Way {
    /// The one that a guest was started with.
    pub fn of(definition: &QemuDefinition, files: &Files) -> Self {
        match &definition.vsock {
            None => Self::Port(files.own()),
            Some(Vsock { carrier: VsockCarrier::Kernel { cid }, port }) => Self::Kernel { cid: *cid, port: *port },
            Some(Vsock { carrier: VsockCarrier::Program { socket, .. }, port }) => {
                Self::Program { socket: socket.clone(), port: *port }
            }
        }
    }

    /// A connection to the agent.
    ///
    /// # Errors
    /// [`Self::blames_agent`] says what they mean.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        match self {
            Self::Port(socket) => UnixStream::connect(socket).await,
            Self::Kernel { cid, port } => in_time(by_kernel(*cid, *port, stream_socket), CONNECT_LIMIT).await,
            Self::Program { socket, port } => in_time(by_program(socket, *port), CONNECT_LIMIT).await,
        }
    }

    /// Whether this failure to connect says that the agent does not listen, or that its guest does not answer. Any other says
    /// that this host has no way to it, and nothing of the agent. A program says nothing of the agent: one that was started anew
    /// has no guest until that starts anew, and hangs up just as it does when nobody listens.
    pub fn blames_agent(&self, error: &io::Error) -> bool {
        match self {
            Self::Port(_) => true,
            Self::Kernel { .. } => matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut),
            Self::Program { .. } => false,
        }
    }

    /// Whether a connection that ends has ended with the agent. Over vsock it may be the carrier that has ended, which the next
    /// attempt to connect tells.
    pub fn ends_with_agent(&self) -> bool {
        match self {
            Self::Port(_) => true,
            Self::Kernel { .. } | Self::Program { .. } => false,
        }
    }

    /// Whether an agent that was heard, and says nothing any more over a connection that stands, is to blame for that. A program
    /// that hangs looks the same, since its socket stands.
    pub fn silence_is_agents(&self) -> bool {
        match self {
            Self::Port(_) | Self::Kernel { .. } => true,
            Self::Program { .. } => false,
        }
    }
}

/// Whether this host has what the guest's vsock device takes; `kernel` is the kernel's, [`VHOST_VSOCK`].
///
/// # Errors
/// Says what is missing, and what would be right.
pub async fn check(definition: &QemuDefinition, kernel: &Path) -> Result<(), String> {
    match definition.vsock.as_ref().map(|vsock| &vsock.carrier) {
        None => Ok(()),
        Some(VsockCarrier::Kernel { cid }) => tokio::fs::metadata(kernel).await.map(|_| ()).map_err(|error| {
            format!(
                "`vsock: {{ cid: {cid} }}` takes {} on this host: {error}; load the module vhost_vsock, or leave `vsock` out",
                kernel.display()
            )
        }),
        Some(VsockCarrier::Program { device, .. }) => {
            let why = match tokio::fs::metadata(device).await {
                Ok(found) if found.file_type().is_socket() => return Ok(()),
                Ok(_) => "this is no socket".to_owned(),
                Err(error) => error.to_string(),
            };
            let device = device.display();
            Err(format!("`vsock: {{ device: {device} }}` on this host: {why}; start the guest's vhost-device-vsock there"))
        }
    }
}

/// What QEMU may be waiting for that was run and gives no answer: words to add to that, or none.
pub fn may_wait_for(definition: &QemuDefinition) -> String {
    match definition.vsock.as_ref().map(|vsock| &vsock.carrier) {
        Some(VsockCarrier::Program { device, .. }) => {
            format!(": it waits for the program at {}, which may hang", device.display())
        }
        Some(VsockCarrier::Kernel { .. }) | None => String::new(),
    }
}

async fn in_time(connecting: impl Future<Output = io::Result<UnixStream>>, limit: Duration) -> io::Result<UnixStream> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("vsock: no answer within {limit:?}"));
    timeout(limit, connecting).await.map_err(late)?
}

/// Over the kernel's vsock. A stream is read and written alike whatever its family, so one of Unix serves for it.
async fn by_kernel(cid: u32, port: u32, make: impl FnOnce() -> nix::Result<OwnedFd>) -> io::Result<UnixStream> {
    let said = |what: &'static str| {
        move |error: io::Error| io::Error::new(error.kind(), format!("vsock {cid}:{port}: {what}: {error}"))
    };
    let made = make().map_err(io::Error::from).map_err(said("this kernel has none (module vhost_vsock)"))?;
    reserve(&made, cid).map_err(said("a port of this host's own"))?;
    match connect(made.as_raw_fd(), &VsockAddr::new(cid, port)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(error) => return Err(said("connect")(error.into())),
    }
    // Only now: before, it would count as ready at once.
    let stream = UnixStream::from_std(std::os::unix::net::UnixStream::from(made))?;
    stream.writable().await?;
    match stream.take_error()? {
        None => Ok(stream),
        Some(error) => Err(said("connect")(error)),
    }
}

fn stream_socket() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)
}

/// Takes a port that only root can have. Any program of the host can connect, and by this the agent tells the supervisor from it.
fn reserve(socket: &OwnedFd, cid: u32) -> io::Result<()> {
    // Guests begin at different ones, so that the first is mostly free.
    for step in 0..RESERVED_COUNT {
        let port = RESERVED_FIRST + (cid % RESERVED_COUNT + step) % RESERVED_COUNT;
        match bind(socket.as_raw_fd(), &VsockAddr::new(VMADDR_CID_ANY, port)) {
            Err(Errno::EADDRINUSE) => {}
            bound => return bound.map_err(io::Error::from),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Over the socket of a program that wants to be told the port, as Firecracker was the first to do.
async fn by_program(socket: &Path, port: u32) -> io::Result<UnixStream> {
    let said = |error: io::Error| io::Error::new(error.kind(), format!("vsock {}:{port}: {error}", socket.display()));
    let stream = UnixStream::connect(socket).await.map_err(said)?;
    shake_hands(stream, port).await.map_err(said)
}

async fn shake_hands(mut stream: UnixStream, port: u32) -> io::Result<UnixStream> {
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let answer = answer(&mut stream).await?;
    let number = answer.strip_prefix("OK ").map(str::parse::<u32>);
    match number {
        Some(Ok(_)) => Ok(stream),
        Some(Err(_)) | None => Err(odd(&answer)),
    }
}

/// Byte by byte, since what follows it is the agent's.
async fn answer(stream: &mut UnixStream) -> io::Result<String> {
    let mut answer = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => return Ok(String::from_utf8_lossy(&answer).into_owned()),
            Ok(byte) if answer.len() < ANSWER_BYTES_MAX => answer.push(byte),
            Ok(_) => return Err(odd(&String::from_utf8_lossy(&answer))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionReset,
                    "hung up: nobody listens in the guest, or it has no guest",
                ));
            }
            Err(error) => return Err(error),
        }
    }
}

fn odd(answer: &str) -> io::Error {
    let what = format!("CONNECT is answered by {:?} and not by OK: this is another program's socket", clean(answer));
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests;
