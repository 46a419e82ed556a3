//! TCP over the network: whether something accepts a connection.

use std::net::IpAddr;

use holdfast_policies::model::TcpProbe;
use tokio::net::TcpStream;

use crate::finding::{Finding, of_io_error};

/// Connects and hangs up; the caller bounds the time.
pub(crate) async fn ask(probe: &TcpProbe, address: Option<IpAddr>) -> Finding {
    let Some(address) = address else {
        return Finding::unknown("the guest has no address");
    };
    match TcpStream::connect((address, probe.port)).await {
        Ok(_) => Finding::pass("connected"),
        Err(error) => of_io_error(&error),
    }
}
