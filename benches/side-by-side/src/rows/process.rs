//! A process that lives as long as the bench wants it to.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::measure::{Cores, Tree, pin};

/// How long another program may take until it listens, and how often it is asked.
const START_WITHIN: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Ends when it is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) tree: Tree,
}

impl Process {
    /// This program in another part, on a core of its own; returns when it listens.
    pub(crate) fn part(core: usize, cores: Cores, arguments: &[OsString]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn_on(core, cores, &mut command)?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no standard output")?).read_line(&mut line)?;
        let address = line.trim().parse().context("a part of this program does not start")?;
        Ok(Self { tree: Tree(child.id()), child, address })
    }

    /// Another program, that is to listen on `address`.
    pub(crate) fn other(core: usize, cores: Cores, mut command: Command, address: SocketAddr) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = spawn_on(core, cores, &mut command)?;
        let mut process = Self { tree: Tree(child.id()), child, address };
        let since = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(process.child.try_wait()?.is_none(), "it ended before it listened");
            ensure!(since.elapsed() < START_WITHIN, "it does not listen within {} s", START_WITHIN.as_secs());
            std::thread::sleep(ASK_EVERY);
        }
        Ok(process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child has the cores of the thread that starts it.
fn spawn_on(core: usize, cores: Cores, command: &mut Command) -> anyhow::Result<Child> {
    pin(core)?;
    let child = command.spawn();
    pin(cores.load)?;
    Ok(child?)
}
