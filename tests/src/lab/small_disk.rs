//! A small file system over a folder of the lab, so that a disk can be full. It must be there before the hosts that are to
//! see it are switched on: each has its own view of the mounts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::{
    command::{run, run_ok},
    place::QUICK,
};

/// What takes up the room.
const FILL: &str = "big";

/// A small file system, unmounted when dropped; a host that is up still holds it.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Puts one of so many MiB over a folder, with what is in the folder.
    ///
    /// # Errors
    /// When that does not fit, or the folder is not there.
    pub fn over(folder: &Path, mib: u32) -> Result<Self> {
        let aside = folder.with_extension("aside");
        fs::create_dir_all(&aside)?;
        copy(folder, &aside)?;
        let size = format!("size={mib}m");
        run_ok(&["mount", "-t", "tmpfs", "-o", &size, "tmpfs", &folder.to_string_lossy()], QUICK)?;
        let disk = Self(folder.to_owned());
        copy(&aside, folder)?;
        Ok(disk)
    }

    /// Leaves no byte free.
    ///
    /// # Errors
    /// When nothing could be written.
    pub fn fill(&self) -> Result<()> {
        let big = self.0.join(FILL);
        // Ends with "no space left".
        let answer = run(&["dd", "if=/dev/zero", &format!("of={}", big.display()), "bs=4k"], QUICK)?;
        ensure!(!answer.ok(), "{} is not small: it took all that was written", self.0.display());
        ensure!(fs::metadata(&big)?.len() > 0, "{} was full before", self.0.display());
        Ok(())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.0.join(FILL)).with_context(|| format!("cannot make room in {}", self.0.display()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The lab that is taken down unmounts what is left below it.
        let _ = run_ok(&["umount", "-l", &self.0.to_string_lossy()], QUICK);
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    run_ok(&["cp", "-a", &format!("{}/.", from.display()), &to.to_string_lossy()], QUICK).map(drop)
}
