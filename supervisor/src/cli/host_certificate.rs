//! `holdfast host certificate`: another certificate of a host, signed by the cluster's authority, in a folder to hand over.

use std::path::{Path, PathBuf};

use holdfast_policies::revocation::HostCertificate;
use serde_json::json;

use super::{
    super::pki::{self, Authority, Issued},
    host_like::HostFiles,
    key_folder::{make_folder, must_be_empty, write_new},
    making::MakeCertificate,
    operator::authority,
    outcome::{Failure, Reply},
};
use crate::causes::with_causes;

/// Makes the folder.
pub(super) fn make(order: &MakeCertificate) -> Result<Reply, Failure> {
    let folder = order.out.clone().unwrap_or_else(|| PathBuf::from(order.host.as_str()));
    let fail = |why: String| Failure::Failed(format!("cannot make {}: {why}", folder.display()));
    must_be_empty(&folder)?;
    let like = order.like.as_deref().zip(order.address);
    let own = like.map(|(like, address)| HostFiles::like(like, &order.host, address)).transpose()?;
    let authority = authority(&order.ca)?;
    let issued = pki::issue(&authority, &order.host).map_err(|error| fail(with_causes(&error)))?;
    let files = pki::TlsFiles {
        authority: folder.join("ca.pem"),
        certificate: folder.join(format!("{}.pem", order.host)),
        key: folder.join(format!("{}.key", order.host)),
    };
    write(&folder, &files, &authority, &issued).map_err(|error| fail(with_causes(&error)))?;
    if let Some(own) = &own {
        own.write(&folder).map_err(|error| fail(with_causes(&error)))?;
    }
    let certificate = pki::own_host(&files).map_err(|error| fail(with_causes(&error)))?;
    Ok(told(&certificate, &folder.display().to_string(), own.is_some()))
}

fn write(folder: &Path, files: &pki::TlsFiles, authority: &Authority, issued: &Issued) -> std::io::Result<()> {
    make_folder(folder)?;
    write_new(&files.key, &issued.key_pem, 0o600)?;
    write_new(&files.certificate, &issued.certificate_pem, 0o644)?;
    write_new(&files.authority, authority.certificate_pem(), 0o644)
}

fn told(certificate: &HostCertificate, out: &str, with_host_file: bool) -> Reply {
    let (host, serial) = (&certificate.host, &certificate.serial);
    let own = if with_host_file {
        "\nIn holdfast.yaml set what is particular there: `memory`, `watchdog`, `qemu`, `guests`, other folders than the usual ones.\n"
    } else {
        ""
    };
    let text = format!(
        "Made a certificate for the host {host} in {out}, with the serial number {serial}.\n\n\
         The files belong into /etc/holdfast on {host}. If the name was revoked, this one counts only after\n\
         `holdfast host readmit {host} --serial {serial} --operator YOUR-NAME`.\n{own}"
    );
    let json = json!({ "host": host.as_str(), "serial": serial.to_string(), "out": out });
    Reply { text, json, code: 0 }
}
