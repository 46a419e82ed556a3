//! Certificates on disk, for tests of whatever shows them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::{Authority, Issued, TlsFiles};

/// Writes what somebody needs who has this certificate: `NAME.ca`, `NAME.cert` and `NAME.key` in a folder.
pub(crate) fn written(folder: &Path, name: &str, authority: &Authority, issued: &Issued) -> TlsFiles {
    let at = |kind: &str| folder.join(format!("{name}.{kind}"));
    fs::write(at("ca"), authority.certificate_pem()).unwrap();
    fs::write(at("cert"), &issued.certificate_pem).unwrap();
    fs::write(at("key"), &issued.key_pem).unwrap();
    fs::set_permissions(at("key"), fs::Permissions::from_mode(0o600)).unwrap();
    TlsFiles { authority: at("ca"), certificate: at("cert"), key: at("key") }
}
