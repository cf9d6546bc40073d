//! The `hatchery` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let inner = arguments.next().is_some_and(|first| first == "__inner");
    if inner && arguments.next().is_some_and(|job| job == "validate") {
        return hatchery::driver::commands::sandbox::inner_validate();
    }
    ExitCode::SUCCESS
}
