//! The program: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    hatchery::driver::inner::requested(&arguments).unwrap_or(ExitCode::SUCCESS)
}
