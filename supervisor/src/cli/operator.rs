//! `holdfast operator add`: an operator's certificate, signed by the cluster's authority, in a folder to hand over.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use holdfast_policies::operators::OperatorCertificate;
use serde_json::json;

use super::{
    super::pki::{self, Authority, Issued},
    hostfile::load_host_file,
    identity::load,
    init::{AUTHORITY_CERTIFICATE, AUTHORITY_KEY},
    init_files,
    key_folder::{make_folder, must_be_empty, write_new},
    making::AddOperator,
    outcome::{Failure, Reply},
};
use crate::causes::with_causes;

/// The file that commands are given.
const IDENTITY: &str = "identity.yaml";

/// Makes an operator's folder. `config` is any host file of the cluster: it says who votes.
pub(super) fn add(config: &Path, order: &AddOperator) -> Result<Reply, Failure> {
    let voters = load_host_file(config)?.voters;
    let folder = order.out.clone().unwrap_or_else(|| PathBuf::from(order.name.as_str()));
    let fail = |why: String| Failure::Failed(format!("cannot make {}: {why}", folder.display()));
    must_be_empty(&folder)?;
    let authority = authority(&order.ca)?;
    let issued = pki::issue_operator(&authority, &order.name, order.days).map_err(|error| fail(with_causes(&error)))?;
    let identity = init_files::identity_file(&order.name, &voters);
    write(&folder, &authority, &issued, &identity).map_err(|error| fail(with_causes(&error)))?;
    let tls = load(&folder.join(IDENTITY))?.tls;
    let files = pki::TlsFiles { authority: tls.ca, certificate: tls.certificate, key: tls.key };
    let certificate = pki::own_operator(&files).map_err(|error| fail(with_causes(&error)))?;
    Ok(told(&certificate, order.days, &folder))
}

/// Reads the authority in a folder as `holdfast init` has made it.
pub(super) fn authority(folder: &Path) -> Result<Authority, Failure> {
    let fail = |path: &Path, error: &dyn Error| {
        Failure::Failed(format!("cannot use the authority's {}: {}", path.display(), with_causes(error)))
    };
    let (certificate, key) = (folder.join(AUTHORITY_CERTIFICATE), folder.join(AUTHORITY_KEY));
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| fail(path, &error));
    Authority::from_pem(&read(&certificate)?, &read(&key)?).map_err(|error| fail(folder, &error))
}

fn write(folder: &Path, authority: &Authority, issued: &Issued, identity: &str) -> std::io::Result<()> {
    make_folder(folder)?;
    write_new(&folder.join("operator.key"), &issued.key_pem, 0o600)?;
    write_new(&folder.join("operator.pem"), &issued.certificate_pem, 0o644)?;
    write_new(&folder.join("ca.pem"), authority.certificate_pem(), 0o644)?;
    write_new(&folder.join(IDENTITY), identity, 0o644)
}

fn told(certificate: &OperatorCertificate, days: u16, folder: &Path) -> Reply {
    let (name, serial, out) = (&certificate.name, &certificate.serial, folder.display());
    let text = format!(
        "Made a certificate for the operator {name} in {out}, good for {days} days, with the serial number {serial}.\n\n\
         Hand {out} over to {name}, and to nobody else: whoever has operator.key gives orders in that name. It belongs in\n\
         ~/.config/holdfast there; or name {out}/{IDENTITY} with --identity or in HOLDFAST_IDENTITY.\n"
    );
    let json = json!({
        "operator": name.as_str(), "serial": serial.to_string(), "days": days, "out": out.to_string(),
    });
    Reply { text, json, code: 0 }
}
