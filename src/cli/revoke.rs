//! `capctl revoke`: ends a block's or a holder's whole subtree.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::capability::{BlockId, PublicKey, Revocation, Revocations, Subject};
use crate::clock::UnixSeconds;
use crate::proxy::REVOCATIONS_PATH;
use crate::store::{Home, revoked};

use super::capability::{chain, read};
use super::failure::Failure;
use super::output::say;

/// A running proxy looks at the list five times a second.
const CONFIRM_WITHIN: Duration = Duration::from_secs(2);
const ASK_EVERY: Duration = Duration::from_millis(20);
/// `HTTP/1.1 204`.
const ANSWER_BYTES: usize = 12;

/// Revokes a block, or a holder's key, and everything that was delegated below it. Waits until the proxy that serves this
/// home refuses it, for open tunnels too.
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  capctl revoke --cap agent.cap                 the last block of the chain\n  capctl revoke --cap agent.cap --block 0       the whole tree\n  capctl revoke --holder ed25519/…"
)]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub(super) struct Args {
    /// A block of this capability
    #[arg(long, group = "what", value_name = "F")]
    cap: Option<PathBuf>,
    /// Which one, as capctl inspect numbers them [default: the last]
    #[arg(long, value_name = "N", requires = "cap")]
    block: Option<usize>,
    /// The block of this id, as the journal has it
    #[arg(long, group = "what", value_name = "HEX")]
    block_id: Option<BlockId>,
    /// Every capability in whose chain this key holds
    #[arg(long, group = "what", value_name = "PUBKEY")]
    holder: Option<PublicKey>,
    /// Why, for whoever reads the list later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Args {
    pub(super) fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        home.check()?;
        let subject = match (self.block_id, self.holder, &self.cap) {
            (Some(id), _, _) => Subject::Block(id),
            (_, Some(holder), _) => Subject::Holder(holder),
            (_, _, Some(path)) => {
                let chain = chain(&read(path)?)?;
                let last = chain.blocks().len().saturating_sub(1);
                let block = chain.blocks().get(self.block.unwrap_or(last));
                let missing = || Failure::usage(format_args!("the chain has the blocks 0 to {last}"));
                Subject::Block(block.ok_or_else(missing)?.id())
            }
            (None, None, None) => return Err(Failure::usage("one of --cap, --block-id, --holder is needed")),
        };
        let by = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name);
        let revocation = Revocation::new(subject, UnixSeconds::now(), self.reason, by);
        revoked::append(&home.revoked(), &revocation.to_line())?;
        let whom = match subject {
            Subject::Block(id) => format!("the block {id}"),
            Subject::Holder(holder) => format!("the holder {holder}"),
        };
        let (list, taken) = (read_back(home, subject), confirm(home.socket(), subject));
        match taken {
            Ok(Taken::InForce) | Err(NotAsked::Nobody | NotAsked::Stranger) => {}
            Ok(Taken::NotYet) | Err(NotAsked::Silent) => {
                let seconds = CONFIRM_WITHIN.as_secs();
                let what = format!(
                    "{whom} is on the list, but the proxy that runs has not said within {seconds} s that it knows"
                );
                return Err(Failure::new(what).hint("its log says why; capctl doctor looks at the list".to_owned()));
            }
        }
        list?;
        say(format_args!("revoked {whom} and everything below it"));
        say(match taken {
            Ok(_) => "the proxy that runs refuses it from now on; what is under way ends within a second",
            Err(_) => "no proxy at this home's socket says so: one that runs elsewhere takes it on within a second",
        });
        Ok(ExitCode::SUCCESS)
    }
}

/// A list with one bad line is one that no proxy starts with.
fn read_back(home: &Home, subject: Subject) -> Result<(), Failure> {
    let bytes = revoked::Followed::new(home.revoked()).read()?;
    let (list, bad) = Revocations::of(bytes.split(|&byte| byte == b'\n'));
    if let Some(bad) = bad {
        let what = format!("the revocation is on the list, but {bad}");
        let hint =
            "mend or remove that line of revoked.jsonl: a proxy that runs takes the others, and none starts with it";
        return Err(Failure::new(what).hint(hint.to_owned()));
    }
    if !list.names(subject) {
        return Err(Failure::new("the revocation is not on the list: somebody else writes to revoked.jsonl"));
    }
    Ok(())
}

/// What the proxy that serves the home says.
#[derive(Debug, Clone, Copy)]
enum Taken {
    InForce,
    NotYet,
}

/// Why it could not be asked.
#[derive(Debug, Clone, Copy)]
enum NotAsked {
    /// Nobody listens at the home's socket.
    Nobody,
    /// Somebody listens who does not know the question, as a proxy of an earlier version does not.
    Stranger,
    /// Somebody listens and does not answer.
    Silent,
}

/// Asks the proxy at `socket` until the revocation is in force there, but not for ever.
fn confirm(socket: PathBuf, subject: Subject) -> Result<Taken, NotAsked> {
    let (answered, answer) = mpsc::channel();
    // To connect may take as long as it likes, too.
    let asking = move || {
        let mut last = ask(&socket, subject);
        while matches!(last, Ok(Taken::NotYet) | Err(NotAsked::Silent)) && answered.send(last).is_ok() {
            thread::sleep(ASK_EVERY);
            last = ask(&socket, subject);
        }
        let _ = answered.send(last);
    };
    thread::spawn(asking);
    let deadline = Instant::now() + CONFIRM_WITHIN;
    let mut last = Err(NotAsked::Silent);
    while matches!(last, Ok(Taken::NotYet) | Err(NotAsked::Silent)) {
        let left = deadline.saturating_duration_since(Instant::now());
        match answer.recv_timeout(left) {
            Ok(said) => last = said,
            Err(_) => break,
        }
    }
    last
}

fn ask(socket: &Path, subject: Subject) -> Result<Taken, NotAsked> {
    let Ok(mut stream) = UnixStream::connect(socket) else { return Err(NotAsked::Nobody) };
    let name = match subject {
        Subject::Block(id) => id.to_string(),
        Subject::Holder(holder) => holder.to_string(),
    };
    let mut head = [0; ANSWER_BYTES];
    let question = format!("GET {REVOCATIONS_PATH}{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let said = stream.set_read_timeout(Some(CONFIRM_WITHIN));
    let said = said.and_then(|()| stream.write_all(question.as_bytes())).and_then(|()| stream.read_exact(&mut head));
    match (said, head.get(9..)) {
        (Err(_), _) => Err(NotAsked::Silent),
        (Ok(()), Some(b"204")) => Ok(Taken::InForce),
        (Ok(()), Some(b"404")) => Ok(Taken::NotYet),
        (Ok(()), _) => Err(NotAsked::Stranger),
    }
}
