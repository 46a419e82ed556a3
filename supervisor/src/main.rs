//! The one binary: supervisor, guard and command line.

use std::process::ExitCode;

use holdfast::{cli, guard, run};

fn main() -> ExitCode {
    cli::main(cli::Entry { run: run::run, guard: |file, take_over| guard::run(&file, take_over) })
}
