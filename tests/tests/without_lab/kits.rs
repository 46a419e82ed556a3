//! What the lab's kits are made with, where it is not there.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

/// What the script itself uses before it looks.
const TOOLS: [&str; 7] = ["cat", "cut", "flock", "mkdir", "sha256sum", "sort", "tail"];
/// The packages of what is not among those, in the order in which it is looked for. Where PostgreSQL lies is no matter of `PATH`.
const PACKAGES: [&str; 9] = [
    "redis-server",
    "nginx-light",
    "mariadb-server",
    "apache2-bin",
    "perl-base",
    "openssl",
    "binutils",
    "cpio",
    "e2fsprogs",
];

#[test]
fn whoever_makes_the_kits_without_their_programs_is_told_all_packages_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let [tools, guest, agent, out] = ["tools", "guest", "agent", "out"].map(|name| folder.path().join(name));
    fs::create_dir(&tools)?;
    fs::create_dir(&guest)?;
    fs::write(guest.join(".stamp"), "")?;
    fs::write(&agent, "")?;
    for tool in TOOLS {
        let found =
            ["/usr/bin", "/bin"].map(|place| Path::new(place).join(tool)).into_iter().find(|path| path.exists());
        symlink(found.with_context(|| format!("no {tool} here"))?, tools.join(tool))?;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/kits.sh");
    let answer = Command::new(script).args([&guest, &agent, &out]).env_clear().env("PATH", &tools).output()?;
    let said = String::from_utf8(answer.stderr)?;
    ensure!(answer.status.code() == Some(1), "it ended with {}: {said}", answer.status);
    ensure!(said.lines().count() == 1, "it says more than that: {said}");
    let (_, packages) = said.trim_end().split_once("--no-install-recommends ").with_context(|| said.clone())?;
    let missing: Vec<&str> = packages.split(' ').filter(|package| *package != "postgresql").collect();
    ensure!(missing == PACKAGES, "{missing:?}");
    ensure!(!out.join(".stamp").exists(), "nothing was made");
    Ok(())
}
