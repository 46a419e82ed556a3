//! The ways to an agent: programs that say no, talk nonsense, talk without end or nothing at all, and hosts that have no vsock.

use nix::sys::socket::getsockname;
use tokio::net::UnixListener;

use super::*;

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(20);

/// A program that has taken a connection and is asked over it.
async fn asked(port: u32) -> (tempfile::TempDir, Way, UnixListener) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vsock");
    let listener = UnixListener::bind(&socket).unwrap();
    (folder, Way::Program { socket, port }, listener)
}

/// What comes of it when the program answers so, and then hangs up.
async fn answered(answer: &'static [u8]) -> io::Result<UnixStream> {
    let (_folder, way, listener) = asked(7413).await;
    let program = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut question = [0; b"CONNECT 7413\n".len()];
        stream.read_exact(&mut question).await.unwrap();
        assert_eq!(&question, b"CONNECT 7413\n");
        stream.write_all(answer).await.unwrap();
    });
    let connected = timeout(LONG, way.connect()).await.unwrap();
    program.await.unwrap();
    connected
}

fn kernel() -> Way {
    Way::Kernel { cid: 9, port: 7413 }
}

#[tokio::test]
async fn a_program_that_says_ok_leads_to_the_agent_and_nothing_of_what_the_agent_says_is_lost() {
    let mut stream = answered(b"OK 1073741824\n{\"here\"").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "{\"here\"");
}

#[tokio::test]
async fn a_program_that_hangs_up_may_have_no_guest_and_does_not_accuse_it() {
    for answer in [b"".as_slice(), b"OK 10"] {
        let error = answered(answer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
        let way = Way::Program { socket: "/s".into(), port: 7413 };
        assert!(!way.blames_agent(&error) && error.to_string().contains("or it has no guest"), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_told_as_it_is_and_does_not_accuse_the_guest() {
    let endless = [b'x'; 1 << 12];
    let way = Way::Program { socket: "/s".into(), port: 7413 };
    for answer in [b"ERROR\n".as_slice(), b"OK\n", b"OK many\n", b"\xff\x00\n", b"OK 99999999999\n"] {
        let error = answered(answer).await.unwrap_err();
        assert!(error.kind() == io::ErrorKind::InvalidData && !way.blames_agent(&error), "{error}");
    }
    let (_folder, way, listener) = asked(7413).await;
    let program = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while stream.write_all(&endless).await.is_ok() {}
    });
    let error = timeout(LONG, way.connect()).await.unwrap().unwrap_err();
    assert!(error.kind() == io::ErrorKind::InvalidData && error.to_string().len() < 300, "{error}");
    timeout(LONG, program).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_program_that_says_nothing_is_given_up() {
    let (_folder, way, listener) = asked(7413).await;
    let Way::Program { socket, port } = &way else { unreachable!() };
    let error = in_time(by_program(socket, *port), SHORT).await.unwrap_err();
    assert!(error.kind() == io::ErrorKind::TimedOut && !way.blames_agent(&error), "{error}");
    drop(listener);
    let gone = timeout(LONG, way.connect()).await.unwrap().unwrap_err();
    assert!(!way.blames_agent(&gone) && gone.to_string().contains("/vsock:7413: "), "{gone}");
}

#[tokio::test]
async fn a_kernel_without_vsock_is_told_and_is_not_the_guests_fault() {
    let error = by_kernel(9, 7413, || Err(Errno::EAFNOSUPPORT)).await.unwrap_err();
    assert!(error.to_string().starts_with("vsock 9:7413: this kernel has none (module vhost_vsock): "), "{error}");
    assert!(!kernel().blames_agent(&error));
    for (errno, agent) in [
        (Errno::ECONNRESET, true),
        (Errno::ETIMEDOUT, true),
        (Errno::ENODEV, false),
        (Errno::EACCES, false),
        (Errno::EADDRINUSE, false),
    ] {
        assert_eq!(kernel().blames_agent(&errno.into()), agent, "{errno}");
        assert!(Way::Port("/s".into()).blames_agent(&errno.into()), "QEMU itself holds the port");
    }
}

#[tokio::test]
async fn a_host_without_what_the_device_takes_says_what_is_missing_and_what_would_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let (there, absent) = (folder.path().join("there"), folder.path().join("absent"));
    let mut definition = QemuDefinition::bare(16);
    assert_eq!(check(&definition, &absent).await, Ok(()));
    definition.vsock = Some(Vsock { carrier: VsockCarrier::Kernel { cid: 9 }, port: 7413 });
    let why = check(&definition, &absent).await.unwrap_err();
    assert!(why.contains("cid: 9") && why.contains("/absent") && why.contains("load the module vhost_vsock"), "{why}");
    std::fs::write(&there, "").unwrap();
    assert_eq!(check(&definition, &there).await, Ok(()));
    let carrier = |device: &Path| VsockCarrier::Program { device: device.into(), socket: "/s".into() };
    for (device, expected) in [(&absent, "No such file"), (&there, "this is no socket")] {
        definition.vsock = Some(Vsock { carrier: carrier(device), port: 7413 });
        let why = check(&definition, &absent).await.unwrap_err();
        assert!(why.contains(expected) && why.contains("vhost-device-vsock"), "{why}");
    }
    std::fs::remove_file(&there).unwrap();
    assert_eq!(may_wait_for(&QemuDefinition::bare(16)), "");
    let _listener = UnixListener::bind(&there).unwrap();
    definition.vsock = Some(Vsock { carrier: carrier(&there), port: 7413 });
    assert_eq!(check(&definition, &absent).await, Ok(()));
    // Whether that program hangs is seen by QEMU alone.
    let why = may_wait_for(&definition);
    assert!(why.contains("/there, which may hang"), "{why}");
}

/// Takes two ports of this machine's kernel, if it has vsock, and connects to nobody.
#[test]
fn each_connection_by_the_kernel_comes_from_a_port_of_roots_that_no_other_has() {
    let (Ok(one), Ok(other)) = (stream_socket(), stream_socket()) else { return };
    let mut ports = Vec::new();
    for made in [&one, &other] {
        match reserve(made, 9) {
            // Not root.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
            reserved => reserved.unwrap(),
        }
        ports.push(getsockname::<VsockAddr>(made.as_raw_fd()).unwrap().port());
    }
    assert!(ports[0] != ports[1] && ports.iter().all(|port| (512..1024).contains(port)), "{ports:?}");
}
