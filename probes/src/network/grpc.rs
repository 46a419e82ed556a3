//! gRPC's health checking protocol (grpc.health.v1.Health/Check): one message of one field each way, written by hand.

use holdfast_policies::probe::GrpcProbe;
use hyper::{HeaderMap, Request, body::Bytes};

use crate::{
    finding::Finding,
    network::{asker::Asker, http2},
};

/// Asks whether a service serves; the caller bounds the time.
pub(crate) async fn ask(asker: &Asker<'_>, probe: &GrpcProbe) -> Finding {
    match check(asker, probe).await {
        Ok(finding) | Err(finding) => finding,
    }
}

async fn check(asker: &Asker<'_>, probe: &GrpcProbe) -> Result<Finding, Finding> {
    let address = asker.address()?;
    let name = probe.tls.as_ref().and_then(|tls| tls.server_name.clone());
    let scheme = if probe.tls.is_some() { "https" } else { "http" };
    let place = match name {
        Some(name) => format!("{name}:{}", probe.port),
        None => std::net::SocketAddr::from((address, probe.port)).to_string(),
    };
    let request = Request::post(format!("{scheme}://{place}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", concat!("holdfast/", env!("CARGO_PKG_VERSION")))
        .body(())
        .map_err(|error| Finding::unknown(format!("the request cannot be made: {error}")))?;
    let content = message(&probe.service).ok_or_else(|| Finding::unknown("the service's name is too long"))?;
    let stream = asker.open(probe.port, probe.tls.as_ref(), &[b"h2"]).await?;
    let reply = http2::exchange(stream, request, content).await?;
    match (reply.status, of_http(reply.status)) {
        (200, _) => {}
        (_, Some(code)) => return Err(of_status(code)),
        (status, None) => return Err(Finding::fail(format!("http status {status} instead of a gRPC answer"))),
    }
    // An answer without content carries its status in the headers.
    match status(&reply.trailers).or_else(|| status(&reply.headers)) {
        Some(0) => Ok(of_serving(serving(&reply.body))),
        Some(code) => Err(of_status(code)),
        None => Err(Finding::fail("the answer has no gRPC status")),
    }
}

/// A frame (compression flag and length) with `HealthCheckRequest { service = 1 }` in it.
fn message(service: &str) -> Option<Bytes> {
    let mut field = Vec::new();
    if !service.is_empty() {
        field.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            field.push(u8::try_from(length & 0x7f).ok()? | 0x80);
            length >>= 7;
        }
        field.push(u8::try_from(length).ok()?);
        field.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(field.len()).ok()?.to_be_bytes());
    frame.append(&mut field);
    Some(frame.into())
}

fn status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// `HealthCheckResponse { status = 1 }`: the field's number and type, then a number below 128. What is not sent is 0.
fn serving(body: &[u8]) -> Option<u8> {
    let (compressed, rest) = body.split_first()?;
    let content = rest.get(4..)?;
    match (compressed, content) {
        (0, []) => Some(0),
        (0, [0x08, status, ..]) if *status < 0x80 => Some(*status),
        _ => None,
    }
}

fn of_serving(status: Option<u8>) -> Finding {
    match status {
        Some(1) => Finding::pass("it says: serving"),
        Some(2) => Finding::fail("it says: not serving"),
        Some(3) => Finding::fail("it says: unknown service"),
        Some(_) => Finding::fail("it says: unknown"),
        None => Finding::fail("the answer is not one of the health checking protocol"),
    }
}

/// What gRPC takes a status of HTTP for, where that says that it may not or cannot be asked (gRPC's http-grpc-status-mapping).
fn of_http(status: u16) -> Option<u32> {
    match status {
        401 => Some(16),
        403 => Some(7),
        404 => Some(12),
        _ => None,
    }
}

/// Codes of gRPC: what says that it may not or cannot be asked is no evidence.
fn of_status(code: u32) -> Finding {
    match code {
        5 => Finding::fail("the server does not know this service"),
        7 => Finding::unknown("the server does not let this host ask (permission denied)"),
        12 => Finding::unknown("the server has no health checking protocol (unimplemented)"),
        16 => Finding::unknown("the server does not let this host ask (unauthenticated)"),
        code => Finding::fail(format!("gRPC status {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_protocol() {
        assert_eq!(message("").unwrap().as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(message("ab").unwrap().as_ref(), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = message(&"x".repeat(200)).unwrap();
        assert_eq!(long.get(5..8).unwrap(), [0x0a, 0xc8, 1]);
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(0));
        for bad in [&[][..], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 2, 16, 1], &[0, 0]] {
            assert_eq!(serving(bad), None);
        }
    }
}
