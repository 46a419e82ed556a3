//! A host's own `holdfast`, where it is not that of the lab: so two versions run in one cluster, and a host is upgraded as an operator
//! does it, by a new file and a restart.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::Lab;

impl Lab {
    /// Gives a host a `holdfast` of its own, from the next start of its daemons on. The first time it must be off.
    ///
    /// # Errors
    /// When that cannot be noted on its disk.
    pub fn set_program(&self, host: &str, program: &Path) -> Result<()> {
        let (link, fresh) = (self.own_program(host), self.host_dir(host).join("holdfast.new"));
        // One that is left from an attempt that failed in between.
        if fresh.is_symlink() {
            fs::remove_file(&fresh)?;
        }
        let program = program.canonicalize().with_context(|| format!("there is no {}", program.display()))?;
        symlink(program, &fresh)?;
        // In one step: a daemon that is started meanwhile has the old one or the new one.
        fs::rename(&fresh, &link).with_context(|| format!("cannot replace {}", link.display()))
    }

    /// The `holdfast` of a host.
    pub(super) fn program(&self, host: &str) -> String {
        let own = self.own_program(host);
        if own.exists() { own.to_string_lossy().into_owned() } else { self.binary().to_owned() }
    }

    fn own_program(&self, host: &str) -> PathBuf {
        self.host_dir(host).join("holdfast")
    }
}
