//! The program: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    // Jobs in a process of their own come first: they must find one thread only.
    hatchery::driver::inner::requested(&arguments).unwrap_or_else(|| {
        let code = hatchery::cli::main(arguments);
        hatchery::driver::session::dismiss();
        code
    })
}
