//! `capctl completions` and `capctl man`.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap_complete::Shell;

use super::failure::Failure;
use super::output::say;

/// Prints a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(before_help = "Example:\n  capctl completions bash > /etc/bash_completion.d/capctl")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, mut command: clap::Command) -> ExitCode {
        clap_complete::generate(self.shell, &mut command, "capctl", &mut io::stdout());
        ExitCode::SUCCESS
    }
}

/// Prints the manual page, or writes one for each command into a folder
#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  capctl man | man -l -\n  capctl man --dir ~/.local/share/man/man1")]
pub(super) struct Man {
    /// Writes capctl.1, capctl-mint.1 and so on there
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self, command: clap::Command) -> Result<ExitCode, Failure> {
        let failed = |error: io::Error| Failure::new(format_args!("the manual cannot be written: {error}"));
        match self.dir {
            None => clap_mangen::Man::new(command).render(&mut io::stdout()).map_err(failed)?,
            Some(dir) => {
                std::fs::create_dir_all(&dir).map_err(failed)?;
                clap_mangen::generate_to(command, &dir).map_err(failed)?;
                say(format_args!("wrote the manual pages to {}", dir.display()));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
