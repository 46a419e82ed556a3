//! Tests that cross rooms and need no lab, in one program: each is linked with all that Holdfast is made of, and what one of them leaves
//! of the processors another one takes.

mod kits;
mod lease;
mod pages;
mod programs;
mod scenarios;
mod seeded_voters;
mod simulator;
mod units;
mod workspace;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// A file of the repository.
fn read(name: &str) -> Result<String> {
    let path = top().join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The repository.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
