//! What was typed wrong, in the same words as every other error.

use std::process::ExitCode;

use clap::error::ErrorKind;

use super::failure::Failure;

/// Tells it: help and version on stdout with status 0; everything else as an error with hints and status 2.
pub(super) fn tell(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            return ExitCode::from(2);
        }
        _ => {}
    }
    let text = error.render().to_string();
    let (mut message, mut hints) = (String::new(), Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(hint) = line.strip_prefix("tip: ").or_else(|| line.strip_prefix("Usage: ")) {
            hints.push(hint.to_owned());
        } else if line.starts_with("For more information") {
            break;
        } else {
            let said = line.strip_prefix("error: ").unwrap_or(line);
            message = if message.is_empty() { said.to_owned() } else { format!("{message} {said}") };
        }
    }
    hints.into_iter().fold(Failure::usage(message), Failure::hint).tell()
}
