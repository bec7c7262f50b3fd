//! A process that lives as long as the bench wants it to.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::measure::{Cores, Tree, pin};

/// How long another program may take until it listens, and how often it is asked.
const START_WITHIN: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Ends when it is dropped.
pub(crate) struct Process {
    child: Child,
    /// What a part of this program says.
    said: RefCell<Option<BufReader<ChildStdout>>>,
    pub(crate) address: SocketAddr,
    pub(crate) tree: Tree,
}

impl Process {
    /// This program in another part, on a core of its own; returns when it listens.
    pub(crate) fn part(core: usize, cores: Cores, arguments: &[OsString]) -> anyhow::Result<Self> {
        Self::part_under(&[], core, cores, arguments)
    }

    /// The same under a program that counts what it does: `tool` is that program's command line.
    pub(crate) fn part_under(
        tool: &[OsString],
        core: usize,
        cores: Cores,
        arguments: &[OsString],
    ) -> anyhow::Result<Self> {
        let this = std::env::current_exe()?.into_os_string();
        let mut words = tool.iter().chain([&this]).chain(arguments);
        let mut command = Command::new(words.next().context("no command")?);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn_on(core, cores, &mut command)?;
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().context("no standard output")?);
        said.read_line(&mut line)?;
        let address = line.trim().parse().context("a part of this program does not start")?;
        Ok(Self { tree: Tree(child.id()), child, said: RefCell::new(Some(said)), address })
    }

    /// Has a part of this program make its mark ([`super::part::mark`]); returns when it has.
    pub(crate) fn mark(&self) -> anyhow::Result<()> {
        self.child.stdin.as_ref().context("no standard input")?.write_all(b"\n")?;
        let mut line = String::new();
        self.said.borrow_mut().as_mut().context("no standard output")?.read_line(&mut line)?;
        ensure!(line.trim() == super::part::MARK, "a part of this program makes no mark");
        Ok(())
    }

    /// Another program, that is to listen on `address`.
    pub(crate) fn other(core: usize, cores: Cores, mut command: Command, address: SocketAddr) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = spawn_on(core, cores, &mut command)?;
        let mut process = Self { tree: Tree(child.id()), child, said: RefCell::default(), address };
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
