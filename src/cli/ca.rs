//! `capctl ca`: the local CA, and how another takes its place.

use std::process::ExitCode;

use crate::clock::UnixSeconds;
use crate::request::Host;
use crate::store::Home;
use crate::store::ca::{Ca, Rotation};

use super::failure::Failure;
use super::output::say;

/// The local CA, which signs what agents see.
#[derive(Debug, clap::Subcommand)]
#[command(before_help = "Examples:\n  capctl ca rotate\n  capctl ca rotate --switch\n  capctl ca rotate --finish")]
pub(super) enum Verb {
    /// Puts another CA in its place, in three steps with time between them
    ///
    /// Without an option it makes the next CA, which clients can trust from then on while the old one signs. When every
    /// client has the new ca.pem, --switch has the new one sign; a running proxy takes it up. --finish takes the old one
    /// out of ca.pem.
    #[command(before_help = "Examples:\n  capctl ca rotate\n  capctl ca rotate --switch\n  capctl ca rotate --finish")]
    Rotate {
        /// Has the next CA sign; the key of the one before is destroyed
        #[arg(long, conflicts_with_all = ["finish", "only"])]
        switch: bool,
        /// Has clients trust the new CA alone
        #[arg(long, conflicts_with = "only")]
        finish: bool,
        /// Names that the next CA may sign for, each with what is below it; may be repeated. Else all
        #[arg(long, value_name = "HOST", value_parser = Host::parse)]
        only: Vec<Host>,
    },
}

impl Verb {
    pub(super) fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let Self::Rotate { switch, finish, only } = self;
        home.check()?;
        let pem = home.ca_certificate();
        let pem = pem.display();
        match (Ca::rotation(home)?, switch, finish) {
            (Rotation::None, false, false) => {
                Ca::prepare(home, &only, UnixSeconds::now())?;
                say(format_args!("{pem} holds the next CA too; the old one signs"));
                say("commands that run already do not trust it yet, new ones do; give others the new ca.pem");
                say("next: capctl ca rotate --switch");
            }
            (Rotation::Prepared, true, _) => {
                Ca::switch(home)?;
                say(format_args!("the new CA signs; {pem} still holds the old one"));
                say("next: capctl ca rotate --finish");
            }
            (Rotation::Switched, _, true) => {
                Ca::finish(home)?;
                say(format_args!("{pem} holds the new CA alone"));
            }
            (Rotation::None, ..) => return Err(stands("no rotation has begun", "capctl ca rotate")),
            (Rotation::Prepared, ..) => {
                return Err(stands("the next CA waits to be switched to", "capctl ca rotate --switch"));
            }
            (Rotation::Switched, ..) => {
                return Err(stands("the new CA signs, and the old one is still trusted", "capctl ca rotate --finish"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn stands(why: &str, next: &str) -> Failure {
    Failure::new(why).hint(next.to_owned())
}
