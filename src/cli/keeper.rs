//! The proxy that serves a home while `capctl run` needs it: found, embedded, brought back.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::daemon::{Daemon, Serve, StartError};
use crate::forward::Revival;
use crate::store::Home;

use super::child::signals::Signals;
use super::failure::Failure;

/// So long a command may be waited for without a word.
const SILENT_FOR: Duration = Duration::from_secs(1);

/// A word about what goes wrong while the command runs.
pub(super) fn warn(line: &str) {
    let _ = writeln!(io::stderr(), "capctl: warning: {line}");
}

/// Sees to it that a proxy serves the home, for this process and for those that come later.
///
/// The first `capctl run` embeds the proxy; when it ends before the others, the next to notice takes its place.
pub(super) struct Keeper {
    revival: Revival,
    task: tokio::task::JoinHandle<Vec<Daemon>>,
    enough: oneshot::Sender<()>,
}

impl Keeper {
    /// A proxy of our own, unless one serves this home already.
    pub(super) async fn start(home: &Home) -> Result<Self, Failure> {
        let first = find_or_embed(home).await?;
        // One waits while another is brought back; more wait to send.
        let (revival, mut asked) = mpsc::channel::<oneshot::Sender<()>>(1);
        let (enough, mut ended) = oneshot::channel();
        let home = home.clone();
        let task = tokio::spawn(async move {
            let mut daemons: Vec<Daemon> = first.into_iter().collect();
            loop {
                let tried = tokio::select! {
                    tried = asked.recv() => tried,
                    _ = &mut ended => None,
                };
                let Some(tried) = tried else { return daemons };
                match find_or_embed(&home).await {
                    Ok(found) => daemons.extend(found),
                    Err(failure) => warn(&failure.to_string()),
                }
                let _ = tried.send(());
            }
        });
        Ok(Self { revival, task, enough })
    }

    /// Where to ask for another one when it is gone.
    pub(super) fn revival(&self) -> Revival {
        self.revival.clone()
    }

    /// Lets the requests of other commands end, unless the person at the terminal is tired of it.
    pub(super) async fn stop(self, signals: &mut Signals) {
        let _ = self.enough.send(());
        let daemons = self.task.await.unwrap_or_default();
        let stopped = async {
            for daemon in daemons {
                daemon.stop().await;
            }
        };
        let patience = async {
            tokio::time::sleep(SILENT_FOR).await;
            warn("other commands still use this one's proxy: waiting for their requests (Ctrl-C ends that)");
            signals.any().await;
        };
        tokio::select! {
            () = stopped => {}
            () = patience => {}
        }
    }
}

/// A proxy of our own, unless one serves this home already.
async fn find_or_embed(home: &Home) -> Result<Option<Daemon>, Failure> {
    if UnixStream::connect(home.socket()).await.is_ok() {
        return Ok(None);
    }
    // Two that start at once must not both find the socket dead and replace it.
    let lock = home.clone();
    let turn = tokio::task::spawn_blocking(move || turn(&lock)).await;
    let _turn = turn.map_err(|error| Failure::of(&error))?.map_err(|error| Failure::of(&error))?;
    if UnixStream::connect(home.socket()).await.is_ok() {
        return Ok(None);
    }
    match Daemon::start(home, Serve::SocketOnly).await {
        Ok(daemon) => Ok(Some(daemon)),
        Err(StartError::Listen { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(Failure::of(&error).hint(error.hint())),
    }
}

fn turn(home: &Home) -> io::Result<File> {
    let path: PathBuf = home.dir().join("narrows.lock");
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    file.lock()?;
    Ok(file)
}
