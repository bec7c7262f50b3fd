//! `capctl`: everything a person types.

use std::process::ExitCode;

fn main() -> ExitCode {
    narrows::cli::main()
}
